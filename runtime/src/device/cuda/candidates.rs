//! The largest logits of each row, found on the GPU: so that of a step whose tokens are drawn only these are copied to the
//! host.

use super::driver::Gpu;
use super::error::CudaError;
use super::kernel::Kernel;
use super::memory::{DeviceMemory, Pinned, as_words};
use crate::sampler::{PART, words};
use cudarc::driver::DriverError;
use std::ffi::CStr;

/// The kernel, which says in its head what it does. It is no part of any model.
const PTX: &str = concat!(include_str!("candidates.ptx"), "\0");

/// Its name.
const SYMBOL: &CStr = c"candidates";

/// The kernel and memory for its results.
pub(super) struct Candidates {
    kernel: Kernel,
    scales: DeviceMemory,
    host_scales: Pinned,
    results: DeviceMemory,
    host_results: Pinned,
    vocab: u64,
}

impl Candidates {
    /// Bytes of device memory for so many rows.
    pub fn bytes(rows: usize, vocab: usize) -> u64 {
        (rows * (words(vocab) + 1) * size_of::<u32>()) as u64
    }

    /// Compiles the kernel and reserves memory for so many rows.
    pub fn new(gpu: &Gpu, rows: usize, vocab: usize) -> Result<Candidates, CudaError> {
        let kernel = Kernel::new(gpu, PTX, SYMBOL)?;
        let scales = (rows * size_of::<f32>()) as u64;
        let results = Candidates::bytes(rows, vocab) - scales;
        let reserve = |bytes| DeviceMemory::allocate(gpu, bytes, "reserving memory for likely tokens");
        Ok(Candidates {
            kernel,
            scales: reserve(scales)?,
            host_scales: Pinned::allocate(gpu, scales)?,
            results: reserve(results)?,
            host_results: Pinned::allocate(gpu, results)?,
            vocab: vocab as u64,
        })
    }

    /// Finds them for rows of logits at an address, one per scale, and copies them to the host, some time before later
    /// work of the stream.
    ///
    /// # Safety
    /// There must be so many rows, no more than this was made for, and the stream must get past this before the next call
    /// and before this value is dropped.
    pub unsafe fn find(&mut self, gpu: &Gpu, logits: u64, scales: &[f32]) -> Result<(), DriverError> {
        let rows = scales.len();
        let bytes = &mut self.host_scales.bytes_mut()[..size_of_val(scales)];
        for (to, scale) in bytes.chunks_exact_mut(size_of::<f32>()).zip(scales) {
            let exponent = (scale * std::f32::consts::LOG2_E).min(f32::MAX);
            to.copy_from_slice(&exponent.to_le_bytes());
        }
        let arguments = [logits, self.scales.address(), self.results.address(), self.vocab];
        let parts = self.vocab.div_ceil(PART as u64) as u32;
        let found = rows * words(self.vocab as usize) * size_of::<u32>();
        // SAFETY: the caller vouches for the logits and for the time that the buffers are left alone, and there is room for
        // the scales and the results.
        unsafe {
            self.scales.copy_from(gpu, 0, bytes)?;
            self.kernel.launch(gpu, [parts, rows as u32], arguments)?;
            self.results.copy_to(gpu, 0, &mut self.host_results.bytes_mut()[..found])
        }
    }

    /// What [`Candidates::find`] found, `u32[rows, words]`, once the stream has got past it.
    pub fn results(&self, rows: usize) -> &[u32] {
        as_words(&self.host_results.bytes()[..rows * words(self.vocab as usize) * size_of::<u32>()])
    }
}
