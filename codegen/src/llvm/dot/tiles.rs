//! Products of bf16 rows by AMX ([`super::super::amx`]): many rows at a time, or so few that weights are read from memory once for
//! all of them.
//!
//! Rows are brought into tiles once per row block. A panel of a weight then stays in the first-level cache while all rows
//! of the block pass by, and the next panel is brought closer meanwhile. Long sums are cut, so that what passes by stays
//! in the second-level cache; between the cuts sums wait in memory as f32. A compressed panel is unpacked once for all rows
//! of the block. The work behind a group of rows is done beside the products of the next group: tiles take 16 cycles for a
//! product, in which vector instructions can run.

use super::super::amx::{BLOCK, DEPTH, GROUP, ROW_BYTES, ROWS, Reuse, Shape, TILE_BYTES, by_row_tiles, for_groups};
use super::super::math::ints;
use super::super::multiply::Start;
use super::super::text::{FunctionText, I16, Value, int, int_of};
use super::super::{KernelContext, KernelParams, MatrixUnit};
use super::left::copy_elements;
use super::{Blocking, Left, RowSpan, Section, emit_epilogue};
use crate::kernel::dot::{LeftOperand, PANEL, Product};
use crate::tuning::Tuning;
use llmc_ir::op::DotMethod;
use llmc_ir::plan::compressed;

/// Rows of a program at least: vector instructions read weights as fast for fewer, and need no tiles.
const FEWEST_ROWS: usize = 4;
/// From a tile of a panel to the one of the next k.
const B_DEPTH: usize = BLOCK * TILE_BYTES;

/// Whether products of bf16 rows are taken by tiles. This goes by the program, not by the step, because sums in tiles have
/// other bits.
pub fn suit(context: &KernelContext<'_>, operand: &LeftOperand) -> bool {
    context.unit == MatrixUnit::Tiles
        && context.method != DotMethod::SplitK
        && context.bounds.max_of(operand.rows) >= FEWEST_ROWS
}

/// Columns of a block at least: where sums are cut, a part of the rows is used for many.
pub fn columns(k: usize, tuning: &Tuning) -> usize {
    if Parts::of(k, tuning).whole > 0 { tuning.tile_cut_columns } else { PANEL }
}

/// Blocks of rows: all rows that the program can have, or as many as fit the caches.
pub fn blocking(context: &KernelContext<'_>, operand: &LeftOperand) -> Blocking {
    let tuning = &context.target.tuning;
    let most_rows = context.bounds.max_of(operand.rows).min(tuning.tile_block_rows);
    let rows = most_rows.next_multiple_of(GROUP);
    let parts = Parts::of(operand.k, tuning);
    let a_stride = (parts.whole + 1) * parts.depth() * ROW_BYTES;
    Blocking {
        k: operand.k,
        rows,
        most_rows,
        row_unit: GROUP,
        a_stride,
        left: Left::Tiles(parts),
        in_parts: false,
        unpacked: None,
    }
}

/// Copies rows of bf16 into tiles, with zeros to the end of a tile of k. Rows to the end of the last tile are left as
/// they are. The tiles of one part of the sum lie together, so that they take turns evenly in the second-level cache.
pub fn pack_rows(f: &mut FunctionText, (blocking, parts): (&Blocking, Parts), from: &Value, to: &Value, count: &Value) {
    let whole = blocking.k / DEPTH;
    f.for_each(&int(0), count, 1, |f, row| {
        let from = f.element(from, row, (blocking.k * 2) as i64);
        let tile = f.binary("sdiv", row, &int(ROWS as i64));
        let in_tile = f.binary("srem", row, &int(ROWS as i64));
        let to = f.element(to, &tile, parts.row_tile_bytes() as i64);
        let to = f.element(&to, &in_tile, ROW_BYTES as i64);
        let copy = |f: &mut FunctionText, part: &Value, tiles: usize| {
            let from = f.element(&from, part, (parts.depth() * ROW_BYTES) as i64);
            let to = f.element(&to, part, parts.bytes(blocking) as i64);
            f.for_each(&int(0), &int(tiles as i64), 1, |f, k| {
                let from = f.element(&from, k, ROW_BYTES as i64);
                let to = f.element(&to, k, TILE_BYTES as i64);
                let values = f.load(I16.with_lanes(DEPTH), &from, 2);
                f.store(&values, &to, ROW_BYTES);
            });
            (f.offset(&from, &int((tiles * ROW_BYTES) as i64)), f.offset(&to, &int((tiles * TILE_BYTES) as i64)))
        };
        let last = int(parts.whole as i64);
        f.for_each(&int(0), &last, 1, |f, part| {
            copy(f, part, parts.depth());
        });
        let (from, to) = copy(f, &last, whole - parts.whole * parts.depth());
        let rest = blocking.k % DEPTH;
        if rest > 0 {
            f.store(&int_of(ints(ROWS), 0), &to, ROW_BYTES);
            copy_elements(f, &from, &to, rest);
        }
    });
}

