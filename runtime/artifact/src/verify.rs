//! Checking every byte of an artifact against the hashes in its manifest.

use crate::error::ArtifactError;
use crate::reader::Artifact;

/// Bytes hashed between two reports of progress.
const PIECE_BYTES: usize = 32 << 20;

/// What was found to be intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifySummary {
    /// Number of tensors, padding left out.
    pub tensors: usize,
    /// Bytes of the whole file.
    pub bytes: u64,
}

impl Artifact {
    /// Checks every byte of the file; opening it has checked the header already. `progress` is
    /// told the bytes done and the bytes in all.
    ///
    /// # Errors
    /// The first tensor whose bytes are not those that were written.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<VerifySummary, ArtifactError> {
        let total = self.size_bytes();
        let mut done = total - self.placed().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let mut tensors = 0;
        for (tensor, bytes) in self.placed() {
            if tensor.is_padding() {
                if bytes.iter().any(|&byte| byte != 0) {
                    let detail = format!("`{}` is not zero", tensor.name);
                    return Err(ArtifactError::corrupted(self.path(), detail));
                }
                done += bytes.len() as u64;
                continue;
            }
            self.check_hash(&tensor.name, |piece| {
                done += piece;
                progress(done, total);
            })?;
            tensors += 1;
        }
        progress(total, total);
        Ok(VerifySummary { tensors, bytes: total })
    }

    /// The bytes of a tensor, checked against their hash on this thread alone: for small ones, at every start.
    ///
    /// # Errors
    /// If there is no such tensor, or its bytes are not those that were written.
    pub fn checked_tensor(&self, name: &str) -> Result<&[u8], ArtifactError> {
        let bytes = self.tensor(name).ok_or_else(|| self.lacks(name))?;
        self.compare(name, blake3::hash(bytes))?;
        Ok(bytes)
    }

    /// Checks one tensor on all threads; `progress` is told the size of each piece done.
    fn check_hash(&self, name: &str, mut progress: impl FnMut(u64)) -> Result<(), ArtifactError> {
        let mut hasher = blake3::Hasher::new();
        for piece in self.tensor(name).ok_or_else(|| self.lacks(name))?.chunks(PIECE_BYTES) {
            hasher.update_rayon(piece);
            progress(piece.len() as u64);
        }
        self.compare(name, hasher.finalize())
    }

    fn compare(&self, name: &str, found: blake3::Hash) -> Result<(), ArtifactError> {
        let expected = self.manifest().tensors.get(name).ok_or_else(|| self.lacks(name))?;
        let found = found.to_hex();
        if found.as_str() != expected {
            let detail = format!("`{name}` has hash {found}, it was written with {expected}");
            return Err(ArtifactError::corrupted(self.path(), detail));
        }
        Ok(())
    }

    fn lacks(&self, name: &str) -> ArtifactError {
        ArtifactError::inconsistent(self.path(), format!("there is no tensor `{name}`"))
    }
}
