//! The same models on a GPU: its code runs on an emulator, behind the driver's interface, and gives what the host gives.

use super::support::binaries::{id_list, ids, json, llmrt};
use super::support::fake;
use super::support::golden::{Prompt, assert_continues, floats, of_tiny};
use super::support::logits::{executor, executor_on, logits, part, relative_error, widen};
use super::support::models::{TINY, artifact, smollm2, tiny};
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, SampleRows, Step};
use llmrt::sampler::argmax;
use std::path::{Path, PathBuf};

/// How far float32 logits may be from the reference's, as on the host.
const LOGITS: f64 = 1e-4;
/// Where the reference is ahead by less than this, bf16 may choose another token, as on the host.
const BF16_MARGIN: f64 = 0.25;
/// How far bf16 logits may be from the host's: both round activations to 8 bits at the same places.
const BF16_LOGITS: f64 = 2e-2;
/// More tokens than any step takes: the whole prompt at once.
const WHOLE: usize = 512;

fn compiled(name: &str, dtype: &str) -> PathBuf {
    artifact(&tiny(name), &["--dtype", dtype, "--target", "native,cuda:sm_80"])
}

fn gpu(artifact: &Path) -> Executor {
    fake::load();
    let executor = executor_on(artifact, DeviceChoice::Cuda(0), 1);
    assert_eq!((executor.target(), executor.threads()), ("cuda:sm_80", None));
    assert_eq!(executor.describe(), "cuda:sm_80 on cuda:0 (llmc fake A100)");
    executor
}

#[test]
fn f32_logits_are_the_reference_s() {
    for name in TINY {
        let mut executor = gpu(&compiled(name, "f32"));
        for prompt in of_tiny(name) {
            let expected = floats(&prompt.json["logits"]);
            // Whole, in chunks that end inside of cache blocks, and with the last token on its own.
            for steps in [&[WHOLE][..], &[33, 1, 31], &[prompt.ids.len() - 1, 1]] {
                let rows = logits(&mut executor, &prompt.ids, steps);
                let error = relative_error(rows.last().unwrap(), &expected);
                assert!(error <= LOGITS, "{name}, {} tokens, steps {steps:?}: {error:.2e}", prompt.ids.len());
            }
        }
    }
}

#[test]
fn bf16_finds_the_likeliest_tokens_and_the_host_s_logits() {
    for name in TINY {
        let artifact = compiled(name, "bf16");
        let (mut gpu, mut host) = (gpu(&artifact), executor(&artifact, 1));
        for prompt in of_tiny(name) {
            let Prompt { ids, greedy, margins, .. } = &prompt;
            let fed = [&ids[..], &greedy[..4]].concat();
            for steps in [&[ids.len(), 1][..], &[37]] {
                let (rows, expected) = (logits(&mut gpu, &fed, steps), logits(&mut host, &fed, steps));
                for (position, (row, host)) in rows.iter().zip(&expected).enumerate() {
                    let error = relative_error(row, &widen(host));
                    assert!(error <= BF16_LOGITS, "{name}, steps {steps:?}, position {position}: {error:.2e}");
                }
                for (at, (row, &golden)) in rows[ids.len() - 1..].iter().zip(greedy).enumerate() {
                    let found = argmax(row);
                    assert!(found == golden || margins[at] <= BF16_MARGIN, "{name}, {at}: {found}, not {golden}");
                }
            }
        }
    }
}

/// Sequences of several lengths in one step, some of which continue and some of which begin, in prefill and in decode.
#[test]
fn ragged_batches_give_what_the_host_gives() {
    for (name, dtype, most) in [("llama", "f32", LOGITS), ("mistral", "f32", LOGITS), ("qwen2", "bf16", BF16_LOGITS)] {
        let artifact = compiled(name, dtype);
        let long = of_tiny(name).pop().unwrap().ids;
        // First row and number of new ones; 4 blocks each.
        let sequences = [(0, 70), (64, 1), (31, 2), (0, 1), (5, 33), (90, 7), (32, 32)];
        let run = |executor: &mut Executor, new: fn(usize) -> usize| {
            for (index, &(start, _)) in sequences.iter().enumerate().filter(|(_, (start, _))| *start > 0) {
                let before = part(&long[..start], 0, 4 * index, SampleRows::None);
                executor.run(&Step { sequences: vec![before] }).unwrap();
            }
            let one = |(index, &(start, count)): (usize, &(usize, usize))| {
                part(&long[start..start + new(count)], start, 4 * index, SampleRows::Last)
            };
            let step = Step { sequences: sequences.iter().enumerate().map(one).collect() };
            let logits = executor.run(&step).unwrap();
            (0..logits.rows()).map(|row| logits.row(row).to_vec()).collect::<Vec<_>>()
        };
        let (mut gpu, mut host) = (gpu(&artifact), executor(&artifact, 1));
        for new in [|count| count, |_| 1] {
            let (found, expected) = (run(&mut gpu, new), run(&mut host, new));
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = relative_error(found, &widen(expected));
                assert!(error <= most, "{name} as {dtype}, sequence {index}: {error:.2e}");
            }
        }
    }
}

#[test]
fn the_binary_generates_the_golden_tokens() {
    for name in ["llama", "qwen2"] {
        for (dtype, margin) in [("f32", 1e-3), ("bf16", BF16_MARGIN)] {
            let prompt = of_tiny(name).swap_remove(1);
            let mut command = llmrt();
            fake::with_gpu(&mut command, "").arg("run").arg(compiled(name, dtype)).args(["--device", "cuda:0"]);
            command.args(["--prompt-ids", &id_list(&prompt.ids), "--ignore-eos"]);
            let run = json(command.args(["-n", &prompt.greedy.len().to_string()]));
            assert_eq!(run["target"], "cuda:sm_80");
            assert_continues(&format!("{name} as {dtype}"), &ids(&run["ids"]), &prompt, margin);
        }
    }
}

#[test]
fn a_real_model_says_the_same_on_a_gpu() {
    let artifact = artifact(&smollm2(), &["--max-context", "256", "--target", "native,cuda:sm_80"]);
    let generate = |device: &str| {
        let mut command = llmrt();
        fake::with_gpu(&mut command, "").arg("run").arg(&artifact).args(["--raw", "-p", "The capital of France is"]);
        let run = json(command.args(["-n", "4", "--ignore-eos", "--device", device]));
        (ids(&run["ids"]), run["target"].as_str().unwrap().to_owned())
    };
    let (host, gpu) = (generate("host"), generate("cuda:0"));
    assert_eq!((&gpu.0, &gpu.1[..]), (&host.0, "cuda:sm_80"));
    assert_ne!(host.1, gpu.1);
}
