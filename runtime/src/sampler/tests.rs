//! Properties of the sampler chain.

use super::*;
use proptest::prelude::*;

fn vocabulary() -> impl Strategy<Value = Vec<f32>> {
    // Few distinct values, so that ties are common.
    prop::collection::vec((-20i32..20).prop_map(|value| value as f32 * 0.5), 1..600)
}

fn params(temperature: f32, seed: u64) -> SamplingParams {
    SamplingParams { temperature, seed, ..SamplingParams::default() }
}

/// Ids by falling logit, lower ids first among equals: what a full sort gives.
fn sorted(logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids
}

fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l - max) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

proptest! {
    #[test]
    fn temperature_zero_is_the_first_maximum(logits in vocabulary(), seed: u64) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = logits.iter().position(|&logit| logit == max).unwrap() as u32;
        let params = SamplingParams { top_k: Some(5), top_p: Some(0.3), ..params(0.0, seed) };
        prop_assert_eq!(Sampler::new(&params).sample(&logits, &[]), first);
    }

    #[test]
    fn selection_equals_a_full_sort(logits in vocabulary(), k in 0usize..700) {
        let mut out = Vec::new();
        largest(&logits, k, &mut out);
        let ids: Vec<u32> = out.iter().map(|candidate| candidate.id).collect();
        let mut expected = sorted(&logits);
        expected.truncate(k);
        prop_assert_eq!(ids, expected);
    }

    #[test]
    fn top_k_stays_within_the_k_largest(logits in vocabulary(), k in 1u32..50, seed: u64) {
        let params = SamplingParams { top_k: Some(k), ..params(1.5, seed) };
        let mut sampler = Sampler::new(&params);
        let allowed = &sorted(&logits)[..(k as usize).min(logits.len())];
        for _ in 0..20 {
            prop_assert!(allowed.contains(&sampler.sample(&logits, &[])));
        }
    }

    #[test]
    fn top_p_stays_within_the_smallest_sufficient_set(
        logits in vocabulary(), p in 0.0f32..1.0, temperature in 0.2f32..3.0, seed: u64,
    ) {
        let params = SamplingParams { top_p: Some(p), ..params(temperature, seed) };
        let mut sampler = Sampler::new(&params);
        let probabilities = probabilities(&logits, f64::from(temperature));
        let order = sorted(&logits);
        for _ in 0..20 {
            let id = sampler.sample(&logits, &[]);
            let before: f64 = order.iter().take_while(|&&other| other != id)
                .map(|&other| probabilities[other as usize]).sum();
            prop_assert!(before < f64::from(p) + 1e-6 || order[0] == id);
        }
    }

    #[test]
    fn min_p_keeps_a_fraction_of_the_best(
        logits in vocabulary(), p in 0.01f32..1.0, temperature in 0.2f32..3.0, seed: u64,
    ) {
        let params = SamplingParams { min_p: Some(p), ..params(temperature, seed) };
        let mut sampler = Sampler::new(&params);
        let probabilities = probabilities(&logits, f64::from(temperature));
        let best = probabilities.iter().copied().fold(0.0, f64::max);
        for _ in 0..20 {
            let id = sampler.sample(&logits, &[]) as usize;
            prop_assert!(probabilities[id] >= f64::from(p) * best * (1.0 - 1e-5));
        }
    }

    #[test]
    fn equal_seeds_give_equal_tokens(logits in vocabulary(), seed: u64, p in 0.1f32..1.0) {
        let params = SamplingParams { top_p: Some(p), min_p: Some(0.01), ..params(1.0, seed) };
        let draw = || {
            let mut sampler = Sampler::new(&params);
            (0..10).map(|_| sampler.sample(&logits, &[])).collect::<Vec<_>>()
        };
        prop_assert_eq!(draw(), draw());
    }

    #[test]
    fn logprobs_are_a_distribution(logits in vocabulary()) {
        let all = logprobs(&logits, 0, logits.len());
        let mass: f64 = all.top.iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum();
        prop_assert!((mass - 1.0).abs() < 1e-4, "{mass}");
        let own = all.top.iter().find(|(id, _)| *id == 0).unwrap().1;
        prop_assert_eq!(all.logprob, own);
    }
}

