//! generation_config.json: how the model's authors want text to be sampled.

use super::fields::Fields;
use super::{ConfigError, json_object, read_optional};
use std::path::Path;

/// Defaults for sampling; what is absent is for the runtime to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Beginning-of-sequence token.
    pub bos: Option<u32>,
    /// Tokens that end a reply.
    pub eos: Vec<u32>,
    /// Padding token.
    pub pad: Option<u32>,
    /// Whether to sample at all; greedy if false.
    pub do_sample: Option<bool>,
    /// Logits are divided by it.
    pub temperature: Option<f64>,
    /// Only the k most likely tokens are candidates.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that have this probability together are candidates.
    pub top_p: Option<f64>,
    /// Only tokens with at least this part of the most likely one's probability are candidates.
    pub min_p: Option<f64>,
    /// How much less likely tokens become that occurred before; 1 is not at all.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` in a model's directory; without the file everything is absent.
    ///
    /// # Errors
    /// See [`ConfigError`]: the file cannot be read, or fields have the wrong type.
    pub fn load(directory: &Path) -> Result<GenerationConfig, ConfigError> {
        let path = directory.join("generation_config.json");
        match read_optional(&path)? {
            Some(text) => GenerationConfig::parse(&text, &path),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// Reads the file's text; `path` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<GenerationConfig, ConfigError> {
        let object = json_object(text, path)?;
        let fields = Fields::new(&object, "");
        let zero_is_off = |name: &str| match fields.value(name).and_then(|value| value.as_f64()) {
            Some(0.0) => None,
            _ => fields.positive(name),
        };
        let config = GenerationConfig {
            bos: fields.token("bos_token_id"),
            eos: fields.tokens("eos_token_id"),
            pad: fields.token("pad_token_id"),
            do_sample: fields.boolean("do_sample"),
            temperature: fields.value("temperature").and_then(|value| match value.as_f64() {
                Some(0.0) => Some(0.0),
                _ => fields.positive("temperature"),
            }),
            top_k: fields
                .value("top_k")
                .filter(|value| value.as_u64() != Some(0))
                .and_then(|_| fields.size("top_k", usize::MAX)),
            top_p: zero_is_off("top_p"),
            min_p: zero_is_off("min_p"),
            repetition_penalty: fields.positive("repetition_penalty"),
        };
        match fields.into_problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::Invalid { path: path.to_path_buf(), problems }),
        }
    }
}
