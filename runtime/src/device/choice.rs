//! Which device a model runs on.

use super::DeviceError;
use super::cuda::{self, CudaError, DeviceFacts};
use llmc_artifact::Artifact;
use std::fmt;
use std::str::FromStr;

/// A wish: `auto`, `host` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU that can run the artifact, or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Host,
    /// The GPU with that number.
    Cuda(usize),
}

/// A device that can run an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The CPU; it has yet to be seen which code.
    Host,
    /// A GPU.
    Cuda(DeviceFacts),
}

impl DeviceChoice {
    /// Finds the device. A driver is looked for only if a GPU is asked for, or would do and the artifact has code for it.
    ///
    /// # Errors
    /// If the GPU that was asked for cannot run the artifact, or none can and there is no code for a CPU either.
    pub fn choose(self, artifact: &Artifact) -> Result<Chosen, DeviceError> {
        let manifest = artifact.manifest();
        match self {
            DeviceChoice::Host => Ok(Chosen::Host),
            DeviceChoice::Cuda(ordinal) => {
                let facts = numbered(ordinal, artifact).map_err(|error| DeviceError::of_gpu(error, artifact))?;
                Ok(Chosen::Cuda(facts))
            }
            DeviceChoice::Auto if manifest.cuda.is_empty() => Ok(Chosen::Host),
            DeviceChoice::Auto => match first(artifact) {
                Ok(facts) => Ok(Chosen::Cuda(facts)),
                Err(_) if !manifest.targets.is_empty() => Ok(Chosen::Host),
                Err(error) => Err(DeviceError::of_gpu(error, artifact)),
            },
        }
    }
}

/// What to do where the driver lists no devices.
const NO_DEVICES: &str = "the driver knows none: see what `nvidia-smi` says";

fn numbered(ordinal: usize, artifact: &Artifact) -> Result<DeviceFacts, CudaError> {
    let mut devices = cuda::devices()?;
    if ordinal >= devices.len() {
        let names: Vec<String> = devices.iter().map(DeviceFacts::describe).collect();
        let known = match names.is_empty() {
            true => NO_DEVICES.to_owned(),
            false => format!("the driver knows {}: choose one of these", names.join(", ")),
        };
        return Err(CudaError::NoDevice { ordinal, known });
    }
    let facts = devices.swap_remove(ordinal);
    cuda::choose(artifact, &facts)?;
    Ok(facts)
}

/// The first GPU that can run the artifact, or why the last one cannot.
fn first(artifact: &Artifact) -> Result<DeviceFacts, CudaError> {
    let mut reason = CudaError::NoDevice { ordinal: 0, known: NO_DEVICES.to_owned() };
    for facts in cuda::devices()? {
        match cuda::choose(artifact, &facts) {
            Ok(_) => return Ok(facts),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let number = |number: &str| match number.is_empty() || number.starts_with('+') {
            true => None,
            false => number.parse().ok(),
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "host" => Ok(DeviceChoice::Host),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(number) {
                Some(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
                None => Err(format!("`{text}` is no device: expected auto, host, or cuda:0 and so on")),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Host => f.write_str("host"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Host, DeviceChoice::Cuda(0), DeviceChoice::Cuda(17)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "Host", "cuda:99999999999999999999"] {
            assert!(text.parse::<DeviceChoice>().unwrap_err().contains(&format!("`{text}`")));
        }
    }
}
