//! Checkpoints: Hugging Face safetensors files, mapped into memory and fully checked before any tensor is seen.
//!
//! [`Checkpoint::open`] takes what a user has at hand (a file, a shard index, a directory), maps every file it needs and checks
//! that the headers describe exactly the bytes that are there. After that a [`TensorView`] is a name, a shape and a slice.
//!
//! | file | idea |
//! |---|---|
//! | `locate` | which files does this path mean? |
//! | `header` | the safetensors header, distrusted |
//! | `index`  | the shard index, distrusted |
//! | `view`   | one tensor: widening reads that refuse NaN |

mod error;
mod header;
mod index;
mod locate;
mod view;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

pub use error::CheckpointError;
use header::Entry;
use locate::Source;
pub use view::{CheckpointDType, TensorView};

/// The tensors of a model, mapped from one or several safetensors files.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    shards: Vec<Shard>,
    /// Tensor name to its shard and where in it.
    tensors: BTreeMap<String, (usize, Entry)>,
}

/// One mapped file; `Entry` ranges are relative to the start of the file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

impl Checkpoint {
    /// Opens `model.safetensors`, `model.safetensors.index.json`, or a directory that holds one of them.
    ///
    /// A directory with both is read from the single file; opening a directory and opening the file in it are the same.
    ///
    /// # Errors
    /// Names the file, what is wrong with it and what to do, for anything but complete and consistent files: see
    /// [`CheckpointError`]. Values are not looked at here, but when they are read.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        match locate::locate(path)? {
            Source::Single(file) => Checkpoint::open_single(&file),
            Source::Sharded(index) => Checkpoint::open_sharded(&index),
        }
    }

    /// The directory in which `config.json` and `tokenizer.json` are expected.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The safetensors files that are mapped.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of that name, if the checkpoint has it.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, (shard, entry)) = self.tensors.get_key_value(name)?;
        let shard = &self.shards[*shard];
        Some(TensorView {
            name,
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            bytes: &shard.map[entry.range.clone()],
            file: &shard.path,
        })
    }

    /// Lets the system take back the memory that holds elements of a tensor, counted as in [`TensorView::read_f32`];
    /// reading them again reads the file.
    ///
    /// # Panics
    /// If `range` goes beyond the tensor's elements.
    pub fn forget(&self, name: &str, range: Range<usize>) {
        if let Some((shard, entry)) = self.tensors.get(name) {
            let elements: usize = entry.shape.iter().product();
            assert!(range.end <= elements, "{name} has {elements} elements, not {}", range.end);
            let each = entry.range.len() / elements;
            let start = entry.range.start + range.start * each;
            // SAFETY: the mapping is of a file, shared and never written to: its pages come back from the file with the
            // same bytes. Failing costs memory, nothing else.
            let _ = unsafe {
                self.shards[*shard].map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, range.len() * each)
            };
        }
    }

    fn open_single(file: &Path) -> Result<Checkpoint, CheckpointError> {
        let (shard, entries) = open_shard(file)?;
        let tensors = entries.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
        Ok(Checkpoint { directory: locate::parent(file), shards: vec![shard], tensors })
    }

    fn open_sharded(index: &Path) -> Result<Checkpoint, CheckpointError> {
        let directory = locate::parent(index);
        let files = index::read(index)?;
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = BTreeMap::new();
        for (file, expected) in &files {
            let path = directory.join(file);
            if !path.is_file() {
                return Err(CheckpointError::MissingShard { index: index.to_path_buf(), shard: path });
            }
            let (shard, entries) = open_shard(&path)?;
            let held = entries.iter().map(|(name, _)| name.as_str()).collect();
            index::check_shard(index, file, &files, expected, &held)?;
            let number = shards.len();
            tensors.extend(entries.into_iter().map(|(name, entry)| (name, (number, entry))));
            shards.push(shard);
        }
        Ok(Checkpoint { directory, shards, tensors })
    }
}

fn open_shard(path: &Path) -> Result<(Shard, Vec<(String, Entry)>), CheckpointError> {
    let io = |doing, source| CheckpointError::Io { path: path.to_path_buf(), doing, source };
    // Looked at before opening, because opening a pipe would wait for a writer.
    if !path.metadata().map_err(|e| io("find", e))?.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_path_buf() });
    }
    let file = File::open(path).map_err(|e| io("open", e))?;
    // SAFETY: the map is read-only and private to this process, and the slice handed out lives no longer than it. What
    // cannot be excluded is another process that shortens or rewrites the file meanwhile: reads past the new end would
    // raise SIGBUS, changed bytes would change values. A checkpoint is a finished download, so this is left to the user;
    // copying gigabytes first would cost more than it protects.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| io("map", e))?;
    let entries = header::parse(path, &map)?;
    Ok((Shard { path: path.to_path_buf(), map }, entries))
}

#[cfg(test)]
mod tests;
