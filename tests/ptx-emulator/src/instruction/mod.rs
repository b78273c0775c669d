//! Typed instructions: what the parser hands to the executor. Every operand is a resolved register slot.
//!
//! Immediates, special registers and addresses of variables are slots too, filled before a warp starts, so that an
//! instruction has one form only and executing it needs no case distinction over operands.

mod arithmetic;
mod float;
mod memory;
mod operation;
mod warp;

pub(crate) use arithmetic::*;
pub(crate) use float::*;
pub(crate) use memory::*;
pub(crate) use operation::Operation;
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

impl From<R32> for Register {
    fn from(register: R32) -> Self {
        Register::Narrow(register)
    }
}

impl From<R64> for Register {
    fn from(register: R64) -> Self {
        Register::Wide(register)
    }
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
