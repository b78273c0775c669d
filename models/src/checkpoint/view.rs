//! One tensor of a checkpoint: its bytes, read as f32, and the search for values that are not finite.

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
    /// [`CheckpointError::DType`] if the type is not F32, F16 or BF16.
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
            CheckpointDType::Unsupported(_) => return Err(self.unsupported()),
        }
        Ok(())
    }

    fn unsupported(&self) -> CheckpointError {
        CheckpointError::DType {
            path: self.file.to_path_buf(),
            tensor: self.name.to_string(),
            dtype: self.dtype.to_string(),
        }
    }
}

/// Looks at every value of a tensor.
///
/// # Errors
/// [`CheckpointError::NotFinite`] with the index of the first NaN or infinity; [`CheckpointError::DType`] for a type that
/// cannot be read.
pub fn check_finite(tensor: &TensorView<'_>) -> Result<(), CheckpointError> {
    /// Per step one integer comparison per value and one branch: small enough to stay in the first-level cache.
    const STEP: usize = 4096;
    let (size, bad): (usize, fn(&[u8]) -> bool) = match tensor.dtype {
        CheckpointDType::F32 => (4, any_special_f32),
        CheckpointDType::F16 => (2, any_special_16::<0x7c00>),
        CheckpointDType::BF16 => (2, any_special_16::<0x7f80>),
        CheckpointDType::Unsupported(_) => return Err(tensor.unsupported()),
    };
    let Some(step) = tensor.bytes.chunks(STEP).position(bad) else {
        return Ok(());
    };
    let start = step * STEP / size;
    let mut values = Vec::new();
    tensor.read_f32(start..tensor.elements().min(start + STEP / size), &mut values)?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(CheckpointError::NotFinite {
            path: tensor.file.to_path_buf(),
            tensor: tensor.name.to_string(),
            index: start + at,
            value: values[at],
        }),
        None => Ok(()),
    }
}

/// Whether any value has all exponent bits set, which is what NaN and infinity have in common.
fn any_special_f32(bytes: &[u8]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let values = bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b));
    values.fold(0, |any, bits| any | u32::from(bits & EXPONENT == EXPONENT)) != 0
}

fn any_special_16<const EXPONENT: u16>(bytes: &[u8]) -> bool {
    let values = bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b));
    values.fold(0, |any, bits| any | u16::from(bits & EXPONENT == EXPONENT)) != 0
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
