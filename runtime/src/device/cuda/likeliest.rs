//! The likeliest token of each row of logits, found on the GPU: so that of a greedy step only ids are copied to the host.

use super::code::Module;
use super::driver::Gpu;
use super::error::CudaError;
use super::memory::{DeviceMemory, Pinned, as_ids};
use cudarc::driver::sys::CUfunction;
use cudarc::driver::{DriverError, result};
use std::ffi::{CStr, c_void};

/// The kernel, which says in its head what it does. It is no part of any model.
const PTX: &str = concat!(include_str!("likeliest.ptx"), "\0");

/// Its name.
const SYMBOL: &CStr = c"likeliest";

/// Threads of a block, which the kernel relies on.
const THREADS: u32 = 1024;

/// The kernel and memory for its results.
pub(super) struct Likeliest {
    function: CUfunction,
    ids: DeviceMemory,
    host_ids: Pinned,
    vocab: u64,
    // Last: the function is part of it.
    _module: Module,
}

// SAFETY: a function handle of the driver may be used from any thread.
unsafe impl Send for Likeliest {}

impl Likeliest {
    /// Compiles the kernel and reserves memory for so many rows.
    pub fn new(gpu: &Gpu, rows: usize, vocab: usize) -> Result<Likeliest, CudaError> {
        let module = Module::of_runtime(gpu, PTX)?;
        let function = module.function(SYMBOL).map_err(|problem| Module::broken(gpu, problem))?;
        let bytes = (rows * size_of::<i32>()) as u64;
        let ids = DeviceMemory::allocate(gpu, bytes, "reserving memory for token ids")?;
        Ok(Likeliest { function, ids, host_ids: Pinned::allocate(gpu, bytes)?, vocab: vocab as u64, _module: module })
    }

    /// Finds the ids for rows of logits at an address, and copies them to the host, some time before later work of the
    /// stream.
    ///
    /// # Safety
    /// There must be so many rows, no more than this was made for, and the stream must get past this before the next call
    /// and before this value is dropped.
    pub unsafe fn find(&mut self, gpu: &Gpu, logits: u64, rows: usize) -> Result<(), DriverError> {
        let (mut logits, mut ids) = (logits, self.ids.address());
        let arguments = [&raw mut logits, &raw mut ids, &raw mut self.vocab];
        let mut arguments = arguments.map(|argument| argument.cast::<c_void>());
        let (grid, block) = ((rows as u32, 1, 1), (THREADS, 1, 1));
        // SAFETY: the driver copies the arguments before it returns; the caller vouches for the logits, and there is room
        // for the ids.
        unsafe {
            result::launch_kernel(self.function, grid, block, 0, gpu.stream.cu_stream(), &mut arguments)?;
            self.ids.copy_to(gpu, 0, &mut self.host_ids.bytes_mut()[..rows * size_of::<i32>()])
        }
    }

    /// What [`Likeliest::find`] found, once the stream has got past it; -1 where a logit of the row is not finite.
    pub fn ids(&self, rows: usize) -> &[i32] {
        as_ids(&self.host_ids.bytes()[..rows * size_of::<i32>()])
    }
}
