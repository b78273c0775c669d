//! Makes a shared object of object files with the system's linker.

use crate::error::CodegenError;
use std::path::Path;
use std::process::Command;

/// Links relocatable objects into a shared object that needs nothing but libc.
pub fn link(objects: &[Vec<u8>]) -> Result<Vec<u8>, CodegenError> {
    let temporary = |path: &Path, source| CodegenError::Temporary { path: path.to_owned(), source };
    let directory = tempfile::tempdir().map_err(|source| temporary(&std::env::temp_dir(), source))?;
    let output = directory.path().join("model.so");
    let inputs: Vec<_> = (0..objects.len()).map(|number| directory.path().join(format!("model.{number}.o"))).collect();
    for (input, object) in inputs.iter().zip(objects) {
        std::fs::write(input, object).map_err(|source| temporary(input, source))?;
    }
    let common = ["-shared", "-o"];
    let attempts: [(&str, &[&str]); 2] = [
        ("cc", &["-nostdlib", "-Wl,--build-id=none", "-Wl,-z,noexecstack"]),
        ("ld", &["--build-id=none", "-z", "noexecstack"]),
    ];
    let mut reasons = Vec::new();
    for (linker, options) in attempts {
        match Command::new(linker).args(common).arg(&output).args(options).args(&inputs).output() {
            Ok(done) if done.status.success() => {
                return std::fs::read(&output).map_err(|source| temporary(&output, source));
            }
            Ok(done) => reasons.push(format!("{linker}: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Err(error) => reasons.push(format!("{linker}: {error}")),
        }
    }
    Err(CodegenError::Link { reason: reasons.join("; ") })
}
