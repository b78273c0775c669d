//! Formats and variants of floating-point arithmetic and of conversions.

use super::{R32, Register, Sign, Target};

/// Rounding of a floating-point result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To nearest, ties to even (`.rn`, and `.rni` for integers).
    NearestEven,
    /// To nearest, ties away from zero (`.rna`).
    NearestAway,
    /// `.rz`
    TowardZero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

/// What happens to subnormal operands and results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subnormals {
    Keep,
    Flush,
}

/// Clamping of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saturate {
    No,
    /// To [0, 1], NaN to 0.
    Unit,
    /// To the largest finite value of the format.
    Finite,
    /// Below zero to zero.
    Relu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloatMode {
    pub rounding: Rounding,
    pub subnormals: Subnormals,
    pub saturate: Saturate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    /// As `Min`, but NaN if an operand is NaN.
    MinNan,
    MaxNan,
    /// The second operand with the first one's sign.
    CopySign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatUnaryOp {
    Neg,
    Abs,
    Sqrt,
    ReciprocalSqrt,
    Reciprocal,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
}

/// The 16-bit formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfFormat {
    F16,
    Bf16,
}

/// How a 16-bit floating-point instruction reads its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfKind {
    pub format: HalfFormat,
    pub packed: Packed,
    pub subnormals: Subnormals,
    pub saturate: Saturate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    One,
    Two,
}

/// Formats that `cvt` reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Integer(Sign, u32),
    F16,
    Bf16,
    Tf32,
    F32,
    F64,
    E4m3,
    E5m2,
}

/// `cvt` of one value.
#[derive(Debug, Clone)]
pub(crate) struct Convert {
    pub to: Format,
    pub from: Format,
    /// Of the result; for a float-to-float conversion without narrowing this is `None` unless it rounds to an integer.
    pub rounding: Rounding,
    /// Float to float of the same format with an integer rounding (`cvt.rni.f32.f32`).
    pub integral: bool,
    pub subnormals: Subnormals,
    pub saturate: Saturate,
    pub d: Target,
    pub a: Register,
}

/// `cvt` of two values into one register, or of two packed values into two.
#[derive(Debug, Clone)]
pub(crate) struct ConvertPack {
    pub to: Format,
    pub from: Format,
    pub rounding: Rounding,
    pub saturate: Saturate,
    pub d: R32,
    /// Becomes the upper half of `d`.
    pub high: PackSource,
    pub low: PackSource,
}

/// An operand of a packing conversion: a whole register or one element of a packed one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackSource {
    pub register: R32,
    /// Position of the element's lowest bit.
    pub shift: u32,
}
