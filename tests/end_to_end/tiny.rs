//! Every architecture gives the reference's logits and tokens, in both element types.

use super::support::binaries::{id_list, ids, json, llmrt};
use super::support::golden::{Prompt, assert_continues, floats, of_tiny};
use super::support::logits::{executor, logits, relative_error, widen};
use super::support::models::{TINY, artifact, tiny};
use llmrt::sampler::argmax;

/// How far float32 logits may be from the reference's.
const LOGITS: f64 = 1e-4;
/// Where the reference is ahead by less than this, float32 may choose another token.
const F32_MARGIN: f64 = 1e-3;
/// The same for bf16.
const BF16_MARGIN: f64 = 0.25;
/// More tokens than any step of the prefill program takes: the whole prompt at once.
const WHOLE: usize = 512;

#[test]
fn f32_logits_are_the_reference_s_however_the_prompt_is_cut() {
    for name in TINY {
        let mut executor = executor(&artifact(&tiny(name), &["--dtype", "f32"]), 2);
        for prompt in of_tiny(name) {
            let expected = floats(&prompt.json["logits"]);
            for steps in [&[WHOLE][..], &[1], &[7], &[prompt.ids.len() - 1, 1], &[1, WHOLE], &[32], &[33, 1, 31]] {
                let rows = logits(&mut executor, &prompt.ids, steps);
                let error = relative_error(rows.last().unwrap(), &expected);
                assert!(error <= LOGITS, "{name}, {} tokens, steps {steps:?}: {error:.2e}", prompt.ids.len());
            }
        }
    }
}

/// Every golden token is looked at, also behind one that may legitimately differ: the golden text is fed.
fn assert_likeliest(name: &str, dtype: &str, margin: f64) {
    let mut executor = executor(&artifact(&tiny(name), &["--dtype", dtype]), 2);
    for prompt in of_tiny(name) {
        let Prompt { ids, greedy, margins, .. } = &prompt;
        let fed = [&ids[..], &greedy[..greedy.len() - 1]].concat();
        for steps in [&[WHOLE][..], &[1], &[ids.len(), 1]] {
            let rows = logits(&mut executor, &fed, steps);
            for (at, (row, &golden)) in rows[ids.len() - 1..].iter().zip(greedy).enumerate() {
                let found = argmax(row);
                let what = format!("{name} as {dtype}, {} tokens, steps {steps:?}, token {at}", ids.len());
                assert!(found == golden || margins[at] <= margin, "{what}: {found}, not {golden}: {}", margins[at]);
            }
        }
    }
}

#[test]
fn f32_finds_the_likeliest_tokens() {
    TINY.iter().for_each(|name| assert_likeliest(name, "f32", F32_MARGIN));
}

#[test]
fn bf16_finds_the_likeliest_tokens() {
    TINY.iter().for_each(|name| assert_likeliest(name, "bf16", BF16_MARGIN));
}

#[test]
fn the_binary_generates_the_golden_tokens() {
    for name in TINY {
        for (dtype, margin) in [("f32", F32_MARGIN), ("bf16", BF16_MARGIN)] {
            let artifact = artifact(&tiny(name), &["--dtype", dtype]);
            for prompt in of_tiny(name) {
                let count = prompt.greedy.len().to_string();
                let mut command = llmrt();
                command.arg("run").arg(&artifact).args(["--prompt-ids", &id_list(&prompt.ids), "--ignore-eos"]);
                let run = json(command.args(["-n", &count]));
                let what = format!("{name} as {dtype}, {} tokens", prompt.ids.len());
                assert_eq!(ids(&run["prompt_ids"]), prompt.ids, "{what}");
                assert_eq!(run["finish_reason"], "length", "{what}");
                assert_continues(&what, &ids(&run["ids"]), &prompt, margin);
            }
        }
    }
}

/// Prefill and decode, and prompts cut anywhere, agree as closely as each agrees with the reference.
#[test]
fn every_position_agrees_however_the_prompt_is_cut() {
    for name in TINY {
        let mut executor = executor(&artifact(&tiny(name), &["--dtype", "f32"]), 2);
        let prompt = of_tiny(name).pop().unwrap();
        let whole = logits(&mut executor, &prompt.ids, &[WHOLE]);
        for steps in [&[1][..], &[31, 2], &[64]] {
            let rows = logits(&mut executor, &prompt.ids, steps);
            for (position, (row, whole)) in rows.iter().zip(&whole).enumerate() {
                let error = relative_error(row, &widen(whole));
                assert!(error <= LOGITS, "{name}, steps {steps:?}, position {position}: {error:.2e}");
            }
        }
    }
}
