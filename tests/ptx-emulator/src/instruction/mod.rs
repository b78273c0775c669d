//! Typed instructions: what the parser hands to the executor. Every operand is a resolved register slot.
//!
//! Immediates, special registers and addresses of variables are slots too, filled before a warp starts, so that an
//! instruction has one form only and executing it needs no case distinction over operands.

pub(crate) mod arithmetic;
pub(crate) mod memory;
pub(crate) mod warp;

pub(crate) use arithmetic::*;
pub(crate) use memory::*;
pub(crate) use warp::*;

/// A register of at most 32 bits; narrower ones keep their upper bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct R32(pub u16);

/// A register of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct R64(pub u16);

/// A predicate register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RP(pub u16);

/// A register of either width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Register {
    Narrow(R32),
    Wide(R64),
}

/// A register that may be wider than the value it receives; the value is extended to `bits`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub register: Register,
    pub bits: u32,
}

/// `@p` or `@!p` in front of an instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub predicate: RP,
    pub negated: bool,
}

/// One instruction of a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub line: u32,
    /// Index into [`Kernel::kinds`](crate::module::Kernel::kinds), under which executions are counted.
    pub kind: u16,
    pub guard: Option<Guard>,
    pub operation: Operation,
}

/// Where control goes at a branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Branch {
    pub target: u32,
    /// Where diverged lanes meet again: the immediate post-dominator, or the end of the code.
    pub reconverge: u32,
}

/// What an instruction does.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Move32 {
        d: R32,
        a: R32,
    },
    Move64 {
        d: R64,
        a: R64,
    },
    MovePredicate {
        d: RP,
        a: RP,
    },
    Pack(Box<Pack>),
    Unpack(Box<Unpack>),
    Select32 {
        d: R32,
        a: R32,
        b: R32,
        p: RP,
    },
    Select64 {
        d: R64,
        a: R64,
        b: R64,
        p: RP,
    },
    PredicateLogic {
        op: Logic,
        d: RP,
        a: RP,
        b: RP,
    },
    PredicateNot {
        d: RP,
        a: RP,
    },
    SetPredicate(Box<SetPredicate>),
    Set(Box<Set>),

    Integer32 {
        op: IntegerOp,
        ty: Narrow,
        d: R32,
        a: R32,
        b: R32,
    },
    Integer64 {
        op: IntegerOp,
        sign: Sign,
        d: R64,
        a: R64,
        b: R64,
    },
    MultiplyWide {
        sign: Sign,
        d: R64,
        a: R32,
        b: R32,
    },
    MultiplyAdd32 {
        high: Half,
        ty: Narrow,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    MultiplyAdd64 {
        high: Half,
        sign: Sign,
        d: R64,
        a: R64,
        b: R64,
        c: R64,
    },
    MultiplyAddWide {
        sign: Sign,
        d: R64,
        a: R32,
        b: R32,
        c: R64,
    },
    Carry32 {
        op: CarryOp,
        d: R32,
        a: R32,
        b: R32,
        flag: RP,
        out: CarryOut,
    },
    Carry64 {
        op: CarryOp,
        d: R64,
        a: R64,
        b: R64,
        flag: RP,
        out: CarryOut,
    },
    /// `mad.cc` and `madc`: half of the product of `a` and `b`, added with carry to `c`.
    CarryMultiply(Box<CarryMultiply>),
    Unary32 {
        op: UnaryOp,
        ty: Narrow,
        d: R32,
        a: R32,
    },
    Unary64 {
        op: UnaryOp,
        d: R64,
        a: R64,
    },
    Count64 {
        op: CountOp,
        d: R32,
        a: R64,
    },
    Shift32 {
        op: ShiftOp,
        ty: Narrow,
        d: R32,
        a: R32,
        b: R32,
    },
    Shift64 {
        op: ShiftOp,
        d: R64,
        a: R64,
        b: R32,
    },
    FunnelShift {
        direction: Direction,
        clamp: Clamp,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Extract32 {
        sign: Sign,
        d: R32,
        a: R32,
        position: R32,
        length: R32,
    },
    Extract64 {
        sign: Sign,
        d: R64,
        a: R64,
        position: R32,
        length: R32,
    },
    Insert32 {
        d: R32,
        a: R32,
        b: R32,
        position: R32,
        length: R32,
    },
    Insert64 {
        d: R64,
        a: R64,
        b: R64,
        position: R32,
        length: R32,
    },
    Permute {
        mode: PermuteMode,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Lop3 {
        table: u8,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    DotProduct {
        kind: Dot,
        a_sign: Sign,
        b_sign: Sign,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    AbsoluteDifference {
        sign: Sign,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },

    Float32 {
        op: FloatOp,
        mode: FloatMode,
        d: R32,
        a: R32,
        b: R32,
    },
    FloatUnary32 {
        op: FloatUnaryOp,
        mode: FloatMode,
        d: R32,
        a: R32,
    },
    Fma32 {
        mode: FloatMode,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Float64 {
        op: FloatOp,
        d: R64,
        a: R64,
        b: R64,
    },
    FloatUnary64 {
        op: FloatUnaryOp,
        d: R64,
        a: R64,
    },
    Fma64 {
        d: R64,
        a: R64,
        b: R64,
        c: R64,
    },
    Half {
        op: FloatOp,
        kind: HalfKind,
        d: R32,
        a: R32,
        b: R32,
    },
    HalfUnary {
        op: FloatUnaryOp,
        kind: HalfKind,
        d: R32,
        a: R32,
    },
    HalfFma {
        kind: HalfKind,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Convert(Box<Convert>),
    ConvertPack(Box<ConvertPack>),

    Load(Box<Load>),
    Store(Box<Store>),
    Atomic(Box<Atomic>),
    CopyAsync(Box<CopyAsync>),
    CopyCommit,
    CopyWait {
        pending: u32,
    },
    CopyWaitAll,
    LoadMatrix(Box<LoadMatrix>),
    StoreMatrix(Box<StoreMatrix>),
    IsSpace {
        d: RP,
        a: R64,
        space: crate::error::Space,
    },

    Mma(Box<Mma>),
    Shuffle(Box<Shuffle>),
    Vote(Box<Vote>),
    Match {
        kind: MatchKind,
        d: R32,
        p: Option<RP>,
        a: Register,
        members: R32,
    },
    Reduce {
        op: ReduceOp,
        d: R32,
        a: R32,
        members: R32,
    },
    Elect {
        d: Option<R32>,
        p: RP,
        members: R32,
    },
    ActiveMask {
        d: R32,
    },
    WarpBarrier {
        members: R32,
    },
    Barrier(Box<Barrier>),

    Branch(Branch),
    Exit,
    Trap,
    /// Fences, prefetches, cache hints: they change no value here.
    Nothing,
}
