//! What can be wrong with PTX text and with a launch of it.

use std::fmt;

/// PTX that does not parse, or that uses something the emulator does not know.
///
/// The emulator never skips what it does not understand: an unknown instruction or modifier is an error that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// What was found and what was expected.
    pub message: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        PtxError { line, message: message.into() }
    }

    /// The same error, with the instruction that it is about in front.
    pub(crate) fn of_instruction(self, name: &str) -> Self {
        PtxError { message: format!("`{name}`: {}", self.message), ..self }
    }
}

/// Why a launch did not complete.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LaunchError {
    /// The launch never started: its arguments do not fit the kernel.
    #[error("launch of `{kernel}`: {reason}")]
    Setup {
        /// Name that was asked for.
        kernel: String,
        /// What does not fit and what the kernel demands.
        reason: String,
    },
    /// The kernel did something wrong while it ran.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

/// A defect of a running kernel, with the place where it showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// Line of the instruction in the PTX text, from 1.
    pub line: u32,
    /// Block index (x, y, z).
    pub cta: [u32; 3],
    /// Warp inside the block.
    pub warp: u32,
    /// Lane inside the warp; none where the whole warp is at fault.
    pub lane: Option<u32>,
    /// What went wrong.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.cta;
        write!(f, "kernel `{}`, PTX line {}, block ({x}, {y}, {z}), warp {}", self.kernel, self.line, self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl std::error::Error for Fault {}

/// A memory of the machine, as faults name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// A block's shared memory.
    Shared,
    /// A thread's own memory.
    Local,
    /// The kernel's parameters.
    Parameter,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Parameter => "parameter",
        })
    }
}

/// The kinds of defect that a running kernel is stopped for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultKind {
    /// An access that no allocation holds as a whole.
    #[error("{bytes} bytes at {address:#x} lie outside {space} memory: {nearest}")]
    OutOfBounds {
        /// Memory that was accessed.
        space: Space,
        /// First byte of the access.
        address: u64,
        /// Length of the access.
        bytes: u64,
        /// The nearest allocation, in words.
        nearest: String,
    },
    /// An address that is no multiple of the access's length.
    #[error("{bytes} bytes at {address:#x} in {space} memory are not aligned to their length")]
    Misaligned {
        /// Memory that was accessed.
        space: Space,
        /// First byte of the access.
        address: u64,
        /// Length of the access, which is also the alignment it needs.
        bytes: u64,
    },
    /// A store into memory that is read-only.
    #[error("a store to {address:#x}, which is read-only")]
    ReadOnly {
        /// First byte of the store.
        address: u64,
    },
    /// A value that depends on a register nothing was written to reached memory, an address, a branch or a matrix product.
    #[error("`{register}` is used here but holds nothing that was ever written")]
    UninitialisedRegister {
        /// The register's name in the PTX text.
        register: String,
    },
    /// A load of bytes that nothing was written to.
    #[error("{bytes} bytes at {address:#x} in {space} memory are read but were never all written")]
    UninitialisedMemory {
        /// Memory that was read.
        space: Space,
        /// First byte of the load.
        address: u64,
        /// Length of the load.
        bytes: u64,
    },
    /// Some threads of the block cannot reach a barrier that others wait at.
    #[error("divergent barrier: {detail}")]
    DivergentBarrier {
        /// Who waits where and who does not come.
        detail: String,
    },
    /// A warp-wide instruction (shuffle, vote, matrix product) that not all of the lanes it names execute.
    #[error("lanes {missing:#010x} take no part in a warp-wide instruction that needs lanes {needed:#010x}")]
    DivergentWarp {
        /// Lanes that the instruction needs, one bit each.
        needed: u32,
        /// Lanes of them that are elsewhere or have exited.
        missing: u32,
    },
    /// Two accesses of shared memory that no barrier orders, at least one of them a write.
    #[error("shared-memory race at {address:#x}: {detail}")]
    SharedRace {
        /// First byte of the cell both touched.
        address: u64,
        /// The two accesses.
        detail: String,
    },
    /// A use of shared bytes that a `cp.async` still in flight will write.
    #[error(
        "shared bytes at {address:#x} belong to a cp.async of warp {owner} (PTX line {line}) that was not waited for"
    )]
    InFlight {
        /// First byte of the cell.
        address: u64,
        /// Warp that issued the copy.
        owner: u32,
        /// Line of the copy.
        line: u32,
    },
    /// An operand's value that the instruction does not allow.
    #[error("{0}")]
    Operand(String),
    /// The kernel executed `trap`.
    #[error("the kernel executed trap")]
    Trap,
    /// The launch used up its instruction budget: most likely a loop that never ends.
    #[error("more than {limit} warp instructions: does a loop never end?")]
    InstructionLimit {
        /// The budget, from [`LaunchConfig::instruction_limit`](crate::LaunchConfig::instruction_limit).
        limit: u64,
    },
}
