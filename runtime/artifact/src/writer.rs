//! Writing an artifact in one pass, in pieces, with hashes computed on the way.

use crate::error::ArtifactError;
use crate::layout::{NO_HASH, PAGE, Placed, place, render_header};
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::names::{PADDING_PREFIX, stored_type, weight_tensor_name};
use crate::temporary::Temporary;
use llmc_ir::plan::PackedWeight;
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// From this size on, hashing a piece on several threads pays (as measured by blake3's authors).
const PARALLEL_HASH_BYTES: usize = 128 << 10;

/// From this size on, the disk is told at once to begin with a piece.
const WRITE_BACK_BYTES: usize = 1 << 20;

/// A tensor that is going to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, unique in the file.
    pub name: String,
    /// Element type as any safetensors reader sees it.
    pub dtype: Dtype,
    /// Shape as any safetensors reader sees it.
    pub shape: Vec<usize>,
    /// Size in bytes.
    pub bytes: u64,
}

impl Entry {
    /// Entry `index` of the plan's weight table.
    pub fn weight(index: usize, weight: &PackedWeight) -> Entry {
        let (dtype, shape) = stored_type(weight);
        Entry { name: weight_tensor_name(index, weight), dtype, shape, bytes: weight.bytes }
    }

    /// Text or code.
    pub fn raw(name: impl Into<String>, bytes: usize) -> Entry {
        Entry { name: name.into(), dtype: Dtype::U8, shape: vec![bytes], bytes: bytes as u64 }
    }
}

/// An artifact being written. Dropping it unfinished leaves nothing behind.
pub struct ArtifactWriter {
    temporary: Temporary,
    manifest: Manifest,
    tensors: Vec<Placed>,
    /// Index into `tensors` of the entry being written; never of padding.
    current: usize,
    /// Bytes of it that have come.
    written: u64,
    hasher: blake3::Hasher,
    header_bytes: u64,
}

impl ArtifactWriter {
    /// Starts an artifact at `path` with the given tensors, in this order. The manifest's
    /// `format_version` and `tensors` are set by the writer.
    ///
    /// # Errors
    /// If the file cannot be created, or entries and manifest do not fit together.
    pub fn create(path: &Path, entries: Vec<Entry>, mut manifest: Manifest) -> Result<ArtifactWriter, ArtifactError> {
        check_entries(path, &entries)?;
        let sizes: BTreeMap<&str, u64> = entries.iter().map(|entry| (entry.name.as_str(), entry.bytes)).collect();
        manifest.check_contents(&sizes).map_err(|detail| ArtifactError::inconsistent(path, detail))?;
        manifest.format_version = FORMAT_VERSION;
        manifest.tensors = entries.iter().map(|entry| (entry.name.clone(), NO_HASH.to_owned())).collect();
        let tensors = place(entries.into_iter().map(|e| (e.name, e.dtype, e.shape, e.bytes)).collect());
        // Its length does not change when the hashes are known.
        let header_bytes = render_header(&manifest, &tensors).len() as u64;
        let temporary = Temporary::create(path)?;
        temporary.file().seek(SeekFrom::Start(header_bytes)).map_err(ArtifactError::io("write", path))?;
        let hasher = blake3::Hasher::new();
        let mut writer = ArtifactWriter { temporary, manifest, tensors, current: 0, written: 0, hasher, header_bytes };
        writer.skip_padding()?;
        Ok(writer)
    }

    /// Name of the entry that the next bytes belong to; `None` after the last one.
    pub fn current_entry(&self) -> Option<&str> {
        self.tensors.get(self.current).map(|tensor| tensor.name.as_str())
    }

