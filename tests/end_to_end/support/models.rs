//! Checkpoints, and artifacts compiled from them once per test run.

use super::binaries::{compile, succeeds};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

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

/// An artifact of a checkpoint, compiled with the given flags by the first test that wants it.
pub fn artifact(checkpoint: &Path, flags: &[&str]) -> PathBuf {
    type Artifacts = BTreeMap<PathBuf, Arc<OnceLock<()>>>;
    static ARTIFACTS: Mutex<Artifacts> = Mutex::new(BTreeMap::new());
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end_to_end");
    let path = directory.join(format!("{name}{}.llmc", flags.concat().replace(',', "+")));
    let made = ARTIFACTS.lock().unwrap().entry(path.clone()).or_default().clone();
    made.get_or_init(|| {
        std::fs::create_dir_all(&directory).unwrap();
        succeeds(compile(checkpoint, &path).args(flags));
    });
    path
}
