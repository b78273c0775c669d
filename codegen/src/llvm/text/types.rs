//! Types and values.

use std::fmt;

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// One bit.
    I1,
    /// 8-bit integer.
    I8,
    /// 16-bit integer; also the bits of a bf16.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// bfloat16, the operands of instructions that multiply it.
    BF16,
    /// Address.
    Ptr,
    /// Address in a device's global memory.
    Global,
    /// Address in a block's shared memory.
    Shared,
}

/// A first-class type: `lanes` elements, 1 meaning a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    /// Element type.
    pub scalar: Scalar,
    /// Number of lanes.
    pub lanes: usize,
}

/// Scalar `i1`.
pub const I1: Ty = Ty { scalar: Scalar::I1, lanes: 1 };
/// Scalar `i32`.
pub const I32: Ty = Ty { scalar: Scalar::I32, lanes: 1 };
/// Scalar `i64`.
pub const I64: Ty = Ty { scalar: Scalar::I64, lanes: 1 };
/// Scalar `i8`.
pub const I8: Ty = Ty { scalar: Scalar::I8, lanes: 1 };
/// Scalar `i16`.
pub const I16: Ty = Ty { scalar: Scalar::I16, lanes: 1 };
/// Scalar `float`.
pub const F32: Ty = Ty { scalar: Scalar::F32, lanes: 1 };
/// Address.
pub const PTR: Ty = Ty { scalar: Scalar::Ptr, lanes: 1 };
/// Address in a device's global memory.
pub const GLOBAL: Ty = Ty { scalar: Scalar::Global, lanes: 1 };
/// Address in a block's shared memory.
pub const SHARED: Ty = Ty { scalar: Scalar::Shared, lanes: 1 };

impl Ty {
    /// The same element type with another number of lanes.
    pub fn with_lanes(self, lanes: usize) -> Ty {
        Ty { lanes, ..self }
    }

    /// The same number of lanes of another element type.
    pub fn with_scalar(self, scalar: Scalar) -> Ty {
        Ty { scalar, ..self }
    }

    /// The suffix of intrinsics' names, such as `v16f32`.
    pub fn suffix(self) -> String {
        let scalar = match self.scalar {
            Scalar::I1 => "i1",
            Scalar::I8 => "i8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::F32 => "f32",
            Scalar::F64 => "f64",
            Scalar::BF16 => "bf16",
            Scalar::Ptr => "p0",
            Scalar::Global => "p1",
            Scalar::Shared => "p3",
        };
        if self.lanes == 1 { scalar.to_owned() } else { format!("v{}{scalar}", self.lanes) }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = match self.scalar {
            Scalar::I1 => "i1",
            Scalar::I8 => "i8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::F32 => "float",
            Scalar::F64 => "double",
            Scalar::BF16 => "bfloat",
            Scalar::Ptr => "ptr",
            Scalar::Global => "ptr addrspace(1)",
            Scalar::Shared => "ptr addrspace(3)",
        };
        if self.lanes == 1 { f.write_str(scalar) } else { write!(f, "<{} x {scalar}>", self.lanes) }
    }
}

/// A value of the function being written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// How operands refer to it.
    pub text: String,
    /// Its type.
    pub ty: Ty,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ty, self.text)
    }
}

/// An `i64` literal.
pub fn int(value: i64) -> Value {
    Value { text: value.to_string(), ty: I64 }
}

/// An integer literal of any integer type; vectors hold it in every lane.
pub fn int_of(ty: Ty, value: i64) -> Value {
    let text = if ty.lanes == 1 { value.to_string() } else { format!("splat ({} {value})", ty.with_lanes(1)) };
    Value { text, ty }
}

/// A float literal of any float type; vectors hold it in every lane.
pub fn float_of(ty: Ty, value: f64) -> Value {
    let rounded = if ty.scalar == Scalar::F32 { f64::from(value as f32) } else { value };
    let literal = format!("0x{:016X}", rounded.to_bits());
    let text = if ty.lanes == 1 { literal } else { format!("splat ({} {literal})", ty.with_lanes(1)) };
    Value { text, ty }
}

/// The value of an integer literal.
pub(super) fn literal(value: &Value) -> Option<i64> {
    if value.ty.lanes == 1 { value.text.parse().ok() } else { None }
}
