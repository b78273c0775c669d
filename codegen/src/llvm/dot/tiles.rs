//! Products of bf16 rows by AMX ([`super::super::amx`]): many rows at a time, or so few that weights are read from memory once for
//! all of them.
//!
//! Rows are brought into tiles once per row block. A panel of a weight then stays in the first-level cache while all rows
//! of the block pass by, and the next panel is brought closer meanwhile. Long sums are cut, so that what passes by stays
//! in the second-level cache; between the cuts sums wait in memory as f32.

use super::super::amx::{
    BLOCK, DEPTH, GROUP, ROW_BYTES, ROWS, Reuse, Shape, Start, TILE_BYTES, by_row_tiles, for_groups,
};
use super::super::math::ints;
use super::super::text::{FunctionText, I16, Value, int, int_of};
use super::super::{KernelContext, KernelParams, MatrixUnit};
use super::{Blocking, Left, RowSpan, Section, emit_epilogue};
use crate::kernel::dot::{LeftOperand, PANEL, Product, Products};
use llmc_ir::dtype::DType;
use llmc_ir::op::DotMethod;

/// Rows of a program at least: vector instructions read weights as fast for fewer, and need no tiles.
const FEWEST_ROWS: usize = 4;
/// Rows of a block at most.
const MOST_ROWS: usize = 256;
/// Sums longer than this are cut.
const LONGEST_SUM: usize = 1536;
/// Length of the parts of a cut sum.
const SUM_PART: usize = 512;
/// Columns of a block where sums are cut, so that a part of the rows is used for all of them.
const COLUMNS_OF_CUT_SUMS: usize = 256;
/// Lines of a panel per tile of k.
const LINES: usize = BLOCK * ROWS;
/// From a tile of a panel to the one of the next k.
const B_DEPTH: usize = BLOCK * TILE_BYTES;

/// Whether a region's products are taken by tiles: they round nothing only if both sides are bf16. This goes by the
/// program, not by the step, because sums in tiles have other bits.
pub fn suit(context: &KernelContext<'_>, operand: &LeftOperand, products: &[Products]) -> bool {
    let mut products = products.iter().flat_map(|products| &products.products);
    context.unit == MatrixUnit::Tiles
        && context.method != DotMethod::SplitK
        && operand.dtype == DType::BF16
        && products.all(|product| product.dtype == DType::BF16)
        && context.bounds.max_of(operand.rows) >= FEWEST_ROWS
}

/// Columns of a block at least.
pub fn columns(k: usize) -> usize {
    if k > LONGEST_SUM { COLUMNS_OF_CUT_SUMS } else { PANEL }
}

/// Blocks of rows: all rows that the program can have, or as many as fit the caches.
pub fn blocking(context: &KernelContext<'_>, operand: &LeftOperand) -> Blocking {
    let rows = context.bounds.max_of(operand.rows).min(MOST_ROWS).next_multiple_of(GROUP);
    Blocking { k: operand.k, rows, a_stride: operand.k.next_multiple_of(DEPTH) * 2, left: Left::Tiles }
}

/// Copies rows of bf16 into tiles, with zeros to the end of a tile of k. Rows to the end of the last tile are left as
/// they are.
pub fn pack_rows(f: &mut FunctionText, blocking: &Blocking, from: &Value, to: &Value, count: &Value) {
    let whole = blocking.k / DEPTH;
    let rest = blocking.k % DEPTH;
    f.for_each(&int(0), count, 1, |f, row| {
        let from = f.element(from, row, (blocking.k * 2) as i64);
        let tile = f.binary("sdiv", row, &int(ROWS as i64));
        let in_tile = f.binary("srem", row, &int(ROWS as i64));
        let to = f.element(to, &tile, (blocking.a_stride * ROWS) as i64);
        let to = f.element(&to, &in_tile, ROW_BYTES as i64);
        f.for_each(&int(0), &int(whole as i64), 1, |f, k| {
            let from = f.element(&from, k, ROW_BYTES as i64);
            let to = f.element(&to, k, TILE_BYTES as i64);
            let values = f.load(I16.with_lanes(DEPTH), &from, 2);
            f.store(&values, &to, ROW_BYTES);
        });
        if rest > 0 {
            let from = f.offset(&from, &int((whole * ROW_BYTES) as i64));
            let to = f.offset(&to, &int((whole * TILE_BYTES) as i64));
            f.store(&int_of(ints(ROWS), 0), &to, ROW_BYTES);
            f.for_each(&int(0), &int(rest as i64), 1, |f, k| {
                let from = f.element(&from, k, 2);
                let to = f.element(&to, k, 2);
                let value = f.load(I16, &from, 2);
                f.store(&value, &to, 2);
            });
        }
    });
}

