//! The inner kernel of everything that is a matrix product: `C = A B` or `C += A B` for some rows of A and some tiles of B, 16
//! columns each. Dots use it over weight panels, attention over key and value blocks.
//!
//! Every element of C is summed over k in ascending order by one chain of multiply-adds, whatever the number of rows
//! in the register block: this is why results depend neither on a row's neighbours nor on the thread count. Where CPUs
//! are fast at it, a link of the chain adds the products of two k in bf16 at once (VDPBF16PS, which takes denormal numbers
//! as zero).

mod block;
mod block_float;
mod call;

use super::block_float::{LENGTH, PANEL_BLOCK, TILE_BLOCK};
use super::compressed::{LookUp, PLAIN_BLOCK, PLAIN_TILE};
use super::math::{Fma, bf16_to_f32, floats};
use super::text::{FunctionText, I16, ModuleText, Value, float_of, int_of};
use llmc_ir::dtype::DType;
use llmc_ir::plan::compressed;
use std::collections::BTreeSet;

pub use block::{Block, Order, Scattered};
pub use call::clear;

/// Columns of a tile of B.
pub const TILE: usize = 16;

/// Bytes of a cache line, and of a tile's columns for one k in f32 or two in bf16.
const LINE: i64 = 64;

/// Bytes of B that the first-level cache has room for beside A and C.
const FIRST_LEVEL: i64 = 8 << 10;

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
    /// Whole numbers in blocks of 64 k: [`super::block_float`].
    Blocks,
    /// bf16, a panel of compressed weights: [`super::compressed`]. Calls say from which block of 32 k on.
    Compressed {
        /// Length of the panel's rows, of which the sums may be a part.
        row: usize,
    },
}

impl Tiles {
    /// A panel of a weight in bf16.
    pub const PACKED: Tiles = Tiles::Bf16 { tile_stride: PLAIN_TILE, block_stride: PLAIN_BLOCK };

    /// Bytes of `k` of a tile.
    fn tile_bytes(self, k: usize) -> i64 {
        match self {
            Tiles::Bf16 { .. } => (k * TILE * 2) as i64,
            Tiles::Blocks => (k.div_ceil(LENGTH) * TILE_BLOCK) as i64,
            Tiles::Compressed { .. } => (k / 32 * compressed::BLOCK / compressed::TILES) as i64,
            Tiles::F32 { .. } => (k * TILE * 4) as i64,
        }
    }

    /// Bytes of 32 k of all tiles, in bf16.
    fn block_bytes(self) -> i64 {
        match self {
            Tiles::Bf16 { block_stride, .. } => block_stride as i64,
            Tiles::Blocks => PANEL_BLOCK as i64,
            Tiles::Compressed { .. } => compressed::BLOCK as i64,
            Tiles::F32 { .. } => panic!("blocks are of bf16"),
        }
    }

    /// Bytes from a tile to the next one of the same k.
    fn tile_stride(self) -> usize {
        match self {
            Tiles::Bf16 { tile_stride, .. } | Tiles::F32 { tile_stride, .. } => tile_stride,
            Tiles::Blocks => TILE_BLOCK,
            Tiles::Compressed { .. } => compressed::QUARTER,
        }
    }
}

/// How rows of A are given, and so what multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftForm {
    /// f32: B is made f32 where it is not.
    Wide,
    /// 16 bits, as B has: bf16 or, in blocks, whole numbers. Pairs of k are multiplied at once.
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
    /// Where sums start.
    pub start: Start,
    /// How many rows a call brings.
    pub rows: Rows,
    /// What is prefetched.
    pub ahead: Distance,
    /// Where few rows bring that. More of them take their time with it, and bring it to the second level.
    pub prefetch: Level,
}

/// The distance in bytes from B to what is prefetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// Always the same. As much is prefetched as B has, in the order of memory.
    Fixed(usize),
    /// Each call says it, and where it is not 0, as much is prefetched.
    OfCall,
    /// Each call says it, and all its turns together prefetch evenly what the next call needs.
    OfTurns {
        /// Bytes that a line of B takes there, which holds two k of a tile.
        line: usize,
    },
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

/// Rows that have what is prefetched brought to the first level. More of them take longer, and it can wait for more lines at
/// once in the second: on Zen 4 steps of SmolLM2 gain 7 % with four rows, 16 % with six and 10 % with eight that way, and
/// lose 10 % with two and 7 % with three.
const MOST_TO_FIRST: usize = 3;

impl Level {
    /// Where a block of so many rows brings what it reads from memory.
    pub fn of_rows(rows: usize) -> Level {
        if rows <= MOST_TO_FIRST { Level::First } else { Level::Second }
    }

