//! The same models on a GPU: its code runs on an emulator, behind the driver's interface, and gives what the host gives.

use super::support::binaries::{id_list, ids, json, llmrt};
use super::support::fake;
use super::support::golden::{Prompt, assert_continues, floats, of_tiny};
use super::support::logits::{executor, executor_on, logits, part, relative_error, widen};
use super::support::models::{TINY, artifact, smollm2, tiny};
use llmc_artifact::Artifact;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use llmrt::device::DeviceChoice;
use llmrt::engine::{Engine, EngineOptions, Event, Request, SequenceId, StopPolicy};
use llmrt::executor::{Executor, ExecutorOptions, SampleRows, Step};
use llmrt::sampler::{SamplingParams, argmax};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far float32 logits may be from the reference's, as on the host.
const LOGITS: f64 = 1e-4;
/// Where the reference is ahead by less than this, bf16 may choose another token, as on the host.
const BF16_MARGIN: f64 = 0.25;
/// How much further from float32 logits bf16 logits may be than the host's, on average.
const BF16_MEAN: f64 = 1.1;
/// The same for the furthest row.
const BF16_MOST: f64 = 1.35;
/// More tokens than any step takes: the whole prompt at once.
const WHOLE: usize = 512;

/// For a GPU, and for a host that rounds nothing that a GPU does not.
fn compiled(name: &str, dtype: &str) -> PathBuf {
    let rounding = ["--numerics", "reassociates"];
    artifact(&tiny(name), &[&["--dtype", dtype, "--target", "native,cuda:sm_80"][..], &rounding].concat())
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

/// In bf16 both devices round activations, at the same places but not always to the same side: each is judged by its
/// distance from the float32 logits, the host's being what rounding costs.
#[test]
fn bf16_is_as_close_as_on_the_host() {
    for name in TINY {
        let artifact = compiled(name, "bf16");
        let (mut gpu, mut host) = (gpu(&artifact), executor(&artifact, 1));
        let mut exact = executor(&compiled(name, "f32"), 1);
        for prompt in of_tiny(name) {
            let Prompt { ids, greedy, margins, .. } = &prompt;
            let fed = [&ids[..], &greedy[..4]].concat();
            let exact = logits(&mut exact, &fed, &[WHOLE]);
            for steps in [&[ids.len(), 1][..], &[37]] {
                let rows = logits(&mut gpu, &fed, steps);
                let what = format!("{name}, {} tokens, steps {steps:?}", ids.len());
                assert_as_close(&what, &rows, &logits(&mut host, &fed, steps), &exact);
                for (at, (row, &golden)) in rows[ids.len() - 1..].iter().zip(greedy).enumerate() {
                    let found = argmax(row);
                    assert!(found == golden || margins[at] <= BF16_MARGIN, "{what}, {at}: {found}, not {golden}");
                }
            }
        }
    }
}

/// Checks that rows are as close to the exact ones as the host's are.
#[track_caller]
fn assert_as_close(what: &str, found: &[Vec<f32>], host: &[Vec<f32>], exact: &[Vec<f32>]) {
    let distances = |rows: &[Vec<f32>]| -> Vec<f64> {
        assert_eq!(rows.len(), exact.len());
        rows.iter().zip(exact).map(|(row, exact)| relative_error(row, &widen(exact))).collect()
    };
    let mean = |distances: &[f64]| distances.iter().sum::<f64>() / distances.len() as f64;
    let most = |distances: &[f64]| distances.iter().copied().fold(0.0, f64::max);
    let (found, host) = (distances(found), distances(host));
    assert!(mean(&found) <= BF16_MEAN * mean(&host), "{what}: {:.2e}, the host {:.2e}", mean(&found), mean(&host));
    assert!(
        most(&found) <= BF16_MOST * most(&host),
        "{what}: at most {:.2e}, the host {:.2e}",
        most(&found),
        most(&host)
    );
}

/// The last logits of sequences of several lengths in one step, some of which begin and some of which continue.
fn ragged(executor: &mut Executor, tokens: &[u32], new: fn(usize) -> usize) -> Vec<Vec<f32>> {
    // First row and number of new ones; 4 blocks each.
    let sequences = [(0, 70), (64, 1), (31, 2), (0, 1), (5, 33), (90, 7), (32, 32)];
    for (index, &(start, _)) in sequences.iter().enumerate().filter(|(_, (start, _))| *start > 0) {
        let before = part(&tokens[..start], 0, 4 * index, SampleRows::None);
        executor.run(&Step { sequences: vec![before] }).unwrap();
    }
    let one = |(index, &(start, count)): (usize, &(usize, usize))| {
        part(&tokens[start..start + new(count)], start, 4 * index, SampleRows::Last)
    };
    let step = Step { sequences: sequences.iter().enumerate().map(one).collect() };
    let logits = executor.run(&step).unwrap();
    (0..logits.rows()).map(|row| logits.row(row).to_vec()).collect()
}

#[test]
fn ragged_batches_give_what_the_host_gives() {
    for name in ["llama", "mistral", "qwen2"] {
        let tokens = of_tiny(name).pop().unwrap().ids;
        let [f32, bf16] = ["f32", "bf16"].map(|dtype| compiled(name, dtype));
        let mut on_gpu = [&f32, &bf16].map(|artifact| gpu(artifact));
        let mut on_host = [&f32, &bf16].map(|artifact| executor(artifact, 1));
        // A prefill step, and a decode step, which is one token of each.
        for new in [|count| count, |_| 1] {
            let [found, rounded] = on_gpu.each_mut().map(|executor| ragged(executor, &tokens, new));
            let [exact, host] = on_host.each_mut().map(|executor| ragged(executor, &tokens, new));
            for (index, (found, exact)) in found.iter().zip(&exact).enumerate() {
                let error = relative_error(found, &widen(exact));
                assert!(error <= LOGITS, "{name}, sequence {index}: {error:.2e}");
            }
            assert_as_close(name, &rounded, &host, &exact);
        }
    }
}

/// So many positions that attention of one token is divided among several blocks and put together again.
#[test]
fn long_contexts_give_what_the_host_gives() {
    for (name, steps) in [("llama", &[510, 1][..]), ("mistral", &[300, 212])] {
        let artifact = compiled(name, "f32");
        let (mut gpu, mut host) = (gpu(&artifact), executor(&artifact, 1));
        let tokens: Vec<u32> = of_tiny(name).iter().flat_map(|prompt| prompt.ids.clone()).cycle().take(512).collect();
        let expected = logits(&mut host, &tokens, &[WHOLE]);
        let rows = logits(&mut gpu, &tokens, steps);
        for position in [255, 256, 299, 300, 509, 510, 511] {
            let error = relative_error(&rows[position], &widen(&expected[position]));
            assert!(error <= LOGITS, "{name}, steps {steps:?}, position {position}: {error:.2e}");
        }
    }
}

/// What an engine says to several requests at once, in a pool that holds only some of them at a time: sequences wait, give their memory
/// back and share prefixes.
fn answers(executor: Executor, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut engine = Engine::new(executor, EngineOptions::default());
    let request = |prompt: &Vec<u32>| Request {
        prompt: prompt.clone(),
        max_tokens: 12,
        sampling: SamplingParams::default(),
        stop_ids: Vec::new(),
        ignore_stop: StopPolicy::IgnoreStop,
        logprobs: 0,
    };
    let ids: Vec<SequenceId> = prompts.iter().map(|prompt| engine.submit(request(prompt)).unwrap()).collect();
    let mut answers = vec![Vec::new(); ids.len()];
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { sequence, id, .. } = event {
                answers[ids.iter().position(|&known| known == sequence).unwrap()].push(id);
            }
        }
    }
    answers
}

#[test]
fn an_engine_on_a_gpu_says_what_it_says_on_the_host() {
    fake::load();
    let artifact = compiled("llama", "f32");
    let tokens = of_tiny("llama").pop().unwrap().ids;
    let prompts: Vec<Vec<u32>> = [&tokens[..100], &tokens[..70], &tokens[3..4], &tokens[40..95], &tokens[..33]]
        .into_iter()
        .map(<[u32]>::to_vec)
        .collect();
    let on = |device| {
        let artifact = Arc::new(Artifact::open(&artifact).unwrap());
        let blocks = artifact.manifest().plan.model.max_context.div_ceil(KV_BLOCK_POSITIONS);
        let options =
            ExecutorOptions { device, threads: Some(1), kv_blocks: Some(blocks), ..ExecutorOptions::default() };
        answers(Executor::new(artifact, options).unwrap(), &prompts)
    };
    let found = on(DeviceChoice::Cuda(0));
    assert!(found.iter().all(|answer| answer.len() == 12));
    assert_eq!(found, on(DeviceChoice::Host));
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