    /// Appends bytes to the current entry.
    ///
    /// # Errors
    /// If the disk refuses, or the entry would exceed its announced size.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        let written = self.written + bytes.len() as u64;
        let Some(tensor) = self.tensors.get(self.current).filter(|tensor| written <= tensor.end - tensor.start) else {
            return Err(self.mismatch(format!("more came ({written})")));
        };
        debug_assert!(!tensor.is_padding());
        let path = self.temporary.path();
        self.temporary.file().write_all(bytes).map_err(ArtifactError::io("write", path))?;
        if bytes.len() >= WRITE_BACK_BYTES {
            let start = self.header_bytes + tensor.start;
            self.temporary.begin_writing_back(start + self.written..start + written);
        }
        if bytes.len() >= PARALLEL_HASH_BYTES {
            self.hasher.update_rayon(bytes);
        } else {
            self.hasher.update(bytes);
        }
        self.written = written;
        Ok(())
    }

    /// Ends the current entry.
    ///
    /// # Errors
    /// If bytes are missing, or there is no current entry.
    pub fn end_entry(&mut self) -> Result<(), ArtifactError> {
        match self.tensors.get(self.current) {
            Some(tensor) if tensor.end - tensor.start == self.written => {
                self.manifest.tensors.insert(tensor.name.clone(), self.hasher.finalize().to_hex().to_string());
            }
            _ => return Err(self.mismatch(format!("only {} came", self.written))),
        }
        self.hasher.reset();
        self.current += 1;
        self.written = 0;
        self.skip_padding()
    }

    /// Writes a whole entry.
    ///
    /// # Errors
    /// As [`ArtifactWriter::write`] and [`ArtifactWriter::end_entry`].
    pub fn write_entry(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.write(bytes)?;
        self.end_entry()
    }

    /// Completes the header, makes everything durable, puts the file in place and returns its size in bytes.
    ///
    /// # Errors
    /// If entries are missing or the disk refuses; the path is then as it was before.
    pub fn finish(self) -> Result<u64, ArtifactError> {
        if self.current < self.tensors.len() {
            return Err(self.mismatch("the file was finished before it came".to_owned()));
        }
        let header = render_header(&self.manifest, &self.tensors);
        debug_assert_eq!(header.len() as u64, self.header_bytes);
        let path = self.temporary.path();
        let mut file = self.temporary.file();
        file.seek(SeekFrom::Start(0)).map_err(ArtifactError::io("write", path))?;
        file.write_all(&header).map_err(ArtifactError::io("write", path))?;
        self.temporary.persist()?;
        Ok(self.header_bytes + self.tensors.last().map_or(0, |tensor| tensor.end))
    }

    fn skip_padding(&mut self) -> Result<(), ArtifactError> {
        if let Some(tensor) = self.tensors.get(self.current).filter(|tensor| tensor.is_padding()) {
            let zeros = [0u8; PAGE as usize];
            let bytes = &zeros[..(tensor.end - tensor.start) as usize];
            let path = self.temporary.path();
            self.temporary.file().write_all(bytes).map_err(ArtifactError::io("write", path))?;
            self.current += 1;
        }
        Ok(())
    }

    fn mismatch(&self, actual: String) -> ArtifactError {
        let tensor = self.tensors.get(self.current);
        ArtifactError::Entry {
            path: self.temporary.path().to_owned(),
            entry: tensor.map_or("(after the last)", |tensor| tensor.name.as_str()).to_owned(),
            expected: tensor.map_or(0, |tensor| tensor.end - tensor.start),
            actual,
        }
    }
}

fn check_entries(path: &Path, entries: &[Entry]) -> Result<(), ArtifactError> {
    let mut names = BTreeSet::new();
    for entry in entries {
        let elements = entry.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let bits = elements.and_then(|elements| elements.checked_mul(entry.dtype.bitsize()));
        if bits.is_none_or(|bits| bits as u64 != entry.bytes.saturating_mul(8)) {
            let detail =
                format!("tensor `{}` of {} bytes cannot be {} {:?}", entry.name, entry.bytes, entry.dtype, entry.shape);
            return Err(ArtifactError::inconsistent(path, detail));
        }
        if entry.name.starts_with(PADDING_PREFIX) || entry.name == "__metadata__" || !names.insert(&entry.name) {
            let detail = format!("tensor name `{}` is reserved or used twice", entry.name);
            return Err(ArtifactError::inconsistent(path, detail));
        }
    }
    Ok(())
}
