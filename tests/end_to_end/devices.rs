//! Choosing a device, and what is said when it does not work: no driver, the wrong one, too little memory, bad code, and a
//! GPU that fails.

use super::support::binaries::{compile, fails, fails_saying, json, llmc, llmrt, succeeds, text};
use super::support::broken::Broken;
use super::support::fake::{self, with_gpu};
use super::support::logits::executor_on;
use super::support::models::{artifact, tiny};
use llmrt::device::DeviceChoice;
use llmrt::engine::{Engine, EngineOptions, Request, StopPolicy};
use llmrt::sampler::SamplingParams;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

fn both() -> PathBuf {
    artifact(&tiny("llama"), &["--dtype", "f32", "--target", "native,cuda:sm_80"])
}

fn gpu_only() -> PathBuf {
    artifact(&tiny("llama"), &["--dtype", "f32", "--target", "cuda:sm_86"])
}

fn run(artifact: &PathBuf, flags: &[&str]) -> Command {
    let mut command = llmrt();
    command.arg("run").arg(artifact).args(["--prompt-ids", "1,2,3", "-n", "6", "--ignore-eos"]).args(flags);
    command
}

fn target(command: &mut Command) -> String {
    json(command)["target"].as_str().unwrap().to_owned()
}

/// Fails as a wrong use of the command line does, with more than a line of advice.
#[track_caller]
fn misused(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && parts.iter().all(|part| said.contains(part)), "{command:?}: {said}");
}

#[test]
fn auto_takes_a_gpu_that_suits_the_artifact() {
    let host = target(&mut run(&both(), &[]));
    assert!(host.starts_with("native"), "without a driver: {host}");
    assert_eq!(target(with_gpu(&mut run(&both(), &[]), "")), "cuda:sm_80");
    assert_eq!(target(with_gpu(&mut run(&both(), &["--device", "host"]), "")), host);
    for unsuitable in ["capability=7.5", "driver=11080", "devices=0"] {
        assert_eq!(target(with_gpu(&mut run(&both(), &[]), unsuitable)), host, "{unsuitable}");
    }
    let host_only = artifact(&tiny("llama"), &["--dtype", "f32"]);
    assert_eq!(target(with_gpu(&mut run(&host_only, &[]), "")), host);
    assert_eq!(target(with_gpu(&mut run(&gpu_only(), &[]), "capability=8.6")), "cuda:sm_86");
}

#[test]
fn the_code_for_the_newest_architecture_that_a_gpu_runs_is_taken() {
    let artifact = artifact(&tiny("llama"), &["--dtype", "f32", "--target", "cuda:sm_90,cuda:sm_80,cuda:sm_86"]);
    for (device, code) in [("8.0", "sm_80"), ("8.7", "sm_86"), ("8.9", "sm_86"), ("9.0", "sm_90"), ("12.0", "sm_90")] {
        let settings = format!("capability={device}");
        assert_eq!(target(with_gpu(&mut run(&artifact, &[]), &settings)), format!("cuda:{code}"), "on {device}");
    }
}

#[test]
fn a_gpu_that_was_asked_for_and_cannot_be_had_is_an_error() {
    let on_gpu = || run(&both(), &["--device", "cuda:0"]);
    fails_saying(&mut on_gpu(), &["no CUDA driver was found", "--device host"]);
    let refused = |settings: &str, parts: &[&str]| fails_saying(with_gpu(&mut on_gpu(), settings), parts);
    refused("driver=11080", &["CUDA 11.8", "at least 12.0", "update NVIDIA's driver"]);
    refused("devices=0", &["no device cuda:0", "knows none", "nvidia-smi", "--device host"]);
    refused("capability=7.5", &["llmc fake T4", "code is for cuda:sm_80", "sm_75"]);
    fails_saying(
        with_gpu(&mut run(&both(), &["--device", "cuda:3"]), "devices=2"),
        &[
            "no device cuda:3",
            "cuda:0 (llmc fake A100), cuda:1 (llmc fake A100): choose one of these, or run on the CPU",
        ],
    );
    // Also where nothing was asked for, but nothing else would do either, the host neither.
    assert!(fails(&mut run(&gpu_only(), &[])).ends_with("(libcuda.so.1): install NVIDIA's driver"));
    fails_saying(with_gpu(&mut run(&gpu_only(), &[]), "capability=8.0"), &["sm_86", "--target cuda:sm_80"]);
    let host_only = artifact(&tiny("llama"), &["--dtype", "f32"]);
    fails_saying(
        with_gpu(&mut run(&host_only, &["--device", "cuda:0"]), ""),
        &["no code for GPUs", "llmc compile --target cuda:sm_80"],
    );
    misused(&mut run(&both(), &["--device", "gpu"]), &["`gpu` is no device", "auto, host, or cuda:0"]);
}

