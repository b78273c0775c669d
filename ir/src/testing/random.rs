//! Random numbers that depend on a seed alone (SplitMix64; Steele et al., "Fast splittable pseudorandom number
//! generators", 2014).

use crate::dtype::DType;
use crate::eval::Tensor;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// An integer in `0..end`; 0 if that is empty.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// A number in `-1.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// One of the items, of which there is at least one.
    pub fn choose<'i, T>(&mut self, items: &'i [T]) -> &'i T {
        &items[self.below(items.len())]
    }

    /// A tensor of numbers in `-1.0..=1.0` rounded to `dtype`.
    pub fn tensor(&mut self, dtype: DType, sizes: &[usize]) -> Tensor {
        let count = sizes.iter().product();
        let data = (0..count).map(|_| dtype.round(self.unit())).collect();
        Tensor::new(dtype, sizes.to_vec(), data).expect("as many numbers as elements")
    }
}
