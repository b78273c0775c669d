//! A warp's local memory: one array of bytes per lane.
//!
//! It is registers by other means: compilers copy structures through it, with padding and fields that nothing was written to. So
//! what was never written may be read, and the register then counts as never written either.

use crate::error::{FaultKind, Space};

#[derive(Debug, Clone)]
pub(crate) struct LocalMemory {
    bytes: u64,
    data: Vec<u8>,
    /// The bits that were written.
    known: Vec<u8>,
}

impl LocalMemory {
    /// `bytes` bytes for each of 32 lanes.
    pub fn new(bytes: u64) -> Self {
        LocalMemory { bytes, data: vec![0; 32 * bytes as usize], known: vec![0; 32 * bytes as usize] }
    }

    pub fn clear(&mut self) {
        self.known.fill(0);
    }

    fn place(&self, lane: usize, address: u64, bytes: u64) -> Result<usize, FaultKind> {
        if address.checked_add(bytes).is_some_and(|end| end <= self.bytes) {
            return Ok((lane as u64 * self.bytes + address) as usize);
        }
        let nearest = format!("each thread has {} bytes", self.bytes);
        Err(FaultKind::OutOfBounds { space: Space::Local, address, bytes, nearest })
    }

    /// Bytes, and which of their bits were written.
    pub fn read(&self, lane: usize, address: u64, bytes: u64) -> Result<(&[u8], &[u8]), FaultKind> {
        let at = self.place(lane, address, bytes)?;
        let range = at..at + bytes as usize;
        Ok((&self.data[range.clone()], &self.known[range]))
    }

    /// Writes bytes of which some bits hold something.
    pub fn write(&mut self, lane: usize, address: u64, value: &[u8], known: &[u8]) -> Result<(), FaultKind> {
        let at = self.place(lane, address, value.len() as u64)?;
        let range = at..at + value.len();
        self.data[range.clone()].copy_from_slice(value);
        self.known[range].copy_from_slice(known);
        Ok(())
    }
}
