//! A parsed module: kernels as flat instruction arrays, and the variables they use.

use std::collections::BTreeMap;

use crate::error::PtxError;
use crate::instruction::Code;

/// A PTX module, parsed, resolved and ready to launch.
#[derive(Debug, Clone)]
pub struct Module {
    pub(crate) identity: u64,
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) kernels: BTreeMap<String, Kernel>,
    pub(crate) variables: Vec<Variable>,
}

impl Module {
    /// Parses the text of a module.
    ///
    /// # Errors
    ///
    /// Text that is no PTX, and PTX with an instruction, modifier or directive that the emulator does not implement: the error
    /// names it and its line.
    pub fn parse(text: &str) -> Result<Module, PtxError> {
        crate::parse::module(text)
    }

    /// The names of the kernels, sorted.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// What can be known of a kernel without launching it.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.get(name)
    }

    /// The `.version` of the module.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The `.target` of the module, `sm_80` for instance.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names and lengths in bytes of the module's `.global` and `.const` variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, u64)> {
        self.variables.iter().map(|variable| (variable.name.as_str(), variable.bytes.len() as u64))
    }
}

/// A variable in global or constant memory.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub name: String,
    pub align: u64,
    /// Contents at the start; bytes without initialiser are zero.
    pub bytes: Vec<u8>,
    /// Addresses to be stored into the contents: offset and the variable meant.
    pub references: Vec<(u64, String)>,
    pub read_only: bool,
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) parameter_bytes: u64,
    pub(crate) required_block: Option<[u32; 3]>,
    pub(crate) maximum_block: Option<[u32; 3]>,
    pub(crate) static_shared: u64,
    pub(crate) local_bytes: u64,
    pub(crate) code: Vec<Code>,
    /// Names under which executed instructions are counted.
    pub(crate) kinds: Vec<String>,
    pub(crate) slots: Slots,
    /// The shortest access to shared memory in bytes: the grain of the race detector.
    pub(crate) shared_grain: u64,
}

impl Kernel {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters' sizes in bytes, in order.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = u64> {
        self.parameters.iter().map(|parameter| parameter.bytes)
    }

    /// Bytes of statically declared shared memory.
    pub fn static_shared_bytes(&self) -> u64 {
        self.static_shared
    }

    /// Bytes of local memory per thread.
    pub fn local_bytes(&self) -> u64 {
        self.local_bytes
    }

    /// The block that `.reqntid` demands.
    pub fn required_block(&self) -> Option<[u32; 3]> {
        self.required_block
    }

    /// The threads that `.maxntid` allows per block.
    pub fn maximum_threads(&self) -> Option<u32> {
        self.maximum_block.or(self.required_block).map(|[x, y, z]| x.saturating_mul(y).saturating_mul(z))
    }

    /// Number of instructions.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }
}

/// A kernel parameter.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
}

/// How many slots of each kind a kernel has, what fills them before it starts, and what they are called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    pub names32: Vec<String>,
    pub names64: Vec<String>,
    pub names_predicate: Vec<String>,
    pub constants32: Vec<(u16, Fill)>,
    pub constants64: Vec<(u16, Fill)>,
    pub constants_predicate: Vec<(u16, bool)>,
}

/// The value of a slot that no instruction writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Fill {
    Value(u64),
    /// The generic or global address of a module variable.
    Variable(String),
    /// Where dynamic shared memory begins, behind the static variables.
    DynamicShared,
    Special(Special),
}

/// Special registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(usize),
    BlockSize(usize),
    Block(usize),
    GridSize(usize),
    Lane,
    Warp,
    Warps,
    LaneMaskEqual,
    LaneMaskLess,
    LaneMaskLessEqual,
    LaneMaskGreater,
    LaneMaskGreaterEqual,
    DynamicSharedBytes,
    TotalSharedBytes,
    Zero,
}
