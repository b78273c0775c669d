//! Products in block floating point: 64 numbers share a power of two, and integers are multiplied (VPMADDWD, 16 of them at once
//! where a multiply-add of f32 takes 8).
//!
//! How numbers are rounded, and that their sums fit, says [`llmc_ir::block_float`]. The sum of a block is exact. It is made f32, scaled
//! by both powers, and added to the sum of the blocks before by one multiply-add.

use super::math::{Fma, ROUNDER, bf16_pairs_to_f32, floats, fma, ints};
use super::multiply::{Ahead, Multiplies, TILE};
use super::text::{F32, FunctionText, I16, I32, I64, ModuleText, PTR, Role, Scalar, Value, float_of, int, int_of};
use crate::kernel::dot::PANEL;
use llmc_ir::block_float::{EXPONENT_IN_ROWS, EXPONENT_IN_WEIGHTS, LEAST_EXPONENT};

pub use llmc_ir::block_float::LENGTH;

/// k of a block of a panel in bf16, and how many of them make one.
const PLAIN_LENGTH: usize = 32;
pub const HALVES: usize = LENGTH / PLAIN_LENGTH;
/// Bytes of a block of a row: `i16[64]`, and their power of two as f32.
pub const ROW_BLOCK: usize = 2 * LENGTH + 4;
/// Bytes of the numbers of a tile's block, `[32 pairs of k][16 columns][2]`, behind which come powers, `f32[16]`.
const NUMBERS: usize = 2 * LENGTH * TILE;
/// Bytes of a block of a tile.
pub const TILE_BLOCK: usize = NUMBERS + 4 * TILE;
/// Bytes of a block of a panel: tile by tile.
pub const PANEL_BLOCK: usize = TILE_BLOCK * PANEL / TILE;
/// Bytes of a block of a panel in bf16, and of its tiles.
pub const PLAIN_BLOCK: usize = 2 * PLAIN_LENGTH * PANEL;
const PLAIN_TILE: usize = 2 * PLAIN_LENGTH * TILE;
/// Bytes of a line: one pair of k of 16 columns, or half a block of a row.
const LINE: usize = 64;

/// Where the exponent of an f32 lies, what it is for 1, and what it is for infinity.
const EXPONENT_AT: i64 = 23;
const BIAS: i64 = 127;
const INFINITE: i64 = 255 << EXPONENT_AT;

/// Sums of two products each, of pairs of whole numbers.
fn pair_products(f: &mut FunctionText, x: &Value, line: &Value) -> Value {
    let [x, line] = [x, line].map(|all| f.cast("bitcast", all, I16.with_lanes(LINE / 2)));
    f.in_parts([&x, &line], 16, |f, operands| {
        f.call("llvm.x86.avx2.pmadd.wd", Some(ints(8)), &operands).expect("it has a result")
    })
}

/// The magnitudes of pairs of bf16, as the bits of f32, the larger ones of each pair.
fn larger_of_pairs(f: &mut FunctionText, magnitudes: &Value) -> Value {
    let pairs = f.cast("bitcast", magnitudes, ints(LINE / 4));
    let even = f.binary("shl", &pairs, &int_of(pairs.ty, 16));
    let odd = f.binary("and", &pairs, &int_of(pairs.ty, -0x1_0000));
    f.max(&even, &odd)
}

/// The magnitudes of a line of bf16.
fn magnitudes(f: &mut FunctionText, line: &Value) -> Value {
    let line = f.cast("bitcast", line, I16.with_lanes(LINE / 2));
    f.binary("and", &line, &int_of(line.ty, 0x7FFF))
}

/// The powers of two that make whole numbers of elements, and elements of whole numbers, by the bits of their largest
/// magnitude, which is to get an exponent. The latter is NaN if an element is infinite or NaN.
fn powers(f: &mut FunctionText, largest: &Value, exponent_of_largest: i32) -> [Value; 2] {
    let (ty, exponent_of_largest) = (largest.ty, i64::from(exponent_of_largest));
    let exponent = f.binary("and", largest, &int_of(ty, INFINITE));
    let is_infinite = f.compare("icmp eq", &exponent, &int_of(ty, INFINITE));
    let exponent = f.max(&exponent, &int_of(ty, (BIAS + i64::from(LEAST_EXPONENT)) << EXPONENT_AT));
    // Bits of i32, of which the largest constant has the uppermost.
    let top = ((2 * BIAS + exponent_of_largest) << EXPONENT_AT) as i32;
    let to_whole = f.binary("sub", &int_of(ty, i64::from(top)), &exponent);
    let of_whole = f.binary("sub", &exponent, &int_of(ty, exponent_of_largest << EXPONENT_AT));
    let of_whole = f.select(&is_infinite, &int_of(ty, 0x7FC0_0000), &of_whole);
    [to_whole, of_whole].map(|bits| f.cast("bitcast", &bits, ty.with_scalar(Scalar::F32)))
}

