//! The iteration spaces that one kernel can have.
//!
//! A region walks over rows (axis 0). Per row its values have the same number of columns `n`, or are factored as
//! `[groups, d]` with `groups * d == n` (slices along `d` included), or are single numbers. A reduction takes all
//! `n` columns or the `d` of each group, never both in one region. The parts of a merged dot region ([`Region::parts`])
//! each have their own columns.

use llmc_ir::dim::Dim;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, Region, Source};
use llmc_ir::shape::{Shape, Type};
use std::collections::BTreeSet;

/// Whether `nodes` can be computed by one kernel with that anchor. Operands that are not among them are in memory
/// (or are indexing into memory) and may have any shape.
pub(super) fn check(anchor: Anchor, graph: &Graph, nodes: &BTreeSet<NodeId>) -> Result<(), String> {
    let mut space = Space::default();
    for &node in nodes {
        check_op(anchor, graph, node, nodes).map_err(|error| describe(graph, node, &error))?;
        for shape in shapes(graph, node) {
            space.note(shape).map_err(|error| describe(graph, node, &error))?;
        }
        space.note_reduction(graph, node).map_err(|error| describe(graph, node, &error))?;
    }
    for &node in nodes {
        for shape in shapes(graph, node) {
            space.accept(anchor, shape).map_err(|error| describe(graph, node, &error))?;
        }
        if let Op::Reduce { .. } = graph.op(node) {
            space.accept_reduction(anchor, graph, node).map_err(|error| describe(graph, node, &error))?;
        }
    }
    Ok(())
}

/// The same for a finished region, whose inputs are in memory.
pub(super) fn check_body(region: &Region) -> Result<(), String> {
    if region.anchor == Anchor::Weights {
        return Ok(());
    }
    let body = &region.body;
    let prologue = region.prologue();
    let left = prologue.as_ref().map(|prologue| prologue.left);
    let mut indexing: BTreeSet<NodeId> = BTreeSet::new();
    let mut invariant: BTreeSet<NodeId> = BTreeSet::new();
    let mut nodes = BTreeSet::new();
    for node in body.topological() {
        let op = body.op(node);
        let operands = body.operands(node);
        let is_weight = matches!(op, Op::Input { index, .. } if matches!(region.inputs[*index], Source::Weight(_)));
        let from_weights = op.is_map() && operands.iter().all(|operand| invariant.contains(operand));
        if is_weight || matches!(op, Op::Constant { .. } | Op::Iota { .. }) || from_weights {
            invariant.insert(node);
        }
        let from_memory = is_view(op) && operands.iter().all(|operand| indexing.contains(operand));
        let free = op.is_leaf() || from_weights || from_memory;
        if free {
            indexing.insert(node);
        }
        if !free || region.outputs.contains(&node) || left == Some(node) {
            nodes.insert(node);
        }
        if let Op::Dot { .. } = op {
            let weight = operands[1];
            let packed = matches!(body.op(weight), Op::Input { index, .. }
                if matches!(region.inputs[*index], Source::Weight(_)));
            if !packed {
                return Err(describe(body, node, "its right operand must be a weight of the checkpoint"));
            }
        }
    }
    for part in region.parts() {
        check(region.anchor, body, &part.nodes.intersection(&nodes).copied().collect())?;
    }
    match prologue {
        Some(prologue) => check(Anchor::Rows, body, &prologue.nodes.intersection(&nodes).copied().collect()),
        None => Ok(()),
    }
}

/// Whether an operation with one operand only moves or rounds elements.
pub(super) fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Convert { .. })
}

#[derive(Default)]
struct Space {
    rows: Option<Dim>,
    columns: usize,
    groups: Option<usize>,
    whole_row_reduction: bool,
}

impl Space {
    fn note(&mut self, shape: &Shape) -> Result<(), String> {
        let rows = shape.0.first().copied().unwrap_or(Dim::fixed(1));
        if *self.rows.get_or_insert(rows) != rows {
            return Err(format!("{shape} has other rows than the rest of its kernel"));
        }
        let inner: Option<Vec<usize>> = shape.0.iter().skip(1).map(|dim| dim.as_fixed()).collect();
        let inner = inner.ok_or_else(|| format!("{shape} has a size beyond the rows that is not fixed"))?;
        if inner.len() > 2 {
            return Err(format!("{shape} has more than three axes"));
        }
        let columns = inner.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
        self.columns = self.columns.max(columns);
        if let [groups, _] = inner[..]
            && *self.groups.get_or_insert(groups) != groups
        {
            return Err(format!("{shape} is split into other groups than the rest of its kernel"));
        }
        Ok(())
    }

