//! What a dot region multiplies: rows that all its products share, and part by part weights and columns.

use super::common_divisor;
use super::domain::Domain;
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::plan::WeightLayout;
use llmc_ir::region::{Kernel, Part, Region};
use llmc_ir::shape::TensorType;

/// Rows of a panel of packed weights, and k of one of its blocks in bf16.
pub const PANEL: usize = 32;

/// The rows `[rows, k]` that all products of a region share.
#[derive(Clone, Debug)]
pub struct LeftOperand {
    /// Where they come from.
    pub source: LeftSource,
    /// Its element type.
    pub dtype: DType,
    /// Number of rows.
    pub rows: Dim,
    /// Length of a row.
    pub k: usize,
}

/// Where the rows that products share come from.
#[derive(Clone, Debug)]
pub enum LeftSource {
    /// An input of the region, by its index.
    Input(usize),
    /// The region computes them before it multiplies, row by row.
    Prologue(ComputedRows),
}

/// The rows that a region computes before it multiplies them.
#[derive(Clone, Debug)]
pub struct ComputedRows {
    /// The node that the rows are of.
    pub node: NodeId,
    /// What it is computed from; it has no outputs.
    pub part: Part,
    /// The iteration space of that.
    pub domain: Domain,
}

/// A product with a weight that lies in panels.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The dot.
    pub node: NodeId,
    /// Index of the weight among the region's inputs.
    pub weight: usize,
    /// The weight's element type.
    pub dtype: DType,
    /// Whether its panels are compressed.
    pub is_compressed: bool,
}

/// The products of a part, which all have the same columns.
#[derive(Clone, Debug)]
pub struct Products {
    /// The part's iteration space.
    pub domain: Domain,
    /// The products, in the order of their nodes.
    pub products: Vec<Product>,
    /// Columns of each: rows of its weight.
    pub n: usize,
    /// Columns that must stay together, in whole panels.
    pub unit: usize,
}

/// The left operand that all dots of a region share.
///
/// # Errors
/// If there is none, or its rows have no fixed size or cannot be computed row by row.
pub fn left_operand(region: &Region) -> Result<LeftOperand, String> {
    let body = &region.body;
    let nodes = body.topological();
    let mut lefts = nodes.iter().filter(|&&node| matches!(body.op(node), Op::Dot { .. })).map(|&node| {
        let plain = matches!(body.op(node), Op::Dot { left: 1, right: 1, batch: 0, .. });
        plain.then(|| body.operands(node)[0])
    });
    let Some(first) = lefts.next() else { return Err("a dot region without a dot".into()) };
    let node = match first {
        Some(left) if lefts.all(|other| other == Some(left)) => left,
        _ => return Err("dots of one region must multiply the same rows with rows of weights".into()),
    };
    let source = match (body.op(node), region.prologue()) {
        (Op::Input { index, .. }, _) => LeftSource::Input(*index),
        (_, Some(prologue)) => {
            let part = Part { outputs: Vec::new(), nodes: prologue.nodes };
            let domain = Domain::of(region, &part)?;
            LeftSource::Prologue(ComputedRows { node, part, domain })
        }
        (_, None) => return Err("only a region of products computes rows before it multiplies them".into()),
    };
    let ty = tensor(region, node)?;
    let k = ty.shape.0[1].as_fixed().ok_or("the rows of a dot's operands have fixed sizes")?;
    Ok(LeftOperand { source, dtype: ty.dtype, rows: ty.shape.0[0], k })
}

/// The products of a part of a dot region.
///
/// # Errors
/// If there are none, their columns differ, or one multiplies with something else than a weight in panels.
pub fn products(kernel: &Kernel, part: &Part) -> Result<Products, String> {
    let region = &kernel.region;
    let body = &region.body;
    let domain = Domain::of(region, part)?;
    let mut products = Vec::new();
    for &node in part.nodes.iter().filter(|&&node| matches!(body.op(node), Op::Dot { .. })) {
        let operand = body.operands(node)[1];
        let Op::Input { index: weight, .. } = *body.op(operand) else {
            return Err("the right operand of a dot must be a weight".into());
        };
        let is_compressed = match kernel.weight_layouts[weight] {
            Some(WeightLayout::Panels) => false,
            Some(WeightLayout::Compressed) => true,
            _ => return Err("the right operand of a dot must be packed in panels".into()),
        };
        products.push(Product { node, weight, dtype: tensor(region, operand)?.dtype, is_compressed });
    }
    let Some(first) = products.first() else { return Err("a part of a dot region without a dot".into()) };
    if products.iter().any(|product| body.ty(product.node) != body.ty(first.node)) {
        return Err("dots that are combined must multiply with equally many weight rows".into());
    }
    let n = tensor(region, first.node)?.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
    // Columns that must stay together: a group, or all where columns are rearranged without groups.
    let rearranges = |&node: &NodeId| matches!(body.op(node), Op::Slice { .. } | Op::Concat { .. } | Op::Reduce { .. });
    let together = domain.inner.unwrap_or(if part.nodes.iter().any(rearranges) { n } else { 1 });
    let unit = together / common_divisor(together, PANEL) * PANEL;
    Ok(Products { domain, products, n, unit })
}

fn tensor(region: &Region, node: NodeId) -> Result<&TensorType, String> {
    region.body.ty(node).as_tensor().ok_or_else(|| "products are of tensors".to_owned())
}

/// How a region takes its products: as was chosen for all of them. Where choices differ, none of them is followed.
pub fn method(region: &Region) -> DotMethod {
    let body = &region.body;
    let chosen = body.topological().into_iter().filter_map(|node| match body.op(node) {
        Op::Dot { method, .. } => Some(*method),
        _ => None,
    });
    let chosen: Vec<DotMethod> = chosen.collect();
    match chosen.first() {
        Some(&first) if chosen.iter().all(|method| *method == first) => first,
        _ => DotMethod::Gemm,
    }
}
