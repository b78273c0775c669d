//! What products in block floating point take: blocks of whole numbers, made of rows and panels in bf16. How numbers are rounded says
//! [`llmc_ir::block_float`]; register blocks multiply them ([`super::multiply`]).

use super::compressed::{PLAIN_BLOCK, PLAIN_TILE};
use super::math::{Fma, ROUNDER, bf16_pairs_to_f32, fma, fold_lanes, ints};
use super::multiply::{Multiplies, TILE};
use super::text::{FunctionText, I16, I64, ModuleText, PTR, Role, Scalar, Value, float_of, int, int_of};
use crate::kernel::dot::PANEL;
use llmc_ir::block_float::{EXPONENT_IN_ROWS, EXPONENT_IN_WEIGHTS, LEAST_EXPONENT};

pub use llmc_ir::block_float::LENGTH;

/// How many blocks of a panel in bf16 make one.
pub const HALVES: usize = LENGTH / 32;
/// Bytes of a block of a row: `i16[64]`, and their power of two as f32.
pub const ROW_BLOCK: usize = 2 * LENGTH + 4;
/// Bytes of the numbers of a tile's block, `[32 pairs of k][16 columns][2]`, behind which come powers, `f32[16]`.
pub const NUMBERS: usize = 2 * LENGTH * TILE;
/// Bytes of a block of a tile.
pub const TILE_BLOCK: usize = NUMBERS + 4 * TILE;
/// Bytes of a block of a panel: tile by tile.
pub const PANEL_BLOCK: usize = TILE_BLOCK * PANEL / TILE;
/// Bytes of a line: one pair of k of 16 columns, or half a block of a row.
const LINE: usize = 64;

/// Where the exponent of an f32 lies, what it is for 1, and what it is for infinity.
const EXPONENT_AT: i64 = 23;
const BIAS: i64 = 127;
const INFINITE: i64 = 255 << EXPONENT_AT;

/// The magnitudes of pairs of bf16, as the bits of f32, the larger ones of each pair.
fn larger_of_pairs(f: &mut FunctionText, magnitudes: &Value) -> Value {
    let pairs = f.cast("bitcast", magnitudes, ints(LINE / 4));
    let [even, odd] = bf16_pairs_to_f32(f, &pairs).map(|magnitudes| f.cast("bitcast", &magnitudes, pairs.ty));
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
    let largest = larger_of_pairs(f, &of_both);
    let largest = fold_lanes(f, &largest, FunctionText::max);
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
