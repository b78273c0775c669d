//! The engine end to end: many requests on native code, each as if it were alone.

mod support;

use llmrt::engine::{
    Engine, EngineError, EngineOptions, Event, FinishReason, PrefixReuse, Request, SequenceId, StopPolicy,
};
use llmrt::sampler::SamplingParams;
use std::collections::BTreeMap;
use support::*;

fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt,
        max_tokens,
        sampling: SamplingParams::default(),
        stop_ids: Vec::new(),
        ignore_stop: StopPolicy::HonourStop,
        logprobs: 0,
    }
}

fn engine(threads: usize) -> Engine {
    Engine::new(executor(threads), EngineOptions::default())
}

type Outcome = (Vec<u32>, Option<FinishReason>);

fn collect(events: Vec<Event>, outcomes: &mut BTreeMap<SequenceId, Outcome>) {
    for event in events {
        match event {
            Event::Token { sequence, id, .. } => {
                let outcome = outcomes.entry(sequence).or_default();
                assert_eq!(outcome.1, None, "a token after the end");
                outcome.0.push(id);
            }
            Event::Finished { sequence, reason } => {
                let previous = outcomes.entry(sequence).or_default().1.replace(reason);
                assert_eq!(previous, None, "a sequence finished twice");
            }
        }
    }
}

fn run(engine: &mut Engine) -> BTreeMap<SequenceId, Outcome> {
    let mut outcomes = BTreeMap::new();
    while !engine.is_idle() {
        collect(engine.step().unwrap(), &mut outcomes);
    }
    assert_eq!(engine.step().unwrap(), []);
    outcomes
}

#[test]
fn requests_in_a_batch_are_answered_as_if_alone() {
    for threads in [1, 2, 9] {
        let mut engine = engine(threads);
        let mut expected = BTreeMap::new();
        for (seed, length) in [1, 2, 31, 32, 33, 64, 100, 40, 80, 200].into_iter().enumerate() {
            let prompt = prompt(length, seed as u32);
            let count = 5 + 7 * seed % 40;
            let id = engine.submit(request(prompt.clone(), count)).unwrap();
            expected.insert(id, (continuation(&prompt, count), Some(FinishReason::Length)));
        }
        assert_eq!(run(&mut engine), expected);
    }
}

#[test]
fn a_full_pool_delays_but_changes_nothing() {
    // Room for one sequence of full context; four of half of it want to run.
    let mut engine = Engine::new(executor_with_blocks(2, BLOCKS), EngineOptions::default());
    let mut expected = BTreeMap::new();
    for seed in 0..4 {
        let prompt = prompt(50, seed);
        let id = engine.submit(request(prompt.clone(), 80)).unwrap();
        expected.insert(id, (continuation(&prompt, 80), Some(FinishReason::Length)));
    }
    assert_eq!(run(&mut engine), expected);
    assert!(engine.stats().preemptions > 0);
}

#[test]
fn stop_tokens_and_the_context_end_a_sequence() {
    let mut engine = engine(1);
    let prompt = prompt(20, 3);
    let all = continuation(&prompt, 30);
    let stop = all[9];
    let until = all.iter().position(|&id| id == stop).unwrap() + 1;
    let honour = Request { stop_ids: vec![stop], ..request(prompt.clone(), 30) };
    let ignore = Request { ignore_stop: StopPolicy::IgnoreStop, ..honour.clone() };
    let honour = engine.submit(honour).unwrap();
    let ignore = engine.submit(ignore).unwrap();
    let context = engine.submit(request(prompt.clone(), usize::MAX)).unwrap();
    let full = engine.submit(request(support::prompt(CONTEXT, 8), 3)).unwrap();
    let outcomes = run(&mut engine);
    assert_eq!(outcomes[&honour], (all[..until].to_vec(), Some(FinishReason::Stop)));
    assert_eq!(outcomes[&ignore], (all, Some(FinishReason::Length)));
    assert_eq!(outcomes[&context], (continuation(&prompt, CONTEXT + 1 - 20), Some(FinishReason::Context)));
    assert_eq!((outcomes[&full].0.len(), outcomes[&full].1), (1, Some(FinishReason::Context)));
}

