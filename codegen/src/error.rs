//! What can go wrong while code is made.

use std::io;
use std::path::PathBuf;

/// Errors of code generation.
#[derive(Debug, thiserror::Error)]
pub enum CodegenError {
    /// A target that no code can be made for.
    #[error("unknown target `{name}`; known targets: {known}")]
    UnknownTarget {
        /// As asked for.
        name: String,
        /// What may be asked for.
        known: String,
    },
    /// No such GPU architecture.
    #[error("there is no GPU target `{name}`; targets: {known} (newer GPUs run code for these)")]
    UnknownGpu {
        /// As asked for.
        name: String,
        /// What may be asked for.
        known: String,
    },
    /// A region that the templates cannot express.
    #[error("program `{program}`, kernel `{kernel}`: {reason}")]
    Kernel {
        /// Name of the program.
        program: String,
        /// Name of the kernel.
        kernel: String,
        /// What is not supported.
        reason: String,
    },
    /// LLVM refused what codegen made: a bug of this compiler.
    #[error("LLVM could not {stage} the generated code (please report this with the model's config.json): {message}")]
    Llvm {
        /// What LLVM was doing.
        stage: &'static str,
        /// LLVM's words.
        message: String,
    },
    /// The linker failed.
    #[error(
        "linking the native code failed: {reason}; llmc needs a C toolchain's `cc` or `ld` (Debian: apt install gcc)"
    )]
    Link {
        /// What happened.
        reason: String,
    },
    /// The linker's files could not be written or read.
    #[error("cannot keep {} while linking: {source}; make room, or set TMPDIR to another directory", path.display())]
    Temporary {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A weight that cannot be packed.
    #[error("weight `{name}`: {reason}")]
    Weight {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong.
        reason: String,
    },
}
