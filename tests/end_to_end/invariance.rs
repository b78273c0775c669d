//! `--batch-invariant`: a sequence's logits have the same bits however its tokens come, and whatever else is in the step.

use super::support::binaries::{compile, fails_saying, llmc, succeeds};
use super::support::golden::of_tiny;
use super::support::logits::{executor, logits, part};
use super::support::models::{TINY, artifact, tiny};
use llmc_artifact::Artifact;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use llmrt::executor::{SampleRows, Step};
use serde_json::Value;
use std::path::Path;

/// Tokens of the sequence that is looked at.
const LENGTH: usize = 150;

fn tokens(name: &str) -> Vec<u32> {
    of_tiny(name).iter().flat_map(|prompt| prompt.ids.clone()).cycle().take(LENGTH).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|logit| logit.to_bits()).collect()
}

/// The bits of the logits after every token, fed in steps of those sizes.
fn alone(artifact: &Path, tokens: &[u32], steps: &[usize]) -> Vec<Vec<u32>> {
    logits(&mut executor(artifact, 2), tokens, steps).iter().map(|row| bits(row)).collect()
}

/// The same token by token, in the middle of so many other sequences of different lengths.
fn in_company(artifact: &Path, tokens: &[u32], batch: usize) -> Vec<Vec<u32>> {
    let mut executor = executor(artifact, 2);
    let blocks = LENGTH.div_ceil(KV_BLOCK_POSITIONS);
    assert!(batch * blocks <= executor.kv_blocks());
    let mut rows = Vec::new();
    for position in 0..tokens.len() {
        let sequences = (0..batch).map(|index| {
            // Others lag behind, until they start, by going over their first token.
            let at = if index == batch / 2 { position } else { position.saturating_sub(7 * index) };
            part(&tokens[at..at + 1], at, index * blocks, SampleRows::Last)
        });
        let step = Step { sequences: sequences.collect() };
        rows.push(bits(executor.run(&step).unwrap().row(batch / 2)));
    }
    rows
}

#[test]
fn logits_do_not_depend_on_how_tokens_come() {
    for dtype in ["f32", "bf16"] {
        for name in TINY {
            let artifact = artifact(&tiny(name), &["--dtype", dtype, "--batch-invariant"]);
            let tokens = tokens(name);
            let expected = alone(&artifact, &tokens, &[LENGTH]);
            for steps in [&[1][..], &[7], &[33, 1, 1, 63], &[3, 100], &[129]] {
                assert!(alone(&artifact, &tokens, steps) == expected, "{name}, {dtype}, steps of {steps:?}");
            }
            for batch in [1, 3, 17] {
                assert!(in_company(&artifact, &tokens, batch) == expected, "{name}, {dtype}, {batch} sequences");
            }
        }
    }
}

#[test]
fn the_default_promises_less() {
    // What would differ is chosen by price, so it need not be in every default; it must never be in the other.
    let name = "llama";
    let promising = artifact(&tiny(name), &["--dtype", "bf16", "--batch-invariant"]);
    let default = artifact(&tiny(name), &["--dtype", "bf16"]);
    let says = |artifact: &Path| succeeds(llmc().arg("inspect").arg(artifact));
    assert!(says(&promising).contains("bit-identical in every step"));
    assert!(!says(&default).contains("bit-identical"));
    let programs = |artifact: &Path| {
        let all = ["decode_1", "decode", "prefill"]
            .map(|program| succeeds(llmc().arg("inspect").arg(artifact).args(["--ir", program])));
        all.concat()
    };
    for method in ["split", "split_k"] {
        assert!(!programs(&promising).contains(&format!("by = {method}")), "{method}");
    }
}

#[test]
fn matrix_units_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("x.llmc");
    let features = |flags: &[&str]| {
        succeeds(compile(tiny("llama"), &output).args(["--target", "sapphirerapids", "--max-batch", "1"]).args(flags));
        Artifact::open(&output).unwrap().manifest().targets[0].cpu_features.concat()
    };
    assert!(features(&[]).contains("amx"));
    assert!(!features(&["--batch-invariant"]).contains("amx"));
}

#[test]
fn its_cost_is_said_and_gpus_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("x.llmc");
    let text = succeeds(compile(tiny("llama"), &output).arg("--batch-invariant"));
    assert!(text.contains("batch-invariant, which by price costs a step: decode_1 "), "{text}");
    let json = super::support::binaries::json(compile(tiny("llama"), &output).arg("--batch-invariant"));
    let costs: &Vec<Value> = json["invariance"].as_array().unwrap();
    let is_priced = |cost: &Value| ["seconds", "default_seconds"].iter().all(|field| cost[field].as_f64() > Some(0.0));
    assert!(costs.len() >= 3 && costs.iter().all(is_priced), "{costs:?}");
    let mut refused = compile(tiny("llama"), &output);
    fails_saying(
        refused.args(["--batch-invariant", "--target", "native,cuda:sm_80"]),
        &["--batch-invariant", "cuda:sm_80", "leave it out"],
    );
    let mut refused = llmc();
    refused.args(["compile", "--batch-invariant", "--shapes-only", "--machine", "a100"]).arg(tiny("llama"));
    fails_saying(&mut refused, &["--batch-invariant", "a100", "leave it out"]);
}
