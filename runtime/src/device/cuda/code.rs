//! PTX out of an artifact: which of it a device can run, and the driver compiling it.

use super::driver::{DeviceFacts, Gpu};
use super::error::{CudaError, words};
use cudarc::driver::sys::{self, CUfunction_attribute_enum, CUjit_option_enum, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};
use llmc_artifact::{Artifact, CudaCode};
use llmc_ir::gpu::GridLaunch;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

/// Bytes of the compiler's log that are kept.
const LOG: usize = 8 << 10;

/// The least compute capability that the compiler makes code for.
const OLDEST: u32 = 80;

/// The artifact's code for the newest architecture that a device still runs.
///
/// # Errors
/// If there is none; says what to compile for.
pub fn choose<'a>(artifact: &'a Artifact, device: &DeviceFacts) -> Result<&'a CudaCode, CudaError> {
    let capability = device.compute_capability;
    let all = &artifact.manifest().cuda;
    let fitting = all.iter().filter(|code| code.compute_capability <= capability);
    fitting.max_by_key(|code| code.compute_capability).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|code| code.name.as_str()).collect();
        let has = match all.is_empty() {
            true => "it has no code for GPUs".to_owned(),
            false => format!("its code is for {}, the device is an sm_{capability}", names.join(", ")),
        };
        let advice = match capability >= OLDEST {
            true => format!("recompile it with `llmc compile --target cuda:sm_{capability}`"),
            false => format!("llmc makes code for sm_{OLDEST} and newer: use a newer GPU"),
        };
        let detail = format!("{has}; {advice}");
        CudaError::NoCode { device: device.describe(), path: artifact.path().display().to_string(), detail }
    })
}

/// PTX that the driver has compiled.
pub(super) struct Module {
    handle: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a handle of the driver, which may be used from any thread.
unsafe impl Send for Module {}

/// An artifact's code on a device.
pub(super) struct Code {
    functions: BTreeMap<String, sys::CUfunction>,
    // Last: the functions are parts of it.
    module: Module,
}

// SAFETY: handles of the driver, which may be used from any thread.
unsafe impl Send for Code {}

impl Code {
    /// Has the driver compile the code, and finds every kernel that is launched.
    pub fn load(gpu: &Gpu, artifact: &Artifact, code: &CudaCode) -> Result<Code, CudaError> {
        let failed = |problem: String| CudaError::Code {
            device: gpu.facts.describe(),
            path: artifact.path().display().to_string(),
            target: code.name.clone(),
            problem,
        };
        let bytes = artifact.tensor(&code.tensor).unwrap_or_default();
        let text = CString::new(bytes).map_err(|_| failed("it is no text".to_owned()))?;
        let module = Module::compile(gpu, &text).map_err(failed)?;
        let mut loaded = Code { module, functions: BTreeMap::new() };
        let most_shared = gpu.shared_per_block()?;
        for launch in code.code.programs.iter().flat_map(|program| program.kernels.values().flatten()) {
            loaded.prepare(launch, most_shared).map_err(failed)?;
        }
        Ok(loaded)
    }

    /// A kernel that [`Code::load`] found.
    pub fn function(&self, symbol: &str) -> Option<sys::CUfunction> {
        self.functions.get(symbol).copied()
    }

    /// Finds a kernel and allows it the shared memory that its launch asks for.
    fn prepare(&mut self, launch: &GridLaunch, most_shared: u32) -> Result<(), String> {
        let GridLaunch { symbol, shared_bytes, .. } = launch;
        let function = match self.functions.get(symbol) {
            Some(&function) => function,
            None => {
                let name = CString::new(symbol.as_str()).map_err(|_| format!("{symbol:?} is no name"))?;
                let function = self.module.function(&name)?;
                self.functions.insert(symbol.clone(), function);
                function
            }
        };
        if *shared_bytes > most_shared {
            return Err(format!(
                "kernel `{symbol}` needs {shared_bytes} bytes of shared memory per block, the device has {most_shared}"
            ));
        }
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to the loaded module.
        let get = unsafe { result::function::get_function_attribute(function, attribute) };
        let allowed = get.map_err(|error| format!("kernel `{symbol}`: {}", words(error)))?;
        if allowed < *shared_bytes as i32 {
            // SAFETY: as above.
            let set = unsafe { result::function::set_function_attribute(function, attribute, *shared_bytes as i32) };
            set.map_err(|error| {
                format!("kernel `{symbol}` with {shared_bytes} bytes of shared memory: {}", words(error))
            })?;
        }
        Ok(())
    }
}

impl Module {
    /// Has the driver compile PTX. The error is the driver's words and its compiler's log.
    pub fn compile(gpu: &Gpu, text: &CStr) -> Result<Module, String> {
        gpu.context.bind_to_thread().map_err(words)?;
        let mut log = vec![0u8; LOG];
        let mut options =
            [CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER, CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast(), LOG as *mut c_void];
        let mut handle = std::ptr::null_mut();
        // SAFETY: the text ends with a null; the options are the log's address and size, and it outlives the call.
        let outcome = unsafe {
            sys::cuModuleLoadDataEx(&mut handle, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
        };
        match outcome.result() {
            Ok(()) => Ok(Module { handle, context: Arc::clone(&gpu.context) }),
            Err(error) => Err(refusal(error, &log)),
        }
    }

    /// A kernel by name.
    pub fn function(&self, name: &CStr) -> Result<sys::CUfunction, String> {
        // SAFETY: the module is loaded.
        let found = unsafe { result::module::get_function(self.handle, name.to_owned()) };
        found.map_err(|error| format!("there is no kernel `{}`: {}", name.to_string_lossy(), words(error)))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: loaded by `compile`; recordings with its kernels were dropped before.
            let _ = unsafe { result::module::unload(self.handle) };
        }
    }
}

/// Why the driver does not compile PTX, in its words and in its compiler's, which end with a null.
fn refusal(error: DriverError, log: &[u8]) -> String {
    let advice = match error.0 {
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => "; the driver is too old for it: update NVIDIA's driver",
        CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => "; NVIDIA's driver is not completely installed",
        _ => "",
    };
    let length = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..length]);
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let log = if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) };
    format!("{}{log}{advice}", words(error))
}
