//! Dot regions: `[rows, k] x [n, k]^T` for one or several weights, then the region's elementwise work on each block
//! of the result while it is in cache.
//!
//! Work items are blocks of rows times blocks of columns, fixed by the shapes alone; a thread takes a contiguous range
//! of them, or, in decode programs, what the threads deal out ([`deal`]). Rows of the left operand are brought into the form
//! that the inner kernel reads once per thread and row block: f32, or bf16 where the CPU multiplies that faster, in tiles if
//! it has a matrix unit ([`tiles`]).

mod ahead;
mod candidates;
mod kept;
mod largest;
mod left;
mod parts;
pub mod search;
mod split;
mod tiles;
mod work;

use super::compressed::unpack;
use super::deal;
use super::expression::Tile;
use super::multiply::{Distance, Level, Rows, Shape, Start, TILE, Tiles};
use super::rows::{Columns, Outputs, emit_rows};
use super::text::{FunctionText, Value, int};
use super::{KernelContext, KernelParams};
use crate::kernel::dot::{LeftSource, PANEL, Product};
use kept::Kept;
use left::{Left, LeftRows, Source};
use llmc_ir::dtype::DType;
use llmc_ir::op::DotMethod;
use llmc_ir::plan::{Goal, compressed};
use work::{Blocking, Dot, Section, Work, padded};

pub use ahead::emit as emit_ahead;

/// Sums longer than this are cut, so that a panel's part stays in cache while all row groups use it.
const LONGEST_SUM: usize = 1536;
/// Parts of a sum have a multiple of this many k, but for the last one: whole blocks of any layout.
const PART_UNIT: usize = 64;

/// Emits the kernel's body: all columns, or, of a kernel that is a single product, what a goal wants of each row (see [`kept`]).
pub fn emit(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    goal: Goal,
) -> Result<(), String> {
    if goal == Goal::Search {
        return search::emit(f, context, params);
    }
    let Some(kept) = Kept::of(f, context, params, goal)? else { return emit_for(f, context, params, None) };
    kept.reset(f);
    emit_for(f, context, params, Some(&kept))?;
    kept.finish(f, params);
    Ok(())
}

fn emit_for(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    kept: Option<&Kept>,
) -> Result<(), String> {
    let parts = context.kernel.region.parts();
    let dot = Dot::of(context, &parts, kept)?;
    let Work { rows, row_block, row_blocks, column_blocks, first, last } = dot.work(f, context, params)?;
    let is_dealt = kept.is_none() && dot.is_dealt(context, column_blocks);
    let has_rows = f.compare("icmp sgt", &rows, &int(0));
    let Dot { operand, mut sections, mut blocking, unpacks } = dot;
    let first_block = f.binary("sdiv", &first, &int(column_blocks as i64));
    let end_block = f.div_ceil(&last, &int(column_blocks as i64));

    let copy = context.working(f, params, blocking.rows * blocking.a_stride);
    if unpacks {
        let bytes = match blocking.left {
            Left::Tiles(parts) => parts.panel_bytes(),
            Left::Blocks => parts::bytes_of_blocks(blocking.k),
            _ if blocking.in_parts => parts::bytes(blocking.k),
            Left::InPlace | Left::Copied(_) | Left::Pairs => {
                context.registers.kept_bytes(longest_part(context, blocking.k), blocking.most_rows)
            }
        };
        blocking.unpacked = Some(context.working(f, params, bytes));
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
            let bytes = blocking.rows * blocking.k * operand.dtype.bytes();
            Source::Computed(computed, context.working(f, params, bytes))
        }
    };
    let left = LeftRows { blocking: &blocking, dtype: operand.dtype, source, copy, rows, row_block };
    if context.method == DotMethod::SplitK {
        return split::emit(f, context, params, &left, &sections, &row_blocks);
    }
    if is_dealt {
        let mut result = Ok(());
        f.when(&has_rows, |f| result = emit_dealt(f, context, params, (&left, &sections), column_blocks));
        return result;
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
                let block = emit_block(f, context, params, &blocking, section, (&a, &row, &count), column_block);
                result = std::mem::replace(&mut result, Ok(())).and(block);
            });
            base = f.add(&base, &blocks);
        }
    });
    result
}

