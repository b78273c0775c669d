//! What can be wrong with a checkpoint; every message names the file, the expectation and the fix.

use std::io;
use std::path::PathBuf;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}; check the path and its permissions", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The action that failed, as a verb.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory, pipe or device where a file is needed.
    #[error("{} is not a regular file; give a safetensors file, a shard index or a model directory", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// The path exists but is not a checkpoint, or a directory without one.
    #[error("{}: {problem}; {fix}", path.display())]
    NotACheckpoint {
        /// What was given.
        path: PathBuf,
        /// What was looked for and what is there.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// The bytes are not a complete, consistent safetensors file.
    #[error("{} is not a valid safetensors file: {problem}; download or convert it again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The shard index is malformed or disagrees with the shards.
    #[error("{} is not a valid shard index: {problem}; download the checkpoint again", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The index names a file that is not there.
    #[error("{} needs the shard {}, which does not exist; download the missing shard into the same directory", index.display(), shard.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The file it names.
        shard: PathBuf,
    },
    /// A tensor is needed whose element type cannot be read.
    #[error("{}: tensor {tensor} has element type {dtype}, but only F32, F16 and BF16 weights are supported; convert the checkpoint to BF16", path.display())]
    DType {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The type's name in the safetensors format.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor {tensor} holds {value} at flat index {index}, but all weights must be finite; the file is damaged or its training diverged, download it again", path.display())]
    NotFinite {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Flat (row-major) index of the first such value.
        index: usize,
        /// The value: NaN, inf or -inf.
        value: f32,
    },
}
