//! One tensor of a checkpoint: its bytes, read as finite f32.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use safetensors::Dtype;

use super::CheckpointError;

/// The element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointDType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Any other type: it may lie in a checkpoint, but reading it is an error that names it.
    Unsupported(Dtype),
}

/// A tensor as it lies in the file: row-major, little-endian.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The tensor's name in the checkpoint.
    pub name: &'a str,
    /// Its element type.
    pub dtype: CheckpointDType,
    /// Its dimensions, outermost first; none of them is zero.
    pub shape: Vec<usize>,
    /// Its elements; not necessarily aligned to the element size.
    pub bytes: &'a [u8],
    /// The file it is in, for messages.
    pub(super) file: &'a Path,
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Replaces the content of `out` by the elements in `range` (flat, row-major), widened to f32 without rounding.
    ///
    /// # Errors
    /// [`CheckpointError::DType`] if the type is not F32, F16 or BF16; [`CheckpointError::NotFinite`] with the index of the
    /// range's first NaN or infinity.
    ///
    /// # Panics
    /// If `range` goes beyond [`elements`](Self::elements), like indexing a slice.
    pub fn read_f32(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<(), CheckpointError> {
        out.clear();
        let bytes = |size: usize| &self.bytes[range.start * size..range.end * size];
        match self.dtype {
            CheckpointDType::F32 => {
                out.extend(bytes(4).as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)));
            }
            CheckpointDType::BF16 => {
                let widen = |&b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
                out.extend(bytes(2).as_chunks::<2>().0.iter().map(widen));
            }
            CheckpointDType::F16 => widen_f16(bytes(2).as_chunks::<2>().0, out),
            CheckpointDType::Unsupported(_) => {
                return Err(CheckpointError::DType {
                    path: self.file.to_path_buf(),
                    tensor: self.name.to_string(),
                    dtype: self.dtype.to_string(),
                });
            }
        }
        // Over all of them without a branch, because that takes vector instructions.
        if out.iter().fold(true, |all, value| all & value.is_finite()) {
            return Ok(());
        }
        let at = out.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err(CheckpointError::NotFinite {
            path: self.file.to_path_buf(),
            tensor: self.name.to_string(),
            index: range.start + at,
            value: out[at],
        })
    }
}

/// In pieces through an aligned buffer, because only whole slices reach the CPU's conversion instructions.
fn widen_f16(source: &[[u8; 2]], out: &mut Vec<f32>) {
    const PIECE: usize = 1024;
    let mut bits = [0u16; PIECE];
    out.resize(source.len(), 0.0);
    for (source, target) in source.chunks(PIECE).zip(out.chunks_mut(PIECE)) {
        let bits = &mut bits[..source.len()];
        for (bits, &bytes) in bits.iter_mut().zip(source) {
            *bits = u16::from_le_bytes(bytes);
        }
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(target);
    }
}

impl From<Dtype> for CheckpointDType {
    fn from(dtype: Dtype) -> CheckpointDType {
        match dtype {
            Dtype::F32 => CheckpointDType::F32,
            Dtype::F16 => CheckpointDType::F16,
            Dtype::BF16 => CheckpointDType::BF16,
            other => CheckpointDType::Unsupported(other),
        }
    }
}

impl fmt::Display for CheckpointDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointDType::F32 => f.write_str("F32"),
            CheckpointDType::F16 => f.write_str("F16"),
            CheckpointDType::BF16 => f.write_str("BF16"),
            CheckpointDType::Unsupported(dtype) => dtype.fmt(f),
        }
    }
}
