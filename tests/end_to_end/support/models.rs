//! Checkpoints, and artifacts compiled from them once per test run.

use super::binaries::{compile, succeeds};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The tiny checkpoints of the repository.
pub const TINY: [&str; 5] = ["llama", "llama_rope_llama3", "llama_tied", "mistral", "qwen2"];

/// The directory of a tiny checkpoint.
pub fn tiny(name: &str) -> PathBuf {
    fixtures().join("tiny").join(name)
}

/// Data of the tests.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The directory of SmolLM2-135M-Instruct, as `llmc import` made it of the published GGUF.
pub fn smollm2() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/models/SmolLM2-135M-Instruct");
    assert!(
        directory.join("model.safetensors").is_file(),
        "{} is not there: run `./x test`, which fetches the model before the tests",
        directory.display()
    );
    directory
}

/// An artifact of a checkpoint, compiled with the given flags by the first test that wants it. Tests may be processes of
/// their own, so a lock file decides which is the first; what it made stays until the compiler or the checkpoint changes.
pub fn artifact(checkpoint: &Path, flags: &[&str]) -> PathBuf {
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end_to_end");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{name}{}.llmc", flags.concat().replace(',', "+")));
    let lock = File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !is_newer_than_all(&path, checkpoint) {
        succeeds(compile(checkpoint, &path).args(flags));
    }
    path
}

/// Whether an artifact is there and was made after the compiler and every file of the checkpoint.
fn is_newer_than_all(artifact: &Path, checkpoint: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let Ok(made) = modified(artifact) else { return false };
    let sources = std::fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path());
    let mut sources = sources.chain([PathBuf::from(env!("CARGO_BIN_EXE_llmc"))]);
    sources.all(|source| modified(&source).unwrap() < made)
}
