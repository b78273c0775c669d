//! How the next token is chosen from logits: an ordered chain, reproducible for a seed.
//!
//! The order is that of Hugging Face transformers' `generate`: repetition penalty, temperature,
//! top-k, top-p, min-p, then one draw. Temperature 0 is greedy: the largest penalised logit, the
//! lowest id among equals, and no other member of the chain can change that.

mod found;
mod logprobs;
mod select;

pub use found::{Finds, Found, PART, TOTAL_ERROR, words};
pub use logprobs::{TokenLogprobs, logprobs};

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use select::{Candidate, largest};

/// The first guess of how many candidates reach top-p; it grows eightfold while they do not.
const FIRST_NUCLEUS: usize = 256;

/// What a request asks of the sampler. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the k largest (the lower id among equals). `None` and 0 keep all.
    pub top_k: Option<u32>,
    /// Keep the fewest largest whose probabilities sum to at least this, in `0..=1`.
    pub top_p: Option<f32>,
    /// Keep those with at least this fraction of the largest probability, in `0..=1`.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of every token that has occurred in the
    /// prompt or the reply (Keskar et al., 2019); 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// Determines all draws.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams { temperature: 0.0, top_k: None, top_p: None, min_p: None, repetition_penalty: None, seed: 0 }
    }
}

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, but must be {expected}")]
pub struct SamplingError {
    name: &'static str,
    value: f32,
    expected: &'static str,
}

impl SamplingParams {
    /// Checks every range.
    ///
    /// # Errors
    /// The first parameter that is out of range or not a number.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |holds: bool, name, value, expected| {
            if holds { Ok(()) } else { Err(SamplingError { name, value, expected }) }
        };
        let fraction = 0.0..=1.0;
        let temperature = self.temperature;
        let holds = temperature.is_finite() && temperature >= 0.0;
        check(holds, "temperature", temperature, "a finite number of at least 0 (0 is greedy)")?;
        for (name, value) in [("top-p", self.top_p), ("min-p", self.min_p)] {
            let value = value.unwrap_or(0.0);
            check(fraction.contains(&value), name, value, "between 0 and 1")?;
        }
        let penalty = self.repetition_penalty.unwrap_or(1.0);
        let holds = penalty.is_finite() && penalty > 0.0;
        check(holds, "repetition-penalty", penalty, "a finite number above 0 (1 is none)")
    }
}

/// The chain for one sequence. Working memory is kept, so that a token costs no allocation.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    random: Pcg64Mcg,
    penalised: Vec<f32>,
    seen: Vec<bool>,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
}

impl Sampler {
    /// A sampler at the start of its random sequence. Random numbers are PCG-MCG-128 XSL-RR 64
    /// (O'Neill, 2014), seeded by `params.seed`.
    pub fn new(params: &SamplingParams) -> Self {
        Sampler {
            params: params.clone(),
            random: Pcg64Mcg::seed_from_u64(params.seed),
            penalised: Vec::new(),
            seen: Vec::new(),
            candidates: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Whether [`Sampler::sample`] always chooses what [`argmax`] finds, whatever came before.
    pub fn is_argmax(&self) -> bool {
        let SamplingParams { temperature, top_k, repetition_penalty, .. } = &self.params;
        let penalised = repetition_penalty.is_some_and(|penalty| penalty != 1.0);
        !penalised && (*temperature == 0.0 || *top_k == Some(1))
    }

    /// One of the candidates, by their weights.
    fn draw_candidate(&mut self, chain: Chain) -> u32 {
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|candidate| chain.weight(candidate.logit)));
        self.candidates[draw(&self.weights, &mut self.random)].id
    }

    fn chain(&self, max: f32) -> Chain {
        let temperature = f64::from(self.params.temperature);
        // min-p compares probabilities with the largest one, which is this in logits.
        let floor = match self.params.min_p {
            Some(min_p) => (f64::from(min_p).ln() * temperature) as f32,
            None => f32::NEG_INFINITY,
        };
        Chain { max, scale: 1.0 / temperature, floor }
    }

