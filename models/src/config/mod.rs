//! What config.json says about a model, typed and checked.
//!
//! Both forms in circulation are read: the classic one of transformers 4 and that of transformers 5
//! (`rope_parameters`, `dtype`, `layer_types`). What would change the model's results and is not implemented is an
//! error that names the field; fields that are unknown altogether are warnings.
//!
//! | file | idea |
//! |---|---|
//! | `fields` | a JSON object read field by field, keeping every mistake |
//! | `parse`  | the fields of each architecture and their defaults |
//! | `rope`   | rotary embeddings and their scalings |
//! | `generation` | generation_config.json |
//! | `tokenizer`  | tokenizer_config.json and chat templates |

mod fields;
mod generation;
mod parse;
mod rope;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use generation::GenerationConfig;
pub use rope::{RopeConfig, RopeScaling};
pub use tokenizer::TokenizerConfig;

use crate::architecture::Architecture;
use llmc_ir::dtype::DType;
use std::io;
use std::path::{Path, PathBuf};

/// A decoder model's sizes and choices.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which definition it is.
    pub architecture: Architecture,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head; even.
    pub head_dim: usize,
    /// Added to the mean square in norms.
    pub norm_epsilon: f64,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// The most positions that the model was made for.
    pub max_positions: usize,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// Whether all four projections of attention have biases (Llama; others have their own rules).
    pub attention_bias: bool,
    /// Whether the projections of the feed-forward block have biases.
    pub mlp_bias: bool,
    /// Per layer the sliding window of its attention in positions, the own one included; none sees everything.
    pub windows: Vec<Option<usize>>,
    /// Element type of the checkpoint, if it is said.
    pub dtype: Option<DType>,
    /// Beginning-of-sequence token, if there is one.
    pub bos: Option<u32>,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
}

/// A configuration and what is odd about the file without being wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What the file says.
    pub config: ModelConfig,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused.
    #[error("cannot read {}: {source}; a model directory needs this file beside its weights", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Not a JSON object of reasonable size.
    #[error("{} is not a JSON object: {problem}; download it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the position.
        problem: String,
    },
    /// Fields are missing, wrong, or ask for something that is not implemented.
    #[error("{}: {}", path.display(), problems.join("; "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem, each naming its field.
        problems: Vec<String>,
    },
}

impl ModelConfig {
    /// Reads `config.json` in a model's directory.
    ///
    /// # Errors
    /// See [`ConfigError`]; all problems of the file are reported together.
    pub fn load(directory: &Path) -> Result<Parsed, ConfigError> {
        ModelConfig::read(&directory.join("config.json"))
    }

    /// Reads a config.json under whatever name.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn read(path: &Path) -> Result<Parsed, ConfigError> {
        ModelConfig::parse(&read(path)?, path)
    }

    /// Reads the text of a config.json; `path` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<Parsed, ConfigError> {
        parse::parse(&json_object(text, path)?)
            .map_err(|problems| ConfigError::Invalid { path: path.to_path_buf(), problems })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }
}

/// A hostile file must not fill the memory; real ones have a few kilobytes, or some megabytes with every added
/// token of a tokenizer listed.
const LARGEST_FILE: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_path_buf(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > LARGEST_FILE {
        let problem = format!("it has {size} bytes, expected at most {LARGEST_FILE}");
        return Err(ConfigError::Json { path: path.to_path_buf(), problem });
    }
    std::fs::read_to_string(path).map_err(io)
}

/// As [`read`], but a file that does not exist is none.
fn read_optional(path: &Path) -> Result<Option<String>, ConfigError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(ConfigError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn json_object(text: &str, path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, ConfigError> {
    serde_json::from_str(text)
        .map_err(|error| ConfigError::Json { path: path.to_path_buf(), problem: error.to_string() })
}
