//! The inner kernel of everything that is a matrix product: `C += A B` for some rows of A and some tiles of B, 16
//! columns each. Dots use it over weight panels, attention over key and value blocks.
//!
//! Every element of C is summed over k in ascending order by one chain of multiply-adds, whatever the number of rows
//! in the register block: this is why results depend neither on a row's neighbours nor on the thread count. Where CPUs
//! are fast at it, a link of the chain adds the products of two k in bf16 at once (VDPBF16PS, which takes denormal numbers
//! as zero).

mod block;

use super::math::{Fma, bf16_to_f32, floats};
use super::step_args::share;
use super::text::{FunctionText, I16, I64, ModuleText, PTR, Role, Value, float_of, int, int_of};
use block::{Ahead, Block, Order};
use llmc_ir::dtype::DType;
use std::collections::BTreeSet;

/// Columns of a tile of B.
pub const TILE: usize = 16;

/// Bytes of a cache line, and of a tile's columns for one k in f32 or two in bf16.
const LINE: i64 = 64;

/// Rows that read tiles in turn at most, while registers hold sums of all tiles: an element of A is loaded for each tile
/// then, and more rows would wait for that.
const MOST_IN_TURN: usize = 8;

/// Blocks of 32 k for which one half of the rows waits for the other: of two tiles as many as the first-level cache holds until
/// then, beside A and C.
const BLOCKS_OF_HALVES: usize = 4;

/// Bytes of B that the first-level cache has room for beside A and C.
const FIRST_LEVEL: i64 = 8 << 10;

/// Bytes of a tile's columns for one k in bf16.
const NARROW_LINE: i64 = TILE as i64 * 2;

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
    /// f32, `[k][2 tiles][16 columns]`, made of bf16 for this call. What lies `ahead` of it is made f32 for the next one, and
    /// takes half the bytes: the turns of the call prefetch it evenly.
    Widened,
}

impl Tiles {
    /// Bytes of `k` of a tile.
    fn tile_bytes(self, k: usize) -> i64 {
        let bytes = if let Tiles::Bf16 { .. } = self { 2 } else { 4 };
        (k * TILE * bytes) as i64
    }

    /// Bytes from a tile to the next one of the same k.
    fn tile_stride(self) -> usize {
        match self {
            Tiles::Bf16 { tile_stride, .. } | Tiles::F32 { tile_stride, .. } => tile_stride,
            Tiles::Widened => TILE * 4,
        }
    }
}

/// How rows of A are given, and so what multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftForm {
    /// f32: B is made f32 where it is not.
    Wide,
    /// bf16, as B is: pairs of k are multiplied at once.
    Pairs,
}

impl LeftForm {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            LeftForm::Wide => 4,
            LeftForm::Pairs => 2,
        }
    }

    /// Elements of f32 or bf16 in this form, which f32 has only if it is wide.
    pub fn load(self, f: &mut FunctionText, dtype: DType, address: &Value, lanes: usize) -> Value {
        if dtype == DType::F32 {
            return f.load(floats(lanes), address, 4);
        }
        let bits = f.load(I16.with_lanes(lanes), address, 2);
        match self {
            LeftForm::Wide => bf16_to_f32(f, &bits),
            LeftForm::Pairs => bits,
        }
    }

    /// Zeros in this form.
    pub fn zero(self, lanes: usize) -> Value {
        match self {
            LeftForm::Wide => float_of(floats(lanes), 0.0),
            LeftForm::Pairs => int_of(I16.with_lanes(lanes), 0),
        }
    }
}

/// What a multiply function is specialised for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Length of the sum; a multiple of 32 for bf16.
    pub k: usize,
    /// Tiles of B per call.
    pub tiles: usize,
    /// Layout of B.
    pub layout: Tiles,
    /// Form of A.
    pub left: LeftForm,
    /// Bytes between rows of A.
    pub a_stride: usize,
    /// Bytes between rows of C (f32).
    pub c_stride: usize,
    /// How many rows a call brings.
    pub rows: Rows,
    /// Where few rows bring what follows B. More of them take their time with it, and bring it to the second level.
    pub prefetch: Level,
}

/// A level of cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The nearest one. Streams that go on for long are found by the prefetcher of the second one as well.
    First,
    /// The one behind it, which can wait for more lines at once: on Zen 4 two cores read blocks of 4 KiB at 32 GB/s this way,
    /// and at 24 through the first.
    Second,
}

/// The numbers of rows that a function is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rows {
    /// All of them are multiples of this.
    pub unit: usize,
    /// The largest one.
    pub most: usize,
}

/// What the target's registers allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Rows of the largest register block for one, two and four tiles.
    pub rows: [usize; 3],
    /// Whether they cannot hold columns in bf16 and in f32 beside such a block.
    pub are_few: bool,
    /// Fused multiply-add or not.
    pub fma: Fma,
}

impl Registers {
    /// Rows of the largest register block that a call has. One that takes the tiles of B one after the other is for what
    /// is read from memory: where B fits the first-level cache, it is read again instead.
    fn tallest(&self, shape: &Shape) -> usize {
        let stays = shape.tiles as i64 * shape.layout.tile_bytes(shape.k) <= FIRST_LEVEL;
        if stays && !self.are_few { self.rows[1] } else { self.rows[0] }
    }

