//! Compressed weights: panels of bf16 whose upper bytes are codes ([`llmc_ir::plan::WeightLayout::Compressed`]).

use super::{PANEL_ROWS, panel_bf16};
use llmc_ir::plan::compressed::{CODES, CODES_AT, HALF, QUARTER, QUARTERS, TILES, head, panel};

/// Bytes of a quarter as it is in [`llmc_ir::plan::WeightLayout::Panels`].
const PLAIN: usize = 256;

/// Elements of a quarter.
const ELEMENTS: usize = PLAIN / 2;

/// Quarters of a block.
const PER_BLOCK: usize = QUARTERS * TILES;

/// What stands for no code.
const NONE: u8 = 0xff;

/// The exponents of a panel that have codes.
struct Codes {
    /// Upper bytes without sign, in the order of their codes.
    bytes: [u8; CODES / 2],
    /// Codes by upper byte.
    of: [u8; 256],
}

impl Codes {
    /// Of the most frequent upper bytes; of two that are equally so, the smaller one.
    fn of(plain: &[u8]) -> Codes {
        let mut counts = [0u64; 128];
        for pair in plain.as_chunks::<2>().0 {
            counts[usize::from(pair[1] & 0x7f)] += 1;
        }
        let mut order: [u8; 128] = std::array::from_fn(|byte| byte as u8);
        order.sort_by_key(|&byte| std::cmp::Reverse(counts[usize::from(byte)]));
        let bytes: [u8; CODES / 2] = std::array::from_fn(|code| order[code]);
        let mut of = [NONE; 256];
        for (code, &byte) in bytes.iter().enumerate() {
            of[usize::from(byte)] = code as u8;
            of[usize::from(byte | 0x80)] = (code + CODES / 2) as u8;
        }
        Codes { bytes, of }
    }

    /// Whether all elements of a quarter have codes.
    fn fit(&self, plain: &[u8; PLAIN]) -> bool {
        plain.as_chunks::<2>().0.iter().all(|pair| self.of[usize::from(pair[1])] != NONE)
    }
}

/// Working memory for a panel of rows of `k` elements.
fn plain_bytes(k: usize) -> usize {
    PANEL_ROWS * k.next_multiple_of(32) * 2
}

/// How many quarters are flagged of a panel of rows of `k` values. `plain` is working memory.
pub fn flagged(values: &[f32], k: usize, plain: &mut Vec<u8>) -> u32 {
    plain.resize(plain_bytes(k), 0);
    panel_bf16(values, k, plain);
    let codes = Codes::of(plain);
    plain.as_chunks::<PLAIN>().0.iter().filter(|quarter| !codes.fit(quarter)).count() as u32
}

/// Packs a panel of rows of `k` values. `behind` gets the upper bytes of flagged quarters, of which the first will lie
/// `distance` bytes behind the panel's beginning.
pub(super) fn pack(values: &[f32], k: usize, bytes: &mut [u8], distance: usize, behind: &mut Vec<u8>) {
    assert!(bytes.len() == panel(k));
    let mut plain = vec![0; plain_bytes(k)];
    panel_bf16(values, k, &mut plain);
    let codes = Codes::of(&plain);
    let (start, blocks) = bytes.split_at_mut(head(k));
    start.fill(0);
    for (code, byte) in codes.bytes.into_iter().enumerate() {
        start[code] = byte;
        start[code + CODES / 2] = byte | 0x80;
    }
    let before = behind.len();
    let plain = plain.as_chunks::<PLAIN>().0;
    for (number, quarter) in blocks.as_chunks_mut::<QUARTER>().0.iter_mut().enumerate() {
        let plain = &plain[plain_number(number)];
        let (lower, coded) = quarter.split_at_mut(CODES_AT);
        let mut upper = [0; ELEMENTS];
        for (place, (lower, upper)) in lower.iter_mut().zip(&mut upper).enumerate() {
            let element = element_at(place);
            [*lower, *upper] = [plain[2 * element], plain[2 * element + 1]];
        }
        if codes.fit(plain) {
            let (first, second) = upper.split_at(HALF / 2);
            for ((to, first), second) in coded.iter_mut().zip(first).zip(second) {
                *to = codes.of[usize::from(*first)] | codes.of[usize::from(*second)] << 4;
            }
        } else {
            let at = head(k) + number * QUARTER + CODES_AT;
            coded.fill(0);
            let distance = (distance + behind.len() - before - at) as i64;
            coded[..8].copy_from_slice(&distance.to_le_bytes());
            behind.extend_from_slice(&upper);
            start[CODES + number / PER_BLOCK] |= 1 << (number % PER_BLOCK);
        }
    }
}

