//! Double-precision arithmetic over the lanes of a warp: the nearest result, and from there to the neighbour that another
//! rounding wants, on whose side the exact result lies.

use super::float::function;
use super::integer::{map64, map64x3};
use super::warp::{Mask, Warp};
use crate::exact::{div_error, fma_error, mul_error, round_by_error, sqrt_error, sum_error};
use crate::instruction::{FloatOp, FloatUnaryOp, R64, Rounding};

const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

fn canonical(value: f64) -> u64 {
    if value.is_nan() { NAN64 } else { value.to_bits() }
}

/// The result in the rounding that is wanted, given the nearest one, what that loses, and whether the exact one is finite.
fn finish(nearest: f64, error: f64, finite: bool, rounding: Rounding) -> u64 {
    let error = if finite && nearest.is_infinite() { -nearest } else { error };
    canonical(round_by_error(nearest, error, rounding))
}

pub(super) fn binary(warp: &mut Warp, op: FloatOp, rounding: Rounding, d: R64, ab: [R64; 2], mask: Mask) {
    map64(warp, d, ab, mask, |a, b| {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        let finite = x.is_finite() && y.is_finite() && !(op == FloatOp::Div && y == 0.0);
        let rounded = |nearest, error| finish(nearest, error, finite, rounding);
        match op {
            FloatOp::Add => rounded(x + y, sum_error(x, y)),
            FloatOp::Sub => rounded(x - y, sum_error(x, -y)),
            FloatOp::Mul => rounded(x * y, mul_error(x, y)),
            FloatOp::Div => rounded(x / y, div_error(x, y)),
            FloatOp::MinNan | FloatOp::MaxNan if x.is_nan() || y.is_nan() => NAN64,
            FloatOp::Min | FloatOp::MinNan if x == y => a | b,
            FloatOp::Max | FloatOp::MaxNan if x == y => a & b,
            FloatOp::Min | FloatOp::MinNan => canonical(x.min(y)),
            FloatOp::Max | FloatOp::MaxNan => canonical(x.max(y)),
            FloatOp::CopySign => y.copysign(x).to_bits(),
        }
    });
}

pub(super) fn unary(warp: &mut Warp, op: FloatUnaryOp, rounding: Rounding, d: R64, a: R64, mask: Mask) {
    map64(warp, d, [a, a], mask, |a, _| {
        let x = f64::from_bits(a);
        match op {
            FloatUnaryOp::Neg => a ^ 1 << 63,
            FloatUnaryOp::Abs => a & !(1 << 63),
            FloatUnaryOp::Sqrt => finish(x.sqrt(), sqrt_error(x), true, rounding),
            FloatUnaryOp::Reciprocal => finish(1.0 / x, div_error(1.0, x), x != 0.0 && x.is_finite(), rounding),
            _ => canonical(function(op, x)),
        }
    });
}

pub(super) fn fma(warp: &mut Warp, rounding: Rounding, d: R64, abc: [R64; 3], mask: Mask) {
    map64x3(warp, d, abc, mask, |a, b, c| {
        let [x, y, z] = [a, b, c].map(f64::from_bits);
        let finite = [x, y, z].iter().all(|value| value.is_finite());
        finish(x.mul_add(y, z), fma_error(x, y, z), finite, rounding)
    });
}
