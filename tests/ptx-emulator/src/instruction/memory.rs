//! Operands and variants of the instructions that access memory.

use super::{R32, Register, Target};

/// The memory an instruction addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressSpace {
    Global,
    Shared,
    Local,
    Parameter,
    /// Decided by the address: windows of the generic address space map to shared and local memory.
    Generic,
}

/// `[base + offset]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub space: AddressSpace,
    pub base: Register,
    pub offset: i64,
}

/// How a loaded element fills a wider register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extend {
    Zero,
    Sign,
}

#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub address: Address,
    /// Bytes of one element.
    pub element: u32,
    pub extend: Extend,
    /// One register per element; `None` discards it.
    pub targets: Box<[Option<Target>]>,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub address: Address,
    pub element: u32,
    pub sources: Box<[Register]>,
}

/// Read-modify-write operations of `atom` and `red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Add,
    Increment,
    Decrement,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    AddF32,
    AddF64,
    AddF16x2,
    AddBf16x2,
    AddF16,
    AddBf16,
}

#[derive(Debug, Clone)]
pub(crate) struct Atomic {
    pub op: AtomicOp,
    pub address: Address,
    pub bytes: u32,
    /// What the address must be a multiple of: more than `bytes` for the first element of a vector.
    pub align: u32,
    /// Receives the old value; `red` has none.
    pub d: Option<Target>,
    pub b: Register,
    /// The new value of a compare-and-swap.
    pub c: Option<Register>,
}

/// `cp.async`: `bytes` from global to shared memory, the part beyond `source_bytes` filled with zeros.
#[derive(Debug, Clone)]
pub(crate) struct CopyAsync {
    pub destination: Address,
    pub source: Address,
    pub bytes: u32,
    pub source_bytes: Option<R32>,
}

/// How an 8x8 matrix of 16-bit elements is spread over the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transpose {
    No,
    Yes,
}

#[derive(Debug, Clone)]
pub(crate) struct LoadMatrix {
    pub address: Address,
    pub transpose: Transpose,
    pub targets: Box<[R32]>,
}

#[derive(Debug, Clone)]
pub(crate) struct StoreMatrix {
    pub address: Address,
    pub transpose: Transpose,
    pub sources: Box<[R32]>,
}