#[test]
fn a_conversation_reuses_what_it_has_computed() {
    let mut engine = engine(2);
    let mut conversation = prompt(50, 1);
    engine.submit(request(conversation.clone(), 50)).unwrap();
    let (reply, _) = run(&mut engine).into_values().next().unwrap();
    conversation.extend(reply);
    conversation.extend(prompt(10, 2));
    engine.submit(request(conversation.clone(), 5)).unwrap();
    let (reply, _) = run(&mut engine).into_values().next().unwrap();
    assert_eq!(reply, continuation(&conversation, 5));
    let stats = engine.stats();
    assert_eq!((stats.cached_prompt_tokens, stats.prefill_tokens), (96, 50 + 110 - 96));
    assert_eq!(stats.decode_tokens, 49 + 4);
    assert!(stats.prefill_seconds > 0.0 && stats.decode_seconds > 0.0);

    let options = EngineOptions { prefix_reuse: PrefixReuse::Disabled };
    let mut engine = Engine::new(executor(1), options);
    for _ in 0..2 {
        engine.submit(request(conversation.clone(), 1)).unwrap();
        run(&mut engine);
    }
    assert_eq!(engine.stats().cached_prompt_tokens, 0);
}

#[test]
fn a_sequence_that_goes_wrong_takes_no_other_along() {
    let mut engine = engine(2);
    let (a, b) = (prompt(100, 1), prompt(60, 2));
    // Begins like `a`, so that it shares blocks.
    let bad: Vec<u32> = a[..70].iter().copied().chain([POISON, 1]).collect();
    let first = engine.submit(request(a.clone(), 1)).unwrap();
    assert_eq!(run(&mut engine)[&first].0, continuation(&a, 1));
    let bad = engine.submit(request(bad, 10)).unwrap();
    let good = engine.submit(request(b.clone(), 10)).unwrap();
    let mut outcomes = BTreeMap::new();
    let mut failed = Vec::new();
    while !engine.is_idle() {
        match engine.step() {
            Ok(events) => collect(events, &mut outcomes),
            Err(EngineError::Sequence { sequence, .. }) => failed.push(sequence),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(failed, [bad]);
    assert_eq!(outcomes, BTreeMap::from([(good, (continuation(&b, 10), Some(FinishReason::Length)))]));
    let again = engine.submit(request(a.clone(), 3)).unwrap();
    assert_eq!(run(&mut engine)[&again].0, continuation(&a, 3));
}

#[test]
fn cancelled_sequences_say_no_more() {
    let mut engine = engine(1);
    let cancelled = engine.submit(request(prompt(60, 1), 50)).unwrap();
    let waiting = engine.submit(request(prompt(60, 3), 50)).unwrap();
    let kept = engine.submit(request(prompt(30, 2), 5)).unwrap();
    engine.step().unwrap();
    for id in [cancelled, waiting] {
        let event = Event::Finished { sequence: id, reason: FinishReason::Cancelled };
        assert_eq!(engine.cancel(id), Some(event));
        assert_eq!(engine.cancel(id), None);
    }
    let outcomes = run(&mut engine);
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), [&kept]);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let mut engine = engine(1);
    let prompt = prompt(12, 1);
    engine.submit(Request { logprobs: 3, ..request(prompt.clone(), 2) }).unwrap();
    let mut reported = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { id, logprob, .. } = event {
                reported.push((id, logprob.unwrap()));
            }
        }
    }
    assert_eq!(reported.len(), 2);
    for (id, logprob) in reported {
        assert_eq!(logprob.top.len(), 3);
        assert_eq!(logprob.top[0], (id, logprob.logprob));
        assert!(logprob.logprob < 0.0 && logprob.logprob > -0.1);
    }
}

#[test]
fn impossible_requests_are_refused() {
    let mut engine = engine(1);
    let mut refused = |request: Request| engine.submit(request).unwrap_err().to_string();
    assert!(refused(request(vec![], 1)).contains("prompt is empty"));
    assert!(refused(request(prompt(CONTEXT + 1, 0), 1)).contains("has 257 tokens, the model's context is 256"));
    assert!(refused(request(vec![1, VOCAB as u32], 1)).contains("token id 101"));
    assert!(refused(request(vec![1], 0)).contains("0 tokens"));
    let sampling = SamplingParams { temperature: -1.0, ..SamplingParams::default() };
    assert!(refused(Request { sampling, ..request(vec![1], 1) }).contains("temperature"));
    assert!(engine.is_idle());
}
