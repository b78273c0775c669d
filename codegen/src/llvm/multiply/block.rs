//! A register block: some rows and tiles whose sums stay in registers while all k pass by.

use super::super::compressed::{LINES, LINES_READ, PLAIN_TILE, Panel, Quarter};
use super::super::math::{bf16_pairs_to_f32, floats, fma, ints};
use super::super::text::{F32, FunctionText, I32, Scalar, Ty, Value, float_of, int};
use super::{LINE, LeftForm, Level, Registers, Shape, Start, TILE, Tiles};
use llmc_ir::plan::compressed;
use std::ops::Range;

/// In which order tiles of B in bf16 are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Beside each other: an element of A is loaded once for all of them.
    Beside,
    /// One after the other, as they lie in memory. Prefetchers of some CPUs follow nothing else within a page: on Zen 4 two
    /// cores read 34 GB/s in order, and 22 if lines of two tiles take turns.
    InTurn,
}

/// What a block prefetches: some lines per turn of its loop, in the order of memory.
pub struct Ahead {
    /// The first line.
    pub from: Value,
    /// Bytes from a turn's lines to those of the next one.
    pub step: Value,
    /// Lines of a turn.
    pub lines: usize,
    /// Where they are brought.
    pub level: Level,
}

impl Ahead {
    /// Half as many lines, for one of two blocks that share them.
    pub fn in_halves(self) -> Ahead {
        let lines = self.lines / 2;
        Ahead { step: int(lines as i64 * LINE), lines, ..self }
    }

    /// Prefetches the lines of a turn.
    fn fetch(&self, f: &mut FunctionText, turn: &Value) {
        let before = f.binary("mul nsw", turn, &self.step);
        let from = f.offset(&self.from, &before);
        self.fetch_at(f, &from);
    }

    /// The same from an address on.
    pub fn fetch_at(&self, f: &mut FunctionText, from: &Value) {
        for line in 0..self.lines {
            let at = f.offset(from, &int(line as i64 * LINE));
            self.level.prefetch(f, &at);
        }
    }
}

/// Tiles of B that lie anywhere.
pub enum Scattered {
    /// Addresses in panels.
    Plain(Vec<Value>),
    /// Their panels, each from its tile on.
    Compressed(Vec<Panel>),
}

/// A register block.
pub struct Block<'s> {
    pub registers: &'s Registers,
    pub shape: &'s Shape,
    pub rows: usize,
    pub tiles: usize,
    pub order: Order,
    /// How many times 32 k, where B is bf16.
    pub blocks: Value,
}

