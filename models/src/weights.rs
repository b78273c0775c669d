//! What a module wants from a checkpoint, and whether a checkpoint has it.

use crate::checkpoint::{Checkpoint, CheckpointDType};
use crate::config::ModelConfig;
use llmc_ir::builder::Numerics;
use llmc_ir::module::Module;
use llmc_ir::op::Op;
use llmc_ir::plan::ModelFacts;
use llmc_ir::shape::{Shape, TensorType, Type};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A checkpoint that does not belong to the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint in {} does not fit its config.json: {}", directory.display(), problems.join("; "))]
pub struct WeightsError {
    /// Where it lies.
    pub directory: PathBuf,
    /// Every kind of problem, with the first few tensors that have it.
    pub problems: Vec<String>,
}

/// Every tensor that the module's calls read, by its full checkpoint key. The element type is the one it is computed
/// in, whatever the checkpoint stores.
pub fn expected_weights(module: &Module) -> BTreeMap<String, TensorType> {
    let mut weights = BTreeMap::new();
    for call in &module.calls {
        let Some(function) = module.function(&call.function) else { continue };
        for node in function.graph.topological() {
            if let Op::Weight { name, ty: Type::Tensor(tensor) } = function.graph.op(node) {
                weights.insert(Module::weight_key(&call.scope, name), tensor.clone());
            }
        }
    }
    weights
}

/// Checks that the checkpoint has every tensor of the module in its shape and a readable element type, and no others.
/// Returns warnings. Values are not looked at: see [`crate::checkpoint::check_finite`].
///
/// Buffers that old versions of transformers saved are fine, and so is an output matrix beside tied embeddings if it is
/// the embedding table byte by byte.
///
/// # Errors
/// Names missing tensors, wrong shapes and types, and tensors that the model has no use for.
pub fn check_checkpoint(
    config: &ModelConfig,
    module: &Module,
    checkpoint: &Checkpoint,
) -> Result<Vec<String>, WeightsError> {
    let expected = expected_weights(module);
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for (name, ty) in &expected {
        let Some(found) = checkpoint.tensor(name) else {
            missing.push(name.clone());
            continue;
        };
        if !ty.shape.0.iter().map(|dim| dim.as_fixed()).eq(found.shape.iter().map(|&size| Some(size))) {
            wrong.push(format!("{name} has shape {}, expected {}", Shape::of(&found.shape), ty.shape));
        }
        if let CheckpointDType::Unsupported(_) = found.dtype {
            wrong.push(format!("{name} has element type {}, expected BF16, F16 or F32", found.dtype));
        }
    }
    let mut warnings = Vec::new();
    let mut extra = Vec::new();
    for name in checkpoint.names().filter(|name| !expected.contains_key(*name)) {
        if name == OUTPUT && config.tied_embeddings {
            match (checkpoint.tensor(OUTPUT), checkpoint.tensor(EMBEDDING)) {
                (Some(output), Some(embedding))
                    if output.bytes != embedding.bytes || output.shape != embedding.shape =>
                {
                    wrong.push(format!(
                        "{OUTPUT} differs from {EMBEDDING} though config.json says tie_word_embeddings = true; set it to false if both are meant"
                    ));
                }
                _ => warnings.push(format!("{OUTPUT} is ignored: it equals {EMBEDDING}, and embeddings are tied")),
            }
        } else if !HARMLESS.iter().any(|suffix| name.ends_with(suffix)) {
            extra.push(name.to_owned());
        }
    }
    let mut problems = Vec::new();
    if !missing.is_empty() {
        let hint =
            if missing == [OUTPUT] { " (if it is the embedding table, set tie_word_embeddings = true)" } else { "" };
        problems.push(format!("{} missing: {}{hint}", counted(missing.len()), first_few(&missing)));
    }
    if !wrong.is_empty() {
        problems.push(first_few(&wrong));
    }
    if !extra.is_empty() {
        problems.push(format!(
            "{} that {} has no use for: {}",
            counted(extra.len()),
            config.architecture,
            first_few(&extra)
        ));
    }
    match problems.is_empty() {
        true => Ok(warnings),
        false => Err(WeightsError { directory: checkpoint.directory().to_path_buf(), problems }),
    }
}

/// The facts that an artifact states about the model.
pub fn facts(config: &ModelConfig, module: &Module, numerics: Numerics, limits: Limits) -> ModelFacts {
    let count = |ty: &TensorType| ty.shape.elements().and_then(|elements| elements.as_fixed()).unwrap_or(0) as u64;
    ModelFacts {
        architecture: config.architecture.name().to_owned(),
        dtype: numerics.matrix,
        vocab: config.vocab,
        hidden: config.hidden,
        layers: config.layers(),
        max_context: limits.max_context,
        max_batch: limits.max_batch,
        parameters: expected_weights(module).values().map(count).sum(),
    }
}

/// What an artifact is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most positions that a sequence may have.
    pub max_context: usize,
    /// The most sequences in one step.
    pub max_batch: usize,
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";

/// Ends of the names of buffers that follow from the configuration.
const HARMLESS: &[&str] = &["rotary_emb.inv_freq"];

fn counted(tensors: usize) -> String {
    if tensors == 1 { "1 tensor".to_owned() } else { format!("{tensors} tensors") }
}

/// The first entries of a list and how many more there are.
fn first_few(entries: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = entries[..entries.len().min(SHOWN)].join(", ");
    match entries.len() - entries.len().min(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}
