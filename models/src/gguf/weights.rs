//! `model.safetensors`: every weight dequantised, put into the checkpoint's row order and rounded to bf16, row by row.

use std::io::Write;

use half::bf16;

use super::error::Problem;
use super::layout::{Weight, rows};
use super::output::WriteError;

/// Bytes of a stored element.
const ELEMENT_BYTES: usize = 2;

/// Bytes of all weights together.
pub(super) fn total_bytes(weights: &[Weight<'_>]) -> u64 {
    weights.iter().map(|weight| byte_size(weight) as u64).sum()
}

/// Everything before the data: the header's length, the header, and spaces up to a multiple of 8 bytes.
pub(super) fn header(weights: &[Weight<'_>]) -> Vec<u8> {
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_string()];
    let mut offset = 0;
    for weight in weights {
        let end = offset + byte_size(weight);
        let shape = weight.source.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let name = &weight.name;
        entries.push(format!(r#""{name}":{{"dtype":"BF16","shape":[{shape}],"data_offsets":[{offset},{end}]}}"#));
        offset = end;
    }
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    header
}

/// Writes the values of one weight, and tells of bytes as they are written; an error of `progress` ends the writing.
pub(super) fn write(
    weight: &Weight<'_>,
    out: &mut dyn Write,
    mut progress: impl FnMut(u64) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let source = &weight.source;
    let (mut values, mut rounded) = (Vec::new(), Vec::new());
    if source.shape.len() < 2 {
        // A vector is one row to the file, but each of its elements is a row to the row order.
        source.kind.dequantize(source.bytes, &mut values);
        let ordered: Vec<f32> = (0..values.len()).map(|row| values[weight.rows.source_row(row)]).collect();
        return emit(weight, &ordered, &mut rounded, out, &mut progress);
    }
    let row_bytes: Vec<&[u8]> = rows(source).collect();
    for row in 0..row_bytes.len() {
        values.clear();
        source.kind.dequantize(row_bytes[weight.rows.source_row(row)], &mut values);
        emit(weight, &values, &mut rounded, out, &mut progress)?;
    }
    Ok(())
}

fn emit(
    weight: &Weight<'_>,
    values: &[f32],
    rounded: &mut Vec<u8>,
    out: &mut dyn Write,
    progress: &mut impl FnMut(u64) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    rounded.clear();
    let mut finite = true;
    for &value in values {
        // Rounds to nearest even.
        let value = bf16::from_f32(value);
        finite &= value.is_finite();
        rounded.extend(value.to_le_bytes());
    }
    if !finite {
        let source = weight.source.name;
        let problem = format!("tensor {source} holds values that are NaN or beyond the range of bf16");
        return Err(WriteError::Source(Problem::Malformed(problem)));
    }
    out.write_all(rounded)?;
    progress(rounded.len() as u64)
}

fn byte_size(weight: &Weight<'_>) -> usize {
    // Cannot overflow: `reader` found the stored blocks in a mapped file, and no type packs an element into under 2 bits.
    weight.source.shape.iter().product::<usize>() * ELEMENT_BYTES
}