#[test]
fn too_little_memory_is_said_in_numbers() {
    let on_gpu = |flags: &[&str]| run(&both(), &[&["--device", "cuda:0"], flags].concat());
    fails_saying(
        with_gpu(&mut on_gpu(&[]), "memory=1"),
        &["1048576 bytes of free memory", "are needed", "for weights", "--max-context"],
    );
    // Room for one context, but not for what was asked for.
    fails_saying(
        with_gpu(&mut on_gpu(&["--kv-memory", "1G"]), "memory=64"),
        &["67108864 bytes of free memory", "--kv-memory"],
    );
    succeeds(with_gpu(&mut on_gpu(&["--kv-memory", "8M"]), "memory=64"));
    fails_saying(with_gpu(&mut on_gpu(&["--kv-memory", "10K"]), ""), &["room for 0 blocks", "needs 16", "--kv-memory"]);
    misused(&mut run(&both(), &["--kv-memory", "lots"]), &["`lots` is no size"]);
}

#[test]
fn code_that_the_driver_does_not_take_is_shown_with_its_log() {
    let on_gpu = || run(&both(), &["--device", "cuda:0"]);
    fails_saying(
        with_gpu(&mut on_gpu(), "jit=Out of registers"),
        &["cannot use the code for cuda:sm_80", "CUDA_ERROR_INVALID_PTX", "Out of registers"],
    );
}

#[test]
fn a_gpu_that_fails_ends_the_program_with_an_error() {
    let parts = ["cuda:0 (llmc fake A100) was lost", "program `gpu_prefill", "CUDA_ERROR_LAUNCH_FAILED"];
    gives_up(with_gpu(&mut run(&both(), &["--device", "cuda:0"]), "fault=attend"), &parts);
}

/// Ends with one error, whatever it printed before.
#[track_caller]
fn gives_up(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    let errors = said.lines().filter(|line| line.starts_with("error")).count();
    assert!(output.status.code() == Some(1) && errors == 1, "{command:?}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "{command:?}: {said}");
}

/// Greedy steps copy no logits, so whether they are finite is found out on the GPU.
#[test]
fn logits_that_overflow_are_reported_as_on_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoint = Broken::new();
    for weight in ["model.norm.weight", "lm_head.weight"] {
        let bytes = checkpoint.tensor(weight);
        let largest = 1e30f32.to_le_bytes();
        // Floats of either width end with the same two bytes.
        bytes.chunks_mut(2).for_each(|half| half.copy_from_slice(&largest[2..]));
    }
    let path = directory.path().join("x.llmc");
    succeeds(compile(checkpoint.write(directory.path()), &path).args([
        "--dtype",
        "f32",
        "--target",
        "native,cuda:sm_80",
    ]));
    for device in ["host", "cuda:0"] {
        let mut command = run(&path, &["--device", device]);
        fails_saying(with_gpu(&mut command, ""), &["sequence 0", "got a logit that is"]);
    }
}

