//! What the templates know of a region before code is written, the same for every target.

pub mod attend;
pub mod domain;
pub mod dot;

/// The greatest number that divides both; 0 is divided by all.
pub fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