    fn note_reduction(&mut self, graph: &Graph, node: NodeId) -> Result<(), String> {
        if let Op::Reduce { .. } = graph.op(node) {
            self.whole_row_reduction |= shapes(graph, node).iter().any(|shape| shape.rank() == 2);
        }
        match (self.whole_row_reduction, self.groups) {
            (true, Some(_)) => Err("reductions of whole rows and values split into groups do not mix".into()),
            _ => Ok(()),
        }
    }

    fn accept(&self, anchor: Anchor, shape: &Shape) -> Result<(), String> {
        let fits = match shape.0[..] {
            [] | [_] => anchor == Anchor::Rows,
            [_, columns] => columns == Dim::fixed(self.columns) || (anchor == Anchor::Rows && columns == Dim::fixed(1)),
            [_, groups, size] => {
                let (groups, size) = (groups.coefficient, size.coefficient);
                groups > 0 && self.columns.is_multiple_of(groups) && size <= self.columns / groups
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("{shape} does not go with rows of {} columns", self.columns)) }
    }

    fn accept_reduction(&self, anchor: Anchor, graph: &Graph, node: NodeId) -> Result<(), String> {
        let complete = match shapes(graph, node)[1].0[..] {
            [_, columns] => anchor == Anchor::Rows && columns == Dim::fixed(self.columns),
            [_, groups, size] => groups.coefficient.saturating_mul(size.coefficient) == self.columns,
            _ => false,
        };
        if complete { Ok(()) } else { Err("a reduction takes whole rows (outside of dots), or whole groups".into()) }
    }
}

/// What an operation needs beside fitting shapes.
fn check_op(anchor: Anchor, graph: &Graph, node: NodeId, nodes: &BTreeSet<NodeId>) -> Result<(), String> {
    let op = graph.op(node);
    let operands = graph.operands(node);
    let in_memory = |operand: &NodeId| !nodes.contains(operand);
    let last = |axis: usize| graph.ty(node).as_tensor().is_some_and(|tensor| axis + 1 == tensor.shape.rank());
    match (op, anchor) {
        (Op::Dot { left: 1, right: 1, batch: 0, .. }, Anchor::Dot) => {
            let matrices = operands.iter().all(|&operand| rank(graph, operand) == 2);
            if !matrices || !operands.iter().all(in_memory) {
                return Err("it must be a product of rows in memory `[rows, k]` with a weight `[n, k]`".into());
            }
        }
        (Op::Dot { .. }, _) => return Err("it must contract the last axes of two matrices, without batch axes".into()),
        (Op::Attend(_), Anchor::Attend) => {}
        (Op::Gather, Anchor::Rows) if operands.iter().all(in_memory) => {}
        (Op::Reduce { axis, .. }, _) if last(*axis) => {}
        (Op::Slice { axis, .. } | Op::Concat { axis }, Anchor::Rows) if last(*axis) => {}
        (Op::Slice { axis: 2, .. } | Op::Concat { axis: 2 }, Anchor::Dot) if last(2) => {}
        (Op::Slice { .. } | Op::Concat { .. } | Op::Reduce { .. }, _) => {
            return Err("it must be along the last axis".into());
        }
        (Op::KvWrite { .. }, Anchor::Rows | Anchor::Dot) => {}
        (op, Anchor::Rows) if op.is_map() || op.is_leaf() => {}
        (op, Anchor::Dot) if op.is_map() => {}
        _ => return Err(format!("there is no {} kernel for it", anchor.name())),
    }
    Ok(())
}

/// The shapes that a node iterates over: its result's, and what it reduces or stores.
fn shapes(graph: &Graph, node: NodeId) -> Vec<&Shape> {
    let operands = graph.operands(node);
    let nodes = match graph.op(node) {
        Op::Reduce { .. } => vec![node, operands[0]],
        Op::KvWrite { .. } => vec![operands[1]],
        _ => vec![node],
    };
    nodes.into_iter().filter_map(|node| Some(&graph.ty(node).as_tensor()?.shape)).collect()
}

fn rank(graph: &Graph, node: NodeId) -> usize {
    graph.ty(node).as_tensor().map_or(0, |tensor| tensor.shape.rank())
}

fn describe(graph: &Graph, node: NodeId, error: &str) -> String {
    let types: Vec<_> = graph.operands(node).iter().map(|&operand| graph.ty(operand)).map(Type::to_string).collect();
    format!("{} ({}) -> {}: {error}", graph.op(node).name(), types.join(", "), graph.ty(node))
}
