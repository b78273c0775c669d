//! The inner kernel of everything that is a matrix product: `C += A B` for some rows of A and some tiles of B, 16
//! columns each. Dots use it over weight panels, attention over key and value blocks.
//!
//! Every element of C is summed over k in ascending order by one chain of multiply-adds, whatever the number of rows
//! in the register block: this is why results depend neither on a row's neighbours nor on the thread count. Where CPUs
//! are fast at it, a link of the chain adds the products of two k in bf16 at once (VDPBF16PS, which takes denormal numbers
//! as zero).

use super::math::{Fma, bf16_pairs_to_f32, floats, fma, ints};
use super::step_args::share;
use super::text::{F32, FunctionText, I32, I64, ModuleText, PTR, Role, Scalar, Ty, Value, int};
use std::collections::BTreeSet;

/// Columns of a tile of B.
pub const TILE: usize = 16;

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
    /// Whether what B is followed by comes from memory: a call is told how far ahead.
    pub prefetch: bool,
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
    /// is the distance in bytes from what is loaded of B to what is prefetched.
    pub fn get(&mut self, module: &mut ModuleText, registers: &Registers, shape: &Shape) -> String {
        let layout = match shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => format!("bf16_{tile_stride}_{block_stride}"),
            Tiles::F32 { tile_stride, k_stride } => format!("f32_{tile_stride}_{k_stride}"),
            Tiles::Widened => "widened".to_owned(),
        };
        let tallest = registers.rows[0];
        let rows = if shape.rows.most > tallest { Rows { unit: 1, most: tallest + 1 } } else { shape.rows };
        let shape = &Shape { rows, ..shape.clone() };
        let Shape { k, tiles, a_stride, c_stride, .. } = shape;
        let left = if shape.left == LeftForm::Pairs { "_pairs" } else { "" };
        let counts = match rows {
            Rows { most, .. } if most > tallest => "any".to_owned(),
            Rows { unit, most } => format!("{unit}_{most}"),
        };
        let prefetch = if shape.prefetch { "_prefetch" } else { "" };
        let name = format!("multiply_k{k}_t{tiles}_{layout}{left}_a{a_stride}_c{c_stride}_rows_{counts}{prefetch}");
        if self.is_new(&name) {
            emit(module, registers, shape, &name);
        }
        name
    }
}

