//! The largest logits of each row, found on the GPU: so that of a step whose tokens are drawn only these are copied to the
//! host.

use super::code::Module;
use super::driver::Gpu;
use super::error::CudaError;
use super::memory::{DeviceMemory, Pinned, as_words};
use crate::sampler::{PART, words};
use cudarc::driver::sys::CUfunction;
use cudarc::driver::{DriverError, result};
use std::ffi::{CStr, c_void};

/// The kernel, which says in its head what it does. It is no part of any model.
const PTX: &str = concat!(include_str!("candidates.ptx"), "\0");

/// Its name.
const SYMBOL: &CStr = c"candidates";

/// Threads of a block, which the kernel relies on.
const THREADS: u32 = 1024;

/// The kernel and memory for its results.
pub(super) struct Candidates {
    function: CUfunction,
    scales: DeviceMemory,
    host_scales: Pinned,
    results: DeviceMemory,
    host_results: Pinned,
    vocab: u64,
    // Last: the function is part of it.
    _module: Module,
}

// SAFETY: a function handle of the driver may be used from any thread.
unsafe impl Send for Candidates {}

impl Candidates {
    /// Bytes of device memory for so many rows.
    pub fn bytes(rows: usize, vocab: usize) -> u64 {
        (rows * (words(vocab) + 1) * size_of::<u32>()) as u64
    }

    /// Compiles the kernel and reserves memory for so many rows.
    pub fn new(gpu: &Gpu, rows: usize, vocab: usize) -> Result<Candidates, CudaError> {
        let module = Module::of_runtime(gpu, PTX)?;
        let function = module.function(SYMBOL).map_err(|problem| Module::broken(gpu, problem))?;
        let scales = (rows * size_of::<f32>()) as u64;
        let results = Candidates::bytes(rows, vocab) - scales;
        let reserve = |bytes| DeviceMemory::allocate(gpu, bytes, "reserving memory for likely tokens");
        Ok(Candidates {
            function,
            scales: reserve(scales)?,
            host_scales: Pinned::allocate(gpu, scales)?,
            results: reserve(results)?,
            host_results: Pinned::allocate(gpu, results)?,
            vocab: vocab as u64,
            _module: module,
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
        let (mut logits, mut exponents, mut results) = (logits, self.scales.address(), self.results.address());
        let arguments = [&raw mut logits, &raw mut exponents, &raw mut results, &raw mut self.vocab];
        let mut arguments = arguments.map(|argument| argument.cast::<c_void>());
        let parts = self.vocab.div_ceil(PART as u64) as u32;
        let (grid, block) = ((parts, rows as u32, 1), (THREADS, 1, 1));
        let found = rows * words(self.vocab as usize) * size_of::<u32>();
        // SAFETY: the driver copies the arguments before it returns; the caller vouches for the logits and for the time
        // that the buffers are left alone, and there is room for the scales and the results.
        unsafe {
            self.scales.copy_from(gpu, 0, bytes)?;
            result::launch_kernel(self.function, grid, block, 0, gpu.stream.cu_stream(), &mut arguments)?;
            self.results.copy_to(gpu, 0, &mut self.host_results.bytes_mut()[..found])
        }
    }

    /// What [`Candidates::find`] found, `u32[rows, words]`, once the stream has got past it.
    pub fn results(&self, rows: usize) -> &[u32] {
        as_words(&self.host_results.bytes()[..rows * words(self.vocab as usize) * size_of::<u32>()])
    }
}
