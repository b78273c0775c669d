//! Kernels of this runtime's own, which are no part of any model.

use super::code::Module;
use super::driver::Gpu;
use super::error::CudaError;
use cudarc::driver::sys::CUfunction;
use cudarc::driver::{DriverError, result};
use std::ffi::{CStr, c_void};

/// Threads of a block, which the kernels rely on.
const THREADS: u32 = 1024;

/// A kernel on a device.
pub(super) struct Kernel {
    function: CUfunction,
    // Last: the function is part of it.
    _module: Module,
}

// SAFETY: a function handle of the driver may be used from any thread.
unsafe impl Send for Kernel {}

impl Kernel {
    /// Has the driver compile the kernel `symbol` of a text that ends with a null.
    pub fn new(gpu: &Gpu, text: &'static str, symbol: &CStr) -> Result<Kernel, CudaError> {
        let broken = |problem: String| CudaError::Code {
            device: gpu.facts.describe(),
            path: "llmrt itself".to_owned(),
            target: "sampling".to_owned(),
            problem,
        };
        let text = CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or_default();
        let module = Module::compile(gpu, text).map_err(broken)?;
        let function = module.function(symbol).map_err(broken)?;
        Ok(Kernel { function, _module: module })
    }

    /// Launches so many blocks along x and y. Arguments are all of 64 bits, and are copied before this returns.
    ///
    /// # Safety
    /// The arguments must be those of the kernel, and the memory that they lead to must last until the stream has got past
    /// it.
    pub unsafe fn launch<const N: usize>(
        &self,
        gpu: &Gpu,
        [x, y]: [u32; 2],
        mut arguments: [u64; N],
    ) -> Result<(), DriverError> {
        let mut places = arguments.each_mut().map(|argument| std::ptr::from_mut(argument).cast::<c_void>());
        let stream = gpu.stream.cu_stream();
        // SAFETY: as promised by the caller.
        unsafe { result::launch_kernel(self.function, (x, y, 1), (THREADS, 1, 1), 0, stream, &mut places) }
    }
}
