//! A model's files, read and checked against each other: everything that a compilation starts from.

use crate::error::CompileError;
use llmc_artifact::{GenerationDefaults, TokenizerFacts, Vocabulary};
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::module::Module;
use llmc_models::checkpoint::{Checkpoint, CheckpointDType};
use llmc_models::config::{GenerationConfig, ModelConfig, TokenizerConfig};
use llmc_models::weights::check_checkpoint;
use std::io::ErrorKind;
use std::path::Path;

/// A checkpoint with its configuration, its definition and its tokenizer.
#[derive(Debug)]
pub struct Model {
    /// What config.json says.
    pub config: ModelConfig,
    /// The element types that it is compiled to.
    pub numerics: Numerics,
    /// The definition, built for the configuration.
    pub module: Module,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// `None`: the checkpoint has no tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// How the model's authors recommend to generate.
    pub generation: GenerationDefaults,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
}

/// What the passes start from: a model without its weights.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// What config.json says.
    pub config: &'a ModelConfig,
    /// The element types that it is compiled to.
    pub numerics: Numerics,
    /// The definition, built for the configuration.
    pub module: &'a Module,
}

/// A tokenizer as it goes into the artifact.
#[derive(Debug)]
pub struct Tokenizer {
    /// tokenizer.json, without what is in `vocabulary`.
    pub json: Vec<u8>,
    /// Tokens and merges as a table; `None`: they stay in tokenizer.json.
    pub vocabulary: Option<Vec<u8>>,
    /// What it needs besides.
    pub facts: TokenizerFacts,
}

impl Model {
    /// Reads `model.safetensors`, a shard index, or the directory of either, with the configuration beside it.
    ///
    /// # Errors
    /// If a file is missing, damaged or not understood, or they do not belong together. Values of weights are not looked
    /// at: that happens while they are packed.
    pub fn load(path: &Path, dtype: DType) -> Result<Model, CompileError> {
        let checkpoint = Checkpoint::open(path)?;
        let directory = checkpoint.directory();
        let parsed = ModelConfig::load(directory)?;
        let config = parsed.config;
        let mut warnings = parsed.warnings;
        let numerics = Numerics { stored: stored_type(&checkpoint, dtype), ..Numerics::new(dtype) };
        let module = llmc_models::build(&config, numerics)?;
        warnings.extend(check_checkpoint(&config, &module, &checkpoint)?);
        let tokenizer = read_tokenizer(directory, &config, &mut warnings)?;
        let generation = generation_defaults(&config, &GenerationConfig::load(directory)?);
        Ok(Model { config, numerics, module, checkpoint, tokenizer, generation, warnings })
    }

    /// Without the weights.
    pub fn definition(&self) -> Definition<'_> {
        Definition { config: &self.config, numerics: self.numerics, module: &self.module }
    }
}

/// The type in which weight matrices are kept: that of the checkpoint where it is a narrower form of the same values.
fn stored_type(checkpoint: &Checkpoint, dtype: DType) -> DType {
    let tensors = checkpoint.names().filter_map(|name| checkpoint.tensor(name));
    let mut matrices = tensors.filter(|tensor| tensor.shape.len() == 2);
    match matrices.all(|tensor| tensor.dtype == CheckpointDType::BF16) {
        true if dtype == DType::F32 => DType::BF16,
        _ => dtype,
    }
}

fn read_tokenizer(
    directory: &Path,
    config: &ModelConfig,
    warnings: &mut Vec<String>,
) -> Result<Option<Tokenizer>, CompileError> {
    let path = directory.join("tokenizer.json");
    let unusable = |detail: String| CompileError::Tokenizer { path: path.clone(), detail };
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            warnings.push(format!(
                "there is no tokenizer.json in {}: the artifact runs with --prompt-ids only",
                directory.display()
            ));
            return Ok(None);
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let loaded = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| unusable(error.to_string()))?;
    let size = loaded.get_vocab_size(true);
    if size > config.vocab {
        warnings.push(format!(
            "{} knows {size} tokens, the model {}: prompts that need the others are refused",
            path.display(),
            config.vocab
        ));
    }
    let facts = TokenizerConfig::load(directory)?;
    let facts = TokenizerFacts {
        chat_template: facts.chat_template,
        bos_token: facts.bos,
        eos_token: facts.eos,
        pad_token: facts.pad,
        unk_token: facts.unk,
    };
    let (json, vocabulary) = match Vocabulary::split(&json) {
        Some((vocabulary, rest)) => (rest, Some(vocabulary.to_bytes())),
        None => (json, None),
    };
    Ok(Some(Tokenizer { json, vocabulary, facts }))
}

/// What generation_config.json says, completed with what config.json says.
fn generation_defaults(config: &ModelConfig, generation: &GenerationConfig) -> GenerationDefaults {
    let eos = if generation.eos.is_empty() { &config.eos } else { &generation.eos };
    GenerationDefaults {
        bos_token_id: generation.bos.or(config.bos),
        eos_token_ids: eos.clone(),
        temperature: generation.temperature.map(|value| value as f32),
        top_k: generation.top_k.and_then(|value| u32::try_from(value).ok()),
        top_p: generation.top_p.map(|value| value as f32),
        min_p: generation.min_p.map(|value| value as f32),
        repetition_penalty: generation.repetition_penalty.map(|value| value as f32),
        do_sample: generation.do_sample,
    }
}
