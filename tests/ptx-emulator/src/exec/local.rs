//! A warp's local memory: one array of bytes per lane.
//!
//! It is registers by other means: compilers copy structures through it, with padding and fields that nothing was written to. So
//! what was never written may be read, and the register then counts as never written either.

use crate::error::{FaultKind, Space};
use crate::shadow::Shadow;

#[derive(Debug, Clone)]
pub(crate) struct LocalMemory {
    bytes: u64,
    data: Vec<u8>,
    defined: Shadow,
}

impl LocalMemory {
    /// `bytes` bytes for each of 32 lanes.
    pub fn new(bytes: u64) -> Self {
        LocalMemory { bytes, data: vec![0; 32 * bytes as usize], defined: Shadow::undefined(32 * bytes) }
    }

    pub fn clear(&mut self) {
        self.defined.forget(0, 32 * self.bytes);
    }

    fn place(&self, lane: usize, address: u64, bytes: u64) -> Result<usize, FaultKind> {
        if address.checked_add(bytes).is_some_and(|end| end <= self.bytes) {
            return Ok((lane as u64 * self.bytes + address) as usize);
        }
        let nearest = format!("each thread has {} bytes", self.bytes);
        Err(FaultKind::OutOfBounds { space: Space::Local, address, bytes, nearest })
    }

    /// Bytes, whether they were written or not.
    pub fn read(&self, lane: usize, address: u64, bytes: u64) -> Result<&[u8], FaultKind> {
        let at = self.place(lane, address, bytes)?;
        Ok(&self.data[at..at + bytes as usize])
    }

    /// Whether all of some bytes that exist were written.
    pub fn is_written(&self, lane: usize, address: u64, bytes: u64) -> bool {
        self.defined.is_defined(lane as u64 * self.bytes + address, bytes)
    }

    /// Bytes that were written count as holding nothing.
    pub fn forget(&mut self, lane: usize, address: u64, bytes: u64) {
        self.defined.forget(lane as u64 * self.bytes + address, bytes);
    }

    /// The bytes to be written, which count as written from here on.
    pub fn write(&mut self, lane: usize, address: u64, bytes: u64) -> Result<&mut [u8], FaultKind> {
        let at = self.place(lane, address, bytes)?;
        self.defined.define(at as u64, bytes);
        Ok(&mut self.data[at..at + bytes as usize])
    }
}
