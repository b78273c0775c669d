//! Packs weights into the layouts that kernels read; one copy of each serves all programs and targets.

pub mod compressed;
pub mod rounded;

use crate::error::CodegenError;
use half::f16;
use llmc_ir::dtype::DType;
use llmc_ir::plan::compressed::HALF;
use llmc_ir::plan::{PackedWeight, WeightLayout};
use std::ops::Range;

/// Elements of a piece of a row-major weight.
const RUN: usize = 1 << 16;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 32;

/// How a weight is packed piece by piece, in any order and by several threads: a run of its elements, in row-major order,
/// becomes a run of its bytes. What a compressed weight has behind its panels comes last.
#[derive(Clone, Debug)]
pub struct Packing<'w> {
    weight: &'w PackedWeight,
    /// Elements in all.
    total: usize,
    /// Elements and bytes of a piece; the last one may be smaller.
    elements: usize,
    bytes: usize,
    /// Of a compressed weight: how many quarters are flagged before each piece, and in all.
    flagged_before: Vec<u64>,
}

impl Packing<'_> {
    /// The pieces of a weight; `flagged` is how many quarters of each panel are ([`compressed::flagged`]), if it is compressed.
    ///
    /// # Errors
    /// [`CodegenError::Weight`] if its shape or type has no such layout.
    pub fn of<'w>(weight: &'w PackedWeight, flagged: &[u32]) -> Result<Packing<'w>, CodegenError> {
        let unsupported = |reason| CodegenError::Weight { name: weight.name.clone(), reason };
        let total = weight.shape.iter().product();
        let (elements, bytes) = match (weight.layout, weight.dtype, &weight.shape[..]) {
            (WeightLayout::RowMajor, dtype, _) => (RUN, RUN * dtype.bytes()),
            (WeightLayout::Panels, DType::BF16, &[_, k]) => (PANEL_ROWS * k, k.div_ceil(32) * BLOCK_BYTES),
            (WeightLayout::Panels, DType::F32, &[_, k]) => (PANEL_ROWS * k, PANEL_ROWS * k * 4),
            (WeightLayout::Compressed, DType::BF16, &[_, k]) => (PANEL_ROWS * k, llmc_ir::plan::compressed::panel(k)),
            (WeightLayout::Compressed, _, _) => {
                return Err(unsupported("only matrices of bf16 are compressed".to_owned()));
            }
            (WeightLayout::Rounded, DType::BF16, &[_, k]) => (PANEL_ROWS * k, rounded::panel_bytes(k)),
            (WeightLayout::Rounded, _, _) => return Err(unsupported("only matrices of bf16 are rounded".to_owned())),
            (WeightLayout::Panels, other, &[_, _]) => return Err(unsupported(format!("{other} has no panel layout"))),
            (WeightLayout::Panels, _, shape) => {
                return Err(unsupported(format!("only matrices are packed in panels, its shape is {shape:?}")));
            }
        };
        let mut flagged_before = vec![0];
        flagged.iter().for_each(|&own| flagged_before.push(flagged_before[flagged_before.len() - 1] + u64::from(own)));
        Ok(Packing { weight, total, elements, bytes, flagged_before })
    }

    /// Bytes of every piece but the last, which may have fewer.
    pub fn piece_bytes(&self) -> usize {
        self.bytes
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.total.div_ceil(self.elements)
    }

    /// Where some pieces lie among the elements of the weight.
    pub fn elements(&self, pieces: Range<usize>) -> Range<usize> {
        let [start, end] = [pieces.start, pieces.end].map(|piece| self.total.min(piece * self.elements));
        start..end
    }

    /// Where some pieces lie among the bytes of the packed weight.
    pub fn bytes(&self, pieces: Range<usize>) -> Range<usize> {
        let [start, end] = [pieces.start, pieces.end].map(|piece| (self.weight.bytes as usize).min(piece * self.bytes));
        start..end
    }

    /// Packs one piece, of which `values` are the elements and `bytes` shall be the packed bytes. `behind` gets what belongs
    /// behind all pieces, in their order.
    ///
    /// # Panics
    /// If they are not as many as [`Packing::elements`] and [`Packing::bytes`] say.
    pub fn pack(&self, piece: usize, values: &[f32], bytes: &mut [u8], behind: &mut Vec<u8>) {
        match (self.weight.layout, self.weight.dtype) {
            (WeightLayout::Compressed, _) => {
                let panels = (self.pieces() - piece) * self.bytes;
                let before = self.flagged_before[piece] as usize * HALF;
                compressed::pack(values, self.weight.shape[1], bytes, panels + before, behind);
            }
            (WeightLayout::RowMajor, dtype) => convert(dtype, values, bytes),
            (WeightLayout::Panels, DType::BF16) => panel_bf16(values, self.weight.shape[1], bytes),
            (WeightLayout::Rounded, _) => rounded::panel(values, self.weight.shape[1], bytes),
            (WeightLayout::Panels, _) => panel_f32(values, self.weight.shape[1], bytes),
        }
    }
}

