//! The types whose 4-bit codes are looked up in a table of unevenly spaced levels: IQ4_NL and IQ4_XS.
//!
//! A value is `scale * level`. Of each 16 bytes of codes, the low halves come first, then the high halves.

use super::{BLOCK, SUPER_BLOCK, half_at};

/// `kvalues_iq4nl` of ggml.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `scale codes[16]`
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    levels(half_at(block, 0), &block[2..], out);
}

/// `factor high scale bits[2] low scale bits[4] codes[128]`
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; SUPER_BLOCK]) {
    let factor = half_at(block, 0);
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    for (sub, values) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let low = block[4 + sub / 2] >> (4 * (sub % 2)) & 0xf;
        let high = (high_bits >> (2 * sub) & 3) as u8;
        let scale = factor * (f32::from(low | high << 4) - 32.0);
        levels(scale, &block[8 + 16 * sub..][..16], values);
    }
}

fn levels(scale: f32, codes: &[u8], out: &mut [f32; BLOCK]) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &code) in low.iter_mut().zip(high).zip(codes) {
        *low = scale * f32::from(LEVELS[usize::from(code & 0xf)]);
        *high = scale * f32::from(LEVELS[usize::from(code >> 4)]);
    }
}
