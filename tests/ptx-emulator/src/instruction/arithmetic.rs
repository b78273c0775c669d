//! Operands and variants of the arithmetic, comparison and conversion instructions.

use super::{R32, R64, RP, Register, Target};

/// Signedness of an integer operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Unsigned,
    Signed,
}

/// Integer types that live in 32-bit registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrow {
    U16,
    S16,
    U32,
    S32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntegerOp {
    Add,
    /// Signed addition that clamps (`add.sat.s32`).
    AddSaturated,
    Sub,
    SubSaturated,
    MulLow,
    MulHigh,
    /// 16-bit operands, 32-bit result.
    MulWide16,
    Mul24,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Which half of a product `mad` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Low,
    High,
    /// Both, of 16-bit factors.
    Wide16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarryOp {
    /// `add.cc`: no carry comes in.
    Add,
    /// `addc`
    AddWithCarry,
    /// `sub.cc`
    Sub,
    /// `subc`
    SubWithBorrow,
}

/// What becomes of the carry flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarryOut {
    /// `.cc`
    Write,
    Keep,
}

#[derive(Debug, Clone)]
pub(crate) struct CarryMultiply {
    pub half: Half,
    pub sign: Sign,
    /// With or without the carry that comes in.
    pub op: CarryOp,
    pub out: CarryOut,
    pub flag: RP,
    pub d: Register,
    pub factors: [Register; 2],
    pub c: Register,
    pub bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Not,
    /// 1 where the operand is zero.
    LogicalNot,
    Neg,
    Abs,
    Reverse,
    Count(CountOp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountOp {
    Ones,
    LeadingZeros,
    /// Position of the highest set bit, or of the highest bit that differs from the sign.
    FindUnsigned,
    FindSigned,
    /// The same as a left shift that would bring the bit to the top.
    FindUnsignedShift,
    FindSignedShift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShiftOp {
    Left,
    RightUnsigned,
    RightSigned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Left,
    Right,
}

/// What a funnel shift does with amounts above 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clamp {
    Wrap,
    Clamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermuteMode {
    General,
    Forward4,
    Backward4,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dot {
    Four,
    TwoLow,
    TwoHigh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

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

/// Comparisons; the unordered ones hold where an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    EqualUnordered,
    NotEqualUnordered,
    LessUnordered,
    LessEqualUnordered,
    GreaterUnordered,
    GreaterEqualUnordered,
    BothNumbers,
    EitherNan,
}

/// A comparison with its operands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    Integer32 { ty: Narrow, a: R32, b: R32 },
    Integer64 { sign: Sign, a: R64, b: R64 },
    Float32 { subnormals: Subnormals, a: R32, b: R32 },
    Float64 { a: R64, b: R64 },
    Half { format: HalfFormat, a: R32, b: R32 },
}

/// `setp`, with its optional second destination and optional combination with a predicate.
#[derive(Debug, Clone)]
pub(crate) struct SetPredicate {
    pub compare: Compare,
    pub comparison: Comparison,
    pub d: Option<RP>,
    /// Receives the combination of the comparison's negation.
    pub complement: Option<RP>,
    pub combine: Option<(Logic, RP, Negation)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Negation {
    Plain,
    Negated,
}

/// `set`: all ones or 1.0 where the comparison holds.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub compare: Compare,
    pub comparison: Comparison,
    pub d: R32,
    pub truth: u32,
}

/// `mov` of a vector into one register.
#[derive(Debug, Clone)]
pub(crate) struct Pack {
    pub d: Register,
    pub parts: Box<[R32]>,
    pub part_bits: u32,
}

/// `mov` of one register into a vector; `_` discards a part.
#[derive(Debug, Clone)]
pub(crate) struct Unpack {
    pub parts: Box<[Option<R32>]>,
    pub a: Register,
    pub part_bits: u32,
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