#[test]
fn steps_are_recorded_once_and_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.json");
    let mut command = run(&both(), &["--device", "cuda:0"]);
    command.env("LLMC_FAKE_CUDA_COUNTERS", &counters);
    succeeds(with_gpu(&mut command, ""));
    let counts: Value = serde_json::from_slice(&std::fs::read(&counters).unwrap()).unwrap();
    // One prefill and five decode steps; of the latter the first is recorded.
    assert_eq!((counts["graphs"].as_u64(), counts["graph_launches"].as_u64()), (Some(2), Some(6)));
    assert_eq!(counts["device"], "llmc fake A100");
    let kernels = counts["kernels"].as_object().unwrap();
    let launches: u64 = kernels.values().map(|kernel| kernel["launches"].as_u64().unwrap()).sum();
    assert_eq!(counts["launches"].as_u64(), Some(launches));
    // The likeliest token is found on the GPU, and it alone is copied back.
    assert_eq!((kernels["likeliest"]["launches"].as_u64(), counts["bytes_to_host"].as_u64()), (Some(6), Some(24)));
    let launches = launches - 6;
    let inspected = json(llmc().arg("inspect").arg(both()));
    let programs = inspected["gpus"][0]["programs"].as_array().unwrap();
    let of = |name: &str| programs.iter().find(|p| p["name"] == name).unwrap()["launches"].as_u64().unwrap();
    assert_eq!(launches, of("gpu_prefill_64") + 5 * of("gpu_decode_1"), "what inspect says is what happens");
}

/// Tokens are drawn by the host, with the same random numbers wherever the model runs; of the logits it mostly needs few.
#[test]
fn tokens_are_drawn_alike_from_few_logits() {
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("counters.json");
    let vocab = json(llmc().arg("inspect").arg(both()))["manifest"]["plan"]["model"]["vocab"].as_u64().unwrap();
    // A step brings the 64 largest logits with their ids, or all logits, or both.
    let (few, all) = (4 * 132, 4 * vocab);
    for (flags, per_step) in [
        (&["--temperature", "0.8", "--top-k", "40"][..], few),
        (&["--temperature", "0.3", "--min-p", "0.3"], few),
        (&["--temperature", "0.9", "--top-k", "20", "--top-p", "0.8", "--repetition-penalty", "1.2"], few),
        (&["--temperature", "0", "--repetition-penalty", "1.2"], few),
        (&["--temperature", "1.5", "--top-p", "0.99"], few + all),
        (&["--temperature", "1"], all),
    ] {
        let flags = [flags, &["--seed", "7"]].concat();
        let on_host = json(&mut run(&both(), &[&["--device", "host"], &flags[..]].concat()));
        let mut command = run(&both(), &[&["--device", "cuda:0"], &flags[..]].concat());
        command.env("LLMC_FAKE_CUDA_COUNTERS", &counters);
        let on_gpu = json(with_gpu(&mut command, ""));
        assert_eq!(on_gpu["ids"], on_host["ids"], "{flags:?}");
        let counts: Value = serde_json::from_slice(&std::fs::read(&counters).unwrap()).unwrap();
        assert_eq!(counts["bytes_to_host"].as_u64(), Some(6 * per_step), "{flags:?}");
    }
}

