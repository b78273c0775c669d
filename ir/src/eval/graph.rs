//! Runs the nodes of one graph.

use super::ops::{apply, rounded};
use super::value::{KvCache, Tensor, Value, sizes};
use super::{EvalError, Mode, StepInputs, Weights};
use crate::decompose;
use crate::dim::Bindings;
use crate::graph::{Graph, NodeId};
use crate::op::{Attention, KvPart, Op};
use crate::shape::{TensorType, Type};
use crate::text::NodeNames;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a graph is run with, beside its inputs.
pub(super) struct Environment<'a> {
    pub step: &'a StepInputs,
    pub bindings: Bindings,
    pub weights: &'a Weights<'a>,
    pub mode: Mode,
}

impl<'a> Environment<'a> {
    pub(super) fn new(step: &'a StepInputs, weights: &'a Weights<'a>, mode: Mode) -> Result<Self, EvalError> {
        step.check().map_err(|message| EvalError::new("step inputs", message))?;
        Ok(Environment { step, bindings: step.bindings(), weights, mode })
    }
}

/// The values of `wanted`, in that order. Errors are at nodes.
pub(super) fn run(
    graph: &Graph,
    inputs: &[Value],
    wanted: &[NodeId],
    names: &NodeNames,
    environment: &Environment<'_>,
) -> Result<Vec<Value>, EvalError> {
    let mut uses: BTreeMap<NodeId, usize> = BTreeMap::new();
    let order = graph.topological();
    for &operand in order.iter().flat_map(|&node| graph.operands(node)).collect::<Vec<_>>().iter().chain(wanted) {
        *uses.entry(operand).or_default() += 1;
    }
    let mut values: BTreeMap<NodeId, Cow<'_, Value>> = BTreeMap::new();
    for node in order {
        let op = graph.op(node);
        let failed = |message| EvalError::new(format!("{} = {}", names.get(node), op.name()), message);
        let operand_ids = graph.operands(node);
        let operands: Vec<&Value> = operand_ids.iter().filter_map(|id| values.get(id).map(Cow::as_ref)).collect();
        let value = evaluate(op, graph.ty(node), &operands, inputs, environment).map_err(failed)?;
        for operand in operand_ids {
            release(&mut uses, &mut values, operand);
        }
        if uses.contains_key(&node) {
            values.insert(node, value);
        }
    }
    let result = |node: &NodeId| values.get(node).map(|value| value.as_ref().clone());
    let missing = || EvalError::new("results", "a result is not a node of the graph");
    wanted.iter().map(|node| result(node).ok_or_else(missing)).collect()
}

/// Drops the value of `node` behind its last use.
fn release(uses: &mut BTreeMap<NodeId, usize>, values: &mut BTreeMap<NodeId, Cow<'_, Value>>, node: NodeId) {
    if let Some(count) = uses.get_mut(&node) {
        *count -= 1;
        if *count == 0 {
            values.remove(&node);
        }
    }
}

fn evaluate<'v>(
    op: &Op,
    ty: &Type,
    operands: &[&Value],
    inputs: &'v [Value],
    environment: &Environment<'_>,
) -> Result<Cow<'v, Value>, String> {
    let Environment { step, bindings, weights, mode } = environment;
    let value = match (op, operands) {
        (Op::Input { index, .. }, _) => {
            let value = inputs.get(*index).ok_or_else(|| format!("there is no input {index}"))?;
            check_input(value, ty, bindings)?;
            return Ok(Cow::Borrowed(value));
        }
        (Op::Step(input), _) => step.tensor(*input).into(),
        (Op::Weight { name, .. }, _) => {
            let tensor = weights(name).ok_or_else(|| format!("there is no weight `{name}`"))?;
            weight(tensor, ty, environment).map_err(|error| format!("weight `{name}`: {error}"))?.into()
        }
        (Op::KvWrite { part }, [Value::Kv(cache), Value::Tensor(rows)]) => {
            let mut cache = cache.clone();
            kv_write(&mut cache, *part, rows, step)?;
            Value::Kv(cache)
        }
        (Op::Attend(attention), [Value::Tensor(query), Value::Kv(cache)]) => {
            let ty = ty.as_tensor().ok_or("attend results in a tensor")?;
            attend(attention, ty, query, cache, environment)?.into()
        }
        (op, operands) => {
            let ty = ty.as_tensor().ok_or_else(|| format!("expected a tensor, found {ty}"))?;
            let tensors: Option<Vec<_>> = operands.iter().map(|value| value.as_tensor()).collect();
            apply(op, ty, &tensors.ok_or("expected tensors, found a cache")?, bindings, *mode)?.into()
        }
    };
    Ok(Cow::Owned(value))
}

