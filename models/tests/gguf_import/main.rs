//! GGUF files written here are imported, and what comes out is read by the libraries that users read it with.

mod hostile;
mod model;
mod tokenizer;
mod writer;

use std::path::{Path, PathBuf};

use llmc_models::gguf::{GgufError, ImportSummary, import};
use serde_json::Value;
use tempfile::TempDir;
use writer::Writer;

/// An import's result and the directory it went to.
struct Imported {
    directory: TempDir,
    summary: ImportSummary,
}

impl Imported {
    fn path(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn json(&self, name: &str) -> Value {
        let text = std::fs::read(self.path().join(name)).expect("the file was written");
        serde_json::from_slice(&text).expect("it is JSON")
    }
}

fn try_import(directory: &Path, file: &[u8]) -> Result<ImportSummary, GgufError> {
    let gguf = directory.join("model.gguf");
    std::fs::write(&gguf, file).expect("the temporary directory is writable");
    import(&gguf, &directory.join("out"), &mut |_, _| true)
}

fn imported(writer: &Writer) -> Imported {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let summary = try_import(directory.path(), &writer.finish()).expect("the file is good");
    Imported { directory, summary }
}

/// The message for a bad file; checks that it names the file and that nothing is left behind.
fn refused(file: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let error = try_import(directory.path(), file).expect_err("the file is bad").to_string();
    assert!(error.contains("model.gguf"), "{error} does not name the file");
    assert!(!directory.path().join("out").exists(), "{error}, but the output directory is there");
    error
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}
