//! Launching a kernel: geometry and arguments are checked as the driver and the kernel's directives demand.

use crate::counters::Counters;
use crate::error::LaunchError;
use crate::exec::{self, Grid};
use crate::memory::Memory;
use crate::module::{Kernel, Module};

/// Threads that a block may have.
const MAXIMUM_THREADS: u64 = 1024;
/// Shared memory that a block may have on the largest device there is, in bytes.
const MAXIMUM_SHARED: u64 = 227 * 1024;
/// Blocks along each axis of a grid.
const MAXIMUM_GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];
/// Threads along each axis of a block.
const MAXIMUM_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Warp instructions after which a launch counts as one that never ends, unless the caller sets a limit: about an hour.
const DEFAULT_INSTRUCTION_LIMIT: u64 = 1 << 34;

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub dynamic_shared_bytes: u32,
    /// Warp instructions after which the launch fails.
    pub instruction_limit: u64,
    /// Which blocks come first.
    pub order: BlockOrder,
}

/// The order in which blocks run. A GPU promises none, so that a block which writes what is another's may be noticed in one
/// order only: in the other one, its owner writes it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOrder {
    /// By ascending number, as code may hope that waits for blocks of lower numbers.
    Ascending,
    /// By descending number.
    Descending,
}

impl LaunchConfig {
    /// A launch with the default instruction limit, of blocks in ascending order.
    pub fn new(grid: [u32; 3], block: [u32; 3], dynamic_shared_bytes: u32) -> Self {
        let (instruction_limit, order) = (DEFAULT_INSTRUCTION_LIMIT, BlockOrder::Ascending);
        LaunchConfig { grid, block, dynamic_shared_bytes, instruction_limit, order }
    }

    /// Threads per block.
    pub fn threads(&self) -> u32 {
        self.block.iter().fold(1, |threads: u32, &extent| threads.saturating_mul(extent))
    }
}

/// The value of a kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    bytes: Vec<u8>,
}

impl Argument {
    /// An argument of any type, as its bytes in memory.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Argument { bytes: bytes.into() }
    }
}

macro_rules! argument_from {
    ($($ty:ty)*) => {$(
        impl From<$ty> for Argument {
            fn from(value: $ty) -> Self {
                Argument { bytes: value.to_le_bytes().to_vec() }
            }
        }
    )*};
}

argument_from!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// Runs a kernel to its end and counts what it did. Writes to `memory` up to a fault stay.
///
/// # Errors
///
/// [`LaunchError::Setup`] where kernel, geometry and arguments do not fit each other; [`LaunchError::Fault`] where the running
/// kernel does something that the checks stop it for.
pub fn launch(
    module: &Module,
    kernel: &str,
    config: LaunchConfig,
    arguments: &[Argument],
    memory: &mut Memory,
) -> Result<Counters, LaunchError> {
    let refuse = |reason: String| LaunchError::Setup { kernel: kernel.to_string(), reason };
    let Some(found) = module.kernel(kernel) else {
        let names: Vec<&str> = module.kernels().collect();
        return Err(refuse(format!("the module has no such kernel; it has {}", names.join(", "))));
    };
    check(found, &config).map_err(refuse)?;
    let parameters = pack(found, arguments).map_err(refuse)?;
    memory.place_variables(module);
    let mut addresses = std::collections::BTreeMap::new();
    for (name, _) in module.variables() {
        addresses.insert(name.to_string(), memory.variable(module, name).unwrap_or(0));
    }
    let variables = |name: &str| addresses.get(name).copied().unwrap_or(0);
    exec::run(Grid { kernel: found, config, parameters, variables: &variables }, memory)
}

fn check(kernel: &Kernel, config: &LaunchConfig) -> Result<(), String> {
    let LaunchConfig { grid, block, .. } = *config;
    for axis in 0..3 {
        if grid[axis] == 0 || grid[axis] > MAXIMUM_GRID[axis] {
            return Err(format!("a grid of {grid:?} blocks; each axis has 1 to {MAXIMUM_GRID:?}"));
        }
        if block[axis] == 0 || block[axis] > MAXIMUM_BLOCK[axis] {
            return Err(format!("a block of {block:?} threads; each axis has 1 to {MAXIMUM_BLOCK:?}"));
        }
    }
    let threads: u64 = block.iter().map(|&extent| u64::from(extent)).product();
    if threads > MAXIMUM_THREADS {
        return Err(format!("{threads} threads per block; a device has at most {MAXIMUM_THREADS}"));
    }
    if let Some(required) = kernel.required_block
        && required != block
    {
        return Err(format!("a block of {block:?} threads; the kernel demands {required:?} (.reqntid)"));
    }
    if let Some(maximum) = kernel.maximum_block {
        let most: u64 = maximum.iter().map(|&extent| u64::from(extent)).product();
        if threads > most {
            return Err(format!("{threads} threads per block; the kernel allows {most} (.maxntid)"));
        }
    }
    let shared = kernel.static_shared.next_multiple_of(16) + u64::from(config.dynamic_shared_bytes);
    if shared > MAXIMUM_SHARED {
        return Err(format!("{shared} bytes of shared memory per block; a device has at most {MAXIMUM_SHARED}"));
    }
    Ok(())
}

fn pack(kernel: &Kernel, arguments: &[Argument]) -> Result<Vec<u8>, String> {
    if kernel.parameters.len() != arguments.len() {
        return Err(format!("{} arguments; the kernel takes {}", arguments.len(), kernel.parameters.len()));
    }
    let mut bytes = vec![0; kernel.parameter_bytes as usize];
    for (at, (parameter, argument)) in kernel.parameters.iter().zip(arguments).enumerate() {
        if parameter.bytes != argument.bytes.len() as u64 {
            let (name, wanted) = (&parameter.name, parameter.bytes);
            return Err(format!("argument {at} has {} bytes; `{name}` takes {wanted}", argument.bytes.len()));
        }
        let start = parameter.offset as usize;
        bytes[start..start + argument.bytes.len()].copy_from_slice(&argument.bytes);
    }
    Ok(bytes)
}
