//! Single-precision arithmetic over the lanes of a warp. The accuracy model is described in `numeric`.

use super::integer::{map32, map32x3, map64, map64x3};
use super::warp::{Mask, Warp};
use crate::exact::{add_to_odd, div_to_odd, fma32, sqrt_to_odd};
use crate::instruction::{FloatMode, FloatOp, FloatUnaryOp, Format, R32, R64, Rounding, Saturate, Subnormals};
use crate::numeric::{NAN32, canonical32, encode, flush32, unit};

const PLAIN: FloatMode =
    FloatMode { rounding: Rounding::NearestEven, subnormals: Subnormals::Keep, saturate: Saturate::No };

#[inline(always)]
fn float(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// The operation on two singles, to nearest.
pub(super) fn single(op: FloatOp, a: u32, b: u32) -> u32 {
    careful32(op, PLAIN, a, b)
}

pub(super) fn float32(warp: &mut Warp, op: FloatOp, mode: FloatMode, d: R32, ab: [R32; 2], mask: Mask) {
    if mode != PLAIN {
        return map32(warp, d, ab, mask, |a, b| careful32(op, mode, a, b));
    }
    match op {
        FloatOp::Add => map32(warp, d, ab, mask, |a, b| canonical32(float(a) + float(b))),
        FloatOp::Sub => map32(warp, d, ab, mask, |a, b| canonical32(float(a) - float(b))),
        FloatOp::Mul => map32(warp, d, ab, mask, |a, b| canonical32(float(a) * float(b))),
        FloatOp::Div => map32(warp, d, ab, mask, |a, b| canonical32(float(a) / float(b))),
        FloatOp::Min => map32(warp, d, ab, mask, minimum32),
        FloatOp::Max => map32(warp, d, ab, mask, maximum32),
        _ => map32(warp, d, ab, mask, |a, b| careful32(op, mode, a, b)),
    }
}

/// The smaller number; -0 is smaller than +0, and a NaN loses to a number.
#[inline(always)]
pub(super) fn minimum32(a: u32, b: u32) -> u32 {
    let (x, y) = (float(a), float(b));
    let both = if x == y {
        a | b
    } else if x < y {
        a
    } else {
        b
    };
    let number = if x.is_nan() {
        b
    } else if y.is_nan() {
        a
    } else {
        both
    };
    if x.is_nan() & y.is_nan() { NAN32 } else { number }
}

#[inline(always)]
pub(super) fn maximum32(a: u32, b: u32) -> u32 {
    let (x, y) = (float(a), float(b));
    let both = if x == y {
        a & b
    } else if x > y {
        a
    } else {
        b
    };
    let number = if x.is_nan() {
        b
    } else if y.is_nan() {
        a
    } else {
        both
    };
    if x.is_nan() & y.is_nan() { NAN32 } else { number }
}

fn flushed(mode: FloatMode, bits: u32) -> u32 {
    if mode.subnormals == Subnormals::Flush { flush32(bits) } else { bits }
}

/// Rounds the (odd-rounded or exact) double result of an operation as its mode says.
fn finish32(mode: FloatMode, value: f64) -> u32 {
    let bits = match mode.rounding {
        Rounding::NearestEven => canonical32(value as f32),
        rounding => encode(value, Format::F32, rounding, Saturate::No),
    };
    let bits = flushed(mode, bits);
    match mode.saturate {
        Saturate::Unit => (unit(f64::from(float(bits))) as f32).to_bits(),
        Saturate::Relu if float(bits) <= 0.0 => 0,
        _ => bits,
    }
}

fn careful32(op: FloatOp, mode: FloatMode, a: u32, b: u32) -> u32 {
    let (a, b) = (flushed(mode, a), flushed(mode, b));
    let (x, y) = (f64::from(float(a)), f64::from(float(b)));
    match op {
        FloatOp::Add => finish32(mode, add_to_odd(x, y)),
        FloatOp::Sub => finish32(mode, add_to_odd(x, -y)),
        FloatOp::Mul => finish32(mode, x * y),
        FloatOp::Div => finish32(mode, div_to_odd(x, y)),
        FloatOp::MinNan | FloatOp::MaxNan if x.is_nan() || y.is_nan() => NAN32,
        FloatOp::Min | FloatOp::MinNan => minimum32(a, b),
        FloatOp::Max | FloatOp::MaxNan => maximum32(a, b),
        FloatOp::CopySign => b & 0x7fff_ffff | a & 0x8000_0000,
    }
}

pub(super) fn fma(warp: &mut Warp, mode: FloatMode, d: R32, abc: [R32; 3], mask: Mask) {
    if mode == PLAIN {
        return map32x3(warp, d, abc, mask, |a, b, c| canonical32(fma32(float(a), float(b), float(c))));
    }
    map32x3(warp, d, abc, mask, |a, b, c| careful_fma(mode, [a, b, c]));
}

fn careful_fma(mode: FloatMode, operands: [u32; 3]) -> u32 {
    let [x, y, z] = operands.map(|bits| f64::from(float(flushed(mode, bits))));
    finish32(mode, add_to_odd(x * y, z))
}

/// The smallest or largest of three.
pub(super) fn extreme(warp: &mut Warp, op: FloatOp, mode: FloatMode, d: R32, abc: [R32; 3], mask: Mask) {
    map32x3(warp, d, abc, mask, |a, b, c| careful32(op, mode, careful32(op, mode, a, b), c));
}

/// The operation on both singles of each register.
pub(super) fn pair(warp: &mut Warp, op: FloatOp, mode: FloatMode, d: R64, ab: [R64; 2], mask: Mask) {
    map64(warp, d, ab, mask, |a, b| halves([a, b], |[a, b]| careful32(op, mode, a, b)));
}

pub(super) fn fma_pair(warp: &mut Warp, mode: FloatMode, d: R64, abc: [R64; 3], mask: Mask) {
    map64x3(warp, d, abc, mask, |a, b, c| halves([a, b, c], |operands| careful_fma(mode, operands)));
}

fn halves<const N: usize>(operands: [u64; N], f: impl Fn([u32; N]) -> u32) -> u64 {
    let part = |shift: u32| u64::from(f(operands.map(|bits| (bits >> shift) as u32))) << shift;
    part(0) | part(32)
}

pub(super) fn unary32(warp: &mut Warp, op: FloatUnaryOp, mode: FloatMode, d: R32, a: R32, mask: Mask) {
    let pair = [a, a];
    match op {
        FloatUnaryOp::Neg => map32(warp, d, pair, mask, |a, _| flushed(mode, a) ^ 0x8000_0000),
        FloatUnaryOp::Abs => map32(warp, d, pair, mask, |a, _| flushed(mode, a) & 0x7fff_ffff),
        _ => map32(warp, d, pair, mask, |a, _| {
            let x = f64::from(float(flushed(mode, a)));
            finish32(
                mode,
                match op {
                    FloatUnaryOp::Sqrt => sqrt_to_odd(x),
                    FloatUnaryOp::Reciprocal => div_to_odd(1.0, x),
                    _ => function(op, x),
                },
            )
        }),
    }
}

/// The function in double precision.
pub(super) fn function(op: FloatUnaryOp, x: f64) -> f64 {
    match op {
        FloatUnaryOp::Neg => -x,
        FloatUnaryOp::Abs => x.abs(),
        FloatUnaryOp::Sqrt => x.sqrt(),
        FloatUnaryOp::ReciprocalSqrt => 1.0 / x.sqrt(),
        FloatUnaryOp::Reciprocal => 1.0 / x,
        FloatUnaryOp::Exp2 => x.exp2(),
        FloatUnaryOp::Log2 => x.log2(),
        FloatUnaryOp::Sin => x.sin(),
        FloatUnaryOp::Cos => x.cos(),
        FloatUnaryOp::Tanh => x.tanh(),
    }
}
