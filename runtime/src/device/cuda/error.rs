//! Why a GPU cannot run a model, or does not any more.

use cudarc::driver::DriverError;
use thiserror::Error;

/// What went wrong with a GPU, and what to do.
#[derive(Debug, Error)]
pub enum CudaError {
    /// There is no `libcuda.so`.
    #[error("no CUDA driver was found (libcuda.so.1): install NVIDIA's driver")]
    NoDriver,
    /// The driver is from before CUDA 12.
    #[error("the CUDA driver is for CUDA {found}, at least {needed} is needed: update NVIDIA's driver")]
    OldDriver {
        /// The newest CUDA that it supports.
        found: String,
        /// The oldest that this program works with.
        needed: String,
    },
    /// The driver knows no such device.
    #[error("there is no device cuda:{ordinal}: {known}")]
    NoDevice {
        /// Which was asked for.
        ordinal: usize,
        /// Which there are.
        known: String,
    },
    /// The artifact has no code that the device can run.
    #[error("{device} cannot run {path}: {detail}")]
    NoCode {
        /// The device, in words.
        device: String,
        /// The artifact.
        path: String,
        /// What there is and what there should be.
        detail: String,
    },
    /// The device's memory does not suffice.
    #[error("{device} has {have} bytes of free memory, {need} are needed ({parts}): {advice}")]
    OutOfMemory {
        /// The device, in words.
        device: String,
        /// Bytes that are free.
        have: u64,
        /// Bytes that are needed.
        need: u64,
        /// What for.
        parts: String,
        /// What to do.
        advice: String,
    },
    /// The driver does not compile the code.
    #[error("{device} cannot use the code for {target} from {path}: {problem}")]
    Code {
        /// The device, in words.
        device: String,
        /// The artifact.
        path: String,
        /// The code's name.
        target: String,
        /// What the driver says, with its compiler's log.
        problem: String,
    },
    /// A call of the driver failed before any work was under way.
    #[error("{device} failed while {action}: {reason}")]
    Call {
        /// The device, in words.
        device: String,
        /// What was being done.
        action: &'static str,
        /// The driver's name of the error and its words.
        reason: String,
    },
    /// A step found no memory for what the driver keeps of it.
    #[error(
        "{device} has no memory left for a step of program `{program}`: {reason}. End other programs that use the device, or \
         give the KV cache less with --kv-memory"
    )]
    NoMemoryForStep {
        /// The device, in words.
        device: String,
        /// The program that was to run.
        program: String,
        /// The driver's name of the error and its words.
        reason: String,
    },
    /// A step failed. The device's memory of this process is gone with it.
    #[error(
        "{device} was lost in a step of program `{program}`: {reason}. No step can run on it any more; start again, and \
         report this if it happens twice"
    )]
    Lost {
        /// The device, in words.
        device: String,
        /// The program that ran.
        program: String,
        /// The driver's name of the error and its words.
        reason: String,
    },
}

impl CudaError {
    /// Whether another device would do.
    pub(in crate::device) fn is_about_the_device(&self) -> bool {
        match self {
            CudaError::NoDriver
            | CudaError::OldDriver { .. }
            | CudaError::NoDevice { .. }
            | CudaError::NoCode { .. }
            | CudaError::OutOfMemory { .. } => true,
            CudaError::Code { .. }
            | CudaError::Call { .. }
            | CudaError::NoMemoryForStep { .. }
            | CudaError::Lost { .. } => false,
        }
    }
}

/// The driver's name of an error and its words: `CUDA_ERROR_OUT_OF_MEMORY (out of memory)`.
pub(super) fn words(error: DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{name} ({text})"),
        _ => format!("error {}", error.0 as u32),
    }
}
