//! Arithmetic on 16-bit floats, one or two per register, through double precision and one rounding.

use super::float::function;
use super::integer::{map32, map32x3};
use super::warp::{Mask, Warp};
use crate::exact::add_to_odd;
use crate::instruction::{FloatOp, FloatUnaryOp, HalfFormat, HalfKind, Packed, R32, Rounding, Saturate, Subnormals};
use crate::numeric::{encode, flush_half, half_format, half_to_f64};

/// A 16-bit NaN as instructions return it.
const NAN16: u32 = 0x7fff;

pub(super) fn binary(warp: &mut Warp, op: FloatOp, kind: HalfKind, d: R32, ab: [R32; 2], mask: Mask) {
    map32(warp, d, ab, mask, |a, b| each(kind, [a, b, 0], |[a, b, _]| one(op, kind, a, b)));
}

pub(super) fn unary(warp: &mut Warp, op: FloatUnaryOp, kind: HalfKind, d: R32, a: R32, mask: Mask) {
    map32(warp, d, [a, a], mask, |a, _| {
        each(kind, [a, 0, 0], |[a, _, _]| match op {
            FloatUnaryOp::Neg => flushed(kind, a) ^ 0x8000,
            FloatUnaryOp::Abs => flushed(kind, a) & 0x7fff,
            _ => finish(kind, function(op, half_to_f64(flushed(kind, a), kind.format))),
        })
    });
}

pub(super) fn fma(warp: &mut Warp, kind: HalfKind, d: R32, abc: [R32; 3], mask: Mask) {
    map32x3(warp, d, abc, mask, |a, b, c| {
        each(kind, [a, b, c], |halves| {
            let [x, y, z] = halves.map(|bits| half_to_f64(flushed(kind, bits), kind.format));
            // The product is exact: at most 22 digits.
            finish(kind, add_to_odd(x * y, z))
        })
    });
}

/// Runs `f` on the one or two 16-bit elements of the operands.
fn each(kind: HalfKind, operands: [u32; 3], f: impl Fn([u32; 3]) -> u32) -> u32 {
    let low = f(operands.map(|bits| bits & 0xffff));
    match kind.packed {
        Packed::One => low,
        Packed::Two => low | f(operands.map(|bits| bits >> 16)) << 16,
    }
}

fn flushed(kind: HalfKind, bits: u32) -> u32 {
    flush_half(kind.format, kind.subnormals, bits)
}

fn finish(kind: HalfKind, value: f64) -> u32 {
    flushed(kind, encode(value, half_format(kind.format), Rounding::NearestEven, kind.saturate))
}

fn one(op: FloatOp, kind: HalfKind, a: u32, b: u32) -> u32 {
    let (a, b) = (flushed(kind, a), flushed(kind, b));
    let (x, y) = (half_to_f64(a, kind.format), half_to_f64(b, kind.format));
    match op {
        // The sum needs more digits than a double has where exponents are far apart.
        FloatOp::Add => finish(kind, add_to_odd(x, y)),
        FloatOp::Sub => finish(kind, add_to_odd(x, -y)),
        FloatOp::Mul => finish(kind, x * y),
        FloatOp::Div => finish(kind, x / y),
        FloatOp::MinNan | FloatOp::MaxNan if x.is_nan() || y.is_nan() => NAN16,
        _ if x.is_nan() && y.is_nan() => NAN16,
        FloatOp::CopySign => b & 0x7fff | a & 0x8000,
        _ if x.is_nan() => b,
        _ if y.is_nan() => a,
        FloatOp::Min | FloatOp::MinNan if x == y => a | b,
        FloatOp::Max | FloatOp::MaxNan if x == y => a & b,
        FloatOp::Min | FloatOp::MinNan => {
            if x < y {
                a
            } else {
                b
            }
        }
        FloatOp::Max | FloatOp::MaxNan => {
            if x > y {
                a
            } else {
                b
            }
        }
    }
}

/// The sum of two 16-bit floats, for atomics.
pub(super) fn add(format: HalfFormat, a: u32, b: u32) -> u32 {
    let kind = HalfKind { format, packed: Packed::One, subnormals: Subnormals::Keep, saturate: Saturate::No };
    one(FloatOp::Add, kind, a & 0xffff, b & 0xffff)
}
