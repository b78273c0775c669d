//! What can be wrong with an artifact, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an artifact could not be read or written.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried, such as `open`.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a compiled model: {detail}", path.display())]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
        /// What it looks like instead.
        detail: String,
    },
    /// The file (or directory) is what the compiler takes.
    #[error(
        "{} is a checkpoint, not a compiled model: compile it first with `llmc compile {}`",
        path.display(),
        path.display()
    )]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file ends too early.
    #[error(
        "{} is truncated: it should have {expected} bytes and has {actual}; copy it again or recompile",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Size that its header speaks of.
        expected: u64,
        /// Size that it has.
        actual: u64,
    },
    /// Bytes are not what was written.
    #[error("{} is corrupted: {detail}; copy it again or recompile", path.display())]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// Which part, and how it shows.
        detail: String,
    },
    /// Written by another version of the compiler.
    #[error(
        "{} has format version {found}, this program reads version {}: recompile it with the `llmc` \
         that belongs to this `llmrt`",
        path.display(),
        crate::FORMAT_VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its manifest.
        found: u32,
    },
    /// Manifest and tensors do not fit together.
    #[error("{}: inconsistent contents: {detail}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What is missing or does not fit.
        detail: String,
    },
    /// The bytes given to the writer do not fit the entries announced to it.
    #[error("writing {}: entry `{entry}` was announced with {expected} bytes, {actual}", path.display())]
    Entry {
        /// The file being written.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// Its size according to [`crate::Entry`].
        expected: u64,
        /// What came instead.
        actual: String,
    },
}

/// What to do about an error of the operating system, where its own words leave that open.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path and that its directory exists",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check its permissions or use another place"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; make room or use another place"
        }
        _ => "",
    }
}

impl ArtifactError {
    /// For `map_err` on I/O.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ArtifactError + 'a {
        move |source| ArtifactError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn corrupted(path: &Path, detail: impl Into<String>) -> ArtifactError {
        ArtifactError::Corrupted { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn inconsistent(path: &Path, detail: impl Into<String>) -> ArtifactError {
        ArtifactError::Inconsistent { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn not_an_artifact(path: &Path, detail: impl Into<String>) -> ArtifactError {
        ArtifactError::NotAnArtifact { path: path.to_owned(), detail: detail.into() }
    }
}
