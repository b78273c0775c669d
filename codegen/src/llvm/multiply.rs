//! The inner kernel of everything that is a matrix product: `C += A B` for rows of A in f32 and one or two tiles of
//! B, 16 columns each. Dots use it over weight panels, attention over key and value blocks.
//!
//! Every element of C is summed over k in ascending order by one chain of multiply-adds, whatever the number of rows
//! in the register block: this is why results depend neither on a row's neighbours nor on the thread count.

use super::math::{Fma, floats, fma, ints};
use super::step_args::share;
use super::text::{FunctionText, I64, ModuleText, PTR, Role, Value, int, int_of};
use std::collections::BTreeSet;

/// Columns of a tile of B.
pub const TILE: usize = 16;

/// How B lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tiles {
    /// bf16, blocks of 32 k: in a block each tile is `[16 k pairs][16 columns][2]`, 1 KiB.
    Bf16 {
        /// Bytes from a tile to the next one of the same k.
        tile_stride: usize,
        /// Bytes from 32 k to the next 32 k of the same tile.
        block_stride: usize,
    },
    /// f32: each tile is `[k][16 columns]` with a stride.
    F32 {
        /// Bytes from a tile to the next one of the same k.
        tile_stride: usize,
        /// Bytes from one k to the next.
        k_stride: usize,
    },
}

/// What a multiply function is specialised for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Length of the sum; a multiple of 32 for bf16.
    pub k: usize,
    /// Tiles of B per call, 1 or 2.
    pub tiles: usize,
    /// Layout of B.
    pub layout: Tiles,
    /// Bytes between rows of A (f32).
    pub a_stride: usize,
    /// Bytes between rows of C (f32).
    pub c_stride: usize,
    /// How far ahead of the loads B is prefetched when few rows make the call bound by memory; 0: never.
    pub prefetch: usize,
    /// Bytes that a call prefetches for the next one, from its argument `next` on; for f32.
    pub next: usize,
}

/// What the target's registers allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Rows of the largest register block for one and for two tiles.
    pub rows: [usize; 2],
    /// Whether they cannot hold columns in bf16 and in f32 beside such a block.
    pub are_few: bool,
    /// Fused multiply-add or not.
    pub fma: Fma,
}

impl Registers {
    /// Tiles per call that use the registers best.
    pub fn tiles(&self) -> usize {
        if self.rows[1] * 2 >= self.rows[0] { 2 } else { 1 }
    }
}

/// The multiply functions of a module, each emitted once.
#[derive(Debug, Default)]
pub struct Multiplies {
    emitted: BTreeSet<String>,
}

impl Multiplies {
    /// Whether a function of that name has yet to be emitted, which the caller then does.
    pub fn is_new(&mut self, name: &str) -> bool {
        self.emitted.insert(name.to_owned())
    }

    /// The name of a function `(a: ptr, b: ptr, c: ptr, next: ptr, rows: i64)` for `shape`, emitted on first use.
    pub fn get(&mut self, module: &mut ModuleText, registers: &Registers, shape: &Shape) -> String {
        let layout = match shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => format!("bf16_{tile_stride}_{block_stride}"),
            Tiles::F32 { tile_stride, k_stride } => format!("f32_{tile_stride}_{k_stride}"),
        };
        let Shape { k, tiles, a_stride, c_stride, prefetch, next, .. } = shape;
        let name = format!("multiply_k{k}_t{tiles}_{layout}_a{a_stride}_c{c_stride}_p{prefetch}_n{next}");
        if self.is_new(&name) {
            emit(module, registers, shape, &name);
        }
        name
    }
}

