//! Makes a shared object of an object file with the system's linker.

use crate::error::CodegenError;
use std::process::Command;

/// Links one relocatable object into a shared object that needs nothing but libc.
pub fn link(object: &[u8]) -> Result<Vec<u8>, CodegenError> {
    let failed = |reason: String| CodegenError::Link { reason };
    let directory = tempfile::tempdir().map_err(|e| failed(format!("no temporary directory: {e}")))?;
    let (input, output) = (directory.path().join("model.o"), directory.path().join("model.so"));
    std::fs::write(&input, object).map_err(|e| failed(format!("{}: {e}", input.display())))?;
    let common = ["-shared", "-o"];
    let attempts: [(&str, &[&str]); 2] = [
        ("cc", &["-nostdlib", "-Wl,--build-id=none", "-Wl,-z,noexecstack"]),
        ("ld", &["--build-id=none", "-z", "noexecstack"]),
    ];
    let mut reasons = Vec::new();
    for (linker, options) in attempts {
        match Command::new(linker).args(common).arg(&output).args(options).arg(&input).output() {
            Ok(done) if done.status.success() => {
                return std::fs::read(&output).map_err(|e| failed(format!("{}: {e}", output.display())));
            }
            Ok(done) => reasons.push(format!("{linker}: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Err(error) => reasons.push(format!("{linker}: {error}")),
        }
    }
    Err(failed(reasons.join("; ")))
}