/// The number of a panel's quarter among those of a plain one, where a tile's follow each other.
fn plain_number(number: usize) -> usize {
    let (block, in_block) = (number / PER_BLOCK, number % PER_BLOCK);
    block * PER_BLOCK + in_block % TILES * QUARTERS + in_block / TILES
}

/// Which element of a quarter's four lines the lower (or upper) byte at a place belongs to.
fn element_at(place: usize) -> usize {
    let (two, place) = (place / 64, place % 64);
    let (lane, byte) = (place / 16, place % 16);
    two * 64 + byte / 8 * 32 + lane * 8 + byte % 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::plan::compressed::BLOCK;

    /// What a kernel makes of a panel, `bytes` being all of the weight from it on.
    fn plain(bytes: &[u8], k: usize) -> Vec<u8> {
        let mut plain = vec![0; plain_bytes(k)];
        for (number, plain) in plain.as_chunks_mut::<PLAIN>().0.iter_mut().enumerate() {
            let (block, tile, quarter) = (number / 8, number % 8 / 4, number % 4);
            let at = head(k) + block * BLOCK + (quarter * 2 + tile) * QUARTER;
            for place in 0..ELEMENTS {
                let codes = at + CODES_AT;
                let upper = if bytes[CODES + block] >> (quarter * 2 + tile) & 1 == 1 {
                    let distance = i64::from_le_bytes(bytes[codes..codes + 8].try_into().unwrap());
                    bytes[codes + distance as usize + place]
                } else {
                    let both = bytes[codes + place % 64];
                    bytes[usize::from(if place < 64 { both & 15 } else { both >> 4 })]
                };
                let element = element_at(place);
                plain[2 * element] = bytes[at + place];
                plain[2 * element + 1] = upper;
            }
        }
        plain
    }

    #[test]
    fn no_bit_is_lost() {
        let mut state = 1u32;
        let mut number = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        // Of few exponents, of all, of one.
        for (n, k, spread) in [(32, 64, 4), (5, 40, 4), (32, 33, 250), (20, 96, 100), (32, 64, 1)] {
            let exponent = |number: u32| number % spread + 120;
            let mut value = || f32::from_bits(number() << 31 | exponent(number()) << 23 | (number() & 0x7f) << 16);
            let mut values: Vec<f32> = (0..n * k).map(|_| value()).collect();
            values[7] = -0.0;
            values[11] = f32::from_bits(1 << 16);
            let mut expected = vec![0; plain_bytes(k)];
            panel_bf16(&values, k, &mut expected);
            let quarters = flagged(&values, k, &mut Vec::new());
            assert_eq!(quarters > 0, spread > 16, "{n} x {k}");
            let (mut bytes, mut behind) = (vec![0xff; panel(k)], vec![1, 2, 3]);
            let distance = panel(k) + 1000;
            pack(&values, k, &mut bytes, distance, &mut behind);
            assert_eq!(behind.len(), 3 + quarters as usize * HALF);
            bytes.resize(distance, 0xee);
            bytes.extend(&behind[3..]);
            assert_eq!(plain(&bytes, k), expected, "{n} x {k}");
        }
    }
}
