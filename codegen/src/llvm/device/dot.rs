//! Dot regions: products of rows with rows of weights, and the work behind them.
//!
//! A block takes some rows and some columns, of all products that are combined with each other. Their results go through
//! shared memory as f32, where the block does the region's work on them. Where columns that belong together are too many
//! for a block, results go to the workspace and another kernel does the work.

mod block;
mod epilogue;
mod pad;
mod prologue;
mod stream;
mod tile;
mod wide;

use super::{DeviceContext, DeviceParams, rows};
use crate::kernel::domain::Domain;
use crate::kernel::dot::{
    ComputedRows, LeftOperand, LeftSource, PANEL, Product, Products, left_operand, method, products,
};
use crate::llvm::expression::Tile;
use crate::llvm::text::{FunctionText, Value, int};
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::op::DotMethod;
use llmc_ir::region::Part;

/// The left operand of a region's products.
struct Left {
    rows_in: RowsIn,
    dtype: DType,
    /// Element type of the weights that it meets.
    weights: DType,
    rows: Dim,
    k: usize,
    /// Elements from one row to the next.
    stride: usize,
}

/// Where the rows of the left operand lie.
enum RowsIn {
    /// In an input of the region.
    Input(usize),
    /// At an offset into the workspace.
    Workspace(usize),
    /// Nowhere: every block of the product computes those that it needs.
    Block(ComputedRows),
}

impl Left {
    /// Bytes from one row to the next.
    fn row_bytes(&self) -> usize {
        self.stride * self.dtype.bytes()
    }

    /// Address of a row in memory.
    ///
    /// # Errors
    /// If blocks compute their rows, which are nowhere.
    fn row(&self, f: &mut FunctionText, params: &DeviceParams, row: &Value) -> Result<Value, String> {
        let base = match self.rows_in {
            RowsIn::Input(input) => params.inputs[input].clone(),
            RowsIn::Workspace(offset) => f.offset(&params.workspace, &int(offset as i64)),
            RowsIn::Block(_) => return Err("a block's own rows are not in memory".into()),
        };
        Ok(f.element(&base, row, self.row_bytes() as i64))
    }
}

/// Columns of their own: products that are combined with each other, and what happens to them.
struct Section<'a> {
    products: Vec<Product>,
    n: usize,
    /// Columns of a block.
    columns: usize,
    epilogue: Epilogue<'a>,
}

enum Epilogue<'a> {
    /// The work of a part of the region.
    Part(&'a Part, Domain),
    /// Results are kept as f32 rows at an offset into the workspace, each part of the sum by itself.
    Keep { offset: usize, part_bytes: usize },
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
    let of_parts = parts.iter().map(|part| products(kernel, part)).collect::<Result<Vec<_>, _>>()?;
    let operand = left_operand(&kernel.region)?;
    let mut left = left_of(operand, of_parts.iter().flat_map(|products| &products.products))?;
    let method = method(&kernel.region);
    let few = matches!(method, DotMethod::Gemv | DotMethod::SplitK);
    let sum_parts = if method == DotMethod::SplitK { DotMethod::sum_parts(left.k) } else { vec![left.k] };
    let limit = |dots: usize| if few { stream::most_columns(dots) } else { block::COLUMNS / dots };
    let mut sections = Vec::new();
    let mut later = Vec::new();
    for (part, Products { domain, products, n, unit }) in parts.iter().zip(of_parts) {
        let most = limit(products.len());
        if unit <= most && sum_parts.len() == 1 {
            let columns = if few { unit } else { most / unit * unit };
            sections.push(Section { products, n, columns, epilogue: Epilogue::Part(part, domain) });
            continue;
        }
        let mut kept = Vec::new();
        for product in products {
            let part_bytes = context.bounds.max_of(left.rows) * n * 4;
            let offset = context.reserve(part_bytes * sum_parts.len());
            kept.push((product.node, offset, n, part_bytes));
            let columns = if few { PANEL } else { limit(1) };
            let epilogue = Epilogue::Keep { offset, part_bytes };
            sections.push(Section { products: vec![product], n, columns, epilogue });
        }
        later.push((part, kept));
    }
    prologue::emit(context, &mut left, few)?;
    if (left.dtype == DType::BF16 || !few) && !left.k.is_multiple_of(PANEL) {
        pad::emit(context, &mut left)?;
    }
    match (few, left.dtype) {
        (true, _) => stream::emit(context, &left, &sections, &sum_parts)?,
        (false, DType::F32) => wide::emit(context, &left, &sections)?,
        (false, _) => tile::emit(context, &left, &sections)?,
    }
    for (part, kept) in later {
        rows::emit_part(context, part, "epilogue", |f, params| {
            let tile = |(dot, offset, n, summand_stride): (NodeId, usize, usize, usize)| {
                let base = f.offset(&params.workspace, &int(offset as i64));
                let (stride, summands) = (n * 4, sum_parts.len());
                (dot, Tile { base, row: int(0), column: int(0), stride, summands, summand_stride })
            };
            rows::Ends { tiles: kept.into_iter().map(tile).collect(), outputs: Vec::new() }
        })?;
    }
    Ok(())
}

/// The left operand of a region's products, whose weights must be of one type.
fn left_of<'p>(operand: LeftOperand, mut products: impl Iterator<Item = &'p Product>) -> Result<Left, String> {
    let LeftOperand { source, dtype, rows, k } = operand;
    let weights = products.next().map_or(dtype, |product| product.dtype);
    if products.any(|product| product.dtype != weights) {
        return Err("dots of one region must multiply with weights of one type".into());
    }
    if ![dtype, weights].iter().all(|dtype| matches!(dtype, DType::F32 | DType::BF16)) {
        return Err(format!("{dtype} has no products on a device; compile for bf16 or f32"));
    }
    let rows_in = match source {
        LeftSource::Input(input) => RowsIn::Input(input),
        LeftSource::Prologue(computed) => RowsIn::Block(computed),
    };
    Ok(Left { rows_in, dtype, weights, rows, k, stride: k })
}
