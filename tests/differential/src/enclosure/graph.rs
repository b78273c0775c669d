//! Runs the nodes of one graph on intervals.

use super::error::{self, Mode};
use super::ops::{apply, arrange};
use super::{Enclosed, EnclosedCache, Enclosure};
use llmc_ir::decompose;
use llmc_ir::eval::{KvCache, StepInputs, Tensor, Weights};
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::{Attention, KvPart, Op};
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use llmc_ir::shape::TensorType;
use std::collections::BTreeMap;

/// What a graph is run with, beside its inputs.
pub(super) struct Environment<'a> {
    pub step: &'a StepInputs,
    pub weights: &'a Weights<'a>,
    pub mode: Mode,
    /// What attention multiplies values with.
    pub attention_weights: error::PositionWeights,
}

/// A function's results, and per argument what its cache holds afterwards.
type Results = (Vec<Enclosed>, Vec<Option<EnclosedCache>>);

/// Runs a function.
pub(super) fn run_function(
    function: &Function,
    args: Vec<Enclosed>,
    environment: &Environment<'_>,
) -> Result<Results, String> {
    let graph = &function.graph;
    let mut caches: Vec<Option<EnclosedCache>> = args
        .iter()
        .map(|arg| match arg {
            Enclosed::Kv(cache) => Some(cache.clone()),
            Enclosed::Tensor(_) => None,
        })
        .collect();
    let mut values: BTreeMap<NodeId, Enclosed> = BTreeMap::new();
    for node in graph.topological() {
        let operands: Vec<&Enclosed> = graph.operands(node).iter().map(|operand| &values[operand]).collect();
        let value = evaluate(graph, node, &operands, &args, environment)
            .map_err(|error| format!("@{}, {}: {error}", function.name, graph.op(node).name()))?;
        if let (Op::KvWrite { .. }, Enclosed::Kv(cache)) = (graph.op(node), &value) {
            // Later writes come later: the last one leaves the whole cache.
            caches[cache_param(graph, node)] = Some(cache.clone());
        }
        values.insert(node, value);
    }
    Ok((function.results.iter().map(|result| values[result].clone()).collect(), caches))
}

fn cache_param(graph: &Graph, mut node: NodeId) -> usize {
    loop {
        match graph.op(node) {
            Op::Input { index, .. } => return *index,
            _ => node = graph.operands(node)[0],
        }
    }
}

fn evaluate(
    graph: &Graph,
    node: NodeId,
    operands: &[&Enclosed],
    args: &[Enclosed],
    environment: &Environment<'_>,
) -> Result<Enclosed, String> {
    let step = environment.step;
    match (graph.op(node), operands) {
        (Op::Input { index, .. }, _) => Ok(args[*index].clone()),
        (Op::KvWrite { part }, [Enclosed::Kv(cache), Enclosed::Tensor(rows)]) => {
            let mut cache = cache.clone();
            write(&mut cache.low, *part, &rows.low, rows.sizes[1], step);
            write(&mut cache.high, *part, &rows.high, rows.sizes[1], step);
            Ok(Enclosed::Kv(cache))
        }
        (Op::Attend(attention), [Enclosed::Tensor(query), Enclosed::Kv(cache)]) => {
            let ty = graph.ty(node).as_tensor().ok_or("attend results in a tensor")?;
            attend(attention, ty, query, cache, environment).map(Enclosed::Tensor)
        }
        (op, operands) => {
            let ty = graph.ty(node).as_tensor().ok_or("expected a tensor")?;
            let tensors: Option<Vec<&Enclosure>> = operands
                .iter()
                .map(|operand| match operand {
                    Enclosed::Tensor(tensor) => Some(tensor),
                    Enclosed::Kv(_) => None,
                })
                .collect();
            let tensors = tensors.ok_or("expected tensors, found a cache")?;
            let result = match op {
                op if op.is_leaf() => Enclosure::exact(&arrange(op, &[], environment.step, environment.weights)?),
                op => apply(op, ty, &tensors, environment)?,
            };
            Ok(Enclosed::Tensor(result))
        }
    }
}

fn write(cache: &mut KvCache, part: KvPart, rows: &[f64], width: usize, step: &StepInputs) {
    let store = match part {
        KvPart::Key => &mut cache.keys,
        KvPart::Value => &mut cache.values,
    };
    for (sequence, range) in step.sequences() {
        let stored = store.entry(sequence).or_default();
        let start = step.positions[range.start] as usize * width;
        let rows = &rows[range.start * width..range.end * width];
        stored.resize(stored.len().max(start + rows.len()), 0.0);
        stored[start..start + rows.len()].copy_from_slice(rows);
    }
}

/// Runs the definition of attention for each sequence.
fn attend(
    attention: &Attention,
    ty: &TensorType,
    query: &Enclosure,
    cache: &EnclosedCache,
    environment: &Environment<'_>,
) -> Result<Enclosure, String> {
    let width = query.sizes[1];
    let head_dim = width / attention.heads;
    let kv_width = head_dim * attention.kv_heads;
    let definition = decompose::attend(attention, head_dim, ty.dtype)?;
    let mut result = Enclosure { low: Vec::new(), high: Vec::new(), ..query.clone() };
    for (sequence, rows) in environment.step.sequences() {
        let positions = &environment.step.positions[rows.clone()];
        let context = positions[positions.len() - 1] as usize + 1;
        let stored = |low: &BTreeMap<u64, Vec<f64>>, high: &BTreeMap<u64, Vec<f64>>| Enclosure {
            dtype: ty.dtype,
            sizes: vec![context, kv_width],
            low: low[&sequence][..context * kv_width].to_vec(),
            high: high[&sequence][..context * kv_width].to_vec(),
        };
        let part = rows.start * width..rows.end * width;
        let args = vec![
            Enclosure {
                dtype: ty.dtype,
                sizes: vec![rows.len(), width],
                low: query.low[part.clone()].to_vec(),
                high: query.high[part].to_vec(),
            },
            stored(&cache.low.keys, &cache.high.keys),
            stored(&cache.low.values, &cache.high.values),
            Enclosure::exact(&Tensor::integers(positions)),
        ];
        // The definition's sizes are those of one sequence.
        let step = StepInputs::one_sequence(context - rows.len(), &vec![0; rows.len()]);
        let attention_weights = environment.attention_weights;
        let rescalings = context.div_ceil(KV_BLOCK_POSITIONS);
        let mode = Mode::Attention { rescalings, weights: attention_weights };
        let environment = Environment { step: &step, weights: &|_| None, mode, attention_weights };
        let args = args.into_iter().map(Enclosed::Tensor).collect();
        let (results, _) = run_function(&definition, args, &environment)?;
        let [Enclosed::Tensor(mixed)] = &results[..] else { return Err("attention results in a tensor".into()) };
        result.low.extend(&mixed.low);
        result.high.extend(&mixed.high);
    }
    Ok(result)
}