#[test]
fn commands_take_a_device() {
    let artifact = both();
    let mut bench = llmrt();
    bench.arg("bench").arg(&artifact).args(["--device", "cuda:0", "-p", "8", "-n", "1", "-r", "1"]);
    let counters = tempfile::NamedTempFile::new().unwrap();
    bench.env("LLMC_FAKE_CUDA_COUNTERS", counters.path());
    let rows = json(with_gpu(&mut bench, ""));
    assert_eq!((&rows[0]["threads"], rows.as_array().unwrap().len()), (&Value::Null, 2));
    // Nobody looks at the logits: the warm-up and the step that is measured find a token each.
    let counts: Value = serde_json::from_slice(&std::fs::read(counters.path()).unwrap()).unwrap();
    assert_eq!(counts["bytes_to_host"].as_u64(), Some(8));
    let mut verify = llmrt();
    verify.arg("verify").arg(&artifact).args(["--device", "cuda:0"]);
    assert!(succeeds(with_gpu(&mut verify, "")).contains("cuda:sm_80 on cuda:0 (llmc fake A100)"));
    let mut verify = llmrt();
    verify.arg("verify").arg(&artifact).args(["--device", "cuda:0"]);
    let output = with_gpu(&mut verify, "memory=1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("free memory"));
}

#[test]
fn ptx_is_shown_and_targets_are_named() {
    let ptx = succeeds(llmc().arg("inspect").arg(both()).args(["--ptx", "sm_80"]));
    assert!(ptx.contains(".target sm_80") && ptx.contains(".entry"), "{}", &ptx[..ptx.len().min(200)]);
    assert_eq!(succeeds(llmc().arg("inspect").arg(both()).args(["--ptx", "cuda:sm_80"])), ptx);
    fails_saying(llmc().arg("inspect").arg(both()).args(["--ptx", "sm_90"]), &["`sm_90`", "must be one of sm_80"]);
    let summary = succeeds(llmc().arg("inspect").arg(both()));
    for part in ["cuda:sm_80: ", "launches per step", "cannot be avoided", "a100: ", "h100: ", "estimate"] {
        assert!(summary.contains(part), "`{part}` is not in:\n{summary}");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = compile(tiny("llama"), directory.path().join("x.llmc"));
    fails_saying(wrong.args(["--target", "cuda:sm_75"]), &["`cuda:sm_75`", "cuda:sm_80"]);
}

/// Each in the middle of generation, after a prompt was read: a kernel, memory for a recording, a copy.
const FAILURES: [(&str, [&str; 3]); 3] = [
    ("fault=gpu_decode", ["was lost in a step of program `gpu_decode", "CUDA_ERROR_LAUNCH_FAILED", "start again"]),
    ("graphs=1", ["no memory left for a step of program `gpu_decode", "CUDA_ERROR_OUT_OF_MEMORY", "--kv-memory"]),
    ("results=1", ["was lost in a step of program `gpu_decode", "CUDA_ERROR_ILLEGAL_ADDRESS", "start again"]),
];

#[test]
fn a_gpu_that_fails_while_generating_ends_the_program_with_one_error() {
    for (settings, parts) in FAILURES {
        gives_up(with_gpu(&mut run(&both(), &["--device", "cuda:0"]), settings), &parts);
        // Nobody looks at the results.
        if settings != "results=1" {
            let mut bench = llmrt();
            bench
                .arg("bench")
                .arg(both())
                .args(["--device", "cuda:0", "-p", "0", "-n", "4", "--batch", "4", "-r", "1"]);
            let settings = settings.replace("graphs=1", "graphs=0");
            gives_up(with_gpu(&mut bench, &settings), &parts);
        }
    }
}

/// No command runs many sequences with results, so a process of this program's own does.
#[test]
fn a_gpu_that_fails_ends_all_sequences() {
    for (settings, parts) in FAILURES {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "devices::several_sequences_on_a_gpu_that_fails", "--ignored", "--nocapture"]);
        let said = succeeds(command.env("LLMC_FAKE_CUDA", settings));
        assert!(parts.iter().all(|part| said.contains(part)), "{settings}: {said}");
    }
}

#[test]
#[ignore = "run by `a_gpu_that_fails_ends_all_sequences`"]
fn several_sequences_on_a_gpu_that_fails() {
    fake::load();
    let mut engine = Engine::new(executor_on(&both(), DeviceChoice::Cuda(0), 1), EngineOptions::default());
    for length in [3, 40, 5, 9] {
        let prompt = (1..=length).collect();
        let ignore_stop = StopPolicy::IgnoreStop;
        let sampling = SamplingParams::default();
        engine
            .submit(Request { prompt, max_tokens: 50, sampling, stop_ids: Vec::new(), ignore_stop, logprobs: 0 })
            .unwrap();
    }
    let mut steps = (0..50).map(|_| engine.step());
    let error = steps.find_map(Result::err).expect("an error");
    println!("{error}");
    // Nothing waits any more, and nothing is reported twice.
    assert!(engine.is_idle());
    assert_eq!(engine.step().unwrap(), []);
}

#[test]
fn a_gpu_that_grants_too_little_shared_memory_is_refused() {
    let bf16 = artifact(&tiny("llama"), &["--dtype", "bf16", "--target", "native,cuda:sm_80"]);
    fails_saying(
        with_gpu(&mut run(&bf16, &["--device", "cuda:0"]), "shared=8"),
        &[
            "cannot use the code for cuda:sm_80",
            "kernel `gpu_",
            "bytes of shared memory per block, the device has 8192",
        ],
    );
}
