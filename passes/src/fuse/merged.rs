//! Merged products: `dot(x, concat(w, v, ...))` of weights.
//!
//! The parts of a joined weight stay where they are in memory, so the product becomes one dot per part again, with the
//! demand that one kernel computes them all.

use crate::rebuild::rebuild;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use std::collections::BTreeMap;

/// A function without merged products, and the dots that each of them became.
pub(super) fn split(function: &Function) -> (Function, Vec<Vec<NodeId>>) {
    let mut split = function.clone();
    let mut parts: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let rebuilt = rebuild(&mut split, |graph, op, operands| match op {
        Op::Dot { left: 1, right: 1, batch: 0, .. } => {
            let weights = joined_weights(graph, operands[1]);
            if weights.is_empty() {
                return graph.add(op, operands);
            }
            let dots: Result<Vec<NodeId>, String> =
                weights.iter().map(|&weight| graph.add(op.clone(), &[operands[0], weight])).collect();
            let dots = dots?;
            let whole = graph.add(Op::Concat { axis: 1 }, &dots)?;
            parts.insert(whole, dots);
            Ok(whole)
        }
        Op::Slice { axis: 1, start, end } => match part(graph, &parts, operands[0], start, end) {
            Some((dot, 0, size)) if size == width(graph, dot) => Ok(dot),
            Some((dot, start, end)) => graph.add(Op::Slice { axis: 1, start, end }, &[dot]),
            None => graph.add(op, operands),
        },
        op => graph.add(op, operands),
    });
    match rebuilt {
        Ok(()) => (split, parts.into_values().collect()),
        // A copy of a well-typed function is well-typed; if it were not, the verifier would say so of the original.
        Err(_) => (function.clone(), Vec::new()),
    }
}

/// The weights that a concatenation along the rows joins.
fn joined_weights(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    // Only weights are known well enough for a rule to join their rows.
    if *graph.op(node) == (Op::Concat { axis: 0 }) { graph.operands(node) } else { Vec::new() }
}

/// The dot that columns `start..end` of a merged product lie in, and where in it.
fn part(
    graph: &Graph,
    parts: &BTreeMap<NodeId, Vec<NodeId>>,
    whole: NodeId,
    start: usize,
    end: usize,
) -> Option<(NodeId, usize, usize)> {
    let mut first = 0;
    for &dot in parts.get(&whole)? {
        let next = first + width(graph, dot);
        if first <= start && end <= next {
            return Some((dot, start - first, end - first));
        }
        first = next;
    }
    None
}

fn width(graph: &Graph, node: NodeId) -> usize {
    graph.ty(node).as_tensor().and_then(|ty| ty.shape.0.last()?.as_fixed()).unwrap_or(0)
}
