//! Where the weights lie: in the mapped file, or copied from it into huge pages.
//!
//! A decode step reads all weights. In the file's pages of 4 KiB it is slowed down by address translations and by wherever
//! the page cache happens to have put them; huge pages are free of both. Copying takes time, most of all where the system
//! must first make room for huge pages, and memory that no other process can share: good for processes that live long.

use super::HostError;
use super::memory::{Memory, Pages};
use llmc_artifact::Artifact;
use llmc_limits::free_memory;
use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// Where to keep the weights on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightPlace {
    /// In huge pages if the system has such and twice the memory that they take is free, else in the file.
    Auto,
    /// In the mapped file, whose pages all processes share and the system can drop.
    #[default]
    Mapped,
    /// In memory of this process, in huge pages if the system has such.
    Copied,
}

impl WeightPlace {
    const NAMES: [(&'static str, WeightPlace); 3] =
        [("auto", WeightPlace::Auto), ("mapped", WeightPlace::Mapped), ("copied", WeightPlace::Copied)];
}

impl FromStr for WeightPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<WeightPlace, String> {
        let found = WeightPlace::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, place)| *place).ok_or_else(|| format!("`{text}` is no place: expected auto, mapped or copied"))
    }
}

impl fmt::Display for WeightPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = WeightPlace::NAMES.iter().find(|(_, place)| place == self);
        f.write_str(named.map_or("auto", |(name, _)| name))
    }
}

/// The addresses of a model's weights.
pub(super) struct Weights {
    /// Of each in the order of the plan's weight table, page-aligned.
    pub addresses: Vec<*const u8>,
    /// What they lead into, if not into the artifact.
    _memory: Option<Memory>,
}

/// Alignment of weights in memory of their own: as in the file.
const ALIGN: usize = 4096;

/// Bytes that are copied in one go.
const PIECE: usize = 4 << 20;

impl Weights {
    /// Brings the weights where they shall lie. The addresses are valid as long as the artifact and this value.
    pub fn open(artifact: &Arc<Artifact>, place: WeightPlace, threads: usize) -> Result<Weights, HostError> {
        let sizes: Vec<usize> = artifact.weights().map(<[u8]>::len).collect();
        let total: usize = sizes.iter().map(|size| size.next_multiple_of(ALIGN)).sum();
        let copy = match place {
            WeightPlace::Mapped => false,
            WeightPlace::Copied => true,
            WeightPlace::Auto => has_huge_pages() && free_memory().is_some_and(|free| free / 2 >= total as u64),
        };
        if !copy || total == 0 {
            return Ok(Weights { addresses: artifact.weights().map(<[u8]>::as_ptr).collect(), _memory: None });
        }
        let no_memory = |source| HostError::Memory { what: "the weights", bytes: total as u64, source };
        let mut memory = Memory::reserve(total as u64, Pages::Huge).map_err(no_memory)?;
        let mut pieces: Vec<(usize, usize, &mut [u8])> = Vec::new();
        let mut addresses = Vec::new();
        let mut rest = memory.as_mut_slice();
        for (weight, &size) in sizes.iter().enumerate() {
            let (own, others) = rest.split_at_mut(size.next_multiple_of(ALIGN));
            addresses.push(own.as_ptr());
            let of_weight = own[..size].chunks_mut(PIECE).enumerate();
            pieces.extend(of_weight.map(|(number, piece)| (weight, number * PIECE, piece)));
            rest = others;
        }
        copy_pieces(artifact, pieces, threads)
            .map_err(|source| HostError::Weights { path: artifact.path().display().to_string(), source })?;
        Ok(Weights { addresses, _memory: Some(memory) })
    }
}

/// Reads pieces (of which weight, from where in it, where to) on some threads.
fn copy_pieces(artifact: &Artifact, pieces: Vec<(usize, usize, &mut [u8])>, threads: usize) -> io::Result<()> {
    let mut shares: Vec<Vec<(usize, usize, &mut [u8])>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, piece) in pieces.into_iter().enumerate() {
        shares[number % threads].push(piece);
    }
    std::thread::scope(|scope| {
        let read = |share: Vec<(usize, usize, &mut [u8])>| -> io::Result<()> {
            share.into_iter().try_for_each(|(weight, from, to)| artifact.read_weight(weight, from, to))
        };
        let workers: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || read(share))).collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

/// Whether the system gives huge pages to those who ask for them.
fn has_huge_pages() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    setting.contains("[always]") || setting.contains("[madvise]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_names() {
        for (name, place) in WeightPlace::NAMES {
            assert_eq!((name.parse(), place.to_string()), (Ok(place), name.to_owned()));
        }
        assert!("huge".parse::<WeightPlace>().unwrap_err().contains("auto, mapped or copied"));
    }
}