/// Pairs of bf16 as pairs of whole numbers: adding [`ROUNDER`] leaves them in the lower halves.
fn whole_numbers(f: &mut FunctionText, kind: Fma, pairs: &Value, to_whole: &Value) -> Value {
    let [even, odd] = bf16_pairs_to_f32(f, pairs).map(|elements| {
        let rounded = fma(f, kind, &elements, to_whole, &float_of(elements.ty, ROUNDER));
        f.cast("bitcast", &rounded, pairs.ty)
    });
    let even = f.binary("and", &even, &int_of(pairs.ty, 0xFFFF));
    let odd = f.binary("shl", &odd, &int_of(pairs.ty, 16));
    f.binary("or", &even, &odd)
}

/// Makes a block of a row what products take, from bf16.
pub fn make_row_block(f: &mut FunctionText, kind: Fma, from: &Value, to: &Value) {
    let places = [0, LINE as i64].map(int);
    let lines = places.clone().map(|place| {
        let at = f.offset(from, &place);
        f.load(ints(LINE / 4), &at, 2)
    });
    let [first, second] = lines.clone().map(|line| magnitudes(f, &line));
    let of_both = f.intrinsic("umax", &[first, second]);
    let mut largest = larger_of_pairs(f, &of_both);
    while largest.ty.lanes > 1 {
        let [low, high] = [0, 1].map(|half| f.half(&largest, half));
        largest = f.max(&low, &high);
    }
    let [to_whole, of_whole] = powers(f, &largest, EXPONENT_IN_ROWS);
    let to_whole = f.splat(&to_whole, LINE / 4);
    for (line, place) in lines.iter().zip(&places) {
        let numbers = whole_numbers(f, kind, line, &to_whole);
        let at = f.offset(to, place);
        f.store(&numbers, &at, 4);
    }
    let at = f.offset(to, &int(2 * LENGTH as i64));
    f.store(&of_whole, &at, 4);
}

/// The name of a function `(from: ptr, to: ptr, halves: i64)` that makes a block of a panel what products take, from one or two
/// blocks in bf16. A second one is missing only where rows have zeros, which meet any numbers. Emitted on first use.
pub fn make_panel_block(multiplies: &mut Multiplies, module: &mut ModuleText, kind: Fma) -> String {
    let name = "make_block_of_panel".to_owned();
    if !multiplies.is_new(&name) {
        return name;
    }
    let params = [(PTR, "from"), (PTR, "to"), (I64, "halves")];
    let (mut f, values) = FunctionText::new(Role::Kernel, &name, &params);
    let [from, to, halves] = values.try_into().expect("three parameters");
    f.for_each(&int(0), &int((PANEL / TILE) as i64), 1, |f, tile| {
        let from = f.element(&from, tile, PLAIN_TILE as i64);
        let to = f.element(&to, tile, TILE_BLOCK as i64);
        let lines = int((PLAIN_TILE / LINE) as i64);
        let none = int_of(I16.with_lanes(LINE / 2), 0);
        let largest = f.fold(&int(0), &halves, 1, &[none], |f, half, largest| {
            let from = f.element(&from, half, PLAIN_BLOCK as i64);
            f.fold(&int(0), &lines, 4, largest, |f, line, largest| {
                let from = f.element(&from, line, LINE as i64);
                let mut largest = largest[0].clone();
                for number in 0..4 {
                    let at = f.offset(&from, &int(number * LINE as i64));
                    let line = f.load(largest.ty, &at, LINE);
                    let of_each = magnitudes(f, &line);
                    largest = f.intrinsic("umax", &[largest, of_each]);
                }
                vec![largest]
            })
        });
        let largest = larger_of_pairs(f, &largest[0]);
        let [to_whole, of_whole] = powers(f, &largest, EXPONENT_IN_WEIGHTS);
        let at = f.offset(&to, &int(NUMBERS as i64));
        f.store(&of_whole, &at, LINE);
        f.for_each(&int(0), &halves, 1, |f, half| {
            let from = f.element(&from, half, PLAIN_BLOCK as i64);
            let to = f.element(&to, half, PLAIN_TILE as i64);
            f.for_each(&int(0), &lines, 2, |f, line| {
                let [from, to] = [&from, &to].map(|base| f.element(base, line, LINE as i64));
                for number in 0..2 {
                    let [from, to] = [&from, &to].map(|base| f.offset(base, &int(number * LINE as i64)));
                    let pairs = f.load(ints(LINE / 4), &from, LINE);
                    let numbers = whole_numbers(f, kind, &pairs, &to_whole);
                    f.store(&numbers, &to, LINE);
                }
            });
        });
    });
    module.add(f.finish());
    name
}

