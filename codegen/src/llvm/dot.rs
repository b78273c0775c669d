//! Dot regions: `[rows, k] x [n, k]^T` for one or several weights, then the region's elementwise work on each block
//! of the result while it is in cache.
//!
//! Work items are blocks of rows times blocks of columns, fixed by the shapes alone; a thread takes a contiguous range
//! of them. Rows of the left operand are brought into the form that the inner kernel reads once per thread and row
//! block: f32, or bf16 where the CPU multiplies that faster, in tiles if it has a matrix unit ([`tiles`]).

mod largest;
mod left;
pub mod search;
mod split;
mod tiles;
mod widened;

use super::expression::Tile;
use super::multiply::{Level, Rows, Shape, Start, TILE, Tiles, clear};
use super::rows::{Columns, Outputs, emit_rows};
use super::step_args::{share, size};
use super::text::{FunctionText, Value, int};
use super::{KernelContext, KernelParams, MatrixUnit};
use crate::kernel::domain::Domain;
use crate::kernel::dot::{LeftOperand, LeftSource, PANEL, Product, Products, left_operand, products};
use largest::Largest;
use left::{Left, LeftRows, Source};
use llmc_ir::dtype::DType;
use llmc_ir::op::DotMethod;
use llmc_ir::region::Part;

/// Left-operand bytes that a row block may take, so that it stays in the second-level cache.
const ROW_BLOCK_BYTES: usize = 512 << 10;
/// Rows of a block are a multiple of this: few, so that blocks are about equal.
const ROW_UNIT: usize = 2;
/// Sums longer than this are cut, so that a panel's part stays in cache while all row groups use it.
const LONGEST_SUM: usize = 1536;

/// The sizes that all parts of a dot region share.
struct Blocking {
    k: usize,
    /// Rows of a block at most, how many of them there can be, and what all blocks but the last are multiples of.
    rows: usize,
    most_rows: usize,
    row_unit: usize,
    a_stride: usize,
    left: Left,
    /// Where a part of a weight in bf16 is widened, unless the inner kernel does that.
    widened: Option<Value>,
}

/// The length of rows of a packed weight.
fn padded(k: usize, dtype: DType) -> usize {
    if dtype == DType::BF16 { k.next_multiple_of(32) } else { k }
}

/// An independent part of a dot region: columns of its own.
struct Section<'r> {
    part: &'r Part,
    domain: Domain,
    products: Vec<Product>,
    /// Columns of the part, of one of its blocks, and bytes between rows of a block's result.
    n: usize,
    columns: usize,
    c_stride: usize,
    /// A block's result per product.
    tiles: Vec<Value>,
    /// What is kept of the results, if not the results themselves.
    largest: Option<Largest>,
}

impl Section<'_> {
    fn blocks(&self) -> usize {
        self.n.div_ceil(self.columns)
    }

    /// The first panel of a block, and how many it has.
    fn panels(&self, f: &mut FunctionText, block: &Value) -> [Value; 2] {
        let most = self.columns / PANEL;
        let first = f.scale(block, most as i64);
        let left = f.binary("sub nsw", &int(self.n.div_ceil(PANEL) as i64), &first);
        let count = f.min(&left, &int(most as i64));
        [first, count]
    }
}

/// Emits the kernel's body.
pub fn emit(f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) -> Result<(), String> {
    emit_for(f, context, params, None)
}

/// The same for a kernel that is a single product, of which it writes only each row's largest column: see [`largest`].
pub fn emit_largest(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
) -> Result<(), String> {
    let operand = left_operand(&context.kernel.region)?;
    let rows = size(f, &params.args, operand.rows)?;
    let most_rows = context.bounds.max_of(operand.rows);
    let largest = Largest::new(f, context, params, (&rows, most_rows))?;
    largest.reset(f);
    emit_for(f, context, params, Some(&largest))?;
    largest.finish(f, params);
    Ok(())
}

