//! How an artifact's bytes are arranged: a header with its own hash, then page-aligned tensors.
//!
//! ```text
//! 0                 8                                             data_start (a multiple of 4096)
//! | header length   | {"__metadata__":{"llmc.header_blake3":"…",  | tensor | padding | tensor | …
//! | u64             |  "llmc.manifest":"…"},"weights/…":{…},…} ␠␠ |
//! ```
//!
//! safetensors forbids gaps between tensors, so the bytes up to the next page are tensors too
//! (`padding/0000`, … of type U8, all zero). It allows spaces at the end of the header, which
//! bring the first tensor to a page. The header's hash covers the length and the whole text, its
//! own 64 digits counted as zeros.

use crate::error::ArtifactError;
use crate::manifest::Manifest;
use crate::names::PADDING_PREFIX;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::fmt::Write;
use std::path::Path;

/// Alignment of every tensor, in bytes.
pub const PAGE: u64 = 4096;

/// Key of the header's hash in `__metadata__`.
pub const HEADER_HASH_KEY: &str = "llmc.header_blake3";

/// Key of the manifest in `__metadata__`.
pub const MANIFEST_KEY: &str = "llmc.manifest";

/// Hexadecimal digits of a BLAKE3 hash; also its placeholder while it is unknown.
pub(crate) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The first bytes of the header's text in every artifact; the hash follows.
pub(crate) const HEADER_PREFIX: &str = "{\"__metadata__\":{\"llmc.header_blake3\":\"";

/// The longest header that safetensors readers accept.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Where the digits of the header's hash are in the file.
const HASH_START: usize = 8 + HEADER_PREFIX.len();
const HASH_END: usize = HASH_START + NO_HASH.len();

/// A tensor's place, relative to the end of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The tensor's name.
    pub name: String,
    /// Element type as any reader sees it.
    pub dtype: Dtype,
    /// Shape as any reader sees it.
    pub shape: Vec<usize>,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
}

impl Placed {
    /// Whether it only fills a page up.
    pub fn is_padding(&self) -> bool {
        self.name.starts_with(PADDING_PREFIX)
    }
}

/// Places tensors of the given `(name, dtype, shape, bytes)` one after the other, with padding.
pub(crate) fn place(tensors: Vec<(String, Dtype, Vec<usize>, u64)>) -> Vec<Placed> {
    let mut placed: Vec<Placed> = Vec::with_capacity(2 * tensors.len());
    let (mut offset, mut paddings) = (0u64, 0);
    for (name, dtype, shape, bytes) in tensors {
        let start = offset.next_multiple_of(PAGE);
        if start > offset {
            placed.push(Placed {
                name: format!("{PADDING_PREFIX}{paddings:04}"),
                dtype: Dtype::U8,
                shape: vec![(start - offset) as usize],
                start: offset,
                end: start,
            });
            paddings += 1;
        }
        offset = start + bytes;
        placed.push(Placed { name, dtype, shape, start, end: offset });
    }
    placed
}

/// The header's bytes, length included, ending on a page.
pub(crate) fn render_header(manifest: &Manifest, tensors: &[Placed]) -> Vec<u8> {
    let json = serde_json::to_string(manifest).expect("a manifest has string keys only");
    let mut text = format!("{HEADER_PREFIX}{NO_HASH}\",\"{MANIFEST_KEY}\":{}}}", quote(&json));
    for tensor in tensors {
        write!(
            text,
            ",{}:{{\"dtype\":\"{}\",\"shape\":{:?},\"data_offsets\":[{},{}]}}",
            quote(&tensor.name),
            tensor.dtype,
            tensor.shape,
            tensor.start,
            tensor.end
        )
        .expect("writing to a string cannot fail");
    }
    text.push('}');
    let bytes = (8 + text.len()).next_multiple_of(PAGE as usize);
    text.extend(std::iter::repeat_n(' ', bytes - 8 - text.len()));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    let hash = header_hash(&header);
    header[HASH_START..HASH_END].copy_from_slice(hash.as_bytes());
    header
}

/// What [`parse_header`] finds.
pub(crate) struct Header {
    pub manifest: Manifest,
    /// In file order, padding included.
    pub tensors: Vec<Placed>,
    /// Offset of the first tensor in the file.
    pub data_start: u64,
}