impl Block<'_> {
    /// Emits it, for addresses of A, B and C.
    pub fn emit(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], ahead: &Ahead) {
        let sums = self.start(f, c);
        let sums = match self.shape.layout {
            Tiles::Bf16 { tile_stride, block_stride } => {
                let all = 0..self.tiles;
                let each: Vec<Range<usize>> = (0..self.tiles).map(|tile| tile..tile + 1).collect();
                let strides = [tile_stride, block_stride];
                match self.order {
                    Order::Beside => {
                        self.fold_blocks(f, [a, b], strides, (std::slice::from_ref(&all), 0), ahead, &sums)
                    }
                    Order::InTurn if tile_stride < block_stride => {
                        self.fold_blocks(f, [a, b], strides, (&each, 0), ahead, &sums)
                    }
                    Order::InTurn => each.iter().zip(0..).fold(sums, |sums, (tile, number)| {
                        let before = number * self.shape.k / 2;
                        self.fold_blocks(f, [a, b], strides, (std::slice::from_ref(tile), before), ahead, &sums)
                    }),
                }
            }
            Tiles::Compressed { .. } | Tiles::Blocks => panic!("their sums start otherwise"),
            Tiles::F32 { tile_stride, k_stride } => {
                f.fold(&int(0), &int(self.shape.k as i64), 1, &sums, |f, k, sums| {
                    let a = f.element(a, k, 4);
                    let b = f.element(b, k, k_stride as i64);
                    ahead.fetch(f, k);
                    let line = |tile| Block::line(f, floats(TILE), &b, tile * tile_stride);
                    let columns: Vec<Value> = (0..self.tiles).map(line).collect();
                    let mut sums = sums.to_vec();
                    self.accumulate(f, (&a, 0), &(0..self.tiles), &columns, &mut sums);
                    sums
                })
            }
        };
        self.store(f, c, &sums);
    }

    /// The same with a compressed panel, for addresses of A and C, and of where to keep it as [`Tiles::Bf16`].
    pub fn emit_compressed(
        &self,
        f: &mut FunctionText,
        [a, c]: [&Value; 2],
        (panel, kept): (&Panel, Option<&Value>),
        ahead: &Ahead,
    ) {
        let sums = self.start(f, c);
        let bytes = self.shape.left.bytes() as i64;
        let sums = f.fold(&int(0), &self.blocks, 1, &sums, |f, block, sums| {
            let a = f.element(a, block, 32 * bytes);
            let b = f.element(&panel.blocks, block, compressed::BLOCK as i64);
            let flags = panel.flags(f, block);
            let kept = kept.map(|kept| f.element(kept, block, 2048));
            let before = f.scale(block, compressed::QUARTERS as i64);
            f.fold(&int(0), &int(compressed::QUARTERS as i64), 1, sums, |f, quarter, sums| {
                let a = f.element(&a, quarter, 8 * bytes);
                let b = f.element(&b, quarter, (compressed::TILES * compressed::QUARTER) as i64);
                let turn = f.add(&before, quarter);
                ahead.fetch(f, &turn);
                let bit = f.scale(quarter, compressed::TILES as i64);
                let flags = f.binary("lshr", &flags, &bit);
                let of_tile = |tile: usize| {
                    let b = f.offset(&b, &int((tile * compressed::QUARTER) as i64));
                    let flags = f.binary("lshr", &flags, &int(tile as i64));
                    panel.quarter(f, &b, &flags)
                };
                let quarters: Vec<Quarter> = (0..self.tiles).map(of_tile).collect();
                let kept = kept.as_ref().map(|kept| f.element(kept, quarter, LINES as i64 * LINE));
                self.quarters(f, &a, &quarters, kept.as_ref(), sums)
            })
        });
        self.store(f, c, &sums);
    }

    /// All k of a quarter of each tile, which are kept as [`Tiles::Bf16`] where `kept` says.
    fn quarters(
        &self,
        f: &mut FunctionText,
        a: &Value,
        quarters: &[Quarter],
        kept: Option<&Value>,
        sums: &[Value],
    ) -> Vec<Value> {
        let mut sums = sums.to_vec();
        for pair in 0..LINES {
            let lines: Vec<Value> = quarters.iter().map(|quarter| quarter.line(f, pair)).collect();
            if let Some(kept) = kept {
                for (tile, line) in lines.iter().enumerate() {
                    let at = f.offset(kept, &int((tile * PLAIN_TILE + pair * 64) as i64));
                    f.store(line, &at, 64);
                }
            }
            self.pair_of_lines(f, (a, pair), &(0..self.tiles), &lines, &mut sums);
        }
        sums
    }

    /// What sums start with.
    fn start(&self, f: &mut FunctionText, c: &Value) -> Vec<Value> {
        let mut sums = Vec::new();
        for row in 0..self.rows {
            for tile in 0..self.tiles {
                sums.push(match self.shape.start {
                    Start::Zero => float_of(floats(TILE), 0.0),
                    Start::Memory => {
                        let at = self.sum_at(f, c, row, tile);
                        // Not kept from an earlier block: registers are for the sums of one.
                        f.load_anew(floats(TILE), &at, 64)
                    }
                });
            }
        }
        sums
    }

    /// Writes the sums to C.
    fn store(&self, f: &mut FunctionText, c: &Value, sums: &[Value]) {
        for (row, row_sums) in sums.chunks(self.tiles).enumerate() {
            for (tile, sum) in row_sums.iter().enumerate() {
                let at = self.sum_at(f, c, row, tile);
                f.store(sum, &at, 64);
            }
        }
    }

    pub fn sum_at(&self, f: &mut FunctionText, c: &Value, row: usize, tile: usize) -> Value {
        f.offset(c, &int((row * self.shape.c_stride + tile * TILE * 4) as i64))
    }

    /// A line of B, `offset` bytes behind `b`.
    pub fn line(f: &mut FunctionText, ty: Ty, b: &Value, offset: usize) -> Value {
        let at = f.offset(b, &int(offset as i64));
        f.load(ty, &at, 64)
    }

    /// Prefetches as many lines as are loaded, from an address on.
    pub fn lines_ahead(&self, from: Value) -> Ahead {
        let lines = if self.order == Order::Beside { self.tiles } else { 1 };
        Ahead { from, step: int(lines as i64 * LINE), lines, level: self.level() }
    }

    /// Prefetches as many bytes as quarters of all tiles have, from an address on. Few rows leave that to the prefetchers of
    /// CPUs with AVX-512, which follow what is read in the order of memory: on Zen 4 a step of Qwen2.5-0.5B takes 13 to 16 %
    /// less time so with one to three rows. On Zen 3, where looking up takes longer, one of SmolLM2 takes 14 % more.
    pub fn quarters_ahead(&self, from: Value) -> Ahead {
        let lines = if Level::of_rows(self.rows) == Level::First && !self.registers.are_few {
            0
        } else {
            self.tiles * LINES_READ
        };
        Ahead { from, step: int(lines as i64 * LINE), lines, level: self.level() }
    }

    /// Where it brings what it prefetches.
    fn level(&self) -> Level {
        Level::of_rows(self.rows).max(self.shape.prefetch)
    }

    /// All k of B in bf16: for every 32 of them some tiles together, then the next ones. `turns` came before.
    fn fold_blocks(
        &self,
        f: &mut FunctionText,
        [a, b]: [&Value; 2],
        [tile_stride, block_stride]: [usize; 2],
        (together, turns): (&[Range<usize>], usize),
        ahead: &Ahead,
        sums: &[Value],
    ) -> Vec<Value> {
        let bytes = self.shape.left.bytes() as i64;
        f.fold(&int(0), &self.blocks, 1, sums, |f, k32, sums| {
            let a = f.element(a, k32, 32 * bytes);
            let b = f.element(b, k32, block_stride as i64);
            let before = f.scale(k32, 16 * together.len() as i64);
            together.iter().zip(0..).fold(sums.to_vec(), |sums, (tiles, number)| {
                let before = f.add(&before, &int((turns + 16 * number) as i64));
                // Few rows leave little work between the turns of a loop.
                let pairs = if self.rows * tiles.len() <= 8 { 4 } else { 1 };
                f.fold(&int(0), &int(16), pairs as i64, &sums, |f, pair, sums| {
                    let a = f.element(&a, pair, 2 * bytes);
                    let b = f.element(&b, pair, 64);
                    let turn = f.add(&before, pair);
                    let mut sums = sums.to_vec();
                    for step in 0..pairs {
                        let turn = f.add(&turn, &int(step as i64));
                        ahead.fetch(f, &turn);
                        self.bf16_pair(f, tile_stride, [&a, &b], step, tiles, &mut sums);
                    }
                    sums
                })
            })
        })
    }

    /// The sums of tiles of B in bf16 that lie anywhere: the same chains as those of [`Block::emit`].
    pub fn sums_of_scattered(&self, f: &mut FunctionText, a: &Value, tiles: &Scattered) -> Vec<Value> {
        let bytes = self.shape.left.bytes() as i64;
        let zeros = vec![float_of(floats(TILE), 0.0); self.rows * self.tiles];
        f.fold(&int(0), &self.blocks, 1, &zeros, |f, k32, sums| {
            let a = f.element(a, k32, 32 * bytes);
            match tiles {
                Scattered::Plain(tiles) => {
                    let block_stride = self.shape.layout.block_bytes();
                    let tiles: Vec<Value> = tiles.iter().map(|tile| f.element(tile, k32, block_stride)).collect();
                    f.fold(&int(0), &int(16), 1, sums, |f, pair, sums| {
                        let a = f.element(&a, pair, 2 * bytes);
                        let line = |tile: &Value| {
                            let at = f.element(tile, pair, LINE);
                            Block::line(f, ints(TILE), &at, 0)
                        };
                        let lines: Vec<Value> = tiles.iter().map(line).collect();
                        let mut sums = sums.to_vec();
                        self.pair_of_lines(f, (&a, 0), &(0..self.tiles), &lines, &mut sums);
                        sums
                    })
                }
                Scattered::Compressed(panels) => {
                    f.fold(&int(0), &int(compressed::QUARTERS as i64), 1, sums, |f, quarter, sums| {
                        let a = f.element(&a, quarter, 8 * bytes);
                        let of_tile = |panel: &Panel| {
                            let flags = panel.flags(f, k32);
                            let before = f.scale(quarter, compressed::TILES as i64);
                            let flags = f.binary("lshr", &flags, &before);
                            let b = f.element(&panel.blocks, k32, compressed::BLOCK as i64);
                            let b = f.element(&b, &before, compressed::QUARTER as i64);
                            panel.quarter(f, &b, &flags)
                        };
                        let quarters: Vec<Quarter> = panels.iter().map(of_tile).collect();
                        self.quarters(f, &a, &quarters, None, sums)
                    })
                }
            }
        })
    }

    /// Two consecutive k of all rows and some tiles: one line of B per tile holds both.
    fn bf16_pair(
        &self,
        f: &mut FunctionText,
        tile_stride: usize,
        [a, b]: [&Value; 2],
        step: usize,
        tiles: &Range<usize>,
        sums: &mut [Value],
    ) {
        if self.registers.are_few {
            // Registers hold columns in one form at a time, of one k: the line is loaded for each.
            for odd in [0, 1] {
                let column = |tile| {
                    let at = f.offset(b, &int((tile * tile_stride + step * 64) as i64));
                    let line = f.load_anew(ints(TILE), &at, 64);
                    let [even_column, odd_column] = bf16_pairs_to_f32(f, &line);
                    if odd == 1 { odd_column } else { even_column }
                };
                let columns: Vec<Value> = tiles.clone().map(column).collect();
                self.accumulate(f, (a, step * 8 + odd * 4), tiles, &columns, sums);
            }
            return;
        }
        let line = |tile| Block::line(f, ints(TILE), b, tile * tile_stride + step * 64);
        let lines: Vec<Value> = tiles.clone().map(line).collect();
        self.pair_of_lines(f, (a, step), tiles, &lines, sums);
    }

    /// The same with the lines of the tiles, `a` being `step` pairs of k into each row.
    fn pair_of_lines(
        &self,
        f: &mut FunctionText,
        (a, step): (&Value, usize),
        tiles: &Range<usize>,
        lines: &[Value],
        sums: &mut [Value],
    ) {
        if self.shape.left == LeftForm::Pairs {
            self.accumulate_pairs(f, (a, step * 4), tiles, lines, sums);
            return;
        }
        let (even, odd): (Vec<Value>, Vec<Value>) =
            lines.iter().map(|line| bf16_pairs_to_f32(f, line)).map(|[low, high]| (low, high)).unzip();
        self.accumulate(f, (a, step * 8), tiles, &even, sums);
        self.accumulate(f, (a, step * 8 + 4), tiles, &odd, sums);
    }

    /// `sums[row][tile] += a[row] * lines[tile]` for two k, `a` being `a_offset` bytes into each row.
    fn accumulate_pairs(
        &self,
        f: &mut FunctionText,
        (a, a_offset): (&Value, usize),
        tiles: &Range<usize>,
        lines: &[Value],
        sums: &mut [Value],
    ) {
        let pairs = Ty { scalar: Scalar::BF16, lanes: 2 * TILE };
        let lines: Vec<Value> = lines.iter().map(|line| f.cast("bitcast", line, pairs)).collect();
        for (row, row_sums) in sums.chunks_mut(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride + a_offset) as i64));
            let x = f.load(I32, &at, 4);
            let x = f.splat(&x, TILE);
            let x = f.cast("bitcast", &x, pairs);
            for (sum, line) in row_sums[tiles.clone()].iter_mut().zip(&lines) {
                let operands = [sum.clone(), x.clone(), line.clone()];
                *sum = f.call("llvm.x86.avx512bf16.dpbf16ps.512", Some(sum.ty), &operands).expect("it has a result");
            }
        }
    }

    /// `sums[row][tile] += a[row] * columns[tile]` for one k, `a` being `a_offset` bytes into each row.
    fn accumulate(
        &self,
        f: &mut FunctionText,
        (a, a_offset): (&Value, usize),
        tiles: &Range<usize>,
        columns: &[Value],
        sums: &mut [Value],
    ) {
        for (row, row_sums) in sums.chunks_mut(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride + a_offset) as i64));
            let x = f.load(F32, &at, 4);
            let x = f.splat(&x, TILE);
            for (sum, column) in row_sums[tiles.clone()].iter_mut().zip(columns) {
                *sum = fma(f, self.registers.fma, &x, column, sum);
            }
        }
    }
}
