//! Dot regions: products of rows with rows of weights, and the work behind them.

use super::thread::special_wide;
use super::{DeviceContext, Geometry, blocks, rows};
use crate::llvm::expression::{Tile, tensor};
use crate::llvm::index::Index;
use crate::llvm::memory;
use crate::llvm::step_args::size;
use crate::llvm::text::{F32, float_of, int};
use llmc_ir::graph::NodeId;
use llmc_ir::op::Op;
use llmc_ir::plan::WeightLayout;
use std::collections::BTreeMap;

/// Threads of a block that multiplies.
const THREADS: usize = 128;

/// Emits the kernels of a dot region.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    let region = &context.kernel.region;
    let is_dot = |node: &NodeId| matches!(region.body.op(*node), Op::Dot { .. });
    let dots: Vec<NodeId> = region.body.topological().into_iter().filter(is_dot).collect();
    let mut products = BTreeMap::new();
    for dot in dots {
        let ty = tensor(&region.body, dot)?.clone();
        let n = ty.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
        let offset = context.reserve(context.bounds.max_of(ty.shape.0[0]) * n * 4);
        products.insert(dot, (offset, n));
        multiply(context, dot, offset, n)?;
    }
    for part in context.kernel.region.parts() {
        rows::emit_part(context, &part, "epilogue", |f, params| {
            let mut tiles = Vec::new();
            for (&dot, &(offset, n)) in &products {
                let base = f.offset(&params.workspace, &int(offset as i64));
                tiles.push((dot, Tile { base, row: int(0), column: int(0), stride: n * 4 }));
            }
            tiles
        })?;
    }
    Ok(())
}

/// A product, one thread per element, as f32 rows in the workspace.
fn multiply(context: &mut DeviceContext<'_>, dot: NodeId, offset: usize, n: usize) -> Result<(), String> {
    let body = &context.kernel.region.body;
    let Op::Dot { left: 1, right: 1, batch: 0 } = body.op(dot) else {
        return Err("dots must multiply rows with rows of weights".into());
    };
    let operands = body.operands(dot);
    let (Op::Input { index: left, .. }, Op::Input { index: right, .. }) = (body.op(operands[0]), body.op(operands[1]))
    else {
        return Err("the operands of a dot must be inputs of its region".into());
    };
    let (left_ty, right_ty) = (tensor(body, operands[0])?, tensor(body, operands[1])?);
    let rows_dim = left_ty.shape.0[0];
    let k = left_ty.shape.0[1].as_fixed().ok_or("the rows of a dot's operands have fixed sizes")?;
    let layout = context.kernel.weight_layouts[*right].unwrap_or(WeightLayout::RowMajor);
    let column_blocks = n.div_ceil(THREADS);
    let geometry = Geometry { blocks: blocks(rows_dim, 1, column_blocks)?, threads: THREADS, shared_bytes: 0 };
    context.launch("multiply", &geometry, |_, f, params| {
        let rows = size(f, &params.args, rows_dim)?;
        let block = special_wide(f, "ctaid.x");
        let thread = special_wide(f, "tid.x");
        let row = f.binary("udiv", &block, &int(column_blocks as i64));
        let column = f.binary("urem", &block, &int(column_blocks as i64));
        let column = f.scale(&column, THREADS as i64);
        let column = f.add(&column, &thread);
        let row_inside = f.compare("icmp slt", &row, &rows);
        let column_inside = f.compare("icmp slt", &column, &int(n as i64));
        let inside = f.binary("and", &row_inside, &column_inside);
        let mut result = Ok(());
        f.when(&inside, |f| {
            let sums = f.fold(&int(0), &int(k as i64), 1, &[float_of(F32, 0.0)], |f, at, sums| {
                let at = Index::Scalar(at.clone());
                let (row, column) = (Index::Scalar(row.clone()), Index::Scalar(column.clone()));
                let row_major = WeightLayout::RowMajor;
                let a = memory::load(f, &params.inputs[*left], left_ty, row_major, &[row, at.clone()], 1);
                let b = memory::load(f, &params.inputs[*right], right_ty, layout, &[column, at], 1);
                match (a, b) {
                    (Ok(a), Ok(b)) => vec![f.intrinsic("fma", &[a, b, sums[0].clone()])],
                    (Err(error), _) | (_, Err(error)) => {
                        result = Err(error);
                        sums.to_vec()
                    }
                }
            });
            let base = f.offset(&params.workspace, &int(offset as i64));
            let line = f.element(&base, &row, (n * 4) as i64);
            let address = f.element(&line, &column, 4);
            f.store(&sums[0], &address, 4);
        });
        result
    })
}