/// Rows in excess of the tallest register block are taken in blocks of two tiles; the rest, or all where there are fewer,
/// are one block of exactly that many rows, so that B is read once for them.
fn emit(module: &mut ModuleText, registers: &Registers, shape: &Shape, name: &str) {
    let params = [(PTR, "a"), (PTR, "b"), (PTR, "c"), (I64, "rows"), (I64, "ahead")];
    let (mut f, values) = FunctionText::new(Role::Inner, name, &params);
    let [a, b, c, rows, ahead] = values.try_into().expect("five parameters");
    let tallest = registers.rows[0];
    let call = Call { registers, shape, a, b, c };
    let Rows { unit, most } = shape.rows;
    if most <= tallest {
        let counts: Vec<usize> = (unit..=most).step_by(unit).collect();
        call.rest(&mut f, &counts, &int(0), &rows, &Share::whole(&ahead));
    } else if registers.are_few {
        call.deal_out(&mut f, tallest, &rows, &ahead);
    } else {
        let size = registers.rows[1];
        let excess = f.add(&rows, &int(size as i64 - 1 - tallest as i64));
        let excess = f.max(&excess, &int(0));
        let whole = f.binary("sdiv", &excess, &int(size as i64));
        let whole = f.scale(&whole, size as i64);
        // The first block brings what follows B; behind it that is there.
        let ahead_of = |f: &mut FunctionText, row: &Value| {
            let is_first = f.compare("icmp eq", row, &int(0));
            f.select(&is_first, &ahead, &int(0))
        };
        f.for_each(&int(0), &whole, size as i64, |f, row| {
            let ahead = ahead_of(f, row);
            call.block(f, size, row, &Share::whole(&ahead));
        });
        let left = f.binary("sub nsw", &rows, &whole);
        let ahead = ahead_of(&mut f, &whole);
        let counts: Vec<usize> = (1..=tallest).collect();
        call.rest(&mut f, &counts, &whole, &left, &Share::whole(&ahead));
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
}

impl Share {
    fn whole(ahead: &Value) -> Share {
        Share { ahead: ahead.clone(), number: int(0), blocks: int(1) }
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
            let share = Share { ahead: ahead.clone(), number: number.clone(), blocks: blocks.clone() };
            self.rest(f, &counts, &start, &count, &share);
        });
    }

    /// One block of `rows` rows, which are one of `counts`, from `row` on.
    fn rest(&self, f: &mut FunctionText, counts: &[usize], row: &Value, rows: &Value, share: &Share) {
        if let &[count] = counts {
            self.block(f, count, row, share);
            return;
        }
        let (fewer, more) = counts.split_at(counts.len() / 2);
        let is_more = f.compare("icmp sge", rows, &int(more[0] as i64));
        let is_fewer = f.compare("icmp slt", rows, &int(more[0] as i64));
        f.when(&is_fewer, |f| self.rest(f, fewer, row, rows, share));
        f.when(&is_more, |f| self.rest(f, more, row, rows, share));
    }

    /// `rows` rows from `row` on, with as many tiles at a time as registers hold.
    fn block(&self, f: &mut FunctionText, rows: usize, row: &Value, share: &Share) {
        let shape = self.shape;
        let tiles = self.registers.tiles(rows, shape.tiles);
        let tile_stride = shape.layout.tile_stride();
        let a = f.element(&self.a, row, shape.a_stride as i64);
        let c = f.element(&self.c, row, shape.c_stride as i64);
        f.for_each(&int(0), &int(shape.tiles as i64), tiles as i64, |f, tile| {
            let b = f.element(&self.b, tile, tile_stride as i64);
            let c = f.element(&c, tile, (TILE * 4) as i64);
            let block = Block { registers: self.registers, shape, rows, tiles };
            match shape.layout {
                Tiles::Widened => {
                    let turns = self.turns(f, tiles, tile, share);
                    block.emit(f, [&a, &b, &c], &turns);
                }
                _ => block.emit(f, [&a, &b, &c], &Ahead::OfLines(share.ahead.clone())),
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
        Ahead::OfTurns { from: f.offset(&from, &before), step }
    }
}

/// Where a block prefetches.
enum Ahead {
    /// At this distance from each line that it loads.
    OfLines(Value),
    /// From an address on, so many bytes further for each k.
    OfTurns { from: Value, step: Value },
}

/// A register block.
struct Block<'s> {
    registers: &'s Registers,
    shape: &'s Shape,
    rows: usize,
    tiles: usize,
}

impl Block<'_> {
    fn emit(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], ahead: &Ahead) {
        let c_at = |f: &mut FunctionText, row: usize, tile: usize| {
            f.offset(c, &int((row * self.shape.c_stride + tile * TILE * 4) as i64))
        };
        let mut sums = Vec::new();
        for row in 0..self.rows {
            for tile in 0..self.tiles {
                let at = c_at(f, row, tile);
                sums.push(f.load(floats(TILE), &at, 64));
            }
        }
        let sums = match self.shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => {
                // Few rows leave little work between the turns of a loop.
                let pairs = if self.rows * self.tiles <= 8 { 4 } else { 1 };
                let blocks = int((self.shape.k / 32) as i64);
                f.fold(&int(0), &blocks, 1, &sums, |f, k32, sums| {
                    let bytes = self.shape.left.bytes();
                    let a = f.element(a, k32, 32 * bytes as i64);
                    let b = f.element(b, k32, block_stride as i64);
                    f.fold(&int(0), &int(16), pairs as i64, sums, |f, pair, sums| {
                        let a = f.element(&a, pair, 2 * bytes as i64);
                        let b = f.element(&b, pair, 64);
                        let mut sums = sums.to_vec();
                        for step in 0..pairs {
                            self.bf16_pair(f, tile_stride, [&a, &b], step, ahead, &mut sums);
                        }
                        sums
                    })
                })
            }
            Tiles::F32 { .. } | Tiles::Widened => {
                let (tile_stride, k_stride) = match self.shape.layout {
                    Tiles::F32 { tile_stride, k_stride } => (tile_stride, k_stride),
                    _ => (TILE * 4, self.shape.tiles * TILE * 4),
                };
                f.fold(&int(0), &int(self.shape.k as i64), 1, &sums, |f, k, sums| {
                    let a = f.element(a, k, 4);
                    let b = f.element(b, k, k_stride as i64);
                    if let Ahead::OfTurns { from, step } = ahead {
                        let skipped = f.binary("mul nsw", k, step);
                        let at = f.offset(from, &skipped);
                        f.prefetch(&at);
                    }
                    let line = |tile| self.line(f, floats(TILE), &b, tile * tile_stride, ahead);
                    let columns: Vec<Value> = (0..self.tiles).map(line).collect();
                    let mut sums = sums.to_vec();
                    self.accumulate(f, &a, 0, &columns, &mut sums);
                    sums
                })
            }
        };
        for (row, row_sums) in sums.chunks(self.tiles).enumerate() {
            for (tile, sum) in row_sums.iter().enumerate() {
                let at = c_at(f, row, tile);
                f.store(sum, &at, 64);
            }
        }
    }

    /// A line of B, `offset` bytes behind `b`.
    fn line(&self, f: &mut FunctionText, ty: Ty, b: &Value, offset: usize, ahead: &Ahead) -> Value {
        let at = f.offset(b, &int(offset as i64));
        if let (true, Ahead::OfLines(ahead)) = (self.shape.prefetch, ahead) {
            let next = f.offset(&at, ahead);
            f.prefetch(&next);
        }
        f.load(ty, &at, 64)
    }

    /// Two consecutive k of all rows: one line of B per tile holds both.
    fn bf16_pair(
        &self,
        f: &mut FunctionText,
        tile_stride: usize,
        [a, b]: [&Value; 2],
        step: usize,
        ahead: &Ahead,
        sums: &mut [Value],
    ) {
        let line = |f: &mut FunctionText, tile| self.line(f, ints(TILE), b, tile * tile_stride + step * 64, ahead);
        let lines: Vec<Value> = (0..self.tiles).map(|tile| line(f, tile)).collect();
        if self.shape.left == LeftForm::Pairs {
            self.accumulate_pairs(f, a, step * 4, &lines, sums);
            return;
        }
        let (even, odd): (Vec<Value>, Vec<Value>) =
            lines.iter().map(|line| bf16_pairs_to_f32(f, line)).map(|[low, high]| (low, high)).unzip();
        self.accumulate(f, a, step * 8, &even, sums);
        self.accumulate(f, a, step * 8 + 4, &odd, sums);
    }

    /// `sums[row][tile] += a[row] * lines[tile]` for two k, `a` being `a_offset` bytes into each row.
    fn accumulate_pairs(&self, f: &mut FunctionText, a: &Value, a_offset: usize, lines: &[Value], sums: &mut [Value]) {
        let pairs = Ty { scalar: Scalar::BF16, lanes: 2 * TILE };
        let lines: Vec<Value> = lines.iter().map(|line| f.cast("bitcast", line, pairs)).collect();
        for (row, row_sums) in sums.chunks_mut(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride + a_offset) as i64));
            let x = f.load(I32, &at, 4);
            let x = f.splat(&x, TILE);
            let x = f.cast("bitcast", &x, pairs);
            for (sum, line) in row_sums.iter_mut().zip(&lines) {
                let operands = [sum.clone(), x.clone(), line.clone()];
                *sum = f.call("llvm.x86.avx512bf16.dpbf16ps.512", Some(sum.ty), &operands).expect("it has a result");
            }
        }
    }

    /// `sums[row][tile] += a[row] * columns[tile]` for one k, `a` being `a_offset` bytes into each row.
    fn accumulate(&self, f: &mut FunctionText, a: &Value, a_offset: usize, columns: &[Value], sums: &mut [Value]) {
        for (row, row_sums) in sums.chunks_mut(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride + a_offset) as i64));
            let x = f.load(F32, &at, 4);
            let x = f.splat(&x, TILE);
            for (sum, column) in row_sums.iter_mut().zip(columns) {
                *sum = fma(f, self.registers.fma, &x, column, sum);
            }
        }
    }
}
