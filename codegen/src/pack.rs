//! Packs weights into the layouts that kernels read; one copy of each serves all programs and targets.

use crate::error::CodegenError;
use half::bf16;
use llmc_ir::dtype::DType;
use llmc_ir::plan::{PackedWeight, WeightLayout};
use std::ops::Range;

/// Packs one weight. `read` gives the elements of a range of its row-major order as f32; `write` receives the packed
/// bytes piece by piece, in order. Memory in use is a few panels, not the tensor.
pub fn pack<E: From<CodegenError>>(
    weight: &PackedWeight,
    mut read: impl FnMut(Range<usize>, &mut Vec<f32>) -> Result<(), E>,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut values = Vec::new();
    let mut bytes = Vec::new();
    match (weight.layout, &weight.shape[..]) {
        (WeightLayout::RowMajor, shape) => {
            let total: usize = shape.iter().product();
            for start in (0..total).step_by(PIECE) {
                read(start..total.min(start + PIECE), &mut values)?;
                bytes.clear();
                values.iter().for_each(|&value| append(weight.dtype, value, &mut bytes));
                write(&bytes)?;
            }
            Ok(())
        }
        (WeightLayout::Panels, &[n, k]) => {
            for first in (0..n).step_by(32) {
                let rows = 32.min(n - first);
                read(first * k..(first + rows) * k, &mut values)?;
                match weight.dtype {
                    DType::BF16 => panel_bf16(&values, k, &mut bytes),
                    DType::F32 => panel_f32(&values, k, &mut bytes),
                    other => return Err(unsupported(weight, &format!("{other} has no panel layout")).into()),
                }
                write(&bytes)?;
            }
            Ok(())
        }
        (WeightLayout::Panels, shape) => {
            Err(unsupported(weight, &format!("only matrices are packed in panels, its shape is {shape:?}")).into())
        }
    }
}

/// Elements that row-major weights are converted in.
const PIECE: usize = 1 << 18;

fn unsupported(weight: &PackedWeight, reason: &str) -> CodegenError {
    CodegenError::Weight { name: weight.name.clone(), reason: reason.to_owned() }
}

fn append(dtype: DType, value: f32, bytes: &mut Vec<u8>) {
    match dtype {
        DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
        DType::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
        DType::F32 => bytes.extend(value.to_le_bytes()),
        DType::I32 => bytes.extend((value as i32).to_le_bytes()),
        DType::Bool => bytes.push(u8::from(value != 0.0)),
    }
}

/// `[k/32][2 tiles of 16 rows][16 k pairs][16 rows][2]`, zeros where rows or k are missing.
fn panel_bf16(values: &[f32], k: usize, bytes: &mut Vec<u8>) {
    let blocks = k.div_ceil(32);
    bytes.clear();
    bytes.resize(blocks * 2048, 0);
    for (row, row_values) in values.chunks(k).enumerate() {
        let (tile, column) = (row / 16, row % 16);
        for (block, part) in row_values.chunks(32).enumerate() {
            let base = block * 2048 + tile * 1024 + column * 4;
            for (i, &value) in part.iter().enumerate() {
                let at = base + i / 2 * 64 + i % 2 * 2;
                bytes[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        }
    }
}

/// `[k][32 rows]`, zeros where rows are missing.
fn panel_f32(values: &[f32], k: usize, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(k * 128, 0);
    for (row, row_values) in values.chunks(k).enumerate() {
        for (i, value) in row_values.iter().enumerate() {
            let at = i * 128 + row * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(dtype: DType, n: usize, k: usize) -> (PackedWeight, Vec<u8>) {
        let bytes = match dtype {
            DType::BF16 => n.div_ceil(32) * k.div_ceil(32) * 2048,
            _ => n.div_ceil(32) * k * 128,
        } as u64;
        let weight = PackedWeight { name: "w".into(), dtype, shape: vec![n, k], layout: WeightLayout::Panels, bytes };
        let mut out = Vec::new();
        pack::<CodegenError>(
            &weight,
            |range, values| {
                values.clear();
                values.extend(range.map(|i| (i % 251) as f32));
                Ok(())
            },
            |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            },
        )
        .unwrap();
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
}
