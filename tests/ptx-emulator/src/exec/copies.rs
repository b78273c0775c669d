//! A warp's asynchronous copies (`cp.async`): queued at issue, landing at the wait that names them and not a moment earlier.

use super::warp::{Lanes64, Mask, lanes};

/// The copies of one instruction in flight. Their sources were read at issue.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub lanes: Mask,
    pub bytes: usize,
    /// Offsets in shared memory.
    pub addresses: Lanes64,
    pub data: [[u8; 16]; 32],
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Copies {
    /// Groups committed so far by each lane.
    committed: [u32; 32],
    /// In the order of issue, with the number of groups that each lane had committed by then: the number of the group the
    /// copy belongs to.
    pending: Vec<(Box<Batch>, [u32; 32])>,
}

impl Copies {
    pub fn clear(&mut self) {
        self.committed = [0; 32];
        self.pending.clear();
    }

    pub fn push(&mut self, batch: Box<Batch>) {
        self.pending.push((batch, self.committed));
    }

    /// `cp.async.commit_group` in the lanes of `mask`.
    pub fn commit(&mut self, mask: Mask) {
        for lane in lanes(mask) {
            self.committed[lane] += 1;
        }
    }

    /// Hands to `land` the copies that `cp.async.wait_group` completes in the lanes of `mask`: all but each lane's `pending` latest
    /// groups.
    pub fn wait(&mut self, mask: Mask, pending: u32, mut land: impl FnMut(&Batch, Mask)) {
        let committed = self.committed;
        self.pending.retain_mut(|(batch, group)| {
            let mut done = 0;
            for lane in 0..32 {
                done |= u32::from(group[lane].saturating_add(pending) < committed[lane]) << lane;
            }
            done &= batch.lanes & mask;
            if done != 0 {
                land(batch, done);
                batch.lanes &= !done;
            }
            batch.lanes != 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_complete_in_order_and_per_lane() {
        let mut copies = Copies::default();
        for step in 0..3 {
            copies.push(Box::new(Batch { lanes: 0b100001, bytes: 4, addresses: [step; 32], data: [[0; 16]; 32] }));
            copies.commit(if step < 2 { 0b100001 } else { 0b1 });
        }
        let done = |copies: &mut Copies, mask, pending| {
            let mut landed = Vec::new();
            copies.wait(mask, pending, |batch, lanes| landed.push((batch.addresses[0], lanes)));
            landed
        };
        assert_eq!(done(&mut copies, 0b1, 2), [(0, 0b1)]);
        assert_eq!(done(&mut copies, 0b100001, 1), [(0, 0b100000), (1, 0b1)]);
        // Lane 5 never committed its third copy.
        assert_eq!(done(&mut copies, 0b100001, 0), [(1, 0b100000), (2, 0b1)]);
        assert_eq!(done(&mut copies, 0b100001, 0), []);
    }
}