/// The products of one block of rows and columns, and the work behind them on each group of rows once it is complete.
pub fn emit_block(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    block: Block<'_>,
    (a, row, count): (&Value, &Value, &Value),
    column_block: &Value,
) -> Result<(), String> {
    let Block { parts, section, .. } = block;
    context.used = MatrixUnit::Tiles;
    let [first, count_of_panels] = section.panels(f, column_block);
    let panels = Panels { first, count: count_of_panels };
    // The first part starts the sums, and with the last one they are complete.
    if parts.whole > 0 {
        let part = Part { block, depth: parts.depth(), start: Start::Zero, number: int(0) };
        part.multiply_all(f, context, params, (a, count), &panels, section.products.len());
    }
    f.for_each(&int(1), &int(parts.whole as i64), 1, |f, number| {
        let part = Part { block, depth: parts.depth(), start: Start::Memory, number: number.clone() };
        part.multiply_all(f, context, params, (a, count), &panels, section.products.len());
    });
    let start = if parts.whole > 0 { Start::Memory } else { Start::Zero };
    let last = Part { block, depth: parts.last, start, number: int(parts.whole as i64) };
    last.multiply_last(f, context, params, (a, count), &panels, |f, context, rows| {
        let [start, end] = rows.map(|offset| f.add(row, offset));
        let span = RowSpan { block: row, start: &start, end: &end };
        emit_epilogue(f, context, params, section, span, column_block)
    })
}

/// The panels of a block of columns.
struct Panels {
    first: Value,
    count: Value,
}

/// A weight, and the first panel of it that a block has.
struct Right {
    weight: super::Panels,
    first: Value,
}

/// A block of rows and columns.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    pub blocking: &'a Blocking,
    pub parts: Parts,
    pub section: &'a Section<'a>,
}

/// How a sum is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Parts before the last one, all of one length.
    whole: usize,
    /// Tiles of k in each of them.
    part: usize,
    /// Tiles of k in the last one, at least 1 and no more than in another.
    last: usize,
}

impl Parts {
    fn of(k: usize, tuning: &Tuning) -> Parts {
        let depth = k.div_ceil(DEPTH);
        let part = tuning.tile_sum_part / DEPTH;
        let whole = if k > tuning.tile_longest_sum { (depth - 1) / part } else { 0 };
        Parts { whole, part, last: depth - whole * part }
    }

    /// Tiles of k in the longest.
    fn depth(self) -> usize {
        if self.whole > 0 { self.part } else { self.last }
    }

    /// Bytes of a part of 16 rows.
    fn row_tile_bytes(self) -> usize {
        self.depth() * TILE_BYTES
    }

    /// Bytes of a part of a panel in tiles.
    pub fn panel_bytes(self) -> usize {
        self.depth() * B_DEPTH
    }

    /// Bytes of a part of a block's rows.
    fn bytes(self, blocking: &Blocking) -> usize {
        blocking.rows / ROWS * self.row_tile_bytes()
    }
}

/// A part of the sum of all products of a block.
struct Part<'a> {
    block: Block<'a>,
    /// Tiles of k in it.
    depth: usize,
    start: Start,
    /// Parts before it.
    number: Value,
}

