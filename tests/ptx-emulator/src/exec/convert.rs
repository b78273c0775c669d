//! Conversions and moves between formats and register widths.

use super::warp::{Lanes32, Lanes64, Mask, Warp};
use crate::instruction::{
    Convert, ConvertPack, Format, Pack, PackSource, Register, Rounding, Saturate, Sign, Subnormals, Unpack,
};
use crate::numeric::{canonical32, decode, encode, f16_to_f32, f32_to_bf16, f32_to_f16, flush32, integral, unit};

pub(super) fn convert(warp: &mut Warp, convert: &Convert, mask: Mask) {
    let defined = warp.defined(convert.a);
    if let (Register::Narrow(a), Register::Narrow(d)) = (convert.a, convert.d.register)
        && let Some(out) = quick(convert, warp.get32(a))
    {
        return warp.set32(d, &out, mask, defined);
    }
    let source = warp.get(convert.a);
    let out: Lanes64 = source.map(|value| one(convert, value));
    warp.set(convert.d.register, &out, mask, defined);
}

/// The conversions that inner loops are full of.
fn quick(convert: &Convert, source: &Lanes32) -> Option<Lanes32> {
    let plain = convert.subnormals == Subnormals::Keep && convert.saturate == Saturate::No && !convert.integral;
    if !plain || convert.rounding != Rounding::NearestEven {
        return None;
    }
    let mut out = [0; 32];
    macro_rules! lanes {
        ($f:expr) => {
            for lane in 0..32 {
                out[lane] = $f(source[lane]);
            }
        };
    }
    match (convert.from, convert.to) {
        (Format::Bf16, Format::F32) => lanes!(|bits: u32| canonical32(f32::from_bits(bits << 16))),
        (Format::F16, Format::F32) => lanes!(|bits: u32| canonical32(f16_to_f32(bits & 0xffff))),
        (Format::F32, Format::Bf16) => lanes!(|bits| f32_to_bf16(f32::from_bits(bits))),
        (Format::F32, Format::F16) => lanes!(|bits| f32_to_f16(f32::from_bits(bits))),
        (Format::Integer(Sign::Signed, 32), Format::F32) => lanes!(|bits| (bits as i32 as f32).to_bits()),
        (Format::Integer(Sign::Unsigned, 32), Format::F32) => lanes!(|bits: u32| (bits as f32).to_bits()),
        (Format::Integer(Sign::Signed, 8), Format::F32) => lanes!(|bits| f32::from(bits as i8).to_bits()),
        _ => return None,
    }
    Some(out)
}

fn one(convert: &Convert, value: u64) -> u64 {
    match (convert.from, convert.to) {
        (Format::Integer(sign, bits), Format::Integer(to_sign, to_bits)) => {
            let value = integer(value, sign, bits);
            let value = if convert.saturate == Saturate::No { value } else { clamp(value, to_sign, to_bits) };
            extended(value, to_sign, to_bits, convert.d.bits)
        }
        (Format::Integer(sign, bits), to) => from_integer(integer(value, sign, bits), to, convert),
        (from, Format::Integer(sign, bits)) => {
            let value = integral(float(from, value, convert), convert.rounding);
            if value.is_nan() {
                // Zero, but only the top bit where 64 bits are involved.
                return if bits == 64 || from == Format::F64 { 1 << (bits - 1) } else { 0 };
            }
            extended(clamp(value as i128, sign, bits), sign, bits, convert.d.bits)
        }
        (from, to) => from_float(float(from, value, convert), to, convert),
    }
}

fn integer(value: u64, sign: Sign, bits: u32) -> i128 {
    let raised = value << (64 - bits);
    match sign {
        Sign::Signed => i128::from(raised as i64 >> (64 - bits)),
        Sign::Unsigned => i128::from(raised >> (64 - bits)),
    }
}

fn clamp(value: i128, sign: Sign, bits: u32) -> i128 {
    match sign {
        Sign::Signed => value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        Sign::Unsigned => value.clamp(0, (1 << bits) - 1),
    }
}

/// The low `bits` bits, extended to the register's width.
fn extended(value: i128, sign: Sign, bits: u32, register_bits: u32) -> u64 {
    integer(value as u64, sign, bits) as u64 & (u64::MAX >> (64 - register_bits))
}

fn float(format: Format, value: u64, convert: &Convert) -> f64 {
    match format {
        Format::F64 => f64::from_bits(value),
        Format::F32 if convert.subnormals == Subnormals::Flush => decode(flush32(value as u32), format),
        _ => decode(value as u32, format),
    }
}

fn from_integer(value: i128, to: Format, convert: &Convert) -> u64 {
    match to {
        Format::F64 => match convert.rounding {
            Rounding::NearestEven => (value as f64).to_bits(),
            rounding => directed(value, rounding).to_bits(),
        },
        // Rounding to odd first keeps the second rounding from seeing a tie that is none.
        _ => from_float(odd(value), to, convert),
    }
}

