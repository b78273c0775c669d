//! Qwen2 and Qwen2.5 (Yang et al., 2024): Llama's layer with biases on queries, keys and values; the upper layers may have
//! a sliding window.

use crate::architecture::Architecture;
use crate::blocks::decoder::decoder;
use crate::config::{ModelConfig, RopeConfig, RopeScaling};
use crate::llama::{self, Biases};
use llmc_ir::builder::{Bias, Numerics};
use llmc_ir::module::Module;

/// The model.
pub fn module(config: &ModelConfig, numerics: Numerics) -> Result<Module, String> {
    let biases = Biases { qkv: Bias::Present, output: Bias::Absent, mlp: Bias::Absent };
    decoder(config, numerics, move |b, config, inputs, window| llama::layer(b, config, inputs, window, biases))
}

/// Llama's with tied embeddings and both kinds of layers.
pub fn tiny() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        rope: RopeConfig { theta: 1_000_000.0, scaling: RopeScaling::None },
        tied_embeddings: true,
        windows: vec![None, None, Some(24)],
        ..llama::tiny()
    }
}
