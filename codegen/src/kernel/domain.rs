//! The iteration space of a region: rows, and within a row groups of consecutive elements.
//!
//! What is only indexing (views of inputs, and maps of weights and literals) is computed wherever it is read and may
//! have any shape. All other nodes walk over the same rows, of which each has `columns` elements, as many as groups
//! times their size, or one.

use llmc_ir::dim::Dim;
use llmc_ir::graph::NodeId;
use llmc_ir::op::Op;
use llmc_ir::region::{Part, Region, Source};
use llmc_ir::shape::{Shape, Type};
use std::collections::BTreeSet;

/// Rows of `groups * inner` columns. Without any group axis there is one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Number of rows.
    pub rows: Dim,
    /// Groups per row, such as heads.
    pub groups: usize,
    /// Elements per group, such as `head_dim`; `None` without groups.
    pub inner: Option<usize>,
}

impl Domain {
    /// The domain of a part of a region, or why its nodes do not share one.
    pub fn of(region: &Region, part: &Part) -> Result<Domain, String> {
        let body = &region.body;
        let free = indexing(region);
        let left = region.prologue().map(|prologue| prologue.left);
        let mut rows: Option<Dim> = None;
        let mut groups: Option<usize> = None;
        let mut columns = 1;
        let mut heads: Option<(usize, usize)> = None;
        let mut reduces = false;
        for &node in &part.nodes {
            if free.contains(&node) && !region.outputs.contains(&node) && left != Some(node) {
                continue;
            }
            reduces |= matches!(body.op(node), Op::Reduce { .. });
            if let (Op::KvWrite { .. }, Type::Kv(kv)) = (body.op(node), body.ty(node)) {
                heads = Some((kv.heads, kv.head_dim));
            }
            for shape in shapes(region, node) {
                let (first, inner) = row_of(shape)?;
                if *rows.get_or_insert(first) != first {
                    return Err(format!("rows differ: {first} in {shape}, else {}", rows.unwrap_or(first)));
                }
                columns = columns.max(inner.iter().product());
                if let [found, _] = inner[..]
                    && *groups.get_or_insert(found) != found
                {
                    return Err(format!("{shape} has other groups than the rest of its kernel"));
                }
            }
        }
        // Heads are as good as groups where nothing else asks for whole rows or for other groups.
        if let (None, Some((count, size)), false) = (groups, heads, reduces)
            && count * size == columns
        {
            groups = Some(count);
        }
        let rows = rows.ok_or("a region without outputs")?;
        Ok(Domain { rows, groups: groups.unwrap_or(1), inner: groups.map(|count| columns / count.max(1)) })
    }
}

/// Nodes that are read from memory at whatever index is asked for.
fn indexing(region: &Region) -> BTreeSet<NodeId> {
    let body = &region.body;
    let (mut free, mut invariant) = (BTreeSet::new(), BTreeSet::new());
    for node in body.topological() {
        let op = body.op(node);
        let operands = body.operands(node);
        let all = |set: &BTreeSet<NodeId>| operands.iter().all(|operand| set.contains(operand));
        let is_weight = matches!(op, Op::Input { index, .. } if matches!(region.inputs[*index], Source::Weight(_)));
        let constant =
            is_weight || matches!(op, Op::Constant { .. } | Op::Iota { .. }) || (op.is_map() && all(&invariant));
        let view = matches!(op, Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Convert { .. });
        if constant {
            invariant.insert(node);
        }
        if constant || op.is_leaf() || (view && all(&free)) {
            free.insert(node);
        }
    }
    free
}

/// The shapes that a node walks over: its result's, and what it reduces or stores.
fn shapes(region: &Region, node: NodeId) -> Vec<&Shape> {
    let body = &region.body;
    let nodes = match body.op(node) {
        Op::Reduce { .. } => vec![node, body.operands(node)[0]],
        Op::KvWrite { .. } => vec![body.operands(node)[1]],
        _ => vec![node],
    };
    nodes.into_iter().filter_map(|node| Some(&body.ty(node).as_tensor()?.shape)).collect()
}

/// The row axis and the sizes of the others.
fn row_of(shape: &Shape) -> Result<(Dim, Vec<usize>), String> {
    let (first, rest) = shape.0.split_first().ok_or_else(|| format!("{shape} has no rows"))?;
    let inner: Option<Vec<usize>> = rest.iter().map(|dim| dim.as_fixed()).collect();
    match inner {
        Some(inner) if inner.len() <= 2 => Ok((*first, inner)),
        _ => Err(format!("{shape} does not have rows of at most two fixed axes")),
    }
}
