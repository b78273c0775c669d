//! The iteration space of a region: rows, and within a row groups of consecutive elements.

use llmc_ir::dim::Dim;
use llmc_ir::graph::Graph;
use llmc_ir::op::Op;
use llmc_ir::region::{Part, Region};
use llmc_ir::shape::Type;

/// Rows of `groups * inner` columns. Without any reshape into groups there is one group.
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
        let mut rows: Option<Dim> = None;
        let mut factors: Option<(usize, usize)> = None;
        for output in part.outputs.iter().map(|&output| region.outputs[output]) {
            let node = match body.op(output) {
                Op::KvWrite { .. } => body.operands(output)[1],
                _ => output,
            };
            let found = first_dim(body.ty(node));
            match (rows, found) {
                (_, None) => return Err(format!("{} has no rows", body.ty(node))),
                (Some(known), Some(found)) if known != found => {
                    return Err(format!("rows differ: {known} and {found}"));
                }
                (_, Some(found)) => rows = Some(found),
            }
        }
        for &node in &part.nodes {
            let found = match body.op(node) {
                Op::KvWrite { .. } => match body.ty(node) {
                    Type::Kv(kv) => Some((kv.heads, kv.head_dim)),
                    Type::Tensor(_) => None,
                },
                Op::Reshape { .. } => factors_of(body, node),
                _ => None,
            };
            match (factors, found) {
                (Some(known), Some(found)) if known != found => {
                    return Err(format!("rows are grouped as {known:?} and as {found:?}"));
                }
                (None, Some(_)) => factors = found,
                _ => {}
            }
        }
        let rows = rows.ok_or("a region without outputs")?;
        Ok(match factors {
            Some((groups, inner)) => Domain { rows, groups, inner: Some(inner) },
            None => Domain { rows, groups: 1, inner: None },
        })
    }
}

/// `(g, d)` of a reshape between `[rows, g*d]` and `[rows, g, d]`.
fn factors_of(body: &Graph, node: llmc_ir::graph::NodeId) -> Option<(usize, usize)> {
    let of = |ty: &Type| ty.as_tensor().map(|tensor| tensor.shape.0.clone()).unwrap_or_default();
    let (from, to) = (of(body.ty(body.operands(node)[0])), of(body.ty(node)));
    let (flat, grouped) = if from.len() < to.len() { (from, to) } else { (to, from) };
    if flat.len() != 2 || grouped.len() != 3 || flat[0] != grouped[0] || grouped[1] == Dim::fixed(1) {
        return None;
    }
    Some((grouped[1].as_fixed()?, grouped[2].as_fixed()?))
}

fn first_dim(ty: &Type) -> Option<Dim> {
    ty.as_tensor()?.shape.0.first().copied()
}
