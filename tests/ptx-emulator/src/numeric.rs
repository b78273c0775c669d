//! Floating-point formats on the level of bits: decoding to `f64`, and rounding from `f64` to every format in every mode.
//!
//! Accuracy model: every arithmetic instruction returns the exact result rounded once. The approximate functions (`ex2.approx`,
//! `rsqrt.approx`, `tanh.approx`, `div.full`, ...) return the double-precision function rounded to the result's format, which
//! lies within what the ISA promises of them but is not bit for bit what a given GPU returns. NaN results are the canonical NaN.

use crate::instruction::{Format, HalfFormat, Rounding, Saturate, Subnormals};

/// The canonical single-precision NaN.
pub(crate) const NAN32: u32 = 0x7fff_ffff;

/// A binary floating-point format narrower than double.
struct Layout {
    fraction: u32,
    bias: i32,
    /// Bits of infinity, or of the first value beyond the largest where the format has no infinity.
    infinity: u32,
    largest: u32,
    nan: u32,
    sign: u32,
    has_infinity: bool,
}

const F32: Layout = Layout {
    fraction: 23,
    bias: 127,
    infinity: 0x7f80_0000,
    largest: 0x7f7f_ffff,
    nan: NAN32,
    sign: 31,
    has_infinity: true,
};
const TF32: Layout = Layout {
    fraction: 10,
    bias: 127,
    infinity: 0x3_fc00,
    largest: 0x3_fbff,
    nan: 0x3_ffff,
    sign: 18,
    has_infinity: true,
};
const F16: Layout =
    Layout { fraction: 10, bias: 15, infinity: 0x7c00, largest: 0x7bff, nan: 0x7fff, sign: 15, has_infinity: true };
const BF16: Layout =
    Layout { fraction: 7, bias: 127, infinity: 0x7f80, largest: 0x7f7f, nan: 0x7fff, sign: 15, has_infinity: true };
const E4M3: Layout =
    Layout { fraction: 3, bias: 7, infinity: 0x7f, largest: 0x7e, nan: 0x7f, sign: 7, has_infinity: false };
const E5M2: Layout =
    Layout { fraction: 2, bias: 15, infinity: 0x7c, largest: 0x7b, nan: 0x7f, sign: 7, has_infinity: true };

fn layout(format: Format) -> &'static Layout {
    match format {
        Format::F16 => &F16,
        Format::Bf16 => &BF16,
        Format::Tf32 => &TF32,
        Format::E4m3 => &E4M3,
        Format::E5m2 => &E5M2,
        Format::F32 | Format::F64 | Format::Integer(..) => &F32,
    }
}

/// Rounds `value` to `format`; `Saturate::Finite` turns overflow into the largest finite value.
pub(crate) fn encode(value: f64, format: Format, rounding: Rounding, saturate: Saturate) -> u32 {
    let layout = layout(format);
    let value = match saturate {
        Saturate::Relu if value <= 0.0 => 0.0,
        Saturate::Unit => unit(value),
        _ => value,
    };
    let bits = round(value, layout, rounding, saturate);
    if format == Format::Tf32 { bits << 13 } else { bits }
}

