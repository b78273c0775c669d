//! llmc-codegen: how a region becomes code.
//!
//! [`compile_host`] takes a planned model and returns a shared object with one entry point per program. On the way:
//!
//! 1. [`kernel`] looks at a region and finds its iteration space; nothing there knows a target.
//! 2. `llvm` writes one function per kernel as LLVM IR text: rows of elementwise work, dots with their epilogues,
//!    attention; and one function per program that runs a whole step on every thread.
//! 3. LLVM optimises that for a CPU level ([`host`]), the system's linker makes a shared object ([`link`]).
//!
//! [`disassemble`] shows what came out. [`pack`] brings weights into the layout that the kernels read.

pub mod disassemble;
pub mod error;
pub mod host;
pub mod kernel;
pub mod link;
mod llvm;
pub mod pack;

use error::CodegenError;
use host::HostTarget;
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
    let object = llvm::compile::compile(&text.ir, target, Output::Object)?;
    Ok(HostCode { shared_object: link::link(&object)?, scratch_bytes: text.scratch_bytes })
}

/// The LLVM IR as written, before optimisation: what snapshots show.
pub fn host_ir(model: &PlannedModel, target: &HostTarget) -> Result<String, CodegenError> {
    Ok(llvm::emit_model(model, target)?.ir)
}

/// Assembly text or optimised IR, for people to read.
pub fn host_listing(model: &PlannedModel, target: &HostTarget, output: Output) -> Result<String, CodegenError> {
    let text = llvm::emit_model(model, target)?;
    let bytes = llvm::compile::compile(&text.ir, target, output)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
