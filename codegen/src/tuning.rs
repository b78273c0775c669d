//! Sizes that kernels for CPUs are cut to. Which are best no price tells; the defaults won on several machines, and
//! `llmc compile --tune` measures others. None of them changes a bit of any result.

use crate::host::HostTarget;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// What vector instructions work on at a time, and, under names of their own, tiles of a matrix unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// How far ahead weights are prefetched, in bytes.
    pub prefetch_bytes: usize,
    /// Rows of the left operand that a panel of a weight meets while it is in cache, at most.
    pub block_rows: usize,
    /// Length of the parts of a long sum.
    pub sum_part: usize,
    /// Rows of queries that keys and values meet while they are in cache, about.
    pub query_rows: usize,
    /// Rows that are brought into tiles together, which a panel of a weight meets while it is in cache, at most.
    pub tile_block_rows: usize,
    /// Sums by tiles that are longer are cut, so that a part of the rows stays in cache while panels pass by.
    pub tile_longest_sum: usize,
    /// Length of the parts of a cut sum.
    pub tile_sum_part: usize,
    /// Columns that a part of the rows meets while it is in cache, where sums are cut.
    pub tile_cut_columns: usize,
    /// Rows of queries that keys and values meet in tiles, about.
    pub tile_query_rows: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            prefetch_bytes: 8 << 10,
            block_rows: 96,
            sum_part: 1024,
            query_rows: 24,
            tile_block_rows: 256,
            tile_longest_sum: 1536,
            tile_sum_part: 512,
            tile_cut_columns: 256,
            tile_query_rows: 64,
        }
    }
}

/// One of the sizes.
#[derive(Debug)]
pub struct Size {
    /// Its field in [`Tuning`].
    pub name: &'static str,
    /// Its value in a tuning.
    pub get: fn(&Tuning) -> usize,
    set: fn(&mut Tuning, usize),
    /// Whether only tiles have it.
    of_tiles: bool,
    /// Values beside the default that are worth a measurement.
    pub alternatives: &'static [usize],
    /// What it may be, and what it must be a multiple of.
    allowed: (RangeInclusive<usize>, usize),
}

/// All sizes.
pub const SIZES: [Size; 9] = [
    Size {
        name: "prefetch_bytes",
        get: |tuning| tuning.prefetch_bytes,
        set: |tuning, value| tuning.prefetch_bytes = value,
        of_tiles: false,
        alternatives: &[4 << 10, 16 << 10],
        allowed: (0..=1 << 20, 64),
    },
    Size {
        name: "block_rows",
        get: |tuning| tuning.block_rows,
        set: |tuning, value| tuning.block_rows = value,
        of_tiles: false,
        alternatives: &[48, 192],
        allowed: (1..=4096, 1),
    },
    Size {
        name: "sum_part",
        get: |tuning| tuning.sum_part,
        set: |tuning, value| tuning.sum_part = value,
        of_tiles: false,
        alternatives: &[512, 1536],
        allowed: (32..=1 << 20, 32),
    },
    Size {
        name: "query_rows",
        get: |tuning| tuning.query_rows,
        set: |tuning, value| tuning.query_rows = value,
        of_tiles: false,
        alternatives: &[12, 48],
        allowed: (1..=1024, 1),
    },
    Size {
        name: "tile_block_rows",
        get: |tuning| tuning.tile_block_rows,
        set: |tuning, value| tuning.tile_block_rows = value,
        of_tiles: true,
        alternatives: &[128, 512],
        allowed: (32..=1024, 32),
    },
    Size {
        name: "tile_longest_sum",
        get: |tuning| tuning.tile_longest_sum,
        set: |tuning, value| tuning.tile_longest_sum = value,
        of_tiles: true,
        alternatives: &[1024, 3072],
        allowed: (32..=1 << 20, 32),
    },
    Size {
        name: "tile_sum_part",
        get: |tuning| tuning.tile_sum_part,
        set: |tuning, value| tuning.tile_sum_part = value,
        of_tiles: true,
        alternatives: &[256, 1024],
        allowed: (32..=1 << 20, 32),
    },
    Size {
        name: "tile_cut_columns",
        get: |tuning| tuning.tile_cut_columns,
        set: |tuning, value| tuning.tile_cut_columns = value,
        of_tiles: true,
        alternatives: &[128, 512],
        allowed: (32..=4096, 32),
    },
    Size {
        name: "tile_query_rows",
        get: |tuning| tuning.tile_query_rows,
        set: |tuning, value| tuning.tile_query_rows = value,
        of_tiles: true,
        alternatives: &[32, 128],
        allowed: (1..=1024, 1),
    },
];

impl Tuning {
    /// The defaults with another value of one size each: those that are worth a measurement for a target.
    pub fn candidates(target: &HostTarget) -> Vec<Tuning> {
        let sizes = SIZES.iter().filter(|size| target.has_tiles() || !size.of_tiles);
        sizes.flat_map(|size| size.alternatives.iter().map(|&value| Tuning::default().with(size, value))).collect()
    }

    /// The same with another value of one size.
    pub fn with(mut self, size: &Size, value: usize) -> Tuning {
        (size.set)(&mut self, value);
        self
    }

    /// Whether code can be made with these sizes.
    ///
    /// # Errors
    /// A size that it cannot be made with, and what that may be.
    pub fn check(&self) -> Result<(), String> {
        for Size { name, get, allowed: (range, unit), .. } in SIZES {
            let value = get(self);
            if !range.contains(&value) || !value.is_multiple_of(unit) {
                let (least, most) = range.into_inner();
                return Err(format!("{name} is {value}, but must be a multiple of {unit} in {least}..={most}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_allowed() {
        assert_eq!(Tuning::default().check(), Ok(()));
        for size in &SIZES {
            for &value in size.alternatives {
                let tuning = Tuning::default().with(size, value);
                assert_ne!(tuning, Tuning::default());
                assert_eq!(tuning.check(), Ok(()));
            }
        }
        let [vectors, tiles] = ["x86-64-v4", "sapphirerapids"].map(|name| HostTarget::named(name).unwrap());
        let all: usize = SIZES.iter().map(|size| size.alternatives.len()).sum();
        assert_eq!(Tuning::candidates(&tiles).len(), all);
        let for_vectors = Tuning::candidates(&vectors);
        assert!(!for_vectors.is_empty() && for_vectors.iter().all(|tuning| tuning.tile_block_rows == 256));
        assert!(for_vectors.len() < all);
        assert_eq!(Tuning::candidates(&tiles.with_vectors_alone()), for_vectors);
        assert!(Tuning { sum_part: 100, ..Tuning::default() }.check().unwrap_err().contains("sum_part is 100"));
        assert!(Tuning { query_rows: 0, ..Tuning::default() }.check().unwrap_err().contains("1..=1024"));
    }
}
