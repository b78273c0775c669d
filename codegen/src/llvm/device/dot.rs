//! Dot regions: products of rows with rows of weights, and the work behind them.
//!
//! A block takes some rows and some columns, of all products that are combined with each other. Their results go through
//! shared memory as f32, where the block does the region's work on them. Where columns that belong together are too many
//! for a block, results go to the workspace and another kernel does the work.

mod epilogue;
mod pad;
mod stream;
mod tile;

use super::matrix::PANEL;
use super::{DeviceContext, rows};
use crate::kernel::domain::Domain;
use crate::llvm::expression::{Tile, tensor};
use crate::llvm::index::common_divisor;
use crate::llvm::text::int;
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::op::Op;
use llmc_ir::plan::WeightLayout;
use llmc_ir::region::{Part, Region};

/// Rows up to which a product is bound by reading weights.
const FEW_ROWS: usize = 32;

/// The left operand of a region's products.
struct Left {
    /// Index of the region's input.
    input: usize,
    dtype: DType,
    /// Element type of the weights that it meets.
    weights: DType,
    rows: Dim,
    k: usize,
    /// Elements from one row to the next, and where rows lie if not in the input: an offset into the workspace.
    stride: usize,
    padded: Option<usize>,
}

/// Columns of their own: products that are combined with each other, and what happens to them.
struct Section<'a> {
    /// Index of each product's weight among the region's inputs, and the product.
    dots: Vec<(usize, NodeId)>,
    n: usize,
    /// Columns of a block.
    columns: usize,
    epilogue: Epilogue<'a>,
}

enum Epilogue<'a> {
    /// The work of a part of the region.
    Part(&'a Part, Domain),
    /// Results are kept as f32 rows at an offset into the workspace.
    Keep(usize),
}

impl Section<'_> {
    fn blocks(&self) -> usize {
        self.n.div_ceil(self.columns)
    }

    /// Panels of a block, per product.
    fn panels(&self) -> usize {
        self.columns / PANEL
    }
}

/// Emits the kernels of a dot region.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    let kernel = context.kernel;
    let parts = kernel.region.parts();
    let mut left = left_operand(&kernel.region)?;
    let few = context.bounds.max_of(left.rows) <= FEW_ROWS;
    let limit =
        |dots: usize| if few || left.dtype == DType::F32 { stream::most_columns(dots) } else { tile::COLUMNS / dots };
    let mut sections = Vec::new();
    let mut later = Vec::new();
    for part in &parts {
        let (section, unit) = section(context, part)?;
        let most = limit(section.dots.len());
        if unit <= most {
            let columns = if few { unit } else { most / unit * unit };
            sections.push(Section { columns, ..section });
            continue;
        }
        let mut kept = Vec::new();
        for (weight, dot) in section.dots {
            let offset = context.reserve(context.bounds.max_of(left.rows) * section.n * 4);
            kept.push((dot, offset, section.n));
            let columns = if few { PANEL } else { limit(1) };
            let (dots, epilogue) = (vec![(weight, dot)], Epilogue::Keep(offset));
            sections.push(Section { dots, n: section.n, columns, epilogue });
        }
        later.push((part, kept));
    }
    if left.dtype == DType::BF16 && !left.k.is_multiple_of(PANEL) {
        pad::emit(context, &mut left)?;
    }
    match (left.dtype, few) {
        (DType::BF16, false) => tile::emit(context, &left, &sections)?,
        _ => stream::emit(context, &left, &sections)?,
    }
    for (part, kept) in later {
        rows::emit_part(context, part, "epilogue", |f, params| {
            let tile = |(dot, offset, n): (NodeId, usize, usize)| {
                let base = f.offset(&params.workspace, &int(offset as i64));
                (dot, Tile { base, row: int(0), column: int(0), stride: n * 4, summands: 1, summand_stride: 0 })
            };
            kept.into_iter().map(tile).collect()
        })?;
    }
    Ok(())
}

/// The left operand that all dots of a region share.
fn left_operand(region: &Region) -> Result<Left, String> {
    let body = &region.body;
    let mut found: Option<(NodeId, DType)> = None;
    for node in body.topological() {
        match body.op(node) {
            Op::Dot { left: 1, right: 1, batch: 0, .. } => {
                let operands = body.operands(node);
                let own = (operands[0], tensor(body, operands[1])?.dtype);
                if *found.get_or_insert(own) != own {
                    return Err("dots of one region must multiply the same rows, with weights of one type".into());
                }
            }
            Op::Dot { .. } => return Err("dots must multiply rows with rows of weights".into()),
            _ => {}
        }
    }
    let (node, weights) = found.ok_or("a dot region without a dot")?;
    let Op::Input { index, .. } = body.op(node) else {
        return Err("the left operand of a dot must be an input of the region".into());
    };
    let ty = tensor(body, node)?;
    let k = ty.shape.0[1].as_fixed().ok_or("the rows of a dot's operands have fixed sizes")?;
    if ![ty.dtype, weights].iter().all(|dtype| matches!(dtype, DType::F32 | DType::BF16)) {
        return Err(format!("{} has no products on a device; compile for bf16 or f32", ty.dtype));
    }
    Ok(Left { input: *index, dtype: ty.dtype, weights, rows: ty.shape.0[0], k, stride: k, padded: None })
}

/// A part as a section, its block still without a size, and how many columns must stay together, in whole panels.
fn section<'a>(context: &DeviceContext<'_>, part: &'a Part) -> Result<(Section<'a>, usize), String> {
    let region = &context.kernel.region;
    let body = &region.body;
    let domain = Domain::of(region, part)?;
    let mut dots = Vec::new();
    let mut n = 0;
    for &node in part.nodes.iter().filter(|&&node| matches!(body.op(node), Op::Dot { .. })) {
        let weight = body.operands(node)[1];
        let Op::Input { index, .. } = body.op(weight) else {
            return Err("the right operand of a dot must be a weight".into());
        };
        if context.kernel.weight_layouts[*index] != Some(WeightLayout::Panels) {
            return Err("the right operand of a dot must be packed in panels".into());
        }
        n = tensor(body, node)?.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
        dots.push((*index, node));
    }
    let Some(&(_, first)) = dots.first() else { return Err("a part of a dot region without a dot".into()) };
    if dots.iter().any(|&(_, dot)| body.ty(dot) != body.ty(first)) {
        return Err("dots that are combined must multiply with equally many weight rows".into());
    }
    // Columns that must stay together: a group, or all where columns are rearranged without groups.
    let rearranges = |&node: &NodeId| matches!(body.op(node), Op::Slice { .. } | Op::Concat { .. } | Op::Reduce { .. });
    let together = domain.inner.unwrap_or(if part.nodes.iter().any(rearranges) { n } else { 1 });
    let unit = together / common_divisor(together, PANEL) * PANEL;
    Ok((Section { dots, n, columns: unit, epilogue: Epilogue::Part(part, domain) }, unit))
}