fn emit_for(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    largest: Option<&Largest>,
) -> Result<(), String> {
    let kernel = context.kernel;
    let region = &kernel.region;
    let parts = region.parts();
    let operand = left_operand(region)?;
    let all = parts.iter().map(|part| products(kernel, part)).collect::<Result<Vec<_>, _>>()?;
    let narrow = are_narrow(&operand, &all);
    let by_tiles = narrow && tiles::suit(context, &operand);
    let least_columns = match context.method {
        _ if by_tiles => tiles::columns(operand.k, &context.target.tuning),
        DotMethod::Gemm => 2 * PANEL,
        DotMethod::Gemv | DotMethod::SplitK => PANEL,
    };
    let widened = !by_tiles && widened::suit(context, &operand, &all);
    let sections =
        parts.iter().zip(all).map(|(part, products)| section(part, products, least_columns, (by_tiles, largest)));
    let mut sections: Vec<Section<'_>> = sections.collect();
    let mut blocking = match by_tiles {
        true => tiles::blocking(context, &operand),
        false => blocking(context, &operand, &sections, narrow && context.unit == MatrixUnit::Pairs),
    };

    let rows = size(f, &params.args, sections.first().ok_or("a region without outputs")?.domain.rows)?;
    let column_blocks: usize = sections.iter().map(Section::blocks).sum();
    let row_block = row_block(f, &blocking, &rows, context.bounds.max_of(operand.rows));
    let row_blocks = f.div_ceil(&rows, &row_block);
    let items = f.scale(&row_blocks, column_blocks as i64);
    let (first, last) = share(f, &items, &params.thread, &params.threads);
    let first_block = f.binary("sdiv", &first, &int(column_blocks as i64));
    let end_block = f.div_ceil(&last, &int(column_blocks as i64));

    let copy = context.scratch(blocking.rows * blocking.a_stride);
    let copy = f.offset(&params.scratch, &int(copy as i64));
    if widened {
        let memory = context.scratch(widened::bytes(blocking.k));
        blocking.widened = Some(f.offset(&params.scratch, &int(memory as i64)));
    }
    // Sections take turns, so they share the memory for results.
    let results = sections.iter().map(|section| section.products.len() * blocking.rows * section.c_stride).max();
    let results = context.scratch(results.unwrap_or(0));
    for section in &mut sections {
        let bytes = blocking.rows * section.c_stride;
        let tile = |number| f.offset(&params.scratch, &int((results + number * bytes) as i64));
        section.tiles = (0..section.products.len()).map(tile).collect();
    }

    let source = match &operand.source {
        LeftSource::Input(input) => Source::Memory(params.inputs[*input].clone()),
        LeftSource::Prologue(computed) => {
            let offset = context.scratch(blocking.rows * blocking.k * operand.dtype.bytes());
            Source::Computed(computed, f.offset(&params.scratch, &int(offset as i64)))
        }
    };
    let left = LeftRows { blocking: &blocking, dtype: operand.dtype, source, copy, rows, row_block };
    if context.method == DotMethod::SplitK {
        return split::emit(f, context, params, &left, &sections, &row_blocks);
    }
    let mut result = Ok(());
    f.for_each(&first_block, &end_block, 1, |f, row_block| {
        let (row, count, a) = match left.block(f, context, params, row_block) {
            Ok(block) => block,
            Err(error) => {
                result = Err(error);
                return;
            }
        };
        let mut base = f.scale(row_block, column_blocks as i64);
        for section in &sections {
            // The thread's blocks among those of this section, counted from its first.
            let blocks = int(section.blocks() as i64);
            let [start, end] = [&first, &last].map(|bound| {
                let own = f.binary("sub nsw", bound, &base);
                let own = f.max(&own, &int(0));
                f.min(&own, &blocks)
            });
            f.for_each(&start, &end, 1, |f, column_block| {
                let rows = (&a, &row, &count);
                let block = if let Left::Tiles(parts) = blocking.left {
                    let block = tiles::Block { blocking: &blocking, parts, section };
                    tiles::emit_block(f, context, params, block, rows, column_block)
                } else {
                    emit_block(f, context, params, &blocking, section, rows, column_block)
                };
                result = std::mem::replace(&mut result, Ok(())).and(block);
            });
            base = f.add(&base, &blocks);
        }
    });
    result
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
    (by_tiles, largest): (bool, Option<&Largest>),
) -> Section<'r> {
    let Products { domain, products, n, unit } = products;
    let columns = unit * least_columns.div_ceil(unit);
    // Blocks of one panel take the room of two, so that the same functions multiply both.
    let room = if by_tiles { columns } else { columns.next_multiple_of(2 * PANEL) };
    let (c_stride, tiles, largest) = (room * 4 + 64, Vec::new(), largest.cloned());
    Section { part, domain, products, n, columns, c_stride, tiles, largest }
}

