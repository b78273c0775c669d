//! Native code out of an artifact: which of it this CPU can run, and loading it.

use super::{HostError, cpu};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use llmc_artifact::{Artifact, HostCode};
use llmc_ir::abi::StepFunction;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};

/// Loaded code of one target.
pub(super) struct Code {
    library: Library,
    /// Kept open while the library is loaded: the loader recognises libraries by their path, which
    /// holds the number of this descriptor, so the number must not be used again.
    _file: File,
    path: String,
    target: String,
}

/// The first target of the artifact that this CPU can run.
pub(super) fn choose(artifact: &Artifact) -> Result<&HostCode, HostError> {
    let available = cpu::features();
    let mut needs = Vec::new();
    for target in &artifact.manifest().targets {
        let missing = cpu::missing_features(target, &available);
        if missing.is_empty() {
            match cpu::enable_features(target) {
                Ok(()) => return Ok(target),
                Err(error) => needs.push(format!("{}: {error}", target.name)),
            }
        } else {
            needs.push(format!("{} needs {}", target.name, missing.join(", ")));
        }
    }
    if needs.is_empty() {
        needs.push("it has code for no CPU at all".to_owned());
    }
    Err(HostError::NoTarget {
        path: artifact.path().display().to_string(),
        needs: needs.join("; "),
        suggestion: cpu::best_level(&available),
    })
}

impl Code {
    /// Loads the shared object of a target through a file in memory.
    pub fn load(artifact: &Artifact, target: &HostCode) -> Result<Code, HostError> {
        let path = artifact.path().display().to_string();
        let failed = |detail: String| HostError::Code { path: path.clone(), target: target.name.clone(), detail };
        let bytes =
            artifact.tensor(&target.tensor).ok_or_else(|| failed(format!("there is no tensor `{}`", target.tensor)))?;
        let mut file = memory_file().map_err(|error| failed(format!("no file in memory: {error}")))?;
        file.write_all(bytes).map_err(|error| failed(format!("writing to memory: {error}")))?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the bytes are those that the compiler wrote (their hash was checked on opening);
        // its shared objects run no code on loading.
        let library =
            unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| failed(error.to_string()))?;
        Ok(Code { library, _file: file, path, target: target.name.clone() })
    }

    /// A program's entry point. It must not be called after this value is dropped.
    pub fn entry(&self, symbol: &str) -> Result<StepFunction, HostError> {
        // SAFETY: the compiler gives every entry point this type (llmc_ir::abi).
        unsafe { self.library.get::<StepFunction>(symbol.as_bytes()) }.map(|symbol| *symbol).map_err(|error| {
            HostError::Code { path: self.path.clone(), target: self.target.clone(), detail: error.to_string() }
        })
    }
}

/// An empty file that exists in memory only and may hold code.
fn memory_file() -> io::Result<File> {
    /// Linux 6.3 wants to be told whether a memory file may be executed; older kernels reject this.
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |flags| {
        // SAFETY: the name is a null-terminated string.
        unsafe { libc::memfd_create(c"llmrt-code".as_ptr(), flags) }
    };
    let mut descriptor = create(libc::MFD_CLOEXEC | MFD_EXEC);
    if descriptor < 0 {
        descriptor = create(libc::MFD_CLOEXEC);
    }
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
