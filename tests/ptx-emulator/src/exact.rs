//! What an operation in double precision loses, exactly or by its sign, and roundings that follow from it: in other
//! directions, or to odd, from where rounding again to fewer digits gives what rounding once would give.

use crate::instruction::Rounding;

/// `a + b` rounded to odd: a later rounding to a format of at most 51 bits gives what rounding the exact sum would give.
///
/// The error of the sum is exact; where there is one, the result takes the neighbour with an odd significand.
#[inline(always)]
pub(crate) fn add_to_odd(a: f64, b: f64) -> f64 {
    to_odd(a + b, sum_error(a, b))
}

/// What `a + b` loses (Knuth's two-sum); NaN where it is not finite.
#[inline(always)]
pub(crate) fn sum_error(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_part = sum - a;
    (a - (sum - b_part)) + (b - b_part)
}

/// What `a * b` loses; exact unless that is subnormal.
pub(crate) fn mul_error(a: f64, b: f64) -> f64 {
    a.mul_add(b, -(a * b))
}

/// A number of the sign of what `a / b` loses.
pub(crate) fn div_error(a: f64, b: f64) -> f64 {
    (-(a / b)).mul_add(b, a) * b.signum()
}

/// A number of the sign of what the square root loses.
pub(crate) fn sqrt_error(a: f64) -> f64 {
    let root = a.sqrt();
    (-root).mul_add(root, a)
}

/// A number of the sign of what `a * b + c` loses with one rounding (Boldo and Muller, "Exact and approximated error of the
/// FMA", 2011).
pub(crate) fn fma_error(a: f64, b: f64, c: f64) -> f64 {
    let (nearest, product) = (a.mul_add(b, c), a * b);
    let product_error = mul_error(a, b);
    let (low, low_error) = (c + product_error, sum_error(c, product_error));
    let (high, high_error) = (product + low, sum_error(product, low));
    ((high - nearest) + high_error) + low_error
}

/// The result of an operation in another rounding, given the nearest one and a number of the sign of what that loses.
pub(crate) fn round_by_error(nearest: f64, error: f64, rounding: Rounding) -> f64 {
    let up = match rounding {
        Rounding::NearestEven | Rounding::NearestAway => return nearest,
        Rounding::Down => false,
        Rounding::Up => true,
        Rounding::TowardZero => nearest < 0.0,
    };
    match (up, error > 0.0, error < 0.0) {
        (true, true, _) => nearest.next_up(),
        (false, _, true) => nearest.next_down(),
        _ => nearest,
    }
}

/// `value` rounded to odd, given a number of the sign of what it loses.
#[inline(always)]
fn to_odd(value: f64, error: f64) -> f64 {
    let bits = value.to_bits();
    // Infinities and NaNs make the error NaN, which is neither above nor below zero.
    let inexact = (error > 0.0) | (error < 0.0);
    let outward = (error > 0.0) == (value > 0.0);
    let odd = if outward { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact & (bits & 1 == 0) { odd } else { bits })
}

/// `a / b` rounded to odd.
pub(crate) fn div_to_odd(a: f64, b: f64) -> f64 {
    to_odd(a / b, div_error(a, b))
}

/// The square root rounded to odd.
pub(crate) fn sqrt_to_odd(a: f64) -> f64 {
    to_odd(a.sqrt(), sqrt_error(a))
}

/// `a * b + c` in single precision with one rounding, without branches so that it vectorises.
#[inline(always)]
pub(crate) fn fma32(a: f32, b: f32, c: f32) -> f32 {
    // The product of two singles is exact in double precision.
    add_to_odd(f64::from(a) * f64::from(b), f64::from(c)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state ^ (*state >> 29)
    }

    #[test]
    fn fma_rounds_once() {
        let mut state = 11;
        for _ in 0..200_000 {
            let [a, b, c] = [0; 3].map(|_| f32::from_bits(noise(&mut state) as u32));
            let (ours, libm) = (fma32(a, b, c), a.mul_add(b, c));
            assert!(ours.to_bits() == libm.to_bits() || ours.is_nan() && libm.is_nan(), "{a:e} {b:e} {c:e}");
            // Close magnitudes, where double rounding would show.
            let scaled = f32::from_bits((c.to_bits() & 0x807f_ffff) | (a * b).to_bits() & 0x7f80_0000);
            let (ours, libm) = (fma32(a, b, scaled), a.mul_add(b, scaled));
            assert!(ours.to_bits() == libm.to_bits() || ours.is_nan() && libm.is_nan(), "{a:e} {b:e} {scaled:e}");
        }
    }
}