fn emit(module: &mut ModuleText, registers: &Registers, shape: &Shape, name: &str) {
    let params = [(PTR, "a"), (PTR, "b"), (PTR, "c"), (PTR, "next"), (I64, "rows")];
    let (mut f, values) = FunctionText::new(Role::Inner, name, &params);
    let [a, b, c, next, rows] = values.try_into().expect("five parameters");
    if registers.are_few {
        deal_out(&mut f, registers, shape, [&a, &b, &c], &next, &rows);
    } else {
        largest_first(&mut f, registers, shape, [&a, &b, &c], &rows);
    }
    module.add(f.finish());
}

/// Rows in as few register blocks as there can be, all of about the same size: one of few rows takes as long as one of more,
/// since its sums wait for themselves.
fn deal_out(f: &mut FunctionText, registers: &Registers, shape: &Shape, abc: [&Value; 3], next: &Value, rows: &Value) {
    let largest = registers.rows[shape.tiles - 1];
    let counts: Vec<usize> = (1..=largest).collect();
    let rounded = f.add(rows, &int(largest as i64 - 1));
    let blocks = f.binary("sdiv", &rounded, &int(largest as i64));
    // Each k of each block prefetches as much.
    let all = f.scale(&blocks, shape.k as i64);
    let above = f.add(&all, &int(shape.next as i64 - 1));
    let step = f.binary("sdiv", &above, &all);
    let bytes = f.scale(&step, shape.k as i64);
    f.for_each(&int(0), &blocks, 1, |f, number| {
        let (start, end) = share(f, rows, number, &blocks);
        let count = f.binary("sub nsw", &end, &start);
        let skipped = f.binary("mul nsw", number, &bytes);
        let next = f.offset(next, &skipped);
        block_of(f, &counts, &count, &|f, count| {
            block(f, registers, shape, count, abc, Some((&next, &step)), &start);
        });
    });
}

/// Code for the one of `counts` that `count` is.
fn block_of(f: &mut FunctionText, counts: &[usize], count: &Value, body: &dyn Fn(&mut FunctionText, usize)) {
    if let &[count] = counts {
        body(f, count);
        return;
    }
    let (fewer, more) = counts.split_at(counts.len() / 2);
    for (predicate, counts) in [("icmp slt", fewer), ("icmp sge", more)] {
        let is_among = f.compare(predicate, count, &int(more[0] as i64));
        f.when(&is_among, |f| block_of(f, counts, count, body));
    }
}

/// Register blocks of the largest size, then one of each power of two that is needed.
fn largest_first(f: &mut FunctionText, registers: &Registers, shape: &Shape, abc: [&Value; 3], rows: &Value) {
    let largest = registers.rows[shape.tiles - 1];
    let whole = f.binary("sdiv", rows, &int(largest as i64));
    let whole = f.scale(&whole, largest as i64);
    f.for_each(&int(0), &whole, largest as i64, |f, row| block(f, registers, shape, largest, abc, None, row));
    let mut done = whole;
    let mut size = if largest > 1 { largest.next_power_of_two() / 2 } else { 0 };
    while size > 0 {
        let left = f.binary("sub nsw", rows, &done);
        let enough = f.compare("icmp sge", &left, &int(size as i64));
        f.when(&enough, |f| block(f, registers, shape, size, abc, None, &done));
        let advance = f.select(&enough, &int(size as i64), &int(0));
        done = f.add(&done, &advance);
        size /= 2;
    }
}

