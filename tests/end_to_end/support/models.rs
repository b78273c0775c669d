//! Checkpoints, and artifacts compiled from them once per test run.

use super::binaries::{compile, succeeds};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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
/// their own, so a lock file decides which is the first, and the system unlocks it however that one ends. What it made
/// stays until the compiler or the checkpoint changes: both are in its name, under which `llmc` puts only what is whole.
pub fn artifact(checkpoint: &Path, flags: &[&str]) -> PathBuf {
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end_to_end");
    std::fs::create_dir_all(&directory).unwrap();
    let stem = format!("{name}{}.", flags.concat().replace(',', "+"));
    let lock = File::create(directory.join(format!("{stem}lock"))).unwrap();
    lock.lock().unwrap();
    let path = directory.join(format!("{stem}{}.llmc", key(checkpoint)));
    if !path.is_file() {
        // Outdated ones, which are large.
        let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
        for file in files.filter(|file| file.file_name().to_str().is_some_and(|name| name.starts_with(&stem))) {
            if file.path().extension() == path.extension() {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
        succeeds(compile(checkpoint, &path).args(flags));
    }
    path
}

/// What an artifact depends on beside flags: the compiler, by its bytes, since every build has a new time; and the
/// checkpoint, by the sizes and times of its files, which are large.
fn key(checkpoint: &Path) -> String {
    static COMPILER: OnceLock<blake3::Hash> = OnceLock::new();
    let compiler = COMPILER
        .get_or_init(|| blake3::Hasher::new().update_mmap_rayon(env!("CARGO_BIN_EXE_llmc")).unwrap().finalize());
    let mut files: Vec<String> = std::fs::read_dir(checkpoint)
        .unwrap()
        .map(|entry| {
            let (entry, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
            let metadata = path.metadata().unwrap();
            format!("{} {} {:?}", entry.display(), metadata.len(), metadata.modified().unwrap())
        })
        .collect();
    files.sort();
    let all = format!("{compiler}\n{}", files.join("\n"));
    blake3::hash(all.as_bytes()).to_hex()[..16].to_owned()
}