    /// Tiles of the widest register block for so many rows, of which a call with `tiles` takes a whole number.
    fn tiles(&self, rows: usize, tiles: usize) -> usize {
        let fits = |&(tiles_of_block, most): &(usize, usize)| rows <= most && tiles.is_multiple_of(tiles_of_block);
        [(4, self.rows[2]), (2, self.rows[1])].into_iter().find(fits).map_or(1, |(tiles, _)| tiles)
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

    /// The name of a function `(a: ptr, b: ptr, c: ptr, rows: i64, ahead: i64)` for `shape`, emitted on first use. `ahead`
    /// is the distance in bytes from B to what is prefetched: as much as B has, in the order of memory.
    pub fn get(&mut self, module: &mut ModuleText, registers: &Registers, shape: &Shape) -> String {
        let layout = match shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => format!("bf16_{tile_stride}_{block_stride}"),
            Tiles::F32 { tile_stride, k_stride } => format!("f32_{tile_stride}_{k_stride}"),
            Tiles::Widened => "widened".to_owned(),
        };
        let tallest = registers.tallest(shape);
        let rows = if shape.rows.most > tallest { Rows { unit: 1, most: tallest + 1 } } else { shape.rows };
        let shape = &Shape { rows, ..shape.clone() };
        let Shape { k, tiles, a_stride, c_stride, .. } = shape;
        let left = if shape.left == LeftForm::Pairs { "_pairs" } else { "" };
        let counts = match rows {
            Rows { most, .. } if most > tallest => "any".to_owned(),
            Rows { unit, most } => format!("{unit}_{most}"),
        };
        let level = if shape.prefetch == Level::Second { "_l2" } else { "" };
        let name = format!("multiply_k{k}_t{tiles}_{layout}{left}_a{a_stride}_c{c_stride}_rows_{counts}{level}");
        if self.is_new(&name) {
            emit(module, registers, shape, &name);
        }
        name
    }
}

/// As many rows as the tallest register block has are one block of exactly that many, so that B is read once for them, in
/// the order of memory. More are blocks of two tiles, of which the first brings B into cache.
fn emit(module: &mut ModuleText, registers: &Registers, shape: &Shape, name: &str) {
    let params = [(PTR, "a"), (PTR, "b"), (PTR, "c"), (I64, "rows"), (I64, "ahead")];
    let (mut f, values) = FunctionText::new(Role::Inner, name, &params);
    let [a, b, c, rows, ahead] = values.try_into().expect("five parameters");
    let tallest = registers.tallest(shape);
    let call = Call { registers, shape, a, b, c };
    let Rows { unit, most } = shape.rows;
    let counts = |unit: usize, most: usize| (unit..=most).step_by(unit).collect::<Vec<usize>>();
    if most <= tallest {
        call.one(&mut f, &counts(unit, most), [&int(0), &rows], &Share::whole(&ahead));
    } else if registers.are_few || tallest == registers.rows[1] {
        call.deal_out(&mut f, tallest, &rows, &ahead);
    } else {
        let fit = f.compare("icmp sle", &rows, &int(tallest as i64));
        f.when(&fit, |f| call.one(f, &counts(1, tallest), [&int(0), &rows], &Share::whole(&ahead)));
        let exceed = f.compare("icmp sgt", &rows, &int(tallest as i64));
        f.when(&exceed, |f| call.deal_out(f, registers.rows[1], &rows, &ahead));
    }
    module.add(f.finish());
}

/// A function while it is written.
struct Call<'s> {
    registers: &'s Registers,
    shape: &'s Shape,
    a: Value,
    b: Value,
    c: Value,
}

/// What a register block prefetches of what a call does.
struct Share {
    ahead: Value,
    /// The number of the block in the call, and how many it has.
    number: Value,
    blocks: Value,
    /// How the block reads B.
    order: Order,
}

impl Share {
    fn whole(ahead: &Value) -> Share {
        Share { ahead: ahead.clone(), number: int(0), blocks: int(1), order: Order::InTurn }
    }
}

