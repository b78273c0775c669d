//! Sizes of [`WeightLayout::Compressed`](super::WeightLayout::Compressed), in bytes.

/// Upper bytes that have a code, those with a sign counted on their own.
pub const CODES: usize = 16;

/// Lower bytes of a quarter of a tile, or its upper bytes where they have no codes.
pub const HALF: usize = 128;

/// Where its codes begin, which follow its lower bytes.
pub const CODES_AT: usize = HALF;

/// A quarter of a tile: 16 rows and 8 k.
pub const QUARTER: usize = HALF + 64;

/// Quarters of 32 k.
pub const QUARTERS: usize = 4;

/// Tiles of a panel, whose quarters take turns.
pub const TILES: usize = 2;

/// 32 rows and 32 k.
pub const BLOCK: usize = QUARTERS * TILES * QUARTER;

/// What a panel of rows of `k` elements begins with: upper bytes by code, and a byte of flags per block.
pub const fn head(k: usize) -> usize {
    (CODES + k.div_ceil(32)).next_multiple_of(64)
}

/// A panel of 32 rows of `k` elements.
pub const fn panel(k: usize) -> usize {
    head(k) + k.div_ceil(32) * BLOCK
}
