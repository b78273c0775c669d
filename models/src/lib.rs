//! llmc-models: which models llmc knows, and how their checkpoints are read.
//!
//! A model directory becomes a module of tensor IR and the tensors that its weights are:
//!
//! ```text
//! config.json ──config──▶ ModelConfig ──llama, mistral, qwen2──▶ llmc_ir::module::Module
//! *.safetensors ──checkpoint──▶ Checkpoint ──weights──▶ "they fit", or what does not
//! model.gguf ──gguf──▶ a model directory
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`config`] | config.json and its neighbours, typed and checked |
//! | [`architecture`] | the architectures that are known, by name |
//! | [`llama`], [`mistral`], [`qwen2`] | one definition each, and its `tiny()` configuration |
//! | [`blocks`] | parts that definitions share |
//! | [`weights`] | what a module wants from a checkpoint |
//! | [`checkpoint`] | safetensors files, mapped and distrusted |
//! | [`gguf`] | GGUF files, turned into model directories |
//!
//! To add a model: a file beside `llama.rs`, a variant in [`architecture::Architecture`], its fields in `config/parse.rs`.

pub mod architecture;
pub mod blocks;
pub mod checkpoint;
pub mod config;
pub mod gguf;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod weights;

use config::ModelConfig;
use llmc_ir::builder::Numerics;
use llmc_ir::module::Module;

/// A configuration that its architecture cannot be built with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot build {architecture}: {message}; check the sizes in config.json")]
pub struct ModelError {
    /// The architecture's name.
    pub architecture: &'static str,
    /// The first mistake, with the function it is in.
    pub message: String,
}

/// The module of a model: `embed`, one function per kind of layer, `head`, and the calls of a step.
///
/// # Errors
/// [`ModelError`] if the configuration contradicts itself; those that [`ModelConfig::parse`] returns do not.
pub fn build(config: &ModelConfig, numerics: Numerics) -> Result<Module, ModelError> {
    let architecture = config.architecture;
    let failed = |message| ModelError { architecture: architecture.name(), message };
    architecture.define(config, numerics).map_err(failed)
}