/// All blocks of columns of the only block of rows, dealt out among the threads.
fn emit_dealt(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    (left, sections): (&LeftRows<'_>, &[Section<'_>]),
    column_blocks: usize,
) -> Result<(), String> {
    let (row, count, a) = left.block(f, context, params, &int(0))?;
    let mut result = Ok(());
    deal::for_each(f, params, &int(column_blocks as i64), |f, block| {
        let mut base = 0;
        for section in sections {
            let column_block = f.add(block, &int(-base));
            base += section.blocks() as i64;
            let [is_behind, is_before] = [("icmp sge", 0), ("icmp slt", section.blocks() as i64)]
                .map(|(predicate, bound)| f.compare(predicate, &column_block, &int(bound)));
            let is_here = f.binary("and", &is_behind, &is_before);
            f.when(&is_here, |f| {
                let rows = (&a, &row, &count);
                let block = emit_block(f, context, params, left.blocking, section, rows, &column_block);
                result = std::mem::replace(&mut result, Ok(())).and(block);
            });
        }
    });
    result
}

/// A weight of a dot, packed in panels.
struct Panels {
    address: Value,
    dtype: DType,
    is_compressed: bool,
    /// Length of a row of it.
    k: usize,
}

fn panels(params: &KernelParams, blocking: &Blocking, product: &Product) -> Panels {
    let &Product { weight, dtype, is_compressed, .. } = product;
    Panels { address: params.inputs[weight].clone(), dtype, is_compressed, k: padded(blocking.k, dtype) }
}

impl Panels {
    /// The address of a panel.
    fn panel(&self, f: &mut FunctionText, number: &Value) -> Value {
        let bytes = if self.is_compressed { compressed::panel(self.k) } else { self.k * PANEL * self.dtype.bytes() };
        f.element(&self.address, number, bytes as i64)
    }

    /// The address of a panel's block of 32 k.
    fn block(&self, f: &mut FunctionText, panel: &Value, block: &Value) -> Value {
        let panel = self.panel(f, panel);
        let head = if self.is_compressed { compressed::head(self.k) } else { 0 };
        let blocks = f.offset(&panel, &int(head as i64));
        f.element(&blocks, block, self.block_bytes() as i64)
    }

    /// Makes some blocks of a compressed panel plain, from block `first` on: how many, and where to. What it reads is prefetched
    /// `ahead` bytes before, if nothing else does that.
    fn unpack(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        (panel, first): (&Value, &Value),
        ahead: Option<usize>,
        (blocks, to): (usize, &Value),
    ) {
        let unpack = unpack(context.multiplies, context.module, context.registers, (self.k, ahead));
        let panel = self.panel(f, panel);
        f.call_local(&unpack, &[panel, first.clone(), int(blocks as i64), to.clone()]);
    }

    /// Bytes of a panel's 32 k.
    fn block_bytes(&self) -> usize {
        if self.is_compressed { compressed::BLOCK } else { 32 * PANEL * self.dtype.bytes() }
    }
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
    if let Left::Tiles(parts) = blocking.left {
        let block = tiles::Block { blocking, parts, section };
        return tiles::emit_block(f, context, params, block, (a, row, count), column_block);
    }
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
    let mut sums = Start::Zero;
    let mut start = 0;
    for length in sum_parts(weight.k, context.method, context.target.tuning.sum_part) {
        let part = SumPart { start: int(start as i64), length, sums };
        multiply_part(f, context, blocking, section, weight, [a, c], rows, (column_block, part));
        start += length;
        sums = Start::Memory;
    }
}

