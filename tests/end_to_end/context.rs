//! Contexts that are tiny or full: the last position counts, and the one after it is refused.

use super::support::binaries::{compile, fails_saying, id_list, ids, json, llmrt, succeeds};
use super::support::golden::of_tiny;
use super::support::logits::{executor, logits, relative_error};
use super::support::models::{TINY, artifact, tiny};
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvState, Mode, StepInputs, Tensor, eval_module};
use llmc_models::checkpoint::Checkpoint;
use llmc_models::config::ModelConfig;
use serde_json::Value;
use std::path::Path;

/// Positions that the tiny checkpoints are made for.
const FULL: usize = 512;

/// As many tokens as asked for, out of the golden prompts.
fn tokens(name: &str, count: usize) -> Vec<u32> {
    of_tiny(name).iter().flat_map(|prompt| prompt.ids.clone()).cycle().take(count).collect()
}

fn generate(artifact: &Path, prompt: &[u32], flags: &[&str]) -> Value {
    let mut command = llmrt();
    json(command.arg("run").arg(artifact).args(["--prompt-ids", &id_list(prompt), "--ignore-eos"]).args(flags))
}

/// The definition, interpreted in double precision.
fn interpret(name: &str, tokens: &[u32]) -> Vec<f64> {
    let directory = tiny(name);
    let config = ModelConfig::load(&directory).unwrap().config;
    let checkpoint = Checkpoint::open(&directory).unwrap();
    let module = llmc_models::build(&config, Numerics::new(DType::F32)).unwrap();
    let weight = |key: &str| {
        let view = checkpoint.tensor(key)?;
        let mut values = Vec::new();
        view.read_f32(0..view.elements(), &mut values).unwrap();
        Tensor::new(DType::F32, view.shape.clone(), values.into_iter().map(f64::from).collect()).ok()
    };
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let step = StepInputs::one_sequence(0, &tokens);
    eval_module(&module, &weight, &mut KvState::default(), &step, Mode::Wide).unwrap().into_data()
}

#[test]
fn a_full_context_has_the_right_logits() {
    for name in ["llama", "mistral"] {
        let tokens = tokens(name, FULL);
        let expected = interpret(name, &tokens);
        let mut executor = executor(&artifact(&tiny(name), &["--dtype", "f32"]), 2);
        for steps in [&[FULL][..], &[1], &[100], &[FULL - 1, 1]] {
            let rows = logits(&mut executor, &tokens, steps);
            let error = relative_error(rows.last().unwrap(), &expected);
            assert!(error <= 1e-4, "{name}, steps {steps:?}: {error:.2e}");
        }
    }
}

#[test]
fn generation_ends_where_the_context_does() {
    for name in TINY {
        let artifact = artifact(&tiny(name), &["--dtype", "f32"]);
        for length in [1, FULL - 40, FULL - 1, FULL] {
            let prompt = tokens(name, length);
            let run = generate(&artifact, &prompt, &[]);
            // The last token is said and not read any more.
            let (reason, found) = (&run["finish_reason"], ids(&run["ids"]));
            assert_eq!((reason.as_str(), found.len()), (Some("context"), FULL - length + 1), "{name}");
            let run = generate(&artifact, &prompt, &["-n", "1"]);
            assert_eq!((run["finish_reason"].as_str(), &ids(&run["ids"])[..]), (Some("length"), &found[..1]), "{name}");
        }
        let long = id_list(&tokens(name, FULL + 1));
        fails_saying(
            llmrt().arg("run").arg(&artifact).args(["--prompt-ids", &long]),
            &["513 tokens", "context is 512 tokens", "shorten the prompt"],
        );
    }
}

#[test]
fn artifacts_for_tiny_contexts_and_single_sequences_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    for (name, dtype) in [("llama", "bf16"), ("mistral", "f32")] {
        let whole = artifact(&tiny(name), &["--dtype", dtype]);
        // A single position, and the border of a cache block from both sides.
        for context in [1usize, 31, 32, 33] {
            let small = directory.path().join("small.llmc");
            let limits = ["--dtype", dtype, "--max-context", &context.to_string(), "--max-batch", "1"];
            succeeds(compile(tiny(name), &small).args(limits));
            for length in [1, context.div_ceil(2), context] {
                let prompt = tokens(name, length);
                let run = generate(&small, &prompt, &[]);
                let what = format!("{name} as {dtype}, context {context}, prompt {length}");
                assert_eq!(run["finish_reason"], "context", "{what}");
                let count = context - length + 1;
                let expected = generate(&whole, &prompt, &["-n", &count.to_string()]);
                assert_eq!(ids(&run["ids"]), ids(&expected["ids"]), "{what}");
            }
            let long = id_list(&tokens(name, context + 1));
            let mut command = llmrt();
            let says = format!("context is {context} tokens");
            fails_saying(command.arg("run").arg(&small).args(["--prompt-ids", &long]), &[&says]);
        }
    }
}
