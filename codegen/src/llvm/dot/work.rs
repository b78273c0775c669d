//! How the work of a dot region is cut: blocks of rows and of columns, and which of them are a thread's.

use super::super::deal;
use super::super::step_args::{share, size};
use super::super::text::{FunctionText, Value, int};
use super::super::{KernelContext, KernelParams, MatrixUnit};
use super::kept::Kept;
use super::left::Left;
use super::{parts, tiles};
use crate::kernel::domain::Domain;
use crate::kernel::dot::{LeftOperand, PANEL, Product, Products, left_operand, products};
use llmc_ir::dtype::DType;
use llmc_ir::op::DotMethod;
use llmc_ir::region::Part;

/// Left-operand bytes that a row block may take, so that it stays in the second-level cache.
const ROW_BLOCK_BYTES: usize = 512 << 10;
/// Rows of a block are a multiple of this: few, so that blocks are about equal.
const ROW_UNIT: usize = 2;
/// The sizes that all parts of a dot region share.
pub struct Blocking {
    pub k: usize,
    /// Rows of a block at most, how many of them there can be, and what all blocks but the last are multiples of.
    pub rows: usize,
    pub most_rows: usize,
    pub row_unit: usize,
    pub a_stride: usize,
    pub left: Left,
    /// Whether weights in bf16 are taken in [`parts`].
    pub in_parts: bool,
    /// Where a part of a compressed weight is made plain, if it is.
    pub unpacked: Option<Value>,
}

/// The length of rows of a packed weight.
pub fn padded(k: usize, dtype: DType) -> usize {
    if dtype == DType::BF16 { k.next_multiple_of(32) } else { k }
}

/// An independent part of a dot region: columns of its own.
pub struct Section<'r> {
    pub part: &'r Part,
    pub domain: Domain,
    pub products: Vec<Product>,
    /// Columns of the part, of one of its blocks, and bytes between rows of a block's result.
    pub n: usize,
    pub columns: usize,
    pub c_stride: usize,
    /// A block's result per product.
    pub tiles: Vec<Value>,
    /// What is kept of the results, if not the results themselves.
    pub kept: Option<Kept>,
}

impl Section<'_> {
    pub fn blocks(&self) -> usize {
        self.n.div_ceil(self.columns)
    }

    /// The first panel of a block, and how many it has.
    pub fn panels(&self, f: &mut FunctionText, block: &Value) -> [Value; 2] {
        let most = self.columns / PANEL;
        let first = f.scale(block, most as i64);
        let left = f.binary("sub nsw", &int(self.n.div_ceil(PANEL) as i64), &first);
        let count = f.min(&left, &int(most as i64));
        [first, count]
    }
}

/// A dot region, and how its work is cut.
pub struct Dot<'r> {
    pub operand: LeftOperand,
    pub sections: Vec<Section<'r>>,
    pub blocking: Blocking,
    /// Whether weights are made plain before they are multiplied.
    pub unpacks: bool,
}

impl<'r> Dot<'r> {
    /// Of the context's kernel, whose parts are given; `kept` is what is kept of their results, if not those.
    pub fn of(context: &KernelContext<'_>, parts: &'r [Part], kept: Option<&Kept>) -> Result<Dot<'r>, String> {
        let kernel = context.kernel;
        let operand = left_operand(&kernel.region)?;
        let all = parts.iter().map(|part| products(kernel, part)).collect::<Result<Vec<_>, _>>()?;
        let narrow = are_narrow(&operand, &all);
        let by_tiles = narrow && tiles::suit(context, &operand);
        let least_columns = match context.method {
            _ if by_tiles => tiles::columns(operand.k, &context.target.tuning),
            DotMethod::Gemm | DotMethod::BlockFloat => 2 * PANEL,
            DotMethod::Gemv | DotMethod::SplitK => PANEL,
        };
        let in_parts = !by_tiles && parts::suit(context, &operand, &all);
        let keeps = in_parts || context.registers.keep(context.bounds.max_of(operand.rows));
        // The same programs may be for CPUs that multiply otherwise.
        let has_blocks = context.method == DotMethod::BlockFloat && context.target.block_float().is_some();
        let in_blocks = has_blocks && in_parts && narrow;
        let unpacks = in_blocks || are_compressed(&all) && (by_tiles || keeps);
        let sections =
            parts.iter().zip(all).map(|(part, products)| section(part, products, least_columns, (by_tiles, kept)));
        let sections: Vec<Section<'r>> = sections.collect();
        let blocking = match by_tiles {
            true => tiles::blocking(context, &operand),
            false => {
                let form = match context.unit {
                    _ if in_blocks => Some(Left::Blocks),
                    MatrixUnit::Pairs if narrow => Some(Left::Pairs),
                    _ => None,
                };
                Blocking { in_parts, ..blocking(context, &operand, &sections, form) }
            }
        };
        Ok(Dot { operand, sections, blocking, unpacks })
    }

    /// Whether threads deal its blocks of columns out among themselves: where few rows, which are one block, wait for weights.
    pub fn is_dealt(&self, context: &KernelContext<'_>, column_blocks: usize) -> bool {
        context.bounds.one_token_per_sequence
            && context.method != DotMethod::SplitK
            && context.bounds.max_of(self.operand.rows) <= self.blocking.rows
            && column_blocks <= deal::MOST_ITEMS
    }

    /// What a thread does of it in a step.
    pub fn work(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        params: &KernelParams,
    ) -> Result<Work, String> {
        let rows = size(f, &params.args, self.sections.first().ok_or("a region without outputs")?.domain.rows)?;
        let column_blocks: usize = self.sections.iter().map(Section::blocks).sum();
        let row_block = row_block(f, &self.blocking, &rows, context.bounds.max_of(self.operand.rows));
        let row_blocks = f.div_ceil(&rows, &row_block);
        let items = f.scale(&row_blocks, column_blocks as i64);
        let (first, last) = share(f, &items, &params.thread, &params.threads);
        Ok(Work { rows, row_block, row_blocks, column_blocks, first, last })
    }
}

