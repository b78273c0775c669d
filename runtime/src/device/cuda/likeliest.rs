//! The likeliest token of each row of logits, found on the GPU: so that of a greedy step only ids are copied to the host.

use super::driver::Gpu;
use super::error::CudaError;
use super::kernel::Kernel;
use super::memory::{DeviceMemory, Pinned, as_ids};
use cudarc::driver::DriverError;
use std::ffi::CStr;

/// The kernel, which says in its head what it does. It is no part of any model.
const PTX: &str = concat!(include_str!("likeliest.ptx"), "\0");

/// Its name.
const SYMBOL: &CStr = c"likeliest";

/// The kernel and memory for its results.
pub(super) struct Likeliest {
    kernel: Kernel,
    ids: DeviceMemory,
    host_ids: Pinned,
    vocab: u64,
}

impl Likeliest {
    /// Compiles the kernel and reserves memory for so many rows.
    pub fn new(gpu: &Gpu, rows: usize, vocab: usize) -> Result<Likeliest, CudaError> {
        let kernel = Kernel::new(gpu, PTX, SYMBOL)?;
        let bytes = (rows * size_of::<i32>()) as u64;
        let ids = DeviceMemory::allocate(gpu, bytes, "reserving memory for token ids")?;
        Ok(Likeliest { kernel, ids, host_ids: Pinned::allocate(gpu, bytes)?, vocab: vocab as u64 })
    }

    /// Finds the ids for rows of logits at an address, and copies them to the host, some time before later work of the
    /// stream.
    ///
    /// # Safety
    /// There must be so many rows, no more than this was made for, and the stream must get past this before the next call
    /// and before this value is dropped.
    pub unsafe fn find(&mut self, gpu: &Gpu, logits: u64, rows: usize) -> Result<(), DriverError> {
        let arguments = [logits, self.ids.address(), self.vocab];
        // SAFETY: the caller vouches for the logits, and there is room for the ids.
        unsafe {
            self.kernel.launch(gpu, [rows as u32, 1], arguments)?;
            self.ids.copy_to(gpu, 0, &mut self.host_ids.bytes_mut()[..rows * size_of::<i32>()])
        }
    }

    /// What [`Likeliest::find`] found, once the stream has got past it; -1 where a logit of the row is not finite.
    pub fn ids(&self, rows: usize) -> &[i32] {
        as_ids(&self.host_ids.bytes()[..rows * size_of::<i32>()])
    }
}
