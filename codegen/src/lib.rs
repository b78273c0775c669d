//! llmc-codegen: how a region becomes code.
//!
//! [`compile_host`] takes a planned model and returns a shared object with one entry point per program. On the way:
//!
//! 1. [`kernel`] looks at a region and finds its iteration space; nothing there knows a target.
//! 2. `llvm` writes one function per kernel as LLVM IR text: rows of elementwise work, dots with their epilogues,
//!    attention; and one function per program that runs a whole step on every thread.
//! 3. LLVM optimises that for a CPU level ([`host`]), in units that all cores share; the system's linker makes a shared object
//!    of them ([`link`]).
//!
//! [`tuning`] has the sizes that kernels are cut to. [`disassemble`] shows what came out. [`pack`] brings weights into the layout that the kernels read.

pub mod disassemble;
pub mod error;
pub mod gpu;
pub mod host;
pub mod kernel;
pub mod link;
mod llvm;
pub mod pack;
pub mod tuning;

use error::CodegenError;
use gpu::GpuTarget;
use host::HostTarget;
use llmc_ir::gpu::GpuCode;
use llmc_ir::region::PlannedModel;

pub use llvm::compile::Output;
pub use llvm::kernel_symbol;

/// Native code of a model for one CPU level.
#[derive(Clone, Debug)]
pub struct HostCode {
    /// An ELF shared object that exports [`llmc_ir::plan::Program::entry_symbol`] of each program.
    pub shared_object: Vec<u8>,
    /// Working memory per thread in bytes.
    pub scratch_bytes: u64,
}

/// Makes native code of all programs.
pub fn compile_host(model: &PlannedModel, target: &HostTarget) -> Result<HostCode, CodegenError> {
    let text = llvm::emit_model(model, target)?;
    let objects = llvm::compile::compile(&text.units, target, Output::Object)?;
    Ok(HostCode { shared_object: link::link(&objects)?, scratch_bytes: text.scratch_bytes })
}

/// The LLVM IR as written, before optimisation: what snapshots show. Its units, which LLVM compiles by themselves, are behind
/// each other.
pub fn host_ir(model: &PlannedModel, target: &HostTarget) -> Result<String, CodegenError> {
    Ok(llvm::emit_model(model, target)?.units.join("\n"))
}

/// Assembly text or optimised IR of all units, for people to read.
pub fn host_listing(model: &PlannedModel, target: &HostTarget, output: Output) -> Result<String, CodegenError> {
    let text = llvm::emit_model(model, target)?;
    let listings = llvm::compile::compile(&text.units, target, output)?;
    Ok(String::from_utf8_lossy(&listings.concat()).into_owned())
}

/// PTX of a model for one GPU architecture.
#[derive(Clone, Debug)]
pub struct GpuModule {
    /// The PTX text of all device kernels.
    pub ptx: String,
    /// What of it each launch of the plan runs, on which grid.
    pub code: GpuCode,
}

/// Makes PTX of all programs. The kernels need operands at multiples of 16 bytes, and weights and the KV cache as the plan
/// lays them out: the same bytes as on the host.
///
/// # Errors
/// [`CodegenError::Kernel`] for a region that no template takes, [`CodegenError::Llvm`] where LLVM fails.
pub fn compile_gpu(model: &PlannedModel, target: &GpuTarget) -> Result<GpuModule, CodegenError> {
    let text = llvm::device::emit_model(model)?;
    let ptx = llvm::compile::compile_ptx(&text.units, target)?;
    Ok(GpuModule { ptx, code: text.code })
}