/// Clamps to [0, 1]; NaN and -0 become 0.
pub(crate) fn unit(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

fn round(value: f64, layout: &Layout, rounding: Rounding, saturate: Saturate) -> u32 {
    if value.is_nan() {
        return layout.nan;
    }
    let bits = value.to_bits();
    let negative = bits >> 63 == 1;
    let sign = u32::from(negative) << layout.sign;
    let magnitude = if value.is_infinite() { layout.infinity } else { magnitude(bits, negative, layout, rounding) };
    if magnitude < layout.infinity {
        return sign | magnitude;
    }
    let clamps = saturate == Saturate::Finite
        || !value.is_infinite()
            && match rounding {
                Rounding::NearestEven | Rounding::NearestAway => false,
                Rounding::TowardZero => true,
                Rounding::Down => !negative,
                Rounding::Up => negative,
            };
    match (clamps, layout.has_infinity) {
        (true, _) => sign | layout.largest,
        (false, true) => sign | layout.infinity,
        (false, false) => sign | layout.nan,
    }
}

/// The rounded magnitude, possibly at or beyond infinity.
fn magnitude(bits: u64, negative: bool, layout: &Layout, rounding: Rounding) -> u32 {
    let raw_exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (exponent, significand) =
        if raw_exponent == 0 { (-1022, fraction) } else { (raw_exponent - 1023, fraction | 1 << 52) };
    let least = 1 - layout.bias;
    let shift = (52 - layout.fraction as i32 + (least - exponent).max(0)).min(63) as u32;
    let kept = significand >> shift;
    let rest = significand & ((1 << shift) - 1);
    let half = 1u64 << (shift - 1);
    let up = match rounding {
        Rounding::NearestEven => rest > half || rest == half && kept & 1 == 1,
        Rounding::NearestAway => rest >= half,
        Rounding::TowardZero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
    };
    let kept = kept + u64::from(up);
    if exponent < least {
        return kept as u32;
    }
    // The implicit bit adds one to the exponent field, a carry out of the fraction another one.
    let field = (exponent + layout.bias - 1).min(0x1ff) as u64;
    ((field << layout.fraction) + kept) as u32
}

/// The value of `bits` in `format`.
pub(crate) fn decode(bits: u32, format: Format) -> f64 {
    match format {
        Format::F32 | Format::Tf32 => f64::from(f32::from_bits(bits)),
        Format::Bf16 => f64::from(f32::from_bits(bits << 16)),
        Format::F16 => f64::from(f16_to_f32(bits)),
        Format::E4m3 | Format::E5m2 => small(bits & 0xff, layout(format)),
        Format::F64 | Format::Integer(..) => 0.0,
    }
}

fn small(bits: u32, layout: &Layout) -> f64 {
    let sign = if bits >> 7 == 1 { -1.0 } else { 1.0 };
    let magnitude = bits & 0x7f;
    if magnitude >= layout.infinity {
        return if layout.has_infinity && magnitude == layout.infinity { sign * f64::INFINITY } else { f64::NAN };
    }
    let (field, fraction) = (magnitude >> layout.fraction, magnitude & ((1 << layout.fraction) - 1));
    let scale = |exponent: i32| (f64::from(exponent) - f64::from(layout.fraction)).exp2();
    if field == 0 {
        return sign * f64::from(fraction) * scale(1 - layout.bias);
    }
    sign * f64::from(fraction | 1 << layout.fraction) * scale(field as i32 - layout.bias)
}

/// A half-precision value as single precision, without branches so that it vectorises.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u32) -> f32 {
    let magnitude = (bits & 0x7fff) << 13;
    // Multiplying by 2^112 moves the exponent's bias and normalises subnormals; infinities and NaNs take the other arm.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = magnitude | 0x7f80_0000;
    let value = if magnitude >= 0x7c00 << 13 { special } else { finite.to_bits() };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

/// A single rounded to half precision, to nearest even, without branches so that it vectorises.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u32 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let normal = (magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1))) >> 13;
    // Adding 0.5 aligns a subnormal's fraction with the end of the single's, where the addition rounds it.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let rounded = if magnitude < 113 << 23 { subnormal } else { normal };
    let finite = if magnitude >= 0x477f_f000 { 0x7c00 } else { rounded };
    if magnitude > 0x7f80_0000 { 0x7fff } else { sign | finite }
}

/// A single rounded to bf16, to nearest even, without branches so that it vectorises.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// The bits of a 16-bit format as a double.
#[inline(always)]
pub(crate) fn half_to_f64(bits: u32, format: HalfFormat) -> f64 {
    f64::from(match format {
        HalfFormat::F16 => f16_to_f32(bits & 0xffff),
        HalfFormat::Bf16 => f32::from_bits(bits << 16),
    })
}

/// The [`Format`] of a 16-bit float.
pub(crate) fn half_format(format: HalfFormat) -> Format {
    match format {
        HalfFormat::F16 => Format::F16,
        HalfFormat::Bf16 => Format::Bf16,
    }
}

