//! Cases that several tests share.

pub mod attention;
pub mod model;
pub mod products;

use crate::check::Tokens;
use llmc_ir::testing::Random;

/// Random tokens for steps of which it is known how many new ones each sequence gets.
pub fn steps(seed: u64, vocab: usize, lengths: &[&[(u64, usize)]]) -> Vec<Tokens> {
    let mut random = Random::new(seed);
    steps_by(&mut random, vocab, lengths)
}

/// The same with numbers of a generator that has been used before.
fn steps_by(random: &mut Random, vocab: usize, lengths: &[&[(u64, usize)]]) -> Vec<Tokens> {
    let mut tokens = |count: usize| (0..count).map(|_| random.below(vocab) as i32).collect();
    lengths.iter().map(|step| step.iter().map(|&(id, count)| (id, tokens(count))).collect()).collect()
}