fn check_input(value: &Value, ty: &Type, bindings: &Bindings) -> Result<(), String> {
    match (value, ty) {
        (Value::Kv(_), Type::Kv(_)) => Ok(()),
        (Value::Tensor(tensor), Type::Tensor(expected)) => {
            let sizes = sizes(&expected.shape, bindings)?;
            if tensor.sizes() != sizes || tensor.dtype() != expected.dtype {
                let found = format!("{}{:?}", tensor.dtype(), tensor.sizes());
                return Err(format!("expected {expected}, that is sizes {sizes:?}, found {found}"));
            }
            Ok(())
        }
        (Value::Kv(_), Type::Tensor(_)) => Err(format!("expected {ty}, found a KV cache")),
        (Value::Tensor(_), Type::Kv(_)) => Err(format!("expected {ty}, found a tensor")),
    }
}

/// Takes a weight for its type: the element type may differ in what holds it, the sizes may not.
pub(super) fn weight(tensor: Tensor, ty: &Type, environment: &Environment<'_>) -> Result<Tensor, String> {
    let ty = ty.as_tensor().ok_or("a weight is a tensor")?;
    let sizes = sizes(&ty.shape, &environment.bindings)?;
    if tensor.sizes() != sizes {
        return Err(format!("expected {ty}, found sizes {:?}", tensor.sizes()));
    }
    Tensor::new(ty.dtype, sizes, rounded(tensor.into_data(), ty.dtype, environment.mode))
}

/// Stores rows at their sequences' positions.
fn kv_write(cache: &mut KvCache, part: KvPart, rows: &Tensor, step: &StepInputs) -> Result<(), String> {
    let width = rows.sizes().get(1).copied().unwrap_or(0);
    let store = match part {
        KvPart::Key => &mut cache.keys,
        KvPart::Value => &mut cache.values,
    };
    for (sequence, range) in step.sequences() {
        let stored = store.entry(sequence).or_default();
        let start = step.positions[range.start] as usize * width;
        if start > stored.len() {
            let found = stored.len().checked_div(width).unwrap_or(0);
            let wanted = step.positions[range.start];
            return Err(format!("sequence {sequence} has {found} positions in the cache, the step starts at {wanted}"));
        }
        let rows = &rows.data()[range.start * width..range.end * width];
        stored.resize(stored.len().max(start + rows.len()), 0.0);
        stored[start..start + rows.len()].copy_from_slice(rows);
    }
    Ok(())
}

/// Runs the definition of attention for each sequence.
fn attend(
    attention: &Attention,
    ty: &TensorType,
    query: &Tensor,
    cache: &KvCache,
    environment: &Environment<'_>,
) -> Result<Tensor, String> {
    let step = environment.step;
    let width = query.sizes().get(1).copied().unwrap_or(0);
    let head_dim = width.checked_div(attention.heads).unwrap_or(0);
    let kv_width = head_dim * attention.kv_heads;
    let definition = decompose::attend(attention, head_dim, ty.dtype)?;
    let names = NodeNames::of_function(&definition);
    let mut data = Vec::with_capacity(query.data().len());
    for (sequence, rows) in step.sequences() {
        let positions = &step.positions[rows.clone()];
        let context = positions.last().map_or(0, |&last| last as usize + 1);
        let stored = |part: &BTreeMap<u64, Vec<f64>>, what: &str| {
            let rows = part.get(&sequence).map_or(&[][..], |rows| rows);
            let visible = rows.get(..context * kv_width).map(<[f64]>::to_vec).ok_or_else(|| {
                let found = rows.len().checked_div(kv_width).unwrap_or(0);
                format!("sequence {sequence} has {found} {what} in the cache, attention needs {context}")
            })?;
            Tensor::new(ty.dtype, vec![context, kv_width], visible)
        };
        let query_rows = query.data()[rows.start * width..rows.end * width].to_vec();
        let inputs = [
            Tensor::new(ty.dtype, vec![rows.len(), width], query_rows)?,
            stored(&cache.keys, "keys")?,
            stored(&cache.values, "values")?,
            Tensor::integers(positions),
        ]
        .map(Value::Tensor);
        let bindings = Bindings { tokens: rows.len(), samples: 0, sequences: 1, context };
        let environment = Environment { bindings, ..*environment };
        let results = run(&definition.graph, &inputs, &definition.results, &names, &environment);
        let results = results.map_err(|error| error.to_string())?;
        data.extend(results.iter().filter_map(Value::as_tensor).flat_map(Tensor::data));
    }
    Tensor::new(ty.dtype, query.sizes().to_vec(), data)
}
