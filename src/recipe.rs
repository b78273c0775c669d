//! Weights that no checkpoint has: computed from those that it has by the interpreter, in the types of the recipe.

use crate::error::CompileError;
use llmc_ir::eval::{Mode, StepInputs, Tensor, Value, eval_function};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_models::checkpoint::Checkpoint;
use std::collections::BTreeMap;

/// The elements of a weight in row-major order.
///
/// # Errors
/// If one of the tensors that it is made of is missing or not finite, or if the recipe's arithmetic does not work out.
pub fn compute(name: &str, recipe: &Function, checkpoint: &Checkpoint) -> Result<Vec<f32>, CompileError> {
    let mut tensors: BTreeMap<&str, Tensor> = BTreeMap::new();
    for node in recipe.graph.topological() {
        let (Op::Weight { name, .. }, Some(ty)) = (recipe.graph.op(node), recipe.graph.ty(node).as_tensor()) else {
            continue;
        };
        let missing = || CompileError::Limit(format!("weight `{name}` is not in the checkpoint"));
        let tensor = checkpoint.tensor(name).ok_or_else(missing)?;
        let mut values = Vec::new();
        tensor.read_f32(0..tensor.elements(), &mut values)?;
        let data = values.into_iter().map(|value| ty.dtype.round(f64::from(value))).collect();
        tensors.insert(name, Tensor::new(ty.dtype, tensor.shape.to_vec(), data).map_err(CompileError::Limit)?);
    }
    let failed = |detail: String| CompileError::Limit(format!("weight `{name}` cannot be computed: {detail}"));
    let weights = |name: &str| tensors.get(name).cloned();
    let results = eval_function(recipe, &mut [], &weights, &StepInputs::batch(&[]), Mode::AsTyped);
    match results.map_err(|error| failed(error.to_string()))?.pop() {
        Some(Value::Tensor(tensor)) => Ok(tensor.into_data().into_iter().map(|value| value as f32).collect()),
        _ => Err(failed("its recipe returns no tensor".into())),
    }
}
