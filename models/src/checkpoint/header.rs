//! The safetensors header, read as if someone hostile had written it.
//!
//! The types of the `safetensors` crate are used, its validation is not: that one keeps the last of two tensors of the same
//! name, does not say which tensor is wrong, and lets the sum of all sizes overflow. What has to hold is little: the tensors
//! cover the data exactly, without gap or overlap, and each has as many bytes as its type and shape say.
//! Format: <https://huggingface.co/docs/safetensors>, section "Format".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{CheckpointDType, CheckpointError};

/// Headers above this many bytes are refused, as in the reference implementation: real ones stay under a few MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The header's length comes first, as a little-endian u64.
const LENGTH_BYTES: usize = 8;

/// One tensor of a file: its type, shape and byte range from the start of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dtype: CheckpointDType,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// Checks the whole layout of a file and returns its tensors in the order of their data.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let invalid = |problem| CheckpointError::Header { path: path.to_path_buf(), problem };
    let (header, data_start) = split(file).map_err(invalid)?;
    let header: Header =
        serde_json::from_slice(header).map_err(|e| invalid(format!("its header is not the expected JSON ({e})")))?;
    layout(header.tensors, data_start, file.len()).map_err(invalid)
}

/// The header's bytes, and where the data begins.
fn split(file: &[u8]) -> Result<(&[u8], usize), String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("it has {} bytes, too few for the header's length", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("it claims a header of {length} bytes, and at most {MAX_HEADER_BYTES} are allowed"));
    }
    // Fits: at most MAX_HEADER_BYTES.
    let length = length as usize;
    match rest.get(..length) {
        Some(header) => Ok((header, LENGTH_BYTES + length)),
        None => Err(format!("it claims a header of {length} bytes, but ends after {} (truncated?)", rest.len())),
    }
}

fn layout(
    mut tensors: Vec<(String, TensorInfo)>,
    data_start: usize,
    file_size: usize,
) -> Result<Vec<(String, Entry)>, String> {
    if tensors.is_empty() {
        return Err("it holds no tensors".to_string());
    }
    tensors.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    let data_size = file_size - data_start;
    let mut entries = Vec::with_capacity(tensors.len());
    let mut previous_end = 0;
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let size = byte_size(&info).map_err(|problem| format!("tensor {name} {problem}"))?;
        if end > data_size {
            return Err(format!("tensor {name} ends at byte {end} of the data, which has {data_size} (truncated?)"));
        }
        if start > end || end - start != size {
            return Err(format!(
                "tensor {name} of type {} and shape {:?} needs {size} bytes, but has offsets {start} to {end}",
                info.dtype, info.shape
            ));
        }
        if start != previous_end {
            let what = if start < previous_end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(format!(
                "tensor {name} starts at byte {start} of the data instead of {previous_end}: it {what}"
            ));
        }
        previous_end = end;
        let range = data_start + start..data_start + end;
        entries.push((name, Entry { dtype: info.dtype.into(), shape: info.shape, range }));
    }
    if previous_end != data_size {
        return Err(format!("its tensors end at byte {previous_end} of the data, but the data has {data_size}"));
    }
    Ok(entries)
}

fn byte_size(info: &TensorInfo) -> Result<usize, String> {
    if info.shape.contains(&0) {
        return Err(format!("has no elements: its shape is {:?}", info.shape));
    }
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
    match bits {
        Some(bits) if bits % 8 == 0 => Ok(bits / 8),
        Some(_) => Err(format!("of type {} and shape {:?} does not fill whole bytes", info.dtype, info.shape)),
        None => Err(format!("has the shape {:?}, too large for this machine to address", info.shape)),
    }
}

/// The JSON object of the header; duplicate names, which JSON parsers usually let pass, are errors.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut seen = BTreeSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("the name {name} occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<BTreeMap<String, String>>()?;
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        Ok(Header { tensors })
    }
}
