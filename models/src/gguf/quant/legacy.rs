//! The block types of 32 elements with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! A `_0` type is `scale * (code - middle)`, a `_1` type is `scale * code + minimum`. Of the 4-bit codes, the low halves of
//! the 16 bytes come first, then the high halves; the fifth bits are a 32-bit mask in element order.

use super::{BLOCK, half_at};

pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        *value = scale * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; BLOCK]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[4..], i)) + minimum;
    }
}

pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        let code = nibble(&block[6..], i) | bit(&block[2..6], i) << 4;
        *value = scale * (f32::from(code) - 16.0);
    }
}

pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; BLOCK]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        let code = nibble(&block[8..], i) | bit(&block[4..8], i) << 4;
        *value = scale * f32::from(code) + minimum;
    }
}

pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    for (value, &code) in out.iter_mut().zip(&block[2..]) {
        *value = scale * f32::from(code as i8);
    }
}

fn nibble(codes: &[u8], i: usize) -> u8 {
    codes[i % (BLOCK / 2)] >> (4 * (i / (BLOCK / 2))) & 0xf
}

fn bit(mask: &[u8], i: usize) -> u8 {
    mask[i / 8] >> (i % 8) & 1
}