#[test]
fn frequencies_follow_the_softmax() {
    let logits = [0.0, 1.0, 2.0, -1.0, f32::NEG_INFINITY, f32::NAN];
    let expected = probabilities(&logits[..4], 0.8);
    for top_k in [None, Some(4)] {
        let mut sampler = Sampler::new(&SamplingParams { top_k, ..params(0.8, 7) });
        let mut counts = [0u32; 6];
        let draws = 100_000;
        for _ in 0..draws {
            counts[sampler.sample(&logits, &[]) as usize] += 1;
        }
        for (id, expected) in expected.iter().enumerate() {
            let frequency = f64::from(counts[id]) / f64::from(draws);
            assert!((frequency - expected).abs() < 0.01, "{id}: {frequency} vs {expected}");
        }
        assert_eq!(counts[4..], [0, 0]);
    }
}

#[test]
fn the_penalty_applies_once_per_token_and_towards_less() {
    let penalised = |logits: &[f32], history: &[u32]| {
        let params = SamplingParams { repetition_penalty: Some(2.0), ..SamplingParams::default() };
        let mut sampler = Sampler::new(&params);
        // Twice, to show that nothing is left over from the first token.
        assert_eq!(sampler.sample(logits, history), sampler.sample(logits, history));
        sampler.sample(logits, history)
    };
    assert_eq!(penalised(&[1.0, 1.5], &[1]), 0);
    assert_eq!(penalised(&[0.5, 1.5], &[1, 1, 1]), 1);
    assert_eq!(penalised(&[-1.5, -1.0], &[1]), 0);
    assert_eq!(penalised(&[-2.5, -1.0], &[1, 99]), 1);
}

#[test]
fn degenerate_logits_still_give_a_token() {
    for logits in [&[][..], &[f32::NAN, f32::NAN], &[f32::NEG_INFINITY; 3]] {
        for temperature in [0.0, 1.0] {
            assert_eq!(Sampler::new(&params(temperature, 1)).sample(logits, &[]), 0);
        }
    }
    let infinite = [0.0, f32::INFINITY, 1.0];
    assert_eq!(Sampler::new(&params(1.0, 1)).sample(&infinite, &[]), 1);
}

#[test]
fn ranges_are_checked_by_name() {
    let error = |params: SamplingParams| params.validate().unwrap_err().to_string();
    assert!(error(params(-1.0, 0)).starts_with("temperature is -1"));
    assert!(error(params(f32::NAN, 0)).starts_with("temperature is NaN"));
    let default = SamplingParams::default;
    assert!(error(SamplingParams { top_p: Some(1.5), ..default() }).starts_with("top-p is 1.5"));
    assert!(error(SamplingParams { min_p: Some(-0.1), ..default() }).starts_with("min-p"));
    let zero = SamplingParams { repetition_penalty: Some(0.0), ..default() };
    assert!(error(zero).starts_with("repetition-penalty is 0"));
    assert_eq!(default().validate(), Ok(()));
}

#[test]
fn the_largest_logit_is_all_that_matters_to_some() {
    let is = |params: SamplingParams| Sampler::new(&params).is_argmax();
    let greedy = SamplingParams::default();
    assert!(is(greedy.clone()));
    assert!(is(SamplingParams { temperature: 1.0, top_k: Some(1), ..greedy.clone() }));
    assert!(is(SamplingParams { repetition_penalty: Some(1.0), top_p: Some(0.5), ..greedy.clone() }));
    assert!(!is(SamplingParams { temperature: 0.5, ..greedy.clone() }));
    assert!(!is(SamplingParams { temperature: 0.5, top_k: Some(2), ..greedy.clone() }));
    assert!(!is(SamplingParams { repetition_penalty: Some(1.1), ..greedy }));
}