/// An integer as a double, rounded to odd.
fn odd(value: i128) -> f64 {
    let nearest = value as f64;
    let back = nearest as i128;
    let bits = nearest.to_bits();
    if back == value || bits & 1 == 1 {
        return nearest;
    }
    f64::from_bits(if (back < value) == (value > 0) { bits + 1 } else { bits - 1 })
}

fn directed(value: i128, rounding: Rounding) -> f64 {
    let nearest = value as f64;
    let back = nearest as i128;
    let (too_high, too_low) = (back > value, back < value);
    match rounding {
        Rounding::Down if too_high => nearest.next_down(),
        Rounding::Up if too_low => nearest.next_up(),
        Rounding::TowardZero if too_high && value > 0 => nearest.next_down(),
        Rounding::TowardZero if too_low && value < 0 => nearest.next_up(),
        _ => nearest,
    }
}

fn from_float(value: f64, to: Format, convert: &Convert) -> u64 {
    let value = if convert.integral { integral(value, convert.rounding) } else { value };
    let value = if convert.saturate == Saturate::Unit { unit(value) } else { value };
    if to == Format::F64 {
        return if value.is_nan() { 0x7fff_ffff_ffff_ffff } else { value.to_bits() };
    }
    let bits = encode(value, to, convert.rounding, convert.saturate);
    let flush = to == Format::F32 && convert.subnormals == Subnormals::Flush;
    u64::from(if flush { flush32(bits) } else { bits })
}

pub(super) fn convert_pack(warp: &mut Warp, convert: &ConvertPack, mask: Mask) {
    let defined = warp.defined32(convert.high.register) & warp.defined32(convert.low.register);
    let (high, low) = (warp.get32(convert.high.register), warp.get32(convert.low.register));
    let nearest = convert.rounding == Rounding::NearestEven && convert.saturate == Saturate::No;
    let mut out = [0; 32];
    match (convert.from, convert.to) {
        (Format::F32, Format::Bf16) if nearest => {
            for lane in 0..32 {
                out[lane] = f32_to_bf16(f32::from_bits(high[lane])) << 16 | f32_to_bf16(f32::from_bits(low[lane]));
            }
        }
        (Format::F32, Format::F16) if nearest => {
            for lane in 0..32 {
                out[lane] = f32_to_f16(f32::from_bits(high[lane])) << 16 | f32_to_f16(f32::from_bits(low[lane]));
            }
        }
        _ => {
            let bits = if matches!(convert.to, Format::E4m3 | Format::E5m2) { 8 } else { 16 };
            let element = |value: u32, source: PackSource| {
                let value = value >> source.shift;
                let value =
                    if convert.from == Format::F16 || convert.from == Format::Bf16 { value & 0xffff } else { value };
                encode(decode(value, convert.from), convert.to, convert.rounding, convert.saturate)
            };
            for lane in 0..32 {
                out[lane] = element(high[lane], convert.high) << bits | element(low[lane], convert.low);
            }
        }
    }
    warp.set32(convert.d, &out, mask, defined);
}

pub(super) fn pack(warp: &mut Warp, pack: &Pack, mask: Mask) {
    let mut defined = Mask::MAX;
    if let Register::Narrow(d) = pack.d {
        let mut out: Lanes32 = [0; 32];
        for (at, &part) in pack.parts.iter().enumerate() {
            let shift = at as u32 * pack.part_bits;
            defined &= warp.defined32(part);
            for (out, value) in out.iter_mut().zip(warp.get32(part)) {
                *out |= value << shift;
            }
        }
        return warp.set32(d, &out, mask, defined);
    }
    let mut out: Lanes64 = [0; 32];
    for (at, &part) in pack.parts.iter().enumerate() {
        let shift = at as u32 * pack.part_bits;
        defined &= warp.defined32(part);
        for (out, value) in out.iter_mut().zip(warp.get32(part)) {
            *out |= u64::from(*value) << shift;
        }
    }
    warp.set(pack.d, &out, mask, defined);
}

pub(super) fn unpack(warp: &mut Warp, unpack: &Unpack, mask: Mask) {
    let defined = warp.defined(unpack.a);
    let keep = u64::MAX >> (64 - unpack.part_bits);
    match unpack.a {
        Register::Narrow(a) => {
            let source = *warp.get32(a);
            for (at, part) in unpack.parts.iter().enumerate() {
                let Some(part) = *part else { continue };
                let shift = at as u32 * unpack.part_bits;
                warp.set32(part, &source.map(|value| value >> shift & keep as u32), mask, defined);
            }
        }
        Register::Wide(a) => {
            let source = *warp.get64(a);
            for (at, part) in unpack.parts.iter().enumerate() {
                let Some(part) = *part else { continue };
                let shift = at as u32 * unpack.part_bits;
                warp.set32(part, &source.map(|value| (value >> shift & keep) as u32), mask, defined);
            }
        }
    }
}