fn convert(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    fn each<const N: usize>(values: &[f32], bytes: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
        let bytes = bytes.as_chunks_mut::<N>().0;
        assert_eq!(bytes.len(), values.len());
        bytes.iter_mut().zip(values).for_each(|(bytes, &value)| *bytes = convert(value));
    }
    match dtype {
        DType::BF16 => each(values, bytes, |value| bf16_bits(value).to_le_bytes()),
        DType::F16 => each(values, bytes, |value| f16::from_f32(value).to_le_bytes()),
        DType::F32 => each(values, bytes, f32::to_le_bytes),
        DType::I32 => each(values, bytes, |value| (value as i32).to_le_bytes()),
        DType::Bool => each(values, bytes, |value| [u8::from(value != 0.0)]),
    }
}

/// The bits of the nearest bf16, ties to even: [`half::bf16::from_f32`] without a branch, which keeps loops from becoming vector
/// instructions.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if value.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// Bytes of a block of 32 rows and 32 k of a panel in bf16.
const BLOCK_BYTES: usize = 2048;

/// `[k/32][2 tiles of 16 rows][16 k pairs][16 rows][2]`, zeros where rows or k are missing.
fn panel_bf16(values: &[f32], k: usize, bytes: &mut [u8]) {
    assert!(values.len() <= PANEL_ROWS * k && bytes.len() == k.div_ceil(32) * BLOCK_BYTES);
    let pairs = bytes.as_chunks_mut::<4>().0.as_chunks_mut::<{ BLOCK_BYTES / 4 }>().0;
    for (block, pairs) in pairs.iter_mut().enumerate() {
        let start = block * 32;
        let whole = k - start >= 32;
        if !whole || values.len() < PANEL_ROWS * k {
            pairs.fill([0; 4]);
        }
        for (row, values) in values.chunks_exact(k).enumerate() {
            let mut padded = [0.0; 32];
            let values: &[f32; 32] = match values[start..].first_chunk() {
                Some(values) => values,
                None => {
                    padded[..k - start].copy_from_slice(&values[start..]);
                    &padded
                }
            };
            let bits = values.map(bf16_bits);
            let first = row / 16 * 256 + row % 16;
            for (pair, &[low, high]) in bits.as_chunks::<2>().0.iter().enumerate() {
                pairs[first + pair * 16] = (u32::from(high) << 16 | u32::from(low)).to_le_bytes();
            }
        }
    }
}

/// `[k][32 rows]`, zeros where rows are missing.
fn panel_f32(values: &[f32], k: usize, bytes: &mut [u8]) {
    let lines = bytes.as_chunks_mut::<4>().0.as_chunks_mut::<PANEL_ROWS>().0;
    assert!(values.len() <= PANEL_ROWS * k && lines.len() == k);
    for (i, line) in lines.iter_mut().enumerate() {
        *line = [[0; 4]; PANEL_ROWS];
        for (to, row) in line.iter_mut().zip(values.chunks_exact(k)) {
            *to = row[i].to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn packed(dtype: DType, n: usize, k: usize) -> (PackedWeight, Vec<u8>) {
        let bytes = match dtype {
            DType::BF16 => n.div_ceil(32) * k.div_ceil(32) * 2048,
            _ => n.div_ceil(32) * k * 128,
        } as u64;
        let weight = PackedWeight { name: "w".into(), dtype, shape: vec![n, k], layout: WeightLayout::Panels, bytes };
        let packing = Packing::of(&weight, &[]).unwrap();
        let mut out = vec![0xff; bytes as usize];
        for piece in 0..packing.pieces() {
            let values: Vec<f32> = packing.elements(piece..piece + 1).map(|i| (i % 251) as f32).collect();
            packing.pack(piece, &values, &mut out[packing.bytes(piece..piece + 1)], &mut Vec::new());
        }
        (weight, out)
    }

    #[test]
    fn every_element_is_where_the_layout_says() {
        let (n, k) = (50, 70);
        let (weight, bytes) = packed(DType::BF16, n, k);
        assert_eq!(bytes.len() as u64, weight.bytes);
        let (weight_f32, bytes_f32) = packed(DType::F32, n, k);
        assert_eq!(bytes_f32.len() as u64, weight_f32.bytes);
        for row in 0..n {
            for i in 0..k {
                let expected = ((row * k + i) % 251) as f32;
                let blocks = k.div_ceil(32);
                let line = ((row / 32 * blocks + i / 32) * 2 + row % 32 / 16) * 16 + i % 32 / 2;
                let at = line * 64 + row % 16 * 4 + i % 2 * 2;
                assert_eq!(bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(), expected);
                let at = (row / 32 * k + i) * 128 + row % 32 * 4;
                assert_eq!(f32::from_le_bytes(bytes_f32[at..at + 4].try_into().unwrap()), expected);
            }
        }
        let stored: f32 = bytes.chunks(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).sum();
        let expected: f32 = (0..n * k).map(|i| (i % 251) as f32).sum();
        assert_eq!(stored, expected, "padding must be zero");
    }
    #[test]
    fn rounding_is_to_the_nearest() {
        let special =
            [f32::MAX, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::from_bits(1), f32::from_bits(0x7f80_0001)];
        let ties = [0x3f80_8000u32, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0xffff_ffff].map(f32::from_bits);
        for value in special.into_iter().chain(ties).flat_map(|value| [value, -value]) {
            assert_eq!(bf16_bits(value), bf16::from_f32(value).to_bits(), "{value} {:x}", value.to_bits());
        }
    }
}
