//! Operands and variants of integer arithmetic, comparisons and moves.

use super::{HalfFormat, R32, R64, RP, Register, Saturate, Subnormals};

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
    /// As `Min` and `Max`, and below zero to zero.
    MinRelu,
    MaxRelu,
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

/// What a video instruction computes of each pair of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoOp {
    Add,
    Sub,
    Average,
    AbsoluteDifference,
    Min,
    Max,
}

/// Whether the results are added up instead of packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulate {
    No,
    Yes,
}

/// SIMD video instruction on elements of `bits` bits.
#[derive(Debug, Clone)]
pub(crate) struct Video {
    pub op: VideoOp,
    pub bits: u32,
    /// Of the elements of `a` and `b`.
    pub signs: [Sign; 2],
    pub result: Sign,
    pub saturate: Saturate,
    pub accumulate: Accumulate,
    pub d: R32,
    /// Two registers of elements, and the sum that they are added to.
    pub abc: [R32; 3],
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
    Integer32 {
        ty: Narrow,
        a: R32,
        b: R32,
    },
    Integer64 {
        sign: Sign,
        a: R64,
        b: R64,
    },
    Float32 {
        subnormals: Subnormals,
        a: R32,
        b: R32,
    },
    Float64 {
        a: R64,
        b: R64,
    },
    /// `shift`: where the element begins in its register.
    Half {
        format: HalfFormat,
        subnormals: Subnormals,
        shift: u32,
        a: R32,
        b: R32,
    },
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

/// `set`: all ones or 1.0 where the comparison holds; of packed elements in each half.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub compare: Compare,
    pub comparison: Comparison,
    pub upper: Option<Comparison>,
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