/// Whether both sides of all products are bf16, so that multiplying them as they are rounds nothing.
fn are_narrow(operand: &LeftOperand, products: &[Products]) -> bool {
    let mut products = products.iter().flat_map(|products| &products.products);
    operand.dtype == DType::BF16 && products.all(|product| product.dtype == DType::BF16)
}

fn blocking(context: &KernelContext<'_>, operand: &LeftOperand, sections: &[Section<'_>], pairs: bool) -> Blocking {
    let k = operand.k;
    let products = sections.iter().flat_map(|section| &section.products);
    let longest = products.map(|product| padded(k, product.dtype)).max().unwrap_or(k);
    let left = match operand.dtype {
        DType::F32 if longest == k => Left::InPlace,
        DType::BF16 if pairs => Left::Pairs,
        dtype => Left::Copied(dtype),
    };
    let a_stride = match left {
        Left::InPlace => k * 4,
        _ => k.next_multiple_of(32) * left.form().bytes() + 64,
    };
    let block = context.registers.rows[0];
    let most = context.target.tuning.block_rows.next_multiple_of(block).max(2 * block);
    let rows = (ROW_BLOCK_BYTES / a_stride / block * block).clamp(2 * block, most);
    let most_rows = context.bounds.max_of(operand.rows).min(rows);
    Blocking { k, rows, most_rows, row_unit: ROW_UNIT, a_stride, left, widened: None }
}

/// A weight of a dot, packed in panels.
struct Panels {
    address: Value,
    dtype: DType,
    /// Length of a row of it.
    k: usize,
}

fn panels(params: &KernelParams, blocking: &Blocking, product: &Product) -> Panels {
    let k = padded(blocking.k, product.dtype);
    Panels { address: params.inputs[product.weight].clone(), dtype: product.dtype, k }
}

/// The products of one block of rows and columns, and the work behind them.
fn emit_block(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    blocking: &Blocking,
    section: &Section<'_>,
    (a, row, count): (&Value, &Value, &Value),
    column_block: &Value,
) -> Result<(), String> {
    for (product, tile) in section.products.iter().zip(&section.tiles) {
        let weight = panels(params, blocking, product);
        multiply_block(f, context, blocking, section, &weight, [a, tile], count, column_block);
    }
    let end = f.add(row, count);
    emit_epilogue(f, context, params, section, RowSpan { block: row, start: row, end: &end }, column_block)
}

/// `C = A B` for one block of columns of one weight.
#[allow(clippy::too_many_arguments)]
fn multiply_block(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    blocking: &Blocking,
    section: &Section<'_>,
    weight: &Panels,
    [a, c]: [&Value; 2],
    rows: &Value,
    column_block: &Value,
) {
    let mut sums = start_sums(f, blocking, section, c, rows);
    let mut start = 0;
    for length in sum_parts(weight.k, context.method, context.target.tuning.sum_part) {
        let part = SumPart { start: &int(start as i64), length, sums };
        multiply_part(f, context, blocking, section, weight, [a, c], rows, (column_block, part));
        start += length;
        sums = Start::Memory;
    }
}

/// Where the first part of a block's sums starts them: at zeros in memory if parts are many that the code has once.
fn start_sums(f: &mut FunctionText, blocking: &Blocking, section: &Section<'_>, c: &Value, rows: &Value) -> Start {
    if blocking.widened.is_none() {
        return Start::Zero;
    }
    clear(f, c, section.c_stride, section.columns, rows);
    Start::Memory
}

/// Some k of a sum.
struct SumPart<'v> {
    /// The first one.
    start: &'v Value,
    length: usize,
    /// Where they start the sums.
    sums: Start,
}

