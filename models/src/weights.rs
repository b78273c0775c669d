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
/// Returns warnings. Values are not looked at: whoever reads them does.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use llmc_ir::dtype::DType;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};

    type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

    /// The tensors that tiny Llama wants, all zero, after `change`.
    fn check(config: &ModelConfig, change: impl FnOnce(&mut Tensors)) -> Result<Vec<String>, String> {
        let module = crate::build(config, Numerics::new(DType::BF16)).unwrap();
        let zeros = |ty: TensorType| {
            let shape: Vec<usize> = ty.shape.0.iter().map(|dim| dim.coefficient).collect();
            let bytes = vec![0; 2 * shape.iter().product::<usize>()];
            (Dtype::BF16, shape, bytes)
        };
        let mut tensors = expected_weights(&module).into_iter().map(|(name, ty)| (name, zeros(ty))).collect();
        change(&mut tensors);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &path).unwrap();
        check_checkpoint(config, &module, &Checkpoint::open(&path).unwrap()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Tensors), expected: &[&str]) {
        let error = check(&Architecture::Llama.tiny(), change).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    fn row() -> (Dtype, Vec<usize>, Vec<u8>) {
        (Dtype::BF16, vec![4], vec![1; 8])
    }

    #[test]
    fn a_fitting_checkpoint_passes() {
        assert_eq!(check(&Architecture::Llama.tiny(), |_| {}), Ok(vec![]));
        let buffer = |tensors: &mut Tensors| {
            tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), row());
        };
        assert_eq!(check(&Architecture::Llama.tiny(), buffer), Ok(vec![]));
    }

    #[test]
    fn missing_wrong_and_extra_tensors_are_all_named() {
        refused(
            |tensors| {
                tensors.remove("model.layers.1.mlp.up_proj.weight");
                tensors.get_mut("model.norm.weight").unwrap().1 = vec![24, 2];
                tensors.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), row());
            },
            &[
                "1 tensor missing: model.layers.1.mlp.up_proj.weight",
                "model.norm.weight has shape [24, 2], expected [48]",
                "1 tensor that LlamaForCausalLM has no use for: model.layers.0.self_attn.q_proj.bias",
            ],
        );
    }

    #[test]
    fn long_lists_are_cut() {
        refused(|tensors| tensors.retain(|name, _| !name.contains("layers.2")), &["9 tensors missing", "and 4 more"]);
    }

    #[test]
    fn unreadable_types_are_refused() {
        refused(
            |tensors| {
                let tensor = tensors.get_mut("model.norm.weight").unwrap();
                (tensor.0, tensor.2) = (Dtype::I16, vec![0; 96]);
            },
            &["model.norm.weight has element type I16"],
        );
    }

    #[test]
    fn a_missing_output_matrix_hints_at_tied_embeddings() {
        refused(|tensors| _ = tensors.remove(OUTPUT), &["lm_head.weight", "set tie_word_embeddings = true"]);
    }

    #[test]
    fn tied_embeddings_may_be_stored_twice_but_not_differently() {
        let tied = ModelConfig { tied_embeddings: true, ..Architecture::Llama.tiny() };
        let warnings = check(&tied, |tensors| _ = tensors.insert(OUTPUT.to_owned(), tensors[EMBEDDING].clone()));
        assert!(warnings.unwrap()[0].contains("lm_head.weight is ignored"));
        let other = |tensors: &mut Tensors| {
            let (dtype, shape, mut bytes) = tensors[EMBEDDING].clone();
            bytes[7] = 1;
            tensors.insert(OUTPUT.to_owned(), (dtype, shape, bytes));
        };
        assert!(check(&tied, other).unwrap_err().contains("differs from model.embed_tokens.weight"));
    }

    #[test]
    fn facts_count_shared_weights_once() {
        let config = ModelConfig { tied_embeddings: true, ..Architecture::Llama.tiny() };
        let module = crate::build(&config, Numerics::new(DType::F32)).unwrap();
        let limits = Limits { max_context: 64, max_batch: 4 };
        let layer = 48 * 64 * 2 + 48 * 32 * 2 + 3 * 48 * 80 + 2 * 48;
        let facts = facts(&config, &module, Numerics::new(DType::F32), limits);
        assert_eq!(facts.parameters, 96 * 48 + 48 + 3 * layer);
        assert_eq!((facts.layers, facts.hidden, facts.vocab, facts.max_batch), (3, 48, 96, 4));
    }
}
