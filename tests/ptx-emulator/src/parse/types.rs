//! The types that instructions and declarations name.

use std::fmt;

use crate::instruction::{Format, HalfFormat, Narrow, Sign};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Predicate,
    Bits(u32),
    Unsigned(u32),
    Signed(u32),
    /// Two integers of 16 bits in a register of 32.
    Pair(Sign),
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    /// Two singles in a register of 64 bits.
    F32x2,
    F64,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
}

/// As PTX spells it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bits(bits) => write!(f, ".b{bits}"),
            Type::Unsigned(bits) => write!(f, ".u{bits}"),
            Type::Signed(bits) => write!(f, ".s{bits}"),
            Type::Pair(Sign::Unsigned) => f.write_str(".u16x2"),
            Type::Pair(Sign::Signed) => f.write_str(".s16x2"),
            Type::Predicate => f.write_str(".pred"),
            other => write!(f, ".{}", format!("{other:?}").to_lowercase()),
        }
    }
}

impl Type {
    pub fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "pred" => Type::Predicate,
            "b8" => Type::Bits(8),
            "b16" => Type::Bits(16),
            "b32" => Type::Bits(32),
            "b64" => Type::Bits(64),
            "u8" => Type::Unsigned(8),
            "u16" => Type::Unsigned(16),
            "u32" => Type::Unsigned(32),
            "u64" => Type::Unsigned(64),
            "s8" => Type::Signed(8),
            "s16" => Type::Signed(16),
            "s32" => Type::Signed(32),
            "s64" => Type::Signed(64),
            "u16x2" => Type::Pair(Sign::Unsigned),
            "s16x2" => Type::Pair(Sign::Signed),
            "f16" => Type::F16,
            "f16x2" => Type::F16x2,
            "bf16" => Type::Bf16,
            "bf16x2" => Type::Bf16x2,
            "tf32" => Type::Tf32,
            "f32" => Type::F32,
            "f32x2" => Type::F32x2,
            "f64" => Type::F64,
            "e4m3" => Type::E4m3,
            "e5m2" => Type::E5m2,
            "e4m3x2" => Type::E4m3x2,
            "e5m2x2" => Type::E5m2x2,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Type::Predicate => 1,
            Type::Bits(bits) | Type::Unsigned(bits) | Type::Signed(bits) => bits,
            Type::E4m3 | Type::E5m2 => 8,
            Type::F16 | Type::Bf16 | Type::E4m3x2 | Type::E5m2x2 => 16,
            Type::Pair(_) | Type::F16x2 | Type::Bf16x2 | Type::Tf32 | Type::F32 => 32,
            Type::F32x2 | Type::F64 => 64,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::F32 | Type::F32x2 | Type::F64)
    }

    pub fn sign(self) -> Sign {
        if matches!(self, Type::Signed(_) | Type::Pair(Sign::Signed)) { Sign::Signed } else { Sign::Unsigned }
    }

    /// The type of an integer operation in a 32-bit register.
    pub fn narrow(self) -> Option<Narrow> {
        Some(match self {
            Type::Unsigned(16) | Type::Bits(16) => Narrow::U16,
            Type::Signed(16) => Narrow::S16,
            Type::Unsigned(32) | Type::Bits(32) => Narrow::U32,
            Type::Signed(32) => Narrow::S32,
            _ => return None,
        })
    }

    /// The 16-bit float format and whether two are packed.
    pub fn half(self) -> Option<(HalfFormat, crate::instruction::Packed)> {
        use crate::instruction::Packed::{One, Two};
        Some(match self {
            Type::F16 => (HalfFormat::F16, One),
            Type::F16x2 => (HalfFormat::F16, Two),
            Type::Bf16 => (HalfFormat::Bf16, One),
            Type::Bf16x2 => (HalfFormat::Bf16, Two),
            _ => return None,
        })
    }

    /// The format that `cvt` reads or writes for this type.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            Type::Unsigned(bits) => Format::Integer(Sign::Unsigned, bits),
            Type::Signed(bits) => Format::Integer(Sign::Signed, bits),
            Type::F16 | Type::F16x2 => Format::F16,
            Type::Bf16 | Type::Bf16x2 => Format::Bf16,
            Type::Tf32 => Format::Tf32,
            Type::F32 => Format::F32,
            Type::F64 => Format::F64,
            Type::E4m3 | Type::E4m3x2 => Format::E4m3,
            Type::E5m2 | Type::E5m2x2 => Format::E5m2,
            Type::Predicate | Type::Bits(_) | Type::Pair(_) | Type::F32x2 => return None,
        })
    }
}
