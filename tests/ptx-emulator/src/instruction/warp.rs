//! Operands and variants of the instructions that a warp or a block executes together.

use super::{Address, FloatOp, Negation, R32, RP, Sign};

/// Element types of `mma` operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaElement {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    Integer(Sign),
}

/// Element types of `mma` accumulators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accumulator {
    F32,
    F16,
    /// Wraps around.
    S32,
    /// Clamps.
    S32Saturated,
}

/// `mma.sync` of a 16 x k matrix and a k x 8 matrix.
#[derive(Debug, Clone)]
pub(crate) struct Mma {
    pub k: u32,
    pub a_element: MmaElement,
    pub b_element: MmaElement,
    pub accumulator: Accumulator,
    /// Row fragments as in the ISA: 2 registers for an F16 accumulator, else 4.
    pub d: Box<[R32]>,
    pub a: Box<[R32]>,
    pub b: Box<[R32]>,
    pub c: Box<[R32]>,
}

/// A matrix of `wmma` that is spread over the registers of a warp.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub rows: usize,
    pub columns: usize,
    /// Bits of an element.
    pub bits: u32,
    pub registers: Box<[R32]>,
}

/// How a matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    RowMajor,
    ColumnMajor,
}

/// `wmma.load` and `wmma.store`.
#[derive(Debug, Clone)]
pub(crate) struct WmmaAccess {
    pub address: Address,
    pub fragment: Fragment,
    pub order: Order,
    /// Elements from one line to the next; without it lines follow each other.
    pub stride: Option<R32>,
}

/// `wmma.mma` of an m x k matrix and a k x n matrix.
#[derive(Debug, Clone)]
pub(crate) struct Wmma {
    pub element: MmaElement,
    pub sum: Accumulator,
    pub result: Accumulator,
    pub a: Fragment,
    pub b: Fragment,
    pub c: Fragment,
    pub d: Fragment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone)]
pub(crate) struct Shuffle {
    pub mode: ShuffleMode,
    pub d: R32,
    /// Set where the source lane is in range.
    pub p: Option<RP>,
    pub a: R32,
    pub b: R32,
    pub c: R32,
    pub members: R32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteKind {
    All(RP),
    Any(RP),
    Uniform(RP),
    Ballot(R32),
}

#[derive(Debug, Clone)]
pub(crate) struct Vote {
    pub kind: VoteKind,
    pub a: RP,
    pub negation: Negation,
    pub members: R32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchKind {
    Any,
    All,
}

/// `redux.sync` operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduceOp {
    Add,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    And,
    Or,
    Xor,
    /// Of singles or their magnitudes.
    Float(FloatOp, Magnitude),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magnitude {
    Signed,
    Absolute,
}

/// What a barrier does beyond ordering memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierAction {
    Wait,
    /// Counts itself and goes on.
    Arrive,
    /// Waits, then receives the number of threads whose predicate holds.
    Count {
        d: R32,
        p: RP,
        negation: Negation,
    },
    /// Waits, then receives whether the predicate of all threads holds.
    All {
        d: RP,
        p: RP,
        negation: Negation,
    },
    /// Waits, then receives whether any thread's predicate holds.
    Any {
        d: RP,
        p: RP,
        negation: Negation,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Barrier {
    pub id: R32,
    /// Participating threads; without it all of the block.
    pub threads: Option<R32>,
    pub action: BarrierAction,
}