/// Items `first..last` are the thread's. Their numbers are `row block * column_blocks + column block`.
pub struct Work {
    pub rows: Value,
    pub row_block: Value,
    pub row_blocks: Value,
    pub column_blocks: usize,
    pub first: Value,
    pub last: Value,
}

/// Rows of a block, so that blocks are about equal and threads can share them evenly.
fn row_block(f: &mut FunctionText, blocking: &Blocking, rows: &Value, most_rows: usize) -> Value {
    if most_rows <= blocking.rows {
        return int(blocking.rows as i64);
    }
    let fewest = f.div_ceil(rows, &int(blocking.rows as i64));
    let fewest = f.max(&fewest, &int(1));
    let each = f.div_ceil(rows, &fewest);
    let units = f.div_ceil(&each, &int(blocking.row_unit as i64));
    let units = f.max(&units, &int(1));
    f.scale(&units, blocking.row_unit as i64)
}

/// A part as a section with blocks of whole units of columns.
fn section<'r>(
    part: &'r Part,
    products: Products,
    least_columns: usize,
    (by_tiles, kept): (bool, Option<&Kept>),
) -> Section<'r> {
    let Products { domain, products, n, unit } = products;
    let columns = unit * least_columns.div_ceil(unit);
    // Blocks of one panel take the room of two, so that the same functions multiply both.
    let room = if by_tiles { columns } else { columns.next_multiple_of(2 * PANEL) };
    let (c_stride, tiles, kept) = (room * 4 + 64, Vec::new(), kept.cloned());
    Section { part, domain, products, n, columns, c_stride, tiles, kept }
}

/// Whether any weights are compressed.
fn are_compressed(products: &[Products]) -> bool {
    products.iter().flat_map(|products| &products.products).any(|product| product.is_compressed)
}

/// Whether both sides of all products are bf16, so that multiplying them as they are rounds nothing.
fn are_narrow(operand: &LeftOperand, products: &[Products]) -> bool {
    let mut products = products.iter().flat_map(|products| &products.products);
    operand.dtype == DType::BF16 && products.all(|product| product.dtype == DType::BF16)
}

/// Blocks of rows for vector instructions, whose form is given if it is not f32.
fn blocking(
    context: &KernelContext<'_>,
    operand: &LeftOperand,
    sections: &[Section<'_>],
    form: Option<Left>,
) -> Blocking {
    let k = operand.k;
    let products = sections.iter().flat_map(|section| &section.products);
    let longest = products.map(|product| padded(k, product.dtype)).max().unwrap_or(k);
    let left = form.unwrap_or(match operand.dtype {
        DType::F32 if longest == k => Left::InPlace,
        dtype => Left::Copied(dtype),
    });
    let a_stride = match left {
        Left::InPlace => k * 4,
        Left::Blocks => left.row_bytes(k),
        _ => left.row_bytes(k.next_multiple_of(32)) + 64,
    };
    let block = context.registers.rows[0];
    let most = context.target.tuning.block_rows.next_multiple_of(block).max(2 * block);
    let rows = (ROW_BLOCK_BYTES / a_stride / block * block).clamp(2 * block, most);
    let most_rows = context.bounds.max_of(operand.rows).min(rows);
    Blocking { k, rows, most_rows, row_unit: ROW_UNIT, a_stride, left, in_parts: false, unpacked: None }
}