impl Part<'_> {
    /// All rows with all panels of the weights of the first products.
    fn multiply_all(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        (a, count): (&Value, &Value),
        panels: &Panels,
        products: usize,
    ) {
        for (product, tile) in self.block.section.products.iter().zip(&self.block.section.tiles).take(products) {
            let right = self.right(params, product, panels);
            self.multiply_panels(f, context, ([a, tile], &right), count, &panels.count);
        }
    }

    /// All rows with all panels of all weights. `complete` writes the work on rows from one to another, all of whose sums are
    /// complete; it is written twice.
    fn multiply_last(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        (a, count): (&Value, &Value),
        panels: &Panels,
        mut complete: impl FnMut(&mut FunctionText, &mut KernelContext<'_>, [&Value; 2]) -> Result<(), String>,
    ) -> Result<(), String> {
        let last_panel = f.add(&panels.count, &int(-1));
        let mut products = self.block.section.products.iter().zip(&self.block.section.tiles);
        let (product, tile) = products.next_back().ok_or("a part of a dot region without a dot")?;
        self.multiply_all(f, context, params, (a, count), panels, self.block.section.products.len() - 1);
        let right = self.right(params, product, panels);
        self.multiply_panels(f, context, ([a, tile], &right), count, &last_panel);
        let operands = self.operands(f, context, ([a, tile], &right), &last_panel);
        let mut result = Ok(());
        let groups = f.div_ceil(count, &int(GROUP as i64));
        // The rows whose sums are complete.
        let complete_rows = f.fold(&int(0), &groups, 1, &[int(0), int(0)], |f, group, rows| {
            let first = f.scale(group, GROUP as i64);
            let left = f.binary("sub nsw", count, &first);
            let own = f.min(&left, &int(GROUP as i64));
            let end = f.add(&first, &own);
            by_row_tiles(f, self.block.blocking.most_rows, &left, |f, row_tiles| {
                let arguments = self.arguments(f, &operands, group);
                // So few rows are the last ones, and leave those before them for later.
                if row_tiles < BLOCK {
                    return self.call(f, context, row_tiles, &arguments);
                }
                let each = GROUP.div_ceil(self.depth.min(GROUP));
                self.shape(BLOCK).emit(f, arguments.each_ref(), |f, k| {
                    let done = f.scale(k, each as i64);
                    let start = f.add(&rows[0], &done);
                    let stop = f.add(&start, &int(each as i64));
                    let stop = f.min(&stop, &rows[1]);
                    result = complete(f, context, [&start, &stop]);
                });
            });
            let is_whole = f.compare("icmp sgt", &left, &int(ROWS as i64));
            vec![f.select(&is_whole, &first, &rows[0]), end]
        });
        result.and(complete(f, context, [&complete_rows[0], &complete_rows[1]]))
    }

    /// All rows with the first panels of a weight.
    fn multiply_panels(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        (rows_and_sums, right): ([&Value; 2], &Right),
        count: &Value,
        panels: &Value,
    ) {
        f.for_each(&int(0), panels, 1, |f, panel| {
            let operands = self.operands(f, context, (rows_and_sums, right), panel);
            for_groups(f, count, |f, group, rows| {
                let arguments = self.arguments(f, &operands, group);
                by_row_tiles(f, self.block.blocking.most_rows, rows, |f, row_tiles| {
                    self.call(f, context, row_tiles, &arguments);
                });
            });
        });
    }

    /// The weight of a product.
    fn right(&self, params: &KernelParams, product: &Product, panels: &Panels) -> Right {
        Right { weight: super::panels(params, self.block.blocking, product), first: panels.first.clone() }
    }

    fn call(&self, f: &mut FunctionText, context: &mut KernelContext<'_>, row_tiles: usize, arguments: &[Value; 4]) {
        let multiply = context.tile_products.get(context.module, &self.shape(row_tiles));
        f.call_local(&multiply, arguments);
    }

    fn shape(&self, row_tiles: usize) -> Shape {
        Shape {
            depth: self.depth,
            row_tiles,
            a_row: ROW_BYTES,
            a_depth: TILE_BYTES,
            a_tile: self.block.parts.row_tile_bytes(),
            a_reuse: if self.groups() > 1 { Reuse::Later } else { Reuse::Soon },
            b_depth: B_DEPTH,
            b_tile: TILE_BYTES,
            c_row: self.block.section.c_stride,
            start: self.start,
            ahead: self.ahead(),
            ahead_depth: self.panel_depth(),
        }
    }

    /// Groups of a block of rows.
    fn groups(&self) -> usize {
        self.block.blocking.rows / GROUP
    }

    /// Lines of the next panel that each group brings closer per tile of k: its share. So few rows bring what they need
    /// themselves.
    fn ahead(&self) -> usize {
        let lines = self.panel_depth() / ROW_BYTES;
        if self.block.blocking.most_rows <= ROWS { 0 } else { lines.div_ceil(self.groups()) }
    }

    /// Bytes of panels per tile of k.
    fn panel_depth(&self) -> usize {
        let is_compressed = self.block.section.products.iter().any(|product| product.is_compressed);
        if is_compressed { compressed::BLOCK } else { B_DEPTH }
    }

    /// What all rows and a panel are multiplied from: rows, tiles of the panel, sums, and what is brought closer.
    fn operands(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        ([a, c], right): ([&Value; 2], &Right),
        panel: &Value,
    ) -> [Value; 4] {
        let Block { blocking, parts, .. } = self.block;
        let Right { weight, first } = right;
        let a = f.element(a, &self.number, parts.bytes(blocking) as i64);
        let c = f.element(c, panel, (PANEL * 4) as i64);
        let panel = f.add(first, panel);
        let next = f.add(&panel, &int(1));
        let block = f.scale(&self.number, parts.depth() as i64);
        let next = weight.block(f, &next, &block);
        let b = match &blocking.unpacked {
            Some(memory) if weight.is_compressed => {
                let ahead = (self.ahead() == 0).then_some(context.target.tuning.prefetch_bytes);
                weight.unpack(f, context, (&panel, &block), ahead, (self.depth, memory));
                memory.clone()
            }
            _ => weight.block(f, &panel, &block),
        };
        [a, b, c, next]
    }

    /// Those of one group of rows.
    fn arguments(&self, f: &mut FunctionText, [a, b, c, next]: &[Value; 4], group: &Value) -> [Value; 4] {
        let a = f.element(a, group, (BLOCK * self.block.parts.row_tile_bytes()) as i64);
        let c = f.element(c, group, (GROUP * self.block.section.c_stride) as i64);
        let next = f.element(next, group, (self.ahead() * ROW_BYTES) as i64);
        [a, b.clone(), c, next]
    }
}
