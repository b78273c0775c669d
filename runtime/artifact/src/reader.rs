//! Opening an artifact: a mapping of the file behind a checked header.

use crate::error::ArtifactError;
use crate::layout::{Placed, parse_header};
use crate::manifest::Manifest;
use crate::names::weight_tensor_name;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open artifact. Its tensors are views of the mapped file: nothing is read until it is used.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    file: File,
    map: Mmap,
    manifest: Manifest,
    /// In file order, padding included.
    tensors: Vec<Placed>,
    data_start: u64,
    /// Where each tensor is in the mapping.
    ranges: BTreeMap<String, Range<usize>>,
}

impl Artifact {
    /// Opens an artifact and checks its header, its manifest and its code. The weights are not
    /// read, [`Artifact::verify`] does that; nor is the tokenizer, which [`Artifact::checked_tensor`]
    /// gives.
    ///
    /// # Errors
    /// If the file cannot be read, is not an artifact, is truncated, was written by another version
    /// or is damaged in the parts that are checked.
    pub fn open(path: impl AsRef<Path>) -> Result<Artifact, ArtifactError> {
        let path = path.as_ref();
        let (file, map) = map(path)?;
        let header = parse_header(path, &map, map.len() as u64)?;
        let expected = header.data_start + header.tensors.last().map_or(0, |tensor| tensor.end);
        if expected > map.len() as u64 {
            return Err(ArtifactError::Truncated { path: path.to_owned(), expected, actual: map.len() as u64 });
        }
        if expected < map.len() as u64 {
            let detail = format!("{} bytes follow the last tensor", map.len() as u64 - expected);
            return Err(ArtifactError::corrupted(path, detail));
        }
        let range =
            |tensor: &Placed| (header.data_start + tensor.start) as usize..(header.data_start + tensor.end) as usize;
        let named = header.tensors.iter().filter(|tensor| !tensor.is_padding());
        let ranges: BTreeMap<String, Range<usize>> = named.map(|tensor| (tensor.name.clone(), range(tensor))).collect();
        let artifact = Artifact {
            path: path.to_owned(),
            file,
            map,
            manifest: header.manifest,
            tensors: header.tensors,
            data_start: header.data_start,
            ranges,
        };
        artifact.check_contents()?;
        let Manifest { targets, cuda, .. } = &artifact.manifest;
        let host = targets.iter().map(|target| &target.tensor);
        for tensor in host.chain(cuda.iter().map(|cuda| &cuda.tensor)) {
            artifact.checked_tensor(tensor)?;
        }
        Ok(artifact)
    }

    /// What the artifact says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of a tensor, page-aligned.
    pub fn tensor(&self, name: &str) -> Option<&[u8]> {
        self.ranges.get(name).map(|range| &self.map[range.clone()])
    }

    /// The packed weights in the order of the plan's weight table, each page-aligned.
    pub fn weights(&self) -> impl Iterator<Item = &[u8]> {
        let weights = self.manifest.plan.weights.iter().enumerate();
        weights.map(|(index, weight)| &self.map[self.ranges[&weight_tensor_name(index, weight)].clone()])
    }

    /// Reads a part of a weight, given by its place in the plan's weight table and the first byte, past the mapping: the
    /// file's pages do not become this process's.
    ///
    /// # Errors
    /// If the file cannot be read, or ends in it.
    ///
    /// # Panics
    /// If there is no such weight.
    pub fn read_weight(&self, index: usize, from: usize, to: &mut [u8]) -> io::Result<()> {
        let name = weight_tensor_name(index, &self.manifest.plan.weights[index]);
        self.file.read_exact_at(to, (self.ranges[&name].start + from) as u64)
    }

    /// Every tensor with its size in bytes, in file order; padding is left out.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, u64)> {
        let named = self.tensors.iter().filter(|tensor| !tensor.is_padding());
        named.map(|tensor| (tensor.name.as_str(), tensor.end - tensor.start))
    }

    /// Size of the file.
    pub fn size_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Where the artifact was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor with its bytes, in file order, padding included.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Placed, &[u8])> {
        self.tensors.iter().map(|tensor| {
            let start = (self.data_start + tensor.start) as usize;
            (tensor, &self.map[start..start + (tensor.end - tensor.start) as usize])
        })
    }

    fn check_contents(&self) -> Result<(), ArtifactError> {
        let inconsistent = |detail| ArtifactError::inconsistent(&self.path, detail);
        let sizes: BTreeMap<&str, u64> =
            self.ranges.iter().map(|(name, range)| (name.as_str(), range.len() as u64)).collect();
        self.manifest.check_contents(&sizes).map_err(inconsistent)?;
        if !self.ranges.keys().eq(self.manifest.tensors.keys()) {
            return Err(inconsistent("the tensors are not those that the manifest has hashes of".to_owned()));
        }
        match self.tensors.iter().find(|tensor| !tensor.is_padding() && tensor.start % crate::layout::PAGE != 0) {
            None => Ok(()),
            Some(tensor) => Err(inconsistent(format!("tensor `{}` does not start on a page", tensor.name))),
        }
    }
}

fn map(path: &Path) -> Result<(File, Mmap), ArtifactError> {
    if path.is_dir() {
        return Err(if path.join("config.json").is_file() {
            ArtifactError::Checkpoint { path: path.to_owned() }
        } else {
            ArtifactError::not_an_artifact(path, "it is a directory")
        });
    }
    let file = File::open(path).map_err(ArtifactError::io("open", path))?;
    let bytes = file.metadata().map_err(ArtifactError::io("open", path))?.len();
    if bytes == 0 {
        return Err(ArtifactError::not_an_artifact(path, "it is empty"));
    }
    // SAFETY: the mapping is private and read-only. Writers replace artifacts by renaming, so the
    // mapped file does not change; someone who overwrites it in place breaks this process alone.
    let map = unsafe { Mmap::map(&file) }.map_err(ArtifactError::io("map", path))?;
    Ok((file, map))
}
