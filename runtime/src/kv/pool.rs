//! Blocks and how many sequences own each: free, owned, or unowned but reusable.

use std::collections::BTreeMap;

/// Reference counts over a fixed number of blocks. Every block is in exactly one state.
#[derive(Debug)]
pub(super) struct Pool {
    states: Vec<State>,
    free: Vec<u32>,
    /// Reusable blocks by the time of their release.
    reusable: BTreeMap<u64, u32>,
    clock: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Owned { owners: u32 },
    Reusable { since: u64 },
}

impl Pool {
    pub fn new(blocks: usize) -> Pool {
        // Handed out from the end, so that low numbers come first and little memory is touched.
        let free = (0..blocks as u32).rev().collect();
        Pool { states: vec![State::Free; blocks], free, reusable: BTreeMap::new(), clock: 0 }
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn available(&self) -> usize {
        self.free.len() + self.reusable.len()
    }

    pub fn owners(&self, block: u32) -> u32 {
        match self.states[block as usize] {
            State::Owned { owners } => owners,
            State::Free | State::Reusable { .. } => 0,
        }
    }

    /// Hands out a free block, or else the reusable one that was released first. Check
    /// [`Pool::available`] before.
    pub fn take(&mut self) -> u32 {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.reusable.pop_first().expect("the caller checked that a block is available").1,
        };
        self.states[block as usize] = State::Owned { owners: 1 };
        block
    }

    /// Adds an owner to an owned or reusable block.
    pub fn share(&mut self, block: u32) {
        let state = &mut self.states[block as usize];
        *state = match *state {
            State::Owned { owners } => State::Owned { owners: owners + 1 },
            State::Reusable { since } => {
                self.reusable.remove(&since);
                State::Owned { owners: 1 }
            }
            State::Free => unreachable!("block {block} is free, its content is not to be shared"),
        };
    }

    /// Removes an owner; without any, the block is free.
    pub fn release(&mut self, block: u32) {
        if self.drop_owner(block) {
            self.states[block as usize] = State::Free;
            self.free.push(block);
        }
    }

    /// Removes an owner; without any, the block is reusable.
    pub fn release_reusable(&mut self, block: u32) {
        if self.drop_owner(block) {
            self.clock += 1;
            self.states[block as usize] = State::Reusable { since: self.clock };
            self.reusable.insert(self.clock, block);
        }
    }

    /// Whether that was the last owner.
    fn drop_owner(&mut self, block: u32) -> bool {
        match &mut self.states[block as usize] {
            State::Owned { owners } => {
                *owners -= 1;
                *owners == 0
            }
            State::Free | State::Reusable { .. } => unreachable!("block {block} is released by a non-owner"),
        }
    }

    /// Panics unless every block is in one place and that place knows its state.
    #[cfg(test)]
    pub fn check(&self) {
        let mut seen = vec![0; self.len()];
        for &block in &self.free {
            assert_eq!(self.states[block as usize], State::Free);
            seen[block as usize] += 1;
        }
        for (&since, &block) in &self.reusable {
            assert_eq!(self.states[block as usize], State::Reusable { since });
            seen[block as usize] += 1;
        }
        for (block, state) in self.states.iter().enumerate() {
            let elsewhere = usize::from(matches!(state, State::Owned { owners } if *owners > 0));
            assert_eq!(seen[block] + elsewhere, 1, "block {block} is {state:?}");
        }
    }
}
