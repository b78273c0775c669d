//! What a device finds of a row of logits: the largest, and on a GPU how much all of them weigh. Mostly that is all a sampler
//! looks at, and then the row itself need not be copied from a GPU, or written by a CPU.

use super::select::{Candidate, order};
use super::{Chain, Sampler, SamplingParams, penalise};
use llmc_ir::abi::Listed;

/// Logits that one block of threads looks at.
pub const PART: usize = 4096;
/// How many of them it finds.
pub const PER_PART: usize = 64;
/// 32-bit words of what it says: a head of four, the logits, their ids.
pub const PART_WORDS: usize = 4 + 2 * PER_PART;

/// How far [`Found::total`] may be off, relatively, in either direction: terms of an f32 sum whose exponents were rounded
/// three times, with those so small left out that their exponents' rounding would matter.
pub const TOTAL_ERROR: f64 = 1e-5;

/// What a device can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finds {
    /// Hundreds of the largest, and what all weigh. Any row can be had as well.
    Most,
    /// The largest, nearly always at least `most` of them. Rows take another step.
    Some {
        /// How many.
        most: usize,
    },
}

/// What is known of a row of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Tokens of which each has a larger logit than any that is not among them, the largest first and of equal ones the
    /// lowest id.
    largest: Vec<Candidate>,
    /// No other token has a larger logit; `None`: there is no other.
    rest: Option<f32>,
    /// The sum of `exp((logit - largest) * scale)` over the whole row, within [`TOTAL_ERROR`], if it is known.
    total: Option<f64>,
    /// Tokens there are.
    vocab: usize,
}

/// Words of a row of so many logits.
pub fn words(vocab: usize) -> usize {
    vocab.div_ceil(PART) * PART_WORDS
}

impl Found {
    /// The sum of `exp((logit - largest) * scale)` over the whole row, within [`TOTAL_ERROR`], if it is known.
    pub fn total(&self) -> Option<f64> {
        self.total
    }

    /// Puts together what was found of the parts of a row, as the kernel `candidates` writes it: per part whether a logit
    /// is not finite, the largest as bits, the sum of `2^((logit - largest) * scale * log2(e))` as bits, nothing; then the
    /// logits in order, then their ids. `None` where a logit is not finite.
    pub fn of_parts(words: &[u32], vocab: usize, scale: f32) -> Option<Found> {
        let parts = words.chunks_exact(PART_WORDS);
        if parts.clone().any(|part| part[0] != 0) {
            return None;
        }
        let most = parts.clone().map(|part| f32::from_bits(part[1])).fold(f32::NEG_INFINITY, f32::max);
        let (mut largest, mut rest, mut total) = (Vec::new(), None, 0.0);
        for (index, part) in parts.enumerate() {
            let listed = PER_PART.min(vocab - index * PART);
            let (logits, ids) = part[4..].split_at(PER_PART);
            largest.extend(
                logits[..listed].iter().zip(ids).map(|(&bits, &id)| Candidate { logit: f32::from_bits(bits), id }),
            );
            if listed == PER_PART && vocab - index * PART > PER_PART {
                let last = f32::from_bits(logits[PER_PART - 1]);
                rest = Some(rest.map_or(last, |rest: f32| rest.max(last)));
            }
            let below = f64::from(f32::from_bits(part[1])) - f64::from(most);
            total += f64::from(f32::from_bits(part[2])) * (below * f64::from(scale)).exp();
        }
        Some(Found::of(largest, rest, Some(total), vocab))
    }

    /// Puts together what the threads of a CPU listed of a row. `None` where a logit is not finite.
    pub fn of_lists<'l>(lists: impl Iterator<Item = &'l Listed> + Clone, vocab: usize) -> Option<Found> {
        if lists.clone().flat_map(|list| list.tokens[0]).any(|token| token < 0) {
            return None;
        }
        let is_listed = |logit: &f32| *logit > f32::NEG_INFINITY;
        let rest = lists.clone().flat_map(|list| list.logits[Listed::DEPTH - 1]).filter(is_listed).reduce(f32::max);
        let mut largest = Vec::with_capacity(lists.clone().count() * Listed::LANES * Listed::DEPTH);
        let listed = lists.flat_map(|list| list.logits.as_flattened().iter().zip(list.tokens.as_flattened()));
        let listed = listed.filter(|(logit, _)| is_listed(logit));
        // Both zeros compare equal, but not in total order.
        largest.extend(listed.map(|(&logit, &token)| Candidate { logit: logit + 0.0, id: token as u32 }));
        Some(Found::of(largest, rest, None, vocab))
    }

    fn of(mut largest: Vec<Candidate>, rest: Option<f32>, total: Option<f64>, vocab: usize) -> Found {
        // Of those as large as the largest that is not listed, one that is not listed may come first.
        largest.retain(|candidate| rest.is_none_or(|rest| candidate.logit > rest));
        largest.sort_unstable_by(order);
        Found { largest, rest, total, vocab }
    }
}