/// Reads and checks the header of the file whose first bytes are `bytes` (of `file_bytes` in all).
pub(crate) fn parse_header(path: &Path, bytes: &[u8], file_bytes: u64) -> Result<Header, ArtifactError> {
    let length = header_length(path, bytes, file_bytes)?;
    let header = &bytes[..8 + length];
    if !header[8..].starts_with(HEADER_PREFIX.as_bytes()) || header.len() < HASH_END {
        return Err(not_ours(path, &header[8..]));
    }
    if header[HASH_START..HASH_END] != *header_hash(header).as_bytes() {
        return Err(ArtifactError::corrupted(path, "the header's hash does not match its bytes"));
    }
    let metadata: Metadata = serde_json::from_slice(&header[8..])
        .map_err(|error| ArtifactError::inconsistent(path, format!("the header is not valid: {error}")))?;
    let manifest = parse_manifest(path, &metadata)?;
    let tensors = metadata.offset_keys().into_iter().filter_map(|name| {
        let info = metadata.info(&name)?;
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        Some(Placed { dtype: info.dtype, shape: info.shape.clone(), start, end, name })
    });
    Ok(Header { manifest, tensors: tensors.collect(), data_start: header.len() as u64 })
}

/// The header's length, if it can be that of a safetensors file.
fn header_length(path: &Path, bytes: &[u8], file_bytes: u64) -> Result<usize, ArtifactError> {
    if bytes.starts_with(b"GGUF") {
        let detail = "it is a GGUF file: turn it into a checkpoint with `llmc import`, then `llmc compile` that";
        return Err(ArtifactError::not_an_artifact(path, detail));
    }
    let Some(length) = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length)) else {
        return Err(ArtifactError::not_an_artifact(path, format!("it has only {file_bytes} bytes")));
    };
    if length.checked_add(8).is_some_and(|end| end <= bytes.len() as u64) {
        return Ok(length as usize);
    }
    match bytes[8..].starts_with(HEADER_PREFIX.as_bytes()) {
        true if length <= MAX_HEADER_BYTES => {
            Err(ArtifactError::Truncated { path: path.to_owned(), expected: length + 8, actual: file_bytes })
        }
        true => Err(ArtifactError::corrupted(path, format!("the header claims to have {length} bytes"))),
        false => Err(ArtifactError::not_an_artifact(path, "it does not begin with a safetensors header")),
    }
}

/// Why a file with a plausible header length is not an artifact.
fn not_ours(path: &Path, text: &[u8]) -> ArtifactError {
    match serde_json::from_slice::<Metadata>(text) {
        Ok(metadata) if metadata.metadata().as_ref().is_some_and(|map| map.contains_key(MANIFEST_KEY)) => {
            ArtifactError::corrupted(path, "the header's hash is not where it was written")
        }
        Ok(_) => ArtifactError::Checkpoint { path: path.to_owned() },
        Err(_) => ArtifactError::not_an_artifact(path, "it has no readable safetensors header"),
    }
}

fn parse_manifest(path: &Path, metadata: &Metadata) -> Result<Manifest, ArtifactError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format_version: u32,
    }
    let missing = || ArtifactError::inconsistent(path, format!("the header has no `{MANIFEST_KEY}`"));
    let invalid = |error| ArtifactError::inconsistent(path, format!("the manifest is not valid: {error}"));
    let json = metadata.metadata().as_ref().and_then(|map| map.get(MANIFEST_KEY)).ok_or_else(missing)?;
    let version: Version = serde_json::from_str(json).map_err(invalid)?;
    if version.format_version != crate::FORMAT_VERSION {
        return Err(ArtifactError::Version { path: path.to_owned(), found: version.format_version });
    }
    serde_json::from_str(json).map_err(invalid)
}

/// The hash of a whole header with the digits of its own hash taken as zeros.
fn header_hash(header: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..HASH_START]).update(NO_HASH.as_bytes()).update(&header[HASH_END..]);
    hasher.finalize().to_hex().to_string()
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is valid JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_start_on_pages_without_gaps() {
        let raw = |name: &str, bytes| (name.to_owned(), Dtype::U8, vec![bytes as usize], bytes);
        let placed = place(vec![raw("a", 5), raw("empty", 0), raw("b", 4096), raw("c", 1)]);
        let names: Vec<_> = placed.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "padding/0000", "empty", "b", "c"]);
        let mut end = 0;
        for tensor in &placed {
            assert_eq!(tensor.start, end);
            assert!(tensor.is_padding() || tensor.start % PAGE == 0);
            end = tensor.end;
        }
    }

    #[test]
    fn another_format_version_is_named() {
        let json = format!("{{\"format_version\":{}}}", crate::FORMAT_VERSION + 6);
        let mut header =
            format!("{}{HEADER_PREFIX}{NO_HASH}\",\"{MANIFEST_KEY}\":{}}}}}", "........", quote(&json)).into_bytes();
        let length = header.len() as u64 - 8;
        header[..8].copy_from_slice(&length.to_le_bytes());
        let hash = header_hash(&header);
        header[HASH_START..HASH_END].copy_from_slice(hash.as_bytes());
        let error = parse_header(Path::new("m.llmc"), &header, header.len() as u64).err().unwrap().to_string();
        assert!(
            error.contains(&format!("format version {}", crate::FORMAT_VERSION + 6)) && error.contains("recompile"),
            "{error}"
        );
    }
}
