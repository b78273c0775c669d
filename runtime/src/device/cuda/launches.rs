//! A plan's programs as launches of device kernels, with every argument known: nothing about them changes from step to
//! step but the sizes of grids.

use super::code::Code;
use super::step::StepBuffer;
use cudarc::driver::sys::CUfunction;
use cudarc::driver::{CudaStream, DriverError, result};
use llmc_ir::gpu::{Extent, GpuCode};
use llmc_ir::plan::{KvLayout, Operand, Plan, PlannedCall, Program};
use std::ffi::c_void;

/// Sizes of a step, as far as grids depend on them. They may be larger than the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GridSizes {
    pub tokens: u32,
    pub sequences: u32,
    pub samples: u32,
}

/// Addresses on the device of what operands refer to.
pub(super) struct Places<'a> {
    pub step: &'a StepBuffer,
    pub workspace: u64,
    pub arena: u64,
    pub kv: u64,
    pub logits: u64,
    pub weights: Vec<u64>,
}

/// One launch.
pub(super) struct Kernel {
    function: CUfunction,
    grid: [Extent; 3],
    block: u32,
    shared_bytes: u32,
    /// All are 64-bit addresses.
    arguments: Vec<u64>,
}

// SAFETY: a function handle of the driver may be used from any thread.
unsafe impl Send for Kernel {}

/// The launches of each program in order. A kernel that has no function in the code is left out: artifacts are checked.
pub(super) fn resolve(plan: &Plan, gpu: &GpuCode, code: &Code, places: &Places<'_>) -> Vec<Vec<Kernel>> {
    let one = |(index, program): (usize, &Program)| {
        let mut kernels = Vec::new();
        for call in &program.calls {
            for launch in &program.functions[call.function].launches {
                let operands = launch.inputs.iter().chain(&launch.outputs);
                let operands = operands.map(|operand| place(operand, call, &plan.kv, places));
                let arguments: Vec<u64> = [places.step.args(), places.workspace].into_iter().chain(operands).collect();
                for grid in gpu.programs[index].kernels.get(&launch.kernel).into_iter().flatten() {
                    let Some(function) = code.function(&grid.symbol) else { continue };
                    kernels.push(Kernel {
                        function,
                        grid: grid.grid,
                        block: grid.block,
                        shared_bytes: grid.shared_bytes,
                        arguments: arguments.clone(),
                    });
                }
            }
        }
        kernels
    };
    plan.programs.iter().enumerate().map(one).collect()
}

fn place(operand: &Operand, call: &PlannedCall, kv: &KvLayout, places: &Places<'_>) -> u64 {
    match operand {
        Operand::Arena { offset, .. } => places.arena + offset,
        Operand::Weight { slot } => places.weights[call.weights[*slot]],
        Operand::Step { input } => places.step.input(*input),
        Operand::Kv => places.kv + (call.kv_layer * kv.layer_bytes()) as u64,
        Operand::Logits => places.logits,
    }
}

impl Kernel {
    /// Launches it for a step of these sizes, unless its grid is empty then.
    ///
    /// # Safety
    /// The addresses must be those of memory that is there until the stream has got past this, and hold what the kernel
    /// reads.
    pub unsafe fn launch(&mut self, sizes: GridSizes, stream: &CudaStream) -> Result<(), DriverError> {
        let GridSizes { tokens, sequences, samples } = sizes;
        let [x, y, z] = self.grid.map(|extent| extent.blocks(tokens, sequences, samples));
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let mut arguments: Vec<*mut c_void> =
            self.arguments.iter_mut().map(|argument| std::ptr::from_mut(argument).cast()).collect();
        let (block, shared) = ((self.block, 1, 1), self.shared_bytes);
        // SAFETY: the driver copies the arguments before it returns, and the caller vouches for the memory.
        unsafe { result::launch_kernel(self.function, (x, y, z), block, shared, stream.cu_stream(), &mut arguments) }
    }
}
