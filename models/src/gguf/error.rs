//! What can go wrong in an import; every message names the file, the expectation and the fix.

use std::io;
use std::path::{Path, PathBuf};

/// Why a GGUF file cannot be imported. Nothing is left in the output directory then.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}; check the path, its permissions and the free space", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The action that failed, as a verb.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes are not a complete, consistent GGUF file.
    #[error("{} is not a valid GGUF file: {problem}; download it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The file is well formed but holds something that cannot be converted faithfully.
    #[error("cannot import {}: {problem}; {fix}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, by name.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// The caller ended it.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// A [`GgufError`] whose file is known only further up.
#[derive(Debug)]
pub(super) enum Problem {
    /// The bytes contradict the format or themselves.
    Malformed(String),
    /// Not covered here: what, and what to do.
    Unsupported(String, String),
}

impl Problem {
    /// Names the file.
    pub(super) fn in_file(self, path: &Path) -> GgufError {
        let path = path.to_path_buf();
        match self {
            Problem::Malformed(problem) => GgufError::Malformed { path, problem },
            Problem::Unsupported(problem, fix) => GgufError::Unsupported { path, problem, fix },
        }
    }
}

/// Shorthand for [`Problem::Malformed`].
pub(super) fn malformed<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Malformed(problem.into()))
}

/// Shorthand for [`Problem::Unsupported`].
pub(super) fn unsupported<T>(problem: impl Into<String>, fix: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Unsupported(problem.into(), fix.into()))
}
