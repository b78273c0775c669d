//! From planned kernels to LLVM IR for GPUs.

use crate::error::CodegenError;
use llmc_ir::gpu::GpuCode;
use llmc_ir::region::PlannedModel;

/// The LLVM IR of a model's device kernels, and what of it each launch runs.
pub struct DeviceText {
    /// The module's text.
    pub ir: String,
    /// Kernels and grids of every program.
    pub code: GpuCode,
}

/// Writes all programs of a model for GPUs.
pub fn emit_model(model: &PlannedModel) -> Result<DeviceText, CodegenError> {
    let first = model.plan.programs.iter().zip(&model.kernels).find_map(|(program, kernels)| {
        kernels.first().map(|kernel| CodegenError::Kernel {
            program: program.name.clone(),
            kernel: kernel.name.clone(),
            reason: "it has no device template".into(),
        })
    });
    match first {
        Some(error) => Err(error),
        None => Ok(DeviceText { ir: String::new(), code: GpuCode { workspace_bytes: 0, programs: Vec::new() } }),
    }
}