impl Sampler {
    /// Whether [`Sampler::sample_found`] is worth trying.
    pub fn may_do_with(&self, finds: Finds) -> bool {
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = &self.params;
        let penalty = self.penalty();
        let top_k = match temperature {
            0.0 => Some(1),
            _ => top_k.filter(|&k| k > 0),
        };
        match finds {
            Finds::Most if top_k.is_some() || min_p.is_some_and(|p| p > 0.0) => penalty >= 1.0,
            Finds::Most => penalty == 1.0 && top_p.is_some_and(|p| p < 1.0),
            // Tokens that have come before may not be among the largest any more.
            Finds::Some { most } => {
                let most = if penalty > 1.0 { most / 2 } else { most };
                penalty >= 1.0 && top_k.is_some_and(|k| k as usize <= most)
            }
        }
    }

    /// What logits are multiplied by before they are exponents; what [`Found`] is to be found with.
    pub fn scale(&self) -> f32 {
        if self.params.temperature == 0.0 { 0.0 } else { (1.0 / self.params.temperature).min(f32::MAX) }
    }

    fn penalty(&self) -> f32 {
        self.params.repetition_penalty.unwrap_or(1.0)
    }

    /// Chooses the token that [`Sampler::sample`] would, from what is known of its logits; `None`, and nothing has
    /// changed, if it takes more than that.
    pub fn sample_found(&mut self, found: &Found, history: &[u32]) -> Option<u32> {
        let penalty = self.penalty();
        if penalty < 1.0 {
            // Tokens that are not known may become the largest.
            return None;
        }
        self.candidates.clear();
        self.candidates.extend_from_slice(&found.largest);
        if penalty > 1.0 {
            self.seen.resize(found.vocab, false);
            self.mark(history, true);
            for candidate in self.candidates.iter_mut().filter(|candidate| self.seen[candidate.id as usize]) {
                candidate.logit = penalise(candidate.logit, penalty) + 0.0;
            }
            self.mark(history, false);
            // No other logit grows, but some of these may no longer be larger than all others.
            self.candidates.retain(|candidate| found.rest.is_none_or(|rest| candidate.logit > rest));
            self.candidates.sort_unstable_by(order);
        }
        let Candidate { logit: max, id: best } = *self.candidates.first()?;
        let chain = self.chain(max);
        if self.params.temperature == 0.0 || self.params.top_k == Some(1) {
            return Some(best);
        }
        let top_k = self.params.top_k.filter(|&k| k > 0).map_or(found.vocab, |k| (k as usize).min(found.vocab));
        let top_p = self.params.top_p.filter(|&p| p < 1.0).map(f64::from);
        let all = found.rest.is_none();
        match (top_k < found.vocab, top_p) {
            (false, None) => {
                if !(all || found.rest.is_some_and(|rest| !chain.keeps(rest))) {
                    return None;
                }
                // Drawn as from the whole row, in which the others weigh nothing.
                self.candidates.retain(|candidate| chain.keeps(candidate.logit));
                self.candidates.sort_unstable_by_key(|candidate| candidate.id);
                return Some(self.draw_candidate(chain));
            }
            (false, Some(top_p)) => {
                if penalty != 1.0 {
                    return None;
                }
                let mass = top_p * found.total?;
                let end = self.reaches(chain, mass * (1.0 - TOTAL_ERROR))?;
                if end != self.reaches(chain, mass * (1.0 + TOTAL_ERROR))? {
                    return None;
                }
                self.candidates.truncate(end + 1);
            }
            (true, top_p) => {
                if self.candidates.len() < top_k && !all {
                    return None;
                }
                self.candidates.truncate(top_k);
                if let Some(top_p) = top_p {
                    let total: f64 = self.candidates.iter().map(|candidate| chain.weight(candidate.logit)).sum();
                    if let Some(end) = self.reaches(chain, top_p * total) {
                        self.candidates.truncate(end + 1);
                    }
                }
            }
        }
        self.candidates.retain(|candidate| chain.keeps(candidate.logit));
        Some(self.draw_candidate(chain))
    }

    fn mark(&mut self, history: &[u32], seen: bool) {
        for &id in history {
            if let Some(mark) = self.seen.get_mut(id as usize) {
                *mark = seen;
            }
        }
    }

    /// Index of the candidate with which the first ones weigh at least so much.
    fn reaches(&self, chain: Chain, mass: f64) -> Option<usize> {
        let mut sum = 0.0;
        self.candidates.iter().position(|candidate| {
            sum += chain.weight(candidate.logit);
            sum >= mass
        })
    }
}