/// One register block: `rows` rows from `row` on. `next` is what it prefetches, and how much of that for each k.
fn block(
    f: &mut FunctionText,
    registers: &Registers,
    shape: &Shape,
    rows: usize,
    abc: [&Value; 3],
    next: Option<(&Value, &Value)>,
    row: &Value,
) {
    let [a, b, c] = abc;
    let a = f.element(a, row, shape.a_stride as i64);
    let c = f.element(c, row, shape.c_stride as i64);
    let c_at =
        |f: &mut FunctionText, r: usize, tile: usize| f.offset(&c, &int((r * shape.c_stride + tile * TILE * 4) as i64));
    let mut sums = Vec::new();
    for r in 0..rows {
        for tile in 0..shape.tiles {
            let at = c_at(f, r, tile);
            sums.push(f.load(floats(TILE), &at, 64));
        }
    }
    let sums = match shape.layout {
        Tiles::Bf16 { tile_stride, block_stride } => {
            let prefetch = if rows <= 4 { shape.prefetch } else { 0 };
            f.fold(&int(0), &int((shape.k / 32) as i64), 1, &sums, |f, k32, sums| {
                let a = f.element(&a, k32, 128);
                let b = f.element(b, k32, block_stride as i64);
                f.fold(&int(0), &int(16), 4, sums, |f, pair, sums| {
                    let a = f.element(&a, pair, 8);
                    let b = f.element(&b, pair, 64);
                    let mut sums = sums.to_vec();
                    for step in 0..4 {
                        bf16_pair(f, registers.fma, shape, tile_stride, prefetch, [&a, &b], step, &mut sums);
                    }
                    sums
                })
            })
        }
        Tiles::F32 { tile_stride, k_stride } => f.fold(&int(0), &int(shape.k as i64), 1, &sums, |f, k, sums| {
            let a = f.element(&a, k, 4);
            let b = f.element(b, k, k_stride as i64);
            if let (Some((next, step)), 1..) = (next, shape.next) {
                let skipped = f.binary("mul nsw", k, step);
                let next = f.offset(next, &skipped);
                f.prefetch(&next);
            }
            let mut columns = Vec::new();
            for tile in 0..shape.tiles {
                let at = f.offset(&b, &int((tile * tile_stride) as i64));
                columns.push(f.load(floats(TILE), &at, 64));
            }
            let mut sums = sums.to_vec();
            accumulate(f, registers.fma, shape, &a, 0, &columns, &mut sums);
            sums
        }),
    };
    for r in 0..rows {
        for tile in 0..shape.tiles {
            let at = c_at(f, r, tile);
            f.store(&sums[r * shape.tiles + tile], &at, 64);
        }
    }
}

/// Two consecutive k of all rows: one line of B per tile holds both.
#[allow(clippy::too_many_arguments)]
fn bf16_pair(
    f: &mut FunctionText,
    fused: Fma,
    shape: &Shape,
    tile_stride: usize,
    prefetch: usize,
    [a, b]: [&Value; 2],
    step: usize,
    sums: &mut [Value],
) {
    let mut even = Vec::new();
    let mut odd = Vec::new();
    for tile in 0..shape.tiles {
        let at = f.offset(b, &int((tile * tile_stride + step * 64) as i64));
        if prefetch > 0 {
            let ahead = f.offset(&at, &int(prefetch as i64));
            f.prefetch(&ahead);
        }
        let line = f.load(ints(TILE), &at, 64);
        let low = f.binary("shl", &line, &int_of(ints(TILE), 16));
        even.push(f.cast("bitcast", &low, floats(TILE)));
        let high = f.binary("and", &line, &int_of(ints(TILE), -0x1_0000));
        odd.push(f.cast("bitcast", &high, floats(TILE)));
    }
    accumulate(f, fused, shape, a, step * 8, &even, sums);
    accumulate(f, fused, shape, a, step * 8 + 4, &odd, sums);
}

/// `sums[row][tile] += a[row] * columns[tile]` for one k, `a` being `a_offset` bytes into each row.
fn accumulate(
    f: &mut FunctionText,
    fused: Fma,
    shape: &Shape,
    a: &Value,
    a_offset: usize,
    columns: &[Value],
    sums: &mut [Value],
) {
    for (r, row_sums) in sums.chunks_mut(shape.tiles).enumerate() {
        let at = f.offset(a, &int((r * shape.a_stride + a_offset) as i64));
        let x = f.load(super::text::F32, &at, 4);
        let x = f.splat(&x, TILE);
        for (sum, column) in row_sums.iter_mut().zip(columns) {
            *sum = fma(f, fused, &x, column, sum);
        }
    }
}
