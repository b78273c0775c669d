//! The CUDA driver: whether there is one that is new enough, and its devices.
//!
//! The driver is loaded when it is first asked for. A program that never asks runs where there is none.

use super::error::{CudaError, words};
use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use std::sync::Arc;

/// The oldest CUDA whose driver has everything that is called here: `1000 * major + 10 * minor`.
const OLDEST: i32 = 12_000;

/// What can be known of a device without using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its number.
    pub ordinal: usize,
    /// What it calls itself.
    pub name: String,
    /// `10 * major + minor`.
    pub compute_capability: u32,
}

impl DeviceFacts {
    /// `cuda:0 (NVIDIA A100-SXM4-80GB)`.
    pub fn describe(&self) -> String {
        format!("cuda:{} ({})", self.ordinal, self.name)
    }
}

/// A device that this process uses: its context and the one stream that all work goes through.
pub(super) struct Gpu {
    pub facts: DeviceFacts,
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
}

/// The devices that the driver knows.
///
/// # Errors
/// If there is no driver, or it is too old. No device at all is an empty list.
pub fn devices() -> Result<Vec<DeviceFacts>, CudaError> {
    // SAFETY: loads the driver's library, which runs its initialisation only.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let failed =
        |error| CudaError::Call { device: "CUDA".to_owned(), action: "looking for devices", reason: words(error) };
    let mut version = 0;
    // SAFETY: the pointer is good for a write.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed)?;
    if version < OLDEST {
        let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(CudaError::OldDriver { found: text(version), needed: text(OLDEST) });
    }
    match result::init() {
        Ok(()) => {}
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    }
    let count = result::device::get_count().map_err(failed)?;
    (0..count).map(facts).collect::<Result<_, _>>().map_err(failed)
}

fn facts(ordinal: i32) -> Result<DeviceFacts, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver has just named this device.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let compute_capability = (10 * major + minor) as u32;
    Ok(DeviceFacts { ordinal: ordinal as usize, name: result::device::get_name(device)?, compute_capability })
}

impl Gpu {
    /// Begins to use a device.
    pub fn open(facts: &DeviceFacts) -> Result<Gpu, CudaError> {
        let open = || -> Result<_, DriverError> {
            let context = CudaContext::new(facts.ordinal)?;
            // SAFETY: everything here goes through one stream, in whose order nothing is used too early or too late.
            unsafe { context.disable_event_tracking() };
            let stream = context.new_stream()?;
            Ok((context, stream))
        };
        let (context, stream) = open().map_err(|error| failed(facts, "opening it", error))?;
        Ok(Gpu { facts: facts.clone(), context, stream })
    }

    /// An error of a call, with what was being done.
    pub fn failed(&self, action: &'static str) -> impl Fn(DriverError) -> CudaError + '_ {
        move |error| failed(&self.facts, action, error)
    }

    /// Bytes of free memory.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        let (free, _) = self.context.mem_get_info().map_err(self.failed("asking for its free memory"))?;
        Ok(free as u64)
    }

    /// Shared memory that a block may have, in bytes.
    pub fn shared_per_block(&self) -> Result<u32, CudaError> {
        let which = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let bytes = self.context.attribute(which).map_err(self.failed("asking for its shared memory"))?;
        Ok(bytes.max(0) as u32)
    }
}

fn failed(facts: &DeviceFacts, action: &'static str, error: DriverError) -> CudaError {
    let advice = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => "; free memory, or give the KV cache less with --kv-memory",
        _ => "",
    };
    CudaError::Call { device: facts.describe(), action, reason: words(error) + advice }
}