/// Pairs of k that a turn of the loop takes.
const TURNS: usize = 2;

/// A register block of products: some rows and tiles.
pub struct Products {
    pub rows: usize,
    pub tiles: usize,
    /// Bytes between rows of A and of C.
    pub a_stride: usize,
    pub c_stride: usize,
    pub kind: Fma,
}

impl Products {
    /// Adds the products of `blocks` blocks to C.
    pub fn emit(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], blocks: &Value, ahead: &Ahead) {
        f.fold(&int(0), blocks, 1, std::slice::from_ref(&ahead.from), |f, block, from| {
            let a = f.element(a, block, ROW_BLOCK as i64);
            let b = f.element(b, block, PANEL_BLOCK as i64);
            let mut first = vec![from[0].clone()];
            first.resize(1 + self.rows * self.tiles, int_of(ints(TILE), 0));
            let last = f.fold(&int(0), &int((LENGTH / 2) as i64), TURNS as i64, &first, |f, pair, before| {
                let a = f.element(&a, pair, 4);
                let b = f.element(&b, pair, LINE as i64);
                let (mut from, mut sums) = (before[0].clone(), before[1..].to_vec());
                for turn in 0..TURNS {
                    from = ahead.fetch_from(f, &from);
                    let a = f.offset(&a, &int(4 * turn as i64));
                    let b = f.offset(&b, &int((LINE * turn) as i64));
                    sums = self.pair(f, [&a, &b], &sums);
                }
                [vec![from], sums].concat()
            });
            self.add_up(f, [&a, &b, c], &last[1..]);
            vec![last[0].clone()]
        });
    }

    /// The products of a pair of k added to the sums.
    fn pair(&self, f: &mut FunctionText, [a, b]: [&Value; 2], sums: &[Value]) -> Vec<Value> {
        let line = |f: &mut FunctionText, tile: usize| {
            let at = f.offset(b, &int((tile * TILE_BLOCK) as i64));
            f.load(ints(TILE), &at, LINE)
        };
        let lines: Vec<Value> = (0..self.tiles).map(|tile| line(f, tile)).collect();
        let mut next = Vec::new();
        for (row, sums) in sums.chunks(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.a_stride) as i64));
            let x = f.load(I32, &at, 4);
            let x = f.splat(&x, TILE);
            for (sum, line) in sums.iter().zip(&lines) {
                let products = pair_products(f, &x, line);
                next.push(f.binary("add", sum, &products));
            }
        }
        next
    }

    /// Sums of a block, scaled and added to C.
    fn add_up(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], sums: &[Value]) {
        let powers = |f: &mut FunctionText, tile: usize| {
            let at = f.offset(b, &int((tile * TILE_BLOCK + NUMBERS) as i64));
            f.load(floats(TILE), &at, LINE)
        };
        let of_columns: Vec<Value> = (0..self.tiles).map(|tile| powers(f, tile)).collect();
        for (row, sums) in sums.chunks(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.a_stride + 2 * LENGTH) as i64));
            let of_row = f.load(F32, &at, 4);
            let of_row = f.splat(&of_row, TILE);
            for (tile, (sum, of_columns)) in sums.iter().zip(&of_columns).enumerate() {
                let at = f.offset(c, &int((row * self.c_stride + tile * TILE * 4) as i64));
                // Not kept from the block before: registers are for the sums of one.
                let before = f.load_anew(floats(TILE), &at, LINE);
                let sum = f.cast("sitofp", sum, floats(TILE));
                let power = f.binary("fmul", &of_row, of_columns);
                let after = fma(f, self.kind, &sum, &power, &before);
                f.store(&after, &at, LINE);
            }
        }
    }
}
