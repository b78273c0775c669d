//! What a launch cost: instructions by kind, memory traffic, bank conflicts, matrix work.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Counts of one launch, the same on every run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Blocks that ran.
    pub blocks: u64,
    /// Warps that ran.
    pub warps: u64,
    /// Warp instructions issued, also those whose guard held for no lane.
    pub warp_instructions: u64,
    /// The same by kind: the instruction's name with its type or memory, such as `fma.f32`, `ld.global`, `mma.m16n8k16`.
    pub instructions: BTreeMap<String, u64>,
    /// Loads from global memory, `cp.async` and atomics with a result included.
    pub global_loads: Traffic,
    /// Stores to global memory, `red` included.
    pub global_stores: Traffic,
    /// Loads from shared memory, `ldmatrix` included.
    pub shared_loads: Wavefronts,
    /// Stores to shared memory, `cp.async` included.
    pub shared_stores: Wavefronts,
    /// Floating-point or integer operations of matrix instructions, two per multiply-add.
    pub mma_flops: u64,
    /// Block-wide barriers completed.
    pub barriers: u64,
    /// Branches at which a warp split.
    pub divergent_branches: u64,
}

/// Traffic between a block and global memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// Bytes that lanes asked for; bytes that several lanes ask for count several times.
    pub requested_bytes: u64,
    /// Sectors of 32 bytes touched, per instruction.
    pub sectors: u64,
    /// Sectors that the distinct bytes of each instruction would fill if they lay side by side.
    pub ideal_sectors: u64,
}

/// Cycles that the shared memory's 32 banks were busy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wavefronts {
    /// Wavefronts with the bank conflicts that occurred.
    pub actual: u64,
    /// Wavefronts without any conflict.
    pub ideal: u64,
}

impl AddAssign<&Counters> for Counters {
    fn add_assign(&mut self, other: &Counters) {
        self.blocks += other.blocks;
        self.warps += other.warps;
        self.warp_instructions += other.warp_instructions;
        for (kind, count) in &other.instructions {
            *self.instructions.entry(kind.clone()).or_default() += count;
        }
        self.global_loads += other.global_loads;
        self.global_stores += other.global_stores;
        self.shared_loads += other.shared_loads;
        self.shared_stores += other.shared_stores;
        self.mma_flops += other.mma_flops;
        self.barriers += other.barriers;
        self.divergent_branches += other.divergent_branches;
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.requests += other.requests;
        self.requested_bytes += other.requested_bytes;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
    }
}

impl AddAssign for Wavefronts {
    fn add_assign(&mut self, other: Wavefronts) {
        self.actual += other.actual;
        self.ideal += other.ideal;
    }
}

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;
/// Banks of shared memory, of one 4-byte word each.
const BANKS: u64 = 32;

impl Traffic {
    /// Adds an instruction in which each of `addresses` starts an access of `bytes` bytes.
    pub(crate) fn add(&mut self, addresses: &[u64], bytes: u64) {
        self.requests += 1;
        self.requested_bytes += addresses.len() as u64 * bytes;
        let Some(&first) = addresses.first() else { return };
        if is_run(addresses, bytes) {
            let length = addresses.len() as u64 * bytes;
            self.sectors += (first + length - 1) / SECTOR - first / SECTOR + 1;
            self.ideal_sectors += length.div_ceil(SECTOR);
            return;
        }
        let mut sorted = [0; 32];
        let sorted = &mut sorted[..addresses.len()];
        sorted.copy_from_slice(addresses);
        sorted.sort_unstable();
        let (mut end, mut next_sector, mut distinct) = (0, 0, 0);
        for &address in sorted.iter() {
            let (first, last) = (address / SECTOR, (address + bytes - 1) / SECTOR);
            self.sectors += (last + 1).saturating_sub(first.max(next_sector));
            next_sector = next_sector.max(last + 1);
            distinct += (address + bytes).saturating_sub(address.max(end));
            end = end.max(address + bytes);
        }
        self.ideal_sectors += distinct.div_ceil(SECTOR);
    }
}

