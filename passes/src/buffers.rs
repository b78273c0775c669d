//! Buffers: lifetimes to offsets. What is never needed at the same time may share memory.

/// Offsets are multiples of this: a cache line, and the widest vector.
pub const ALIGNMENT: u64 = 64;

/// A value in memory and when it is needed, in any unit of time; both ends count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Size.
    pub bytes: u64,
    /// When it is written.
    pub first: usize,
    /// When it is last read.
    pub last: usize,
}

/// Offsets for buffers, and how many bytes they take together. Large ones are placed first, each in the smallest
/// gap that fits (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, greedy by
/// size).
pub fn place(buffers: &[Buffer]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(buffers[index].bytes), index));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    for index in order {
        let buffer = buffers[index];
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&other| buffers[other].first <= buffer.last && buffer.first <= buffers[other].last)
            .map(|&other| (offsets[other], offsets[other] + buffers[other].bytes))
            .collect();
        taken.sort_unstable();
        offsets[index] = best_gap(&taken, buffer.bytes);
        placed.push(index);
    }
    let total = placed.iter().map(|&index| aligned(offsets[index] + buffers[index].bytes)).max().unwrap_or(0);
    (offsets, total)
}

/// The start of the smallest gap between taken ranges that holds `bytes`, or the first free offset behind them.
fn best_gap(taken: &[(u64, u64)], bytes: u64) -> u64 {
    let mut best: Option<(u64, u64)> = None;
    let mut free = 0;
    for &(start, end) in taken {
        if free + bytes <= start && best.is_none_or(|(room, _)| start - free < room) {
            best = Some((start - free, free));
        }
        free = free.max(aligned(end));
    }
    best.map_or(free, |(_, offset)| offset)
}

/// Rounds up to the alignment of buffers.
pub fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_reused_after_the_last_read() {
        let chain = [(100, 0, 1), (100, 1, 2), (100, 2, 3)].map(|(bytes, first, last)| Buffer { bytes, first, last });
        assert_eq!(place(&chain), (vec![0, 128, 0], 256));
        assert_eq!(place(&[]), (vec![], 0));
    }

    proptest! {
        #[test]
        fn buffers_that_live_together_do_not_overlap(sizes in prop::collection::vec((1u64..500, 0usize..12, 0usize..5), 0..24)) {
            let buffers: Vec<Buffer> = sizes
                .iter()
                .map(|&(bytes, first, length)| Buffer { bytes, first, last: first + length })
                .collect();
            let (offsets, total) = place(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert_eq!(offsets[i] % ALIGNMENT, 0);
                prop_assert!(offsets[i] + a.bytes <= total);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart);
                }
            }
        }
    }
}
