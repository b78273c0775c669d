//! Large buffers, on huge pages where the system has them: then few address translations are in the way.

use super::kernels::Line;
use super::team::together;

/// A buffer of whole lines, each thread's share of it first touched by a thread of its own.
pub fn buffer(bytes: u64, threads: usize) -> Box<[Line]> {
    let lines = (bytes as usize / size_of::<Line>()).max(1);
    // SAFETY: all bits zero are sixteen numbers that are zero.
    let mut lines = unsafe { Box::<[Line]>::new_zeroed_slice(lines).assume_init() };
    let (first, length) = (lines.as_mut_ptr(), size_of_val(&*lines));
    let slack = first.cast::<u8>().align_offset(PAGE);
    if slack < length {
        // SAFETY: the range lies in the buffer and begins with a page. Huge pages are a wish: failing is harmless.
        unsafe { libc::madvise(first.cast::<u8>().add(slack).cast(), length - slack, libc::MADV_HUGEPAGE) };
    }
    together(shares(&mut lines, threads), |share| {
        share.fill(Line::FILLED);
        0.0
    });
    lines
}

/// The size of the pages that the system maps memory in.
const PAGE: usize = 4096;

/// Cuts lines into a part for each thread.
pub fn shares(lines: &mut [Line], threads: usize) -> Vec<&mut [Line]> {
    let share = lines.len().div_ceil(threads.max(1)).max(1);
    lines.chunks_mut(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_filled_and_shared_whole() {
        for (bytes, threads, lines) in [(0, 1, 1), (1000, 4, 15), (1 << 22, 3, 1 << 16)] {
            let mut buffer = buffer(bytes, threads);
            assert_eq!(buffer.len(), lines);
            assert!(buffer.iter().all(|line| line.0 == Line::FILLED.0));
            let shares = shares(&mut buffer, threads);
            assert!(shares.len() <= threads && shares.iter().map(|share| share.len()).sum::<usize>() == lines);
        }
    }
}