/// The length of the longest part of a sum over `k` of bf16.
fn longest_part(context: &KernelContext<'_>, k: usize) -> usize {
    let parts = match context.method {
        DotMethod::SplitK => DotMethod::sum_parts(k),
        method => sum_parts(k, method, context.target.tuning.sum_part),
    };
    parts.into_iter().max().unwrap_or(k).next_multiple_of(32)
}

/// Some k of a sum.
struct SumPart {
    /// The first one.
    start: Value,
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
    (column_block, part): (&Value, SumPart),
) {
    let layout = match weight.dtype {
        DType::BF16 if weight.is_compressed => Tiles::Compressed { row: weight.k },
        DType::BF16 => Tiles::PACKED,
        _ => Tiles::F32 { tile_stride: 64, k_stride: 128 },
    };
    let left = blocking.left.form();
    let (a_stride, c_stride) = (blocking.a_stride, section.c_stride);
    let rows_of_call = Rows { unit: 1, most: blocking.most_rows };
    let tiles = PANEL / TILE;
    let ahead = Distance::Fixed(context.target.tuning.prefetch_bytes);
    let prefetch = Level::First;
    let SumPart { start, length: k, sums } = part;
    let shape = Shape { k, tiles, layout, left, a_stride, c_stride, start: sums, rows: rows_of_call, ahead, prefetch };
    let [first_panel, panels] = section.panels(f, column_block);
    // Whole blocks of 32 k, unless k are in f32 and all of them.
    let block = f.binary("sdiv", &start, &int(32));
    let a = blocking.left.at(f, a, &start);
    f.for_each(&int(0), &panels, 1, |f, panel| {
        let number = f.add(&first_panel, panel);
        let c = f.element(c, panel, (PANEL * 4) as i64);
        let of = (weight, &number, &block);
        if !blocking.in_parts || weight.dtype != DType::BF16 {
            return multiply_whole(f, context, blocking, of, [&a, &c], (rows, &shape));
        }
        if !weight.is_compressed || blocking.left == Left::Blocks {
            return parts::multiply_panel(f, context, blocking, of, [&a, &c], (rows, &shape));
        }
        let few = context.registers.most_in_passing();
        let [are_few, are_many] =
            ["icmp sle", "icmp sgt"].map(|predicate| f.compare(predicate, rows, &int(few as i64)));
        f.when(&are_few, |f| {
            let shape = Shape { rows: Rows { most: few.min(blocking.most_rows), ..shape.rows }, ..shape.clone() };
            multiply_whole(f, context, blocking, of, [&a, &c], (rows, &shape));
        });
        f.when(&are_many, |f| parts::multiply_panel(f, context, blocking, of, [&a, &c], (rows, &shape)));
    });
}

/// The same for a panel, by its number, from a block of 32 k on, in one call.
fn multiply_whole(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    blocking: &Blocking,
    (weight, panel, first): (&Panels, &Value, &Value),
    [a, c]: [&Value; 2],
    (rows, shape): (&Value, &Shape),
) {
    let multiply = context.multiplies.get(context.module, context.registers, shape);
    let b = match weight.is_compressed {
        true => weight.panel(f, panel),
        false => weight.block(f, panel, first),
    };
    let first = weight.is_compressed.then(|| first.clone());
    let kept = blocking.unpacked.clone().filter(|_| weight.is_compressed && context.registers.keep(blocking.most_rows));
    let arguments = [a.clone(), b, c.clone(), rows.clone()].into_iter().chain(first).chain(kept);
    f.call_local(&multiply, &arguments.collect::<Vec<_>>());
}

/// The lengths in which a sum over k is computed.
fn sum_parts(k: usize, method: DotMethod, longest: usize) -> Vec<usize> {
    if matches!(method, DotMethod::Gemv | DotMethod::SplitK) || k <= LONGEST_SUM {
        return vec![k];
    }
    let part = k.div_ceil(k.div_ceil(longest)).next_multiple_of(PART_UNIT);
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
    if let Some(kept) = &section.kept {
        kept.keep_block(f, section, rows, column_block);
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