impl Call<'_> {
    /// All rows in as few blocks of at most `tallest` as there can be, all of about the same size: one of few rows takes as
    /// long as one of more, since its sums wait for themselves.
    fn deal_out(&self, f: &mut FunctionText, tallest: usize, rows: &Value, ahead: &Value) {
        let counts: Vec<usize> = (1..=tallest).collect();
        let blocks = f.div_ceil(rows, &int(tallest as i64));
        f.for_each(&int(0), &blocks, 1, |f, number| {
            let (start, end) = share(f, rows, number, &blocks);
            let count = f.binary("sub nsw", &end, &start);
            // Behind the first block what it prefetched is there, unless each has its own share.
            let ahead = match self.shape.layout {
                Tiles::Widened => ahead.clone(),
                _ => {
                    let is_first = f.compare("icmp eq", number, &int(0));
                    f.select(&is_first, ahead, &int(0))
                }
            };
            let (number, blocks) = (number.clone(), blocks.clone());
            let share = Share { ahead, number, blocks, order: Order::Beside };
            self.one(f, &counts, [&start, &count], &share);
        });
    }

    /// One block of `rows` rows, which are one of `counts`, from `row` on.
    fn one(&self, f: &mut FunctionText, counts: &[usize], [row, rows]: [&Value; 2], share: &Share) {
        if let &[count] = counts {
            self.block(f, count, row, share);
            return;
        }
        let (fewer, more) = counts.split_at(counts.len() / 2);
        let is_more = f.compare("icmp sge", rows, &int(more[0] as i64));
        let is_fewer = f.compare("icmp slt", rows, &int(more[0] as i64));
        f.when(&is_fewer, |f| self.one(f, fewer, [row, rows], share));
        f.when(&is_more, |f| self.one(f, more, [row, rows], share));
    }

    /// `rows` rows from `row` on, with as many tiles at a time as registers hold.
    fn block(&self, f: &mut FunctionText, rows: usize, row: &Value, share: &Share) {
        let shape = self.shape;
        let tiles = self.registers.tiles(rows, shape.tiles);
        let tile_stride = shape.layout.tile_stride();
        let a = f.element(&self.a, row, shape.a_stride as i64);
        let c = f.element(&self.c, row, shape.c_stride as i64);
        let order = if rows <= MOST_IN_TURN || tiles < shape.tiles { share.order } else { Order::Beside };
        let emit_tiles = |f: &mut FunctionText, shape: &Shape, [a, b]: [&Value; 2], from: &Value| {
            f.for_each(&int(0), &int(shape.tiles as i64), tiles as i64, |f, tile| {
                let b = f.element(b, tile, tile_stride as i64);
                let c = f.element(&c, tile, (TILE * 4) as i64);
                let blocks = int((shape.k / 32) as i64);
                let block = Block { registers: self.registers, shape, rows, tiles, order, blocks };
                let ahead = match shape.layout {
                    Tiles::Widened => self.turns(f, tiles, tile, share),
                    _ => {
                        let from = f.element(from, tile, shape.layout.tile_bytes(shape.k));
                        block.lines_ahead(from)
                    }
                };
                block.emit(f, [a, &b, &c], &ahead);
            });
        };
        let from = f.offset(&self.b, &share.ahead);
        match shape.layout {
            Tiles::Bf16 { block_stride, .. }
                if order == Order::InTurn && tiles < shape.tiles && tile_stride < block_stride =>
            {
                self.halves(f, rows, [&a, &c, &from], block_stride);
            }
            _ => emit_tiles(f, shape, [&a, &self.b], &from),
        }
    }

    /// Rows that have no registers for sums of all tiles, in two halves that have: one waits for some k of the other, so that B
    /// is read from memory once. Each prefetches half of what follows.
    fn halves(&self, f: &mut FunctionText, rows: usize, [a, c, from]: [&Value; 3], block_stride: usize) {
        let shape = self.shape;
        let all = int((shape.k / 32) as i64);
        f.for_each(&int(0), &all, BLOCKS_OF_HALVES as i64, |f, k32| {
            let left = f.binary("sub nsw", &all, k32);
            let blocks = f.min(&left, &int(BLOCKS_OF_HALVES as i64));
            let a = f.element(a, k32, (32 * shape.left.bytes()) as i64);
            let b = f.element(&self.b, k32, block_stride as i64);
            let from = f.element(from, k32, block_stride as i64);
            let behind = f.element(&from, &blocks, block_stride as i64 / 2);
            let lines = shape.tiles / 2;
            for (first, rows, from) in [(0, rows.div_ceil(2), from), (rows.div_ceil(2), rows / 2, behind)] {
                let a = f.offset(&a, &int((first * shape.a_stride) as i64));
                let c = f.offset(c, &int((first * shape.c_stride) as i64));
                let ahead = Ahead { from, step: int(lines as i64 * LINE), lines, level: Level::Second };
                let (registers, tiles, blocks) = (self.registers, shape.tiles, blocks.clone());
                let block = Block { registers, shape, rows, tiles, order: Order::Beside, blocks };
                block.emit(f, [&a, &b, &c], &ahead);
            }
        });
    }

    /// What each k of a block prefetches for the next call, from tile number `tile` on and `tiles` at a time.
    fn turns(&self, f: &mut FunctionText, tiles: usize, tile: &Value, share: &Share) -> Ahead {
        let passes = (self.shape.tiles / tiles) as i64;
        let all = f.scale(&share.blocks, passes);
        let above = f.add(&all, &int(self.shape.tiles as i64 * NARROW_LINE - 1));
        let step = f.binary("sdiv", &above, &all);
        let pass = f.binary("sdiv", tile, &int(tiles as i64));
        let before = f.scale(&share.number, passes);
        let before = f.add(&before, &pass);
        let before = f.scale(&before, self.shape.k as i64);
        let before = f.binary("mul nsw", &before, &step);
        let from = f.offset(&self.b, &share.ahead);
        Ahead { from: f.offset(&from, &before), step, lines: 1, level: Level::First }
    }
}