/// Replaces every NaN by the canonical one.
#[inline(always)]
pub(crate) fn canonical32(value: f32) -> u32 {
    if value.is_nan() { NAN32 } else { value.to_bits() }
}

/// Turns a subnormal single into a zero of its sign.
#[inline(always)]
pub(crate) fn flush32(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// A 16-bit float, or a zero of its sign where it is subnormal and those count as zero.
pub(crate) fn flush_half(format: HalfFormat, subnormals: Subnormals, bits: u32) -> u32 {
    let exponent = match format {
        HalfFormat::F16 => 0x7c00,
        HalfFormat::Bf16 => 0x7f80,
    };
    if subnormals == Subnormals::Flush && bits & exponent == 0 { bits & 0x8000 } else { bits }
}

/// Rounds to an integer, still as a double.
pub(crate) fn integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::TowardZero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Rounding; 5] =
        [Rounding::NearestEven, Rounding::NearestAway, Rounding::TowardZero, Rounding::Down, Rounding::Up];

    fn noise(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state ^ (*state >> 29)
    }

    #[test]
    fn every_value_of_every_small_format_survives() {
        for format in [Format::F16, Format::Bf16, Format::E4m3, Format::E5m2] {
            let count = if matches!(format, Format::F16 | Format::Bf16) { 1 << 16 } else { 1 << 8 };
            for bits in 0..count {
                let value = decode(bits, format);
                for mode in MODES {
                    let back = encode(value, format, mode, Saturate::No);
                    assert!(
                        value.is_nan() && decode(back, format).is_nan() || back == bits,
                        "{format:?} {bits:#x} {back:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn modes_enclose_the_value() {
        let mut state = 7;
        for _ in 0..100_000 {
            let value = f64::from(f32::from_bits(noise(&mut state) as u32));
            if !value.is_finite() || value.abs() > 60000.0 {
                continue;
            }
            for format in [Format::F16, Format::Bf16, Format::E5m2] {
                let at = |mode| decode(encode(value, format, mode, Saturate::No), format);
                let (down, up, nearest) = (at(Rounding::Down), at(Rounding::Up), at(Rounding::NearestEven));
                assert!(down <= value && value <= up, "{format:?} {value} {down} {up}");
                assert!((nearest - value).abs() <= (down - value).abs().min((up - value).abs()));
                assert_eq!(at(Rounding::TowardZero), if value < 0.0 { up } else { down });
            }
        }
    }

    #[test]
    fn fast_paths_agree_with_the_general_rounding() {
        let mut state = 3;
        let edges =
            [0.0, -0.0, 65504.0, 65519.9, 65520.0, 6.1e-5, 5.9e-8, 2.9e-8, 3.0e-8, f32::INFINITY, f32::NAN, 1e-40];
        let random = (0..200_000).map(|_| f32::from_bits(noise(&mut state) as u32));
        for value in edges.into_iter().chain(random) {
            let wide = f64::from(value);
            let general = |format| encode(wide, format, Rounding::NearestEven, Saturate::No);
            assert_eq!(f32_to_f16(value), general(Format::F16), "{value:e}");
            assert_eq!(f32_to_bf16(value), general(Format::Bf16), "{value:e}");
            assert_eq!(canonical32(value), general(Format::F32), "{value:e}");
        }
    }

    #[test]
    fn small_floats_have_the_values_of_their_specification() {
        assert_eq!(decode(0x7e, Format::E4m3), 448.0);
        assert_eq!(decode(0x08, Format::E4m3), 0.015625);
        assert_eq!(decode(0x01, Format::E4m3), 0.001953125);
        assert_eq!(decode(0x7b, Format::E5m2), 57344.0);
        assert_eq!(encode(1e6, Format::E4m3, Rounding::NearestEven, Saturate::Finite), 0x7e);
        assert_eq!(encode(1.0 + 2f64.powi(-11), Format::Tf32, Rounding::NearestAway, Saturate::No), 0x3f80_2000);
    }
}
