//! Block floating point: consecutive numbers share a power of two, and are whole numbers besides.
//!
//! What [`DotMethod::BlockFloat`](crate::op::DotMethod::BlockFloat) multiplies, and how exactly. Of 64 consecutive k the largest
//! magnitude lies in `2^e .. 2^(e + 1)`. Elements of rows become whole numbers of `2^(e - 12)`, those of weights of `2^(e - 11)`, each
//! the nearest one, ties to even. A bf16 has eight bits, so that changes nothing of what is `2^(e - 5)` and more in rows and
//! `2^(e - 4)` and more in weights; what is smaller moves by `2^(e - 13)` or `2^(e - 12)` at most. Whole numbers are then 255 * 2^5
//! and 255 * 2^4 at most, so the sum of 64 products is below 2^31: integers of 32 bits hold it without any rounding.

/// Numbers that share a power of two. The last ones of a row may be fewer.
pub const LENGTH: usize = 64;

/// The exponent that the largest magnitude has as a whole number, in rows and in weights.
pub const EXPONENT_IN_ROWS: i32 = 12;
/// See [`EXPONENT_IN_ROWS`].
pub const EXPONENT_IN_WEIGHTS: i32 = 11;

/// Magnitudes below 2 to this power count as that.
pub const LEAST_EXPONENT: i32 = -114;

/// What numbers are multiples of if the largest magnitude among them is `largest`, which is finite.
pub fn unit(largest: f64, exponent: i32) -> f64 {
    let least = f64::from(LEAST_EXPONENT).exp2();
    // The exponent of a normal number, from its bits: a logarithm could round up.
    let own = ((largest.max(least).to_bits() >> 52) & 0x7FF) as i32 - 1023;
    f64::from(own - exponent).exp2()
}

/// Rows of `length` elements as products take them. Those that share a power with an infinity or with what is not a number become
/// NaN.
pub fn rounded(elements: &[f64], length: usize, exponent: i32) -> Vec<f64> {
    let blocks = elements.chunks(length.max(1)).flat_map(|row| row.chunks(LENGTH));
    blocks
        .flat_map(|block| {
            let largest = block.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
            let unit = if block.iter().all(|x| x.is_finite()) { unit(largest, exponent) } else { f64::NAN };
            block.iter().map(move |x| (x / unit).round_ties_even() * unit)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn what_is_near_the_largest_stays_and_the_rest_moves_by_half_a_unit_at_most() {
        let mut elements: Vec<f64> = (0..LENGTH).map(|i| DType::BF16.round(1.99 * 0.83f64.powi(i as i32))).collect();
        elements.extend([3e-5, -2e-5].map(|x| DType::BF16.round(x)));
        let found = rounded(&elements, LENGTH + 2, EXPONENT_IN_ROWS);
        for (number, (x, found)) in elements.iter().zip(&found).enumerate() {
            let largest = if number < LENGTH { 0 } else { -16 };
            assert!((x - found).abs() <= f64::from(largest - 13).exp2(), "{x} {found}");
            assert!(*x < f64::from(largest - 5).exp2() || x == found, "{x} {found}");
        }
        assert!(elements[..LENGTH] != found[..LENGTH] && elements[LENGTH..] == found[LENGTH..]);
    }

    #[test]
    fn sums_of_a_block_fit_32_bits() {
        let largest = f64::from(255u8) / 128.0;
        let whole = |exponent| largest / unit(largest, exponent);
        let sum = LENGTH as f64 * whole(EXPONENT_IN_ROWS) * whole(EXPONENT_IN_WEIGHTS);
        assert!(whole(EXPONENT_IN_ROWS) < f64::from(i16::MAX) && sum < f64::from(i32::MAX), "{sum}");
    }

    #[test]
    fn extremes_are_kept_apart() {
        let row = [f64::INFINITY, 1.0];
        assert!(rounded(&row, 2, EXPONENT_IN_ROWS).iter().all(|x| x.is_nan()));
        assert_eq!(rounded(&row, 1, EXPONENT_IN_ROWS)[1], 1.0);
        assert_eq!(rounded(&[0.0, -0.0], 2, EXPONENT_IN_ROWS), [0.0, 0.0]);
        let tiny = f64::from(-130).exp2();
        assert_eq!(rounded(&[tiny], 1, EXPONENT_IN_ROWS), [0.0]);
    }
}
