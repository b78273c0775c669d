//! Single- and double-precision arithmetic over the lanes of a warp. The accuracy model is described in `numeric`.

use super::integer::{map32, map32x3};
use super::warp::{Mask, Warp};
use crate::instruction::{FloatMode, FloatOp, FloatUnaryOp, Format, R32, R64, Rounding, Saturate, Subnormals};
use crate::numeric::{NAN32, add_to_odd, canonical32, encode, flush32, fma32, unit};

const PLAIN: FloatMode =
    FloatMode { rounding: Rounding::NearestEven, subnormals: Subnormals::Keep, saturate: Saturate::No };

#[inline(always)]
fn single(bits: u32) -> f32 {
    f32::from_bits(bits)
}

pub(super) fn float32(warp: &mut Warp, op: FloatOp, mode: FloatMode, d: R32, ab: [R32; 2], mask: Mask) {
    if mode != PLAIN {
        return map32(warp, d, ab, mask, |a, b| careful32(op, mode, a, b));
    }
    match op {
        FloatOp::Add => map32(warp, d, ab, mask, |a, b| canonical32(single(a) + single(b))),
        FloatOp::Sub => map32(warp, d, ab, mask, |a, b| canonical32(single(a) - single(b))),
        FloatOp::Mul => map32(warp, d, ab, mask, |a, b| canonical32(single(a) * single(b))),
        FloatOp::Div => map32(warp, d, ab, mask, |a, b| canonical32(single(a) / single(b))),
        FloatOp::Min => map32(warp, d, ab, mask, minimum32),
        FloatOp::Max => map32(warp, d, ab, mask, maximum32),
        _ => map32(warp, d, ab, mask, |a, b| careful32(op, mode, a, b)),
    }
}

/// The smaller number; -0 is smaller than +0, and a NaN loses to a number.
#[inline(always)]
pub(super) fn minimum32(a: u32, b: u32) -> u32 {
    let (x, y) = (single(a), single(b));
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
    let (x, y) = (single(a), single(b));
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
        Saturate::Unit => (unit(f64::from(single(bits))) as f32).to_bits(),
        Saturate::Relu if single(bits) <= 0.0 => 0,
        _ => bits,
    }
}

fn careful32(op: FloatOp, mode: FloatMode, a: u32, b: u32) -> u32 {
    let (a, b) = (flushed(mode, a), flushed(mode, b));
    let (x, y) = (f64::from(single(a)), f64::from(single(b)));
    match op {
        FloatOp::Add => finish32(mode, add_to_odd(x, y)),
        FloatOp::Sub => finish32(mode, add_to_odd(x, -y)),
        FloatOp::Mul => finish32(mode, x * y),
        // A double has more than twice the digits, so that rounding twice is harmless.
        FloatOp::Div => finish32(mode, x / y),
        FloatOp::MinNan | FloatOp::MaxNan if x.is_nan() || y.is_nan() => NAN32,
        FloatOp::Min | FloatOp::MinNan => minimum32(a, b),
        FloatOp::Max | FloatOp::MaxNan => maximum32(a, b),
        FloatOp::CopySign => b & 0x7fff_ffff | a & 0x8000_0000,
    }
}

pub(super) fn fma(warp: &mut Warp, mode: FloatMode, d: R32, abc: [R32; 3], mask: Mask) {
    if mode == PLAIN {
        return map32x3(warp, d, abc, mask, |a, b, c| canonical32(fma32(single(a), single(b), single(c))));
    }
    map32x3(warp, d, abc, mask, |a, b, c| {
        let [x, y, z] = [a, b, c].map(|bits| f64::from(single(flushed(mode, bits))));
        finish32(mode, add_to_odd(x * y, z))
    });
}

pub(super) fn unary32(warp: &mut Warp, op: FloatUnaryOp, mode: FloatMode, d: R32, a: R32, mask: Mask) {
    let pair = [a, a];
    match op {
        FloatUnaryOp::Neg => map32(warp, d, pair, mask, |a, _| flushed(mode, a) ^ 0x8000_0000),
        FloatUnaryOp::Abs => map32(warp, d, pair, mask, |a, _| flushed(mode, a) & 0x7fff_ffff),
        _ => map32(warp, d, pair, mask, |a, _| finish32(mode, function(op, f64::from(single(flushed(mode, a)))))),
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

const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

fn canonical64(value: f64) -> u64 {
    if value.is_nan() { NAN64 } else { value.to_bits() }
}

pub(super) fn float64(warp: &mut Warp, op: FloatOp, d: R64, ab: [R64; 2], mask: Mask) {
    super::integer::map64(warp, d, ab, mask, |a, b| {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        match op {
            FloatOp::Add => canonical64(x + y),
            FloatOp::Sub => canonical64(x - y),
            FloatOp::Mul => canonical64(x * y),
            FloatOp::Div => canonical64(x / y),
            FloatOp::MinNan | FloatOp::MaxNan if x.is_nan() || y.is_nan() => NAN64,
            FloatOp::Min | FloatOp::MinNan if x == y => a | b,
            FloatOp::Max | FloatOp::MaxNan if x == y => a & b,
            FloatOp::Min | FloatOp::MinNan => canonical64(x.min(y)),
            FloatOp::Max | FloatOp::MaxNan => canonical64(x.max(y)),
            FloatOp::CopySign => y.copysign(x).to_bits(),
        }
    });
}

pub(super) fn unary64(warp: &mut Warp, op: FloatUnaryOp, d: R64, a: R64, mask: Mask) {
    super::integer::map64(warp, d, [a, a], mask, |a, _| match op {
        FloatUnaryOp::Neg => a ^ 1 << 63,
        FloatUnaryOp::Abs => a & !(1 << 63),
        _ => canonical64(function(op, f64::from_bits(a))),
    });
}

pub(super) fn fma64(warp: &mut Warp, d: R64, [a, b, c]: [R64; 3], mask: Mask) {
    let mut out = [0; 32];
    for (lane, out) in out.iter_mut().enumerate() {
        let [x, y, z] = [a, b, c].map(|register| f64::from_bits(warp.get64(register)[lane]));
        *out = canonical64(x.mul_add(y, z));
    }
    let defined = warp.defined64(a) & warp.defined64(b) & warp.defined64(c);
    warp.set64(d, &out, mask, defined);
}
