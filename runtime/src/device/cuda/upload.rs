//! Weights from the mapped artifact into a GPU's memory, through two pinned buffers: one is filled while the other is on
//! its way.

use super::driver::Gpu;
use super::error::CudaError;
use super::memory::{DeviceMemory, Pinned};
use crate::device::Preparation;
use cudarc::driver::CudaEvent;

/// Bytes of a staging buffer.
const STAGE: usize = 8 << 20;

struct Stage {
    memory: Pinned,
    /// When the last copy out of it is done.
    done: Option<CudaEvent>,
}

/// Uploads tensors, each into memory of its own; `progress` hears how far it is.
///
/// # Errors
/// If the device's memory does not suffice or a copy fails.
pub(super) fn upload(
    gpu: &Gpu,
    tensors: &[&[u8]],
    progress: &mut dyn FnMut(Preparation),
) -> Result<Vec<DeviceMemory>, CudaError> {
    let total = tensors.iter().map(|tensor| tensor.len() as u64).sum();
    let stage = || Ok(Stage { memory: Pinned::allocate(gpu, STAGE.min(total as usize) as u64)?, done: None });
    let mut stages = [stage()?, stage()?];
    let mut uploaded = Vec::new();
    let (mut done, mut turn) = (0, 0);
    for tensor in tensors {
        let mut memory = DeviceMemory::allocate(gpu, tensor.len() as u64, "reserving memory for weights")?;
        for (index, piece) in tensor.chunks(STAGE).enumerate() {
            copy(gpu, &mut stages[turn], &mut memory, index * STAGE, piece)?;
            turn = 1 - turn;
            done += piece.len() as u64;
            progress(Preparation::Weights(done, total));
        }
        uploaded.push(memory);
    }
    gpu.stream.synchronize().map_err(gpu.failed("copying weights"))?;
    Ok(uploaded)
}

fn copy(gpu: &Gpu, stage: &mut Stage, to: &mut DeviceMemory, start: usize, piece: &[u8]) -> Result<(), CudaError> {
    let failed = gpu.failed("copying weights");
    if let Some(done) = &stage.done {
        done.synchronize().map_err(&failed)?;
    }
    let staged = &mut stage.memory.bytes_mut()[..piece.len()];
    staged.copy_from_slice(piece);
    // SAFETY: the buffer is not touched again before the event, and not dropped before the stream is through.
    unsafe { to.copy_from(gpu, start, staged) }.map_err(&failed)?;
    stage.done = Some(gpu.stream.record_event(None).map_err(&failed)?);
    Ok(())
}
