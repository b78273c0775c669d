//! The architectures that llmc knows, by the names that config.json uses.

use crate::config::ModelConfig;
use crate::{llama, mistral, qwen2};
use llmc_ir::builder::Numerics;
use llmc_ir::module::Module;
use std::fmt;

/// A model definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// Llama 1 to 3 and what copies them (SmolLM2, ...).
    Llama,
    /// Mistral 7B: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on queries, keys and values.
    Qwen2,
}

impl Architecture {
    /// Every architecture, in alphabetical order.
    pub const ALL: [Architecture; 3] = [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2];

    /// The entry in `architectures`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    /// The `model_type` that belongs to it.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
        }
    }

    /// A configuration that is as small as possible and still has everything the architecture has: several layers,
    /// grouped heads, every kind of layer.
    pub fn tiny(self) -> ModelConfig {
        match self {
            Architecture::Llama => llama::tiny(),
            Architecture::Mistral => mistral::tiny(),
            Architecture::Qwen2 => qwen2::tiny(),
        }
    }

    /// The definition.
    pub(crate) fn define(self, config: &ModelConfig, numerics: Numerics) -> Result<Module, String> {
        match self {
            Architecture::Llama => llama::module(config, numerics),
            Architecture::Mistral => mistral::module(config, numerics),
            Architecture::Qwen2 => qwen2::module(config, numerics),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