    /// Brings the line at an address there.
    pub fn prefetch(self, f: &mut FunctionText, address: &Value) {
        match self {
            Level::First => f.prefetch(address),
            Level::Second => f.prefetch_to_second_level(address),
        }
    }
}

/// Where sums start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// `C = A B`.
    Zero,
    /// `C += A B`.
    Memory,
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
    /// What looks up codes of compressed weights.
    pub look_up: LookUp,
}

impl Registers {
    /// Rows of the largest register block that a call has. One that takes the tiles of B one after the other is for what
    /// is read from memory: where B fits the first-level cache, it is read again instead.
    fn tallest(&self, shape: &Shape) -> usize {
        let [in_turn, beside] = self.heights(shape.layout);
        let stays = shape.tiles as i64 * shape.layout.tile_bytes(shape.k) <= FIRST_LEVEL;
        if stays && !self.are_few { beside } else { in_turn }
    }

    /// Rows of the largest block that reads B once, and of the largest one with two tiles.
    fn heights(&self, layout: Tiles) -> [usize; 2] {
        let [in_turn, beside, _] = self.rows;
        match layout {
            // Halves of the tiles, not of the rows.
            Tiles::Compressed { .. } if self.are_few => [2 * beside, beside],
            // Others than VPERMB take a register for a mask as well.
            Tiles::Compressed { .. } if self.look_up != LookUp::Many => [2 * (beside - 1), beside - 1],
            Tiles::Compressed { .. } => [in_turn, beside],
            Tiles::Bf16 { .. } | Tiles::F32 { .. } | Tiles::Blocks => [in_turn, beside],
        }
    }

    /// Rows that meet compressed weights as they come where registers are few. More of them would look them up again.
    pub fn most_in_passing(&self) -> usize {
        let [in_turn, _] = self.heights(Tiles::Compressed { row: 0 });
        in_turn
    }

    /// Whether functions for so many rows have memory to keep what they look up in compressed panels: some rows do that for
    /// others. Those for a few rows are those for more, and so have it too.
    pub fn keep(&self, most_rows: usize) -> bool {
        !self.are_few && most_rows > 1
    }

    /// Bytes that it takes for that, of panels with parts of so many `k` and calls with so many rows at most.
    pub fn kept_bytes(&self, k: usize, most_rows: usize) -> usize {
        let [in_turn, _] = self.heights(Tiles::Compressed { row: k });
        // Halves keep some blocks, and what is so short that it has no halves has no more than two times as many.
        let kept = if most_rows > in_turn { k } else { k.min(2 * call::BLOCKS_OF_HALVES * 32) };
        kept * 2 * TILE * 2
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

    /// The name of a function `(a: ptr, b: ptr, c: ptr, rows: i64)` for `shape`, emitted on first use; where calls say the
    /// distance ahead, it has another parameter `ahead: i64`, for compressed panels one `first: i64`, a block's number, and if they
    /// keep what they look up ([`Registers::keep`]) one `plain: ptr`, working memory.
    pub fn get(&mut self, module: &mut ModuleText, registers: &Registers, shape: &Shape) -> String {
        let layout = match shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => format!("bf16_{tile_stride}_{block_stride}"),
            Tiles::F32 { tile_stride, k_stride } => format!("f32_{tile_stride}_{k_stride}"),
            Tiles::Compressed { row } => format!("compressed_{row}"),
            Tiles::Blocks => "blocks".to_owned(),
        };
        let tallest = registers.tallest(shape);
        // Functions for many rows have the blocks of few in common.
        let rows = match shape.rows {
            Rows { most, .. } if most > tallest => Rows { unit: 1, most: tallest + 1 },
            Rows { unit: 1, most: 2.. } => Rows { unit: 1, most: tallest },
            few => few,
        };
        let shape = &Shape { rows, ..shape.clone() };
        let Shape { k, tiles, a_stride, c_stride, .. } = shape;
        let left = if shape.left == LeftForm::Pairs { "_pairs" } else { "" };
        let counts = match rows {
            Rows { most, .. } if most > tallest => "any".to_owned(),
            Rows { unit, most } => format!("{unit}_{most}"),
        };
        let ahead = match shape.ahead {
            Distance::Fixed(bytes) => format!("_p{bytes}"),
            Distance::OfCall => String::new(),
            Distance::OfTurns { line } => format!("_turns{line}"),
        };
        let level = if shape.prefetch == Level::Second { "_l2" } else { "" };
        let start = if shape.start == Start::Zero { "set" } else { "add" };
        let name = format!(
            "multiply_{start}_k{k}_t{tiles}_{layout}{left}_a{a_stride}_c{c_stride}_rows_{counts}{ahead}{level}"
        );
        if self.is_new(&name) {
            call::emit(self, module, registers, shape, &name);
        }
        name
    }
}