/// Adds a part of the sums of one block of columns.
#[allow(clippy::too_many_arguments)]
fn multiply_part(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    blocking: &Blocking,
    section: &Section<'_>,
    weight: &Panels,
    [a, c]: [&Value; 2],
    rows: &Value,
    (column_block, part): (&Value, SumPart<'_>),
) {
    let panel_bytes = weight.k * PANEL * weight.dtype.bytes();
    // Bytes of a panel per k.
    let (k_bytes, layout) = match weight.dtype {
        DType::BF16 => (64, Tiles::Bf16 { tile_stride: 1024, block_stride: 2048 }),
        _ => (128, Tiles::F32 { tile_stride: 64, k_stride: 128 }),
    };
    let left = blocking.left.form();
    let (a_stride, c_stride) = (blocking.a_stride, section.c_stride);
    let rows_of_call = Rows { unit: 1, most: blocking.most_rows };
    let tiles = PANEL / TILE;
    let ahead = Some(context.target.tuning.prefetch_bytes);
    let prefetch = Level::First;
    let SumPart { start, length: k, sums } = part;
    let shape = Shape { k, tiles, layout, left, a_stride, c_stride, start: sums, rows: rows_of_call, ahead, prefetch };
    let [first_panel, panels] = section.panels(f, column_block);
    let a = f.element(a, start, left.bytes() as i64);
    f.for_each(&int(0), &panels, 1, |f, panel| {
        let number = f.add(&first_panel, panel);
        let b = f.element(&weight.address, &number, panel_bytes as i64);
        let b = f.element(&b, start, k_bytes);
        let c = f.element(c, panel, (PANEL * 4) as i64);
        if let (Some(memory), DType::BF16) = (&blocking.widened, weight.dtype) {
            widened::multiply_panel(f, context, memory, [&a, &b, &c], rows, &shape);
            return;
        }
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        f.call_local(&multiply, &[a.clone(), b, c, rows.clone()]);
    });
}

/// The lengths in which a sum over k is computed.
fn sum_parts(k: usize, method: DotMethod, longest: usize) -> Vec<usize> {
    if method != DotMethod::Gemm || k <= LONGEST_SUM {
        return vec![k];
    }
    let part = k.div_ceil(k.div_ceil(longest)).next_multiple_of(32);
    let mut parts = vec![part; k / part];
    if !k.is_multiple_of(part) {
        parts.push(k % part);
    }
    parts
}

/// Rows of a block.
#[derive(Clone, Copy)]
struct RowSpan<'v> {
    /// The block's first row.
    block: &'v Value,
    /// The first of these rows.
    start: &'v Value,
    /// The row behind them.
    end: &'v Value,
}

/// The elementwise work on some rows of one block of a section's result.
fn emit_epilogue(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    section: &Section<'_>,
    rows: RowSpan<'_>,
    column_block: &Value,
) -> Result<(), String> {
    if let Some(largest) = &section.largest {
        largest.keep_block(f, section, rows, column_block);
        return Ok(());
    }
    let column = f.scale(column_block, section.columns as i64);
    let after = f.add(&column, &int(section.columns as i64));
    let column_end = f.min(&after, &int(section.n as i64));
    let columns = match section.domain.inner {
        Some(inner) => {
            let start = f.binary("sdiv", &column, &int(inner as i64));
            let end = f.binary("sdiv", &column_end, &int(inner as i64));
            Columns::Groups(start, end)
        }
        None if section.columns >= section.n => Columns::Groups(int(0), int(1)),
        None => Columns::Span(column.clone(), column_end),
    };
    let (kernel, kv) = (context.kernel, context.kv);
    let mut scope = context.scope(params);
    for (product, base) in section.products.iter().zip(&section.tiles) {
        let (row, column) = (rows.block.clone(), column.clone());
        let tile = Tile { base: base.clone(), row, column, stride: section.c_stride, summands: 1, summand_stride: 0 };
        scope.tiles.insert(product.node, tile);
    }
    let outputs = Outputs::of(kernel, section.part, &params.outputs, kv, &params.slots);
    emit_rows(f, &mut scope, &section.domain, &outputs, (rows.start, rows.end), &columns)
}
