//! Zeroed memory that the system provides page by page as it is touched.

use std::io;
use std::ptr::NonNull;

/// Size and alignment of a huge page on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// The pages that memory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// Huge ones where the memory is that large and the system agrees: for what is used as a whole, with few address
    /// translations.
    Huge,
    /// The usual ones: for what is used in places far apart, since touching a page takes all of it from the system.
    Small,
}

/// Gives memory that was freed back to the system, which the C library would keep for later.
pub fn give_back_freed() {
    // SAFETY: it looks at the allocator's own free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A private anonymous mapping. It starts as zeros, on a huge page boundary if it consists of such.
pub(super) struct Memory {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    offset: usize,
    bytes: usize,
}

// SAFETY: it is plain memory, owned by this value.
unsafe impl Send for Memory {}

impl Memory {
    /// Reserves address space. Pages are taken from the system when they are first written.
    pub fn reserve(bytes: u64, pages: Pages) -> io::Result<Memory> {
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?.max(1);
        let slack = if pages == Pages::Huge && bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let mapping_bytes = bytes.checked_add(slack).ok_or_else(too_large)?;
        // SAFETY: a new anonymous mapping at an address of the system's choice.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapping_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or_else(too_large)?;
        let offset = if slack > 0 { mapping.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        if slack > 0 {
            // SAFETY: the range is inside the mapping. Huge pages are a wish: failing is harmless.
            unsafe { libc::madvise(mapping.as_ptr().add(offset).cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Memory { mapping, mapping_bytes, offset, bytes })
    }

    /// The first byte, page-aligned.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: `offset` is inside the mapping.
        unsafe { self.mapping.as_ptr().add(self.offset) }
    }

    /// All of it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let (start, bytes) = (self.as_mut_ptr(), self.bytes);
        // SAFETY: the range is inside the mapping, which `&mut self` has exclusively, and every byte is initialised.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// Zeroes a range.
    pub fn zero(&mut self, start: usize, count: usize) {
        assert!(start.checked_add(count).is_some_and(|end| end <= self.bytes), "range outside of memory");
        // SAFETY: the range is inside the mapping, which `&mut self` has exclusively.
        unsafe { self.as_mut_ptr().add(start).write_bytes(0, count) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly what `reserve` mapped, not used any more.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_is_aligned_zero_and_lazy() {
        let mut memory = Memory::reserve(64 << 30, Pages::Huge).unwrap();
        let start = memory.as_mut_ptr();
        assert_eq!(start.align_offset(HUGE_PAGE), 0);
        // SAFETY: inside the reserved range.
        unsafe {
            let last = start.add((64 << 30) - 1);
            assert_eq!(*last, 0);
            *last = 7;
            memory.zero((64 << 30) - 10, 10);
            assert_eq!(*last, 0);
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Memory::reserve(u64::MAX, Pages::Huge).is_err());
        assert!(Memory::reserve(1 << 60, Pages::Small).is_err());
        assert!(Memory::reserve(0, Pages::Huge).is_ok());
    }
}
