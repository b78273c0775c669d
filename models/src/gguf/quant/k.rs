//! The K types: 256 elements share one or two half-precision factors, and sub-blocks of 16 or 32 have small integer scales.
//!
//! Q2_K, Q4_K and Q5_K are `factor * scale * code - factor' * minimum`; Q3_K and Q6_K are `factor * scale * code` with
//! signed scales and centred codes. Codes are split into bit planes, the planes being 32 bytes wide (64 for the low bits
//! of Q6_K).

use super::{SUPER_BLOCK, half_at};

/// `scales[16] codes[64] factor factor'`
pub(super) fn q2(block: &[u8; 84], out: &mut [f32; SUPER_BLOCK]) {
    let (factor, factor_min) = (half_at(block, 80), half_at(block, 82));
    for (sub, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = factor * f32::from(block[sub] & 0xf);
        let minimum = factor_min * f32::from(block[sub] >> 4);
        for (j, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(two_bits(&block[16..80], 16 * sub + j)) - minimum;
        }
    }
}

/// `high bits[32] low bits[64] scales[12] factor`
pub(super) fn q3(block: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let factor = half_at(block, 108);
    let packed = &block[96..108];
    for (sub, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // 6-bit scales: the low 4 bits in 8 bytes, first the lower halves; the high 2 bits in 4 bytes.
        let low = packed[sub % 8] >> (4 * (sub / 8)) & 0xf;
        let high = packed[8 + sub % 4] >> (2 * (sub / 4)) & 3;
        let scale = factor * (f32::from(low | high << 4) - 32.0);
        for (j, value) in values.iter_mut().enumerate() {
            let i = 16 * sub + j;
            // A set high bit means that nothing is subtracted.
            let high = block[i % 32] >> (i / 32) & 1;
            *value = scale * (f32::from(two_bits(&block[32..96], i)) - 4.0 * f32::from(1 - high));
        }
    }
}

/// `factor factor' scales[12] codes[128]`
pub(super) fn q4(block: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    for (sub, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(block, sub);
        for (j, value) in values.iter_mut().enumerate() {
            let code = block[16 + 32 * (sub / 2) + j] >> (4 * (sub % 2)) & 0xf;
            *value = scale * f32::from(code) - minimum;
        }
    }
}

/// `factor factor' scales[12] high bits[32] low bits[128]`
pub(super) fn q5(block: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    for (sub, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(block, sub);
        for (j, value) in values.iter_mut().enumerate() {
            let low = block[48 + 32 * (sub / 2) + j] >> (4 * (sub % 2)) & 0xf;
            let high = block[16 + j] >> sub & 1;
            *value = scale * f32::from(low | high << 4) - minimum;
        }
    }
}

/// `low bits[128] high bits[64] scales[16] factor`
pub(super) fn q6(block: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let factor = half_at(block, 208);
    for (sub, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = factor * f32::from(block[192 + sub] as i8);
        for (j, value) in values.iter_mut().enumerate() {
            let i = 16 * sub + j;
            let low = block[64 * (i / 128) + i % 64] >> (4 * (i / 64 % 2)) & 0xf;
            let high = block[128 + 32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3;
            *value = scale * (f32::from(low | high << 4) - 32.0);
        }
    }
}

/// Element `i` of 256 2-bit codes: four planes of 32 elements in each half of the 64 bytes.
fn two_bits(codes: &[u8], i: usize) -> u8 {
    codes[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3
}

/// The 6-bit scale and minimum of sub-block `sub` of 8, times their factors. Bytes 0 to 3 hold the first four scales and
/// bytes 4 to 7 the first four minima; the rest is spread over bytes 8 to 11 and the top bits of all.
fn scale_and_minimum(block: &[u8], sub: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, minimum) = if sub < 4 {
        (packed[sub] & 0x3f, packed[4 + sub] & 0x3f)
    } else {
        let shared = packed[4 + sub];
        (shared & 0xf | packed[sub - 4] >> 6 << 4, shared >> 4 | packed[sub] >> 6 << 4)
    };
    (half_at(block, 0) * f32::from(scale), half_at(block, 2) * f32::from(minimum))
}
