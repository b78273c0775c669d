//! Memory that notices who reads or writes beyond it.
//!
//! Behind the end lies a page that cannot be touched, so that an overrun stops the test at the instruction. In front,
//! and in the few bytes that alignment leaves behind the end, lie known bytes that [`Guarded::check`] looks at.

use std::ptr::NonNull;

const PAGE: usize = 4096;
/// What surrounds the memory: bf16 and f32 made of it are NaN, so that results made of it show.
const CANARY: u8 = 0xFF;

/// Bytes between guards.
#[derive(Debug)]
pub struct Guarded {
    map: NonNull<u8>,
    map_bytes: usize,
    start: usize,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone; whoever hands its address to threads answers for what they do.
unsafe impl Send for Guarded {}
// SAFETY: shared references only read.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// `bytes` bytes of `fill`, aligned to `align` (a power of two up to a page).
    ///
    /// # Panics
    /// If the system gives no memory.
    pub fn new(bytes: usize, align: usize, fill: u8) -> Guarded {
        let room = bytes.next_multiple_of(align);
        let usable = PAGE + room.next_multiple_of(PAGE);
        let map_bytes = usable + PAGE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping; nothing else is affected.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), map_bytes, protection, flags, -1, 0) };
        assert!(map != libc::MAP_FAILED, "no {map_bytes} bytes of memory");
        let map = NonNull::new(map.cast::<u8>()).expect("a mapping has an address");
        // SAFETY: the last page of the mapping made above.
        let sealed = unsafe { libc::mprotect(map.as_ptr().add(usable).cast(), PAGE, libc::PROT_NONE) };
        assert_eq!(sealed, 0, "the guard page cannot be sealed");
        let mut memory = Guarded { map, map_bytes, start: usable - room, bytes };
        let (start, end) = (memory.start, memory.start + bytes);
        let all = memory.writable();
        all[..start].fill(CANARY);
        all[end..].fill(CANARY);
        // It is zeros to begin with.
        if fill != 0 {
            all[start..end].fill(fill);
        }
        memory
    }

    /// The first byte, for code that is not Rust.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes_mut().as_mut_ptr()
    }

    /// The first byte, for reading.
    pub fn as_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    /// What is inside.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start + bytes` is inside of the writable part of the mapping, which is initialised.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start), self.bytes) }
    }

    /// What is inside, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.start + self.bytes);
        &mut self.writable()[start..end]
    }

    /// Whether the surroundings are as they were.
    ///
    /// # Errors
    /// Where they are not, relative to the start.
    pub fn check(&self) -> Result<(), String> {
        // SAFETY: all but the last page can be read and was initialised.
        let all = unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map_bytes - PAGE) };
        let around = [0..self.start, self.start + self.bytes..all.len()];
        match around.into_iter().flatten().find(|&at| all[at] != CANARY) {
            Some(at) => Err(format!("byte {} of {} was written", at as i64 - self.start as i64, self.bytes)),
            None => Ok(()),
        }
    }

    fn writable(&mut self) -> &mut [u8] {
        // SAFETY: all but the last page can be written, and `&mut self` keeps others out; anonymous memory is zeros.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr(), self.map_bytes - PAGE) }
    }
}

impl Clone for Guarded {
    /// Other memory of the same contents, ending at a guard page of its own; aligned to a cache line.
    fn clone(&self) -> Guarded {
        let mut copy = Guarded::new(self.bytes, 64, 0);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nothing refers to it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_around_are_noticed() {
        let mut memory = Guarded::new(100, 64, 7);
        assert_eq!(memory.as_ptr() as usize % 64, 0);
        assert!(memory.bytes().iter().all(|&byte| byte == 7));
        memory.bytes_mut().fill(9);
        assert_eq!(memory.check(), Ok(()));
        let start = memory.start;
        memory.writable()[start - 1] = 0;
        assert_eq!(memory.check(), Err("byte -1 of 100 was written".into()));
        memory.writable()[start - 1] = CANARY;
        memory.writable()[start + 100] = 1;
        assert_eq!(memory.check(), Err("byte 100 of 100 was written".into()));
    }
}