    /// Chooses the next token: an index into `logits[vocab]`. `history` is the prompt and what has
    /// been generated since; ids outside the vocabulary in it are ignored. NaN is never chosen.
    /// Empty logits give 0.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        match self.params.repetition_penalty {
            Some(penalty) if penalty != 1.0 => {
                let mut penalised = std::mem::take(&mut self.penalised);
                penalised.clear();
                penalised.extend_from_slice(logits);
                self.penalise(&mut penalised, history, penalty);
                let id = self.choose(&penalised);
                self.penalised = penalised;
                id
            }
            _ => self.choose(logits),
        }
    }

    fn penalise(&mut self, logits: &mut [f32], history: &[u32], penalty: f32) {
        self.seen.resize(logits.len(), false);
        for &id in history {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            if !std::mem::replace(&mut self.seen[id as usize], true) {
                *logit = penalise(*logit, penalty);
            }
        }
        for &id in history {
            if let Some(seen) = self.seen.get_mut(id as usize) {
                *seen = false;
            }
        }
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        let best = argmax(logits);
        let max = logits.get(best as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let top_k = self.params.top_k.filter(|&k| k > 0).map_or(logits.len(), |k| k as usize);
        if self.params.temperature == 0.0 || top_k == 1 || !max.is_finite() {
            return best;
        }
        let chain = self.chain(max);
        let top_p = self.params.top_p.filter(|&p| p < 1.0);
        if top_p.is_none() && top_k >= logits.len() {
            return self.draw_from_all(logits, |logit| if chain.keeps(logit) { chain.weight(logit) } else { 0.0 });
        }
        match top_p {
            None => largest(logits, top_k, &mut self.candidates),
            Some(top_p) => self.nucleus(logits, top_k, f64::from(top_p), |logit| chain.weight(logit)),
        }
        self.candidates.retain(|candidate| chain.keeps(candidate.logit));
        self.draw_candidate(chain)
    }

    fn draw_from_all(&mut self, logits: &[f32], weight: impl Fn(f32) -> f64) -> u32 {
        self.weights.clear();
        // A NaN fails every comparison and so weighs nothing.
        self.weights.extend(logits.iter().map(|&logit| weight(logit).max(0.0)));
        draw(&self.weights, &mut self.random) as u32
    }

    /// Leaves in `candidates` the shortest run of the `top_k` largest that holds `top_p` of their
    /// probability.
    fn nucleus(&mut self, logits: &[f32], top_k: usize, top_p: f64, weight: impl Fn(f32) -> f64) {
        let top_k = top_k.min(logits.len());
        let mut width = FIRST_NUCLEUS.min(top_k);
        let mut total = None;
        if top_k == logits.len() {
            total = Some(logits.iter().map(|&logit| weight(logit).max(0.0)).sum::<f64>());
        } else {
            width = top_k;
        }
        loop {
            largest(logits, width, &mut self.candidates);
            let total = total.unwrap_or_else(|| self.candidates.iter().map(|candidate| weight(candidate.logit)).sum());
            let mut mass = 0.0;
            for (index, candidate) in self.candidates.iter().enumerate() {
                mass += weight(candidate.logit);
                if mass >= top_p * total {
                    self.candidates.truncate(index + 1);
                    return;
                }
            }
            if width == top_k {
                return;
            }
            width = (width * 8).min(top_k);
        }
    }
}

/// What temperature and min-p make of logits, given the largest.
#[derive(Clone, Copy)]
struct Chain {
    max: f32,
    scale: f64,
    floor: f32,
}

impl Chain {
    /// A token's probability relative to the largest one. Single precision suffices for it and takes a third of the time.
    fn weight(self, logit: f32) -> f64 {
        f64::from(((f64::from(logit - self.max) * self.scale) as f32).exp())
    }

    /// Whether min-p keeps it.
    fn keeps(self, logit: f32) -> bool {
        logit - self.max >= self.floor
    }
}

/// What the logit of a token becomes that has occurred.
fn penalise(logit: f32, penalty: f32) -> f32 {
    if logit < 0.0 { logit * penalty } else { logit / penalty }
}

/// The index of the largest value, the first among equals; NaN is passed over.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    let mut max = f32::NEG_INFINITY;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > max {
            (best, max) = (index, logit);
        }
    }
    best as u32
}

/// An index with probability proportional to its weight. The weights are not all zero.
fn draw(weights: &[f64], random: &mut Pcg64Mcg) -> usize {
    let total: f64 = weights.iter().sum();
    // 53 random bits: a uniform number in [0, 1).
    let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut rest = uniform * total;
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            if rest < weight {
                return index;
            }
            rest -= weight;
            last = index;
        }
    }
    // Rounding can leave a rest beyond the end.
    last
}

#[cfg(test)]
mod tests;