/// The products of one block of rows and columns, and the work behind them on each group of rows as soon as it is complete.
pub fn emit_block(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    blocking: &Blocking,
    section: &Section<'_>,
    (a, row, count): (&Value, &Value, &Value),
    column_block: &Value,
) -> Result<(), String> {
    context.used = MatrixUnit::Tiles;
    let block_panels = section.columns / PANEL;
    let first_panel = f.scale(column_block, block_panels as i64);
    let all_panels = int(section.n.div_ceil(PANEL) as i64);
    let left = f.binary("sub nsw", &all_panels, &first_panel);
    let panels = f.min(&left, &int(block_panels as i64));
    let last_panel = f.add(&panels, &int(-1));
    let parts = sum_parts(blocking.k);
    let products: Vec<(&Product, &Value)> = section.products.iter().zip(&section.tiles).collect();
    let mut result = Ok(());
    let mut done = 0;
    for (number, &depth) in parts.iter().enumerate() {
        let start = if number == 0 { Start::Zero } else { Start::Memory };
        for (index, (product, tile)) in products.iter().enumerate() {
            let weight = f.element(&params.inputs[product.weight], &first_panel, panel_bytes(blocking));
            let part = Part { blocking, section, depth, start, before: done };
            let is_last = number + 1 == parts.len() && index + 1 == products.len();
            let plain = if is_last { &last_panel } else { &panels };
            f.for_each(&int(0), plain, 1, |f, panel| {
                for_groups(f, count, |f, group, rows| {
                    part.multiply(f, context, [a, &weight, tile], panel, group, rows);
                });
            });
            if is_last {
                for_groups(f, count, |f, group, rows| {
                    part.multiply(f, context, [a, &weight, tile], &last_panel, group, rows);
                    let skipped = f.scale(group, GROUP as i64);
                    let start = f.add(row, &skipped);
                    let rows = f.min(rows, &int(GROUP as i64));
                    let end = f.add(&start, &rows);
                    let span = RowSpan { block: row, start: &start, end: &end };
                    result = emit_epilogue(f, context, params, section, span, column_block);
                });
            }
        }
        done += depth;
    }
    result
}

/// A part of the sum of all products of a block.
struct Part<'a> {
    blocking: &'a Blocking,
    section: &'a Section<'a>,
    /// Tiles of k in it, and before it.
    depth: usize,
    before: usize,
    start: Start,
}

impl Part<'_> {
    /// One group of rows with one panel.
    fn multiply(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        [a, weight, c]: [&Value; 3],
        panel: &Value,
        group: &Value,
        rows: &Value,
    ) {
        let blocking = self.blocking;
        let groups = blocking.rows / GROUP;
        // So few rows bring what they need themselves.
        let ahead = if context.bounds.max.tokens <= ROWS { 0 } else { LINES / groups };
        let shape = |row_tiles: usize| Shape {
            depth: self.depth,
            row_tiles,
            a_row: ROW_BYTES,
            a_depth: TILE_BYTES,
            a_tile: blocking.a_stride * ROWS,
            a_reuse: if groups > 1 { Reuse::Later } else { Reuse::Soon },
            b_depth: B_DEPTH,
            b_tile: TILE_BYTES,
            c_row: self.section.c_stride,
            start: self.start,
            ahead,
        };
        let a = f.element(a, group, (GROUP * blocking.a_stride) as i64);
        let a = f.offset(&a, &int((self.before * TILE_BYTES) as i64));
        let b = f.element(weight, panel, panel_bytes(blocking));
        let b = f.offset(&b, &int((self.before * B_DEPTH) as i64));
        let c = f.element(c, group, (GROUP * self.section.c_stride) as i64);
        let c = f.element(&c, panel, (PANEL * 4) as i64);
        // Each group brings its share of every tile of the next panel.
        let next = f.offset(&b, &int(panel_bytes(blocking)));
        let next = f.element(&next, group, (ahead * ROW_BYTES) as i64);
        let arguments = [a, b, c, next];
        by_row_tiles(f, rows, |f, row_tiles| {
            let multiply = context.tile_products.get(context.module, &shape(row_tiles));
            f.call_local(&multiply, &arguments);
        });
    }
}

fn panel_bytes(blocking: &Blocking) -> i64 {
    (blocking.a_stride * PANEL) as i64
}

/// The tiles of k in which a sum is computed.
fn sum_parts(k: usize) -> Vec<usize> {
    let depth = k.div_ceil(DEPTH);
    if k <= LONGEST_SUM {
        return vec![depth];
    }
    let part = SUM_PART / DEPTH;
    let mut parts = vec![part; depth / part];
    if !depth.is_multiple_of(part) {
        parts.push(depth % part);
    }
    parts
}
