//! Mistral (Jiang et al., "Mistral 7B", 2023): Llama's layer without biases, every layer with the same sliding window.

use crate::architecture::Architecture;
use crate::blocks::decoder::decoder;
use crate::config::ModelConfig;
use crate::llama::{self, Biases};
use llmc_ir::builder::{Bias, Numerics};
use llmc_ir::module::Module;

/// The model.
pub fn module(config: &ModelConfig, numerics: Numerics) -> Result<Module, String> {
    let biases = Biases { qkv: Bias::Absent, output: Bias::Absent, mlp: Bias::Absent };
    decoder(config, numerics, move |b, config, inputs, window| llama::layer(b, config, inputs, window, biases))
}

/// Llama's with a window shorter than most prompts.
pub fn tiny() -> ModelConfig {
    ModelConfig { architecture: Architecture::Mistral, windows: vec![Some(24); 3], ..llama::tiny() }
}
