//! Why a compilation stops.

use llmc_artifact::ArtifactError;
use llmc_codegen::error::CodegenError;
use llmc_models::ModelError;
use llmc_models::checkpoint::CheckpointError;
use llmc_models::config::ConfigError;
use llmc_models::weights::WeightsError;
use llmc_passes::pipeline::PipelineError;
use std::path::PathBuf;

/// Everything that can end a compilation early. Nothing of the artifact is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The checkpoint's files cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// config.json or a file beside it cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration contradicts itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tensors are not those of the model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer does not load.
    #[error("{} is not a usable tokenizer: {detail}; download it again, or remove it to compile without a tokenizer", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A limit that the model or the compiler does not allow.
    #[error("{0}")]
    Limit(String),
    /// A weight does not fit the element type that it is compiled to.
    #[error("weight `{name}` holds {value:e}, which is infinite in {dtype}; compile with --dtype f32")]
    Overflow {
        /// Its checkpoint key.
        name: String,
        /// The first such value.
        value: f32,
        /// The element type.
        dtype: String,
    },
    /// A pass failed, was misnamed, or an instrument objected.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// No code can be made.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// A dump cannot be written.
    #[error("cannot write {}: {source}; give another directory", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Code that is to be measured does not load.
    #[error(
        "cannot load compiled code to measure it: {0}; make room in TMPDIR or name another directory, or leave out --tune"
    )]
    Measurement(String),
    /// The artifact cannot be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The user pressed Ctrl-C.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl CompileError {
    /// Whether the user's input is at fault, as opposed to the machine or the compiler.
    pub fn is_input(&self) -> bool {
        match self {
            CompileError::Checkpoint(_)
            | CompileError::Config(_)
            | CompileError::Model(_)
            | CompileError::Weights(_)
            | CompileError::Tokenizer { .. }
            | CompileError::Limit(_)
            | CompileError::Overflow { .. }
            | CompileError::Codegen(CodegenError::UnknownTarget { .. } | CodegenError::UnknownGpu { .. })
            | CompileError::Pipeline(PipelineError::UnknownPass { .. } | PipelineError::NotOptional { .. }) => true,
            CompileError::Pipeline(_)
            | CompileError::Codegen(_)
            | CompileError::Dump { .. }
            | CompileError::Measurement(_)
            | CompileError::Artifact(_)
            | CompileError::Interrupted => false,
        }
    }
}
