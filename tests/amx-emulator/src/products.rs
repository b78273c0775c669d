//! The arithmetic of TDPBF16PS and TDPBSSD on whole tiles.
//!
//! For every element TDPBF16PS sums the products of the even k, and those of the odd k, each by a chain of fused
//! multiply-adds from zero; their sum is added to what was there. Denormal operands count as zero and denormal results
//! become zero, both of their sign.

use crate::tiles::{ROW_BYTES, ROWS, Tile};

/// 32-bit elements of a row.
const LANES: usize = ROW_BYTES / 4;

/// The sizes of a product: rows, 32-bit elements of a row of the left operand, and of a row of the right one.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rows: usize,
    pub pairs: usize,
    pub columns: usize,
}

/// `sum += left right` in bf16 with f32 sums. Elements beyond the sizes are left alone.
pub fn bf16(sum: &mut Tile, left: &Tile, right: &Tile, sizes: Sizes) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has what the function needs.
        unsafe { bf16_with_avx512(sum, left, right, sizes) }
    } else if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has what the function needs.
        unsafe { bf16_with_fma(sum, left, right, sizes) }
    } else {
        bf16_anywhere(sum, left, right, sizes);
    }
}

#[target_feature(enable = "avx512f,fma")]
fn bf16_with_avx512(sum: &mut Tile, left: &Tile, right: &Tile, sizes: Sizes) {
    bf16_anywhere(sum, left, right, sizes);
}

#[target_feature(enable = "avx2,fma")]
fn bf16_with_fma(sum: &mut Tile, left: &Tile, right: &Tile, sizes: Sizes) {
    bf16_anywhere(sum, left, right, sizes);
}

/// The same, for whatever the calling function may use.
#[inline(always)]
fn bf16_anywhere(sum: &mut Tile, left: &Tile, right: &Tile, sizes: Sizes) {
    // Rows of the right operand, the even k apart from the odd ones.
    let mut halves = [[[0.0_f32; LANES]; 2]; ROWS];
    for (pair, halves) in halves.iter_mut().enumerate().take(sizes.pairs) {
        let pairs: [[f32; 2]; LANES] = std::array::from_fn(|column| pair_of(right, pair, column));
        *halves = [pairs.map(|[even, _]| even), pairs.map(|[_, odd]| odd)];
    }
    for row in 0..sizes.rows {
        let mut sums = [[0.0_f32; LANES]; 2];
        for (pair, right) in halves.iter().enumerate().take(sizes.pairs) {
            let left = pair_of(left, row, pair);
            for half in 0..2 {
                multiply_add(&mut sums[half], left[half], &right[half]);
            }
        }
        for (column, added) in sums[0].iter().zip(&sums[1]).map(|(a, b)| a + b).enumerate().take(sizes.columns) {
            let at = column * 4..column * 4 + 4;
            let before = f32::from_le_bytes(sum.0[row][at.clone()].try_into().expect("four bytes"));
            let added = without_denormals(added);
            let after = without_denormals(without_denormals(before) + added);
            sum.0[row][at].copy_from_slice(&after.to_le_bytes());
        }
    }
}

/// The two bf16 of a 32-bit element.
#[inline(always)]
fn pair_of(tile: &Tile, row: usize, element: usize) -> [f32; 2] {
    let bytes = &tile.0[row][element * 4..element * 4 + 4];
    let low = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 24;
    let high = u32::from(bytes[2]) << 16 | u32::from(bytes[3]) << 24;
    [low, high].map(|bits| without_denormals(f32::from_bits(bits)))
}

/// `sums += left * right`, fused.
#[inline(always)]
fn multiply_add(sums: &mut [f32; LANES], left: f32, right: &[f32; LANES]) {
    let before = *sums;
    let mut tiny = false;
    for column in 0..LANES {
        let result = left.mul_add(right[column], before[column]);
        tiny |= result.abs() <= f32::MIN_POSITIVE;
        sums[column] = result;
    }
    if tiny {
        for column in 0..LANES {
            sums[column] = flushed(left, right[column], before[column]);
        }
    }
}

/// A fused multiply-add whose denormal result becomes zero. What is denormal is decided, as by the CPU, after rounding to
/// 24 bits; the smallest normal number may also be what a denormal one was rounded to.
#[inline(always)]
fn flushed(a: f32, b: f32, c: f32) -> f32 {
    let result = a.mul_add(b, c);
    if result.abs() == f32::MIN_POSITIVE {
        let scale = f32::from_bits((127 + 64) << 23);
        let enlarged = (a * scale).mul_add(b, c * scale);
        if enlarged.abs() < f32::MIN_POSITIVE * scale {
            return 0.0_f32.copysign(result);
        }
    }
    without_denormals(result)
}

/// Zero of the same sign in place of a denormal number.
#[inline(always)]
fn without_denormals(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

/// `sum += left right` in signed bytes with 32-bit sums that wrap around.
pub fn int8(sum: &mut Tile, left: &Tile, right: &Tile, sizes: Sizes) {
    for row in 0..sizes.rows {
        for column in 0..sizes.columns {
            let at = column * 4..column * 4 + 4;
            let mut total = i32::from_le_bytes(sum.0[row][at.clone()].try_into().expect("four bytes"));
            for four in 0..sizes.pairs {
                for byte in 0..4 {
                    let a = i32::from(left.0[row][four * 4 + byte] as i8);
                    let b = i32::from(right.0[four][column * 4 + byte] as i8);
                    total = total.wrapping_add(a * b);
                }
            }
            sum.0[row][at].copy_from_slice(&total.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_denormal_before_rounding_become_zero() {
        let smallest = f32::MIN_POSITIVE;
        assert_eq!(flushed(smallest, 0.5, 0.0).to_bits(), 0);
        assert_eq!(flushed(-smallest, 0.5, 0.0).to_bits(), 0x8000_0000);
        assert_eq!(flushed(smallest, 1.0, 0.0), smallest);
        // The smallest normal number less a quarter, and less a half, of the distance to its neighbour below.
        let ulp = f32::from_bits(1);
        assert_eq!(flushed(-ulp.sqrt(), ulp.sqrt() * 0.25, smallest), smallest);
        assert_eq!(flushed(-f32::exp2(-75.0), f32::exp2(-75.0), smallest), 0.0);
    }
}
