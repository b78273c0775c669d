//! Log-probabilities of tokens as the model gave them, before any sampling parameter.

use super::select::largest;

/// Log-probabilities at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of the chosen token's probability.
    pub logprob: f32,
    /// The most probable tokens and their log-probabilities, the most probable first.
    pub top: Vec<(u32, f32)>,
}

/// The log-softmax of raw `logits[vocab]` at `id` and at the `top` largest. An id outside the
/// vocabulary has probability 0.
pub fn logprobs(logits: &[f32], id: u32, top: usize) -> TokenLogprobs {
    let normaliser = log_sum_exp(logits);
    let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
    let mut candidates = Vec::new();
    largest(logits, top, &mut candidates);
    TokenLogprobs {
        logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit)),
        top: candidates.iter().map(|candidate| (candidate.id, logprob(candidate.logit))).collect(),
    }
}

/// `ln(sum(exp(logits)))`, accumulated in f64.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
    f64::from(max) + sum.ln()
}
