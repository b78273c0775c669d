//! A warp's asynchronous copies (`cp.async`): queued at issue, landing at the wait that names them and not a moment earlier.

use super::warp::{Mask, lanes};

/// One lane's copy in flight. Its source was read at issue.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub lane: u8,
    pub bytes: u8,
    /// How many groups its lane had committed when the copy was issued: the number of the group it belongs to.
    pub group: u32,
    /// Offset in shared memory.
    pub address: u64,
    pub data: [u8; 16],
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Copies {
    /// Groups committed so far by each lane.
    committed: [u32; 32],
    pending: Vec<Copy>,
}

impl Copies {
    /// The group that a copy issued now by `lane` belongs to.
    pub fn group(&self, lane: usize) -> u32 {
        self.committed[lane]
    }

    pub fn push(&mut self, copy: Copy) {
        self.pending.push(copy);
    }

    /// `cp.async.commit_group` in the lanes of `mask`.
    pub fn commit(&mut self, mask: Mask) {
        for lane in lanes(mask) {
            self.committed[lane] += 1;
        }
    }

    /// The copies that `cp.async.wait_group` completes in the lanes of `mask`: all but each lane's `pending` latest groups.
    pub fn wait(&mut self, mask: Mask, pending: u32) -> Vec<Copy> {
        let committed = self.committed;
        let (done, still) = std::mem::take(&mut self.pending).into_iter().partition(|copy: &Copy| {
            let lane = copy.lane as usize;
            mask >> lane & 1 == 1 && copy.group.saturating_add(pending) < committed[lane]
        });
        self.pending = still;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_complete_in_order_and_per_lane() {
        let mut copies = Copies::default();
        for step in 0..3u64 {
            for lane in [0, 5] {
                copies.push(Copy { lane, bytes: 4, group: copies.group(lane as usize), address: step, data: [0; 16] });
            }
            copies.commit(if step < 2 { 0b100001 } else { 0b1 });
        }
        let done = |copies: &mut Copies, mask, pending| {
            copies.wait(mask, pending).iter().map(|copy| (copy.lane, copy.address)).collect::<Vec<_>>()
        };
        assert_eq!(done(&mut copies, 0b1, 2), [(0, 0)]);
        assert_eq!(done(&mut copies, 0b100001, 1), [(5, 0), (0, 1)]);
        // Lane 5 never committed its third copy.
        assert_eq!(done(&mut copies, 0b100001, 0), [(5, 1), (0, 2)]);
        assert_eq!(done(&mut copies, 0b100001, 0), []);
    }
}