impl Wavefronts {
    /// Adds an instruction in which each of `addresses` starts an access of `bytes` bytes.
    ///
    /// A wavefront serves one word of each bank, to any number of lanes. Accesses wider than a word are served in phases of 128
    /// bytes: 16 lanes of 8 bytes, 8 lanes of 16 bytes.
    pub(crate) fn add(&mut self, addresses: &[u64], bytes: u64) {
        let words = bytes.div_ceil(4);
        let lanes = (BANKS / words).max(1) as usize;
        for phase in addresses.chunks(lanes) {
            self.ideal += 1;
            self.actual += phase_wavefronts(phase, words);
        }
    }
}

/// Whether each access starts where the one before it ends.
fn is_run(addresses: &[u64], bytes: u64) -> bool {
    addresses.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(bytes))
}

/// Whether no bank serves two of the accesses, be it the same word.
fn banks_apart(addresses: &[u64], words: u64) -> bool {
    let banks = u32::MAX >> (BANKS - words.min(BANKS));
    let mut busy = 0;
    addresses.iter().all(|address| {
        let mine = banks.rotate_left((address / 4 % BANKS) as u32);
        let free = busy & mine == 0;
        busy |= mine;
        free
    })
}

fn phase_wavefronts(addresses: &[u64], words: u64) -> u64 {
    if banks_apart(addresses, words) {
        return 1;
    }
    let mut first_word = [u64::MAX; BANKS as usize];
    let mut conflict = false;
    for &address in addresses {
        for word in address / 4..address / 4 + words {
            let slot = &mut first_word[(word % BANKS) as usize];
            conflict |= *slot != u64::MAX && *slot != word;
            *slot = word;
        }
    }
    if !conflict {
        return 1;
    }
    let mut all: Vec<u64> = addresses.iter().flat_map(|address| address / 4..address / 4 + words).collect();
    all.sort_unstable();
    all.dedup();
    let mut load = [0u64; BANKS as usize];
    for word in all {
        load[(word % BANKS) as usize] += 1;
    }
    load.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(addresses: impl Iterator<Item = u64>, bytes: u64) -> (u64, u64) {
        let mut traffic = Traffic::default();
        traffic.add(&addresses.collect::<Vec<_>>(), bytes);
        (traffic.sectors, traffic.ideal_sectors)
    }

    fn wavefronts(addresses: impl Iterator<Item = u64>, bytes: u64) -> (u64, u64) {
        let mut wavefronts = Wavefronts::default();
        wavefronts.add(&addresses.collect::<Vec<_>>(), bytes);
        (wavefronts.actual, wavefronts.ideal)
    }

    #[test]
    fn sectors_of_typical_patterns() {
        assert_eq!(traffic((0..32).map(|lane| 4096 + lane * 16), 16), (16, 16));
        assert_eq!(traffic((0..32).map(|lane| 4096 + 4 + lane * 4), 4), (5, 4));
        assert_eq!(traffic((0..32).map(|lane| 4096 + lane * 128), 4), (32, 4));
        assert_eq!(traffic((0..32).map(|_| 4096), 4), (1, 1));
        assert_eq!(traffic((0..32).rev().map(|lane| 4096 + lane * 4), 4), (4, 4));
    }

    #[test]
    fn conflicts_of_typical_patterns() {
        assert_eq!(wavefronts((0..32).map(|lane| lane * 4), 4), (1, 1));
        assert_eq!(wavefronts((0..32).map(|lane| lane * 8), 4), (2, 1));
        assert_eq!(wavefronts((0..32).map(|lane| lane * 128), 4), (32, 1));
        assert_eq!(wavefronts((0..32).map(|_| 64), 4), (1, 1));
        assert_eq!(wavefronts((0..32).map(|lane| lane * 2), 2), (1, 1));
        assert_eq!(wavefronts((0..32).map(|lane| lane * 16), 16), (4, 4));
        assert_eq!(wavefronts((0..8).map(|row| row * 64), 16), (4, 1));
        assert_eq!(wavefronts((0..32).map(|lane| lane * 8), 8), (2, 2));
    }
}
