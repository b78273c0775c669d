//! Threads of a step: any number of them, on as many CPUs as there are or fewer, and what each of them did.

use super::support::binaries::{id_list, ids, json, llmrt, succeeds};
use super::support::golden::of_tiny;
use super::support::models::{artifact, tiny};
use llmc_artifact::Artifact;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The reply to a prompt with so many threads, on all CPUs or on one.
fn reply(artifact: &Path, prompt: &[u32], threads: usize, cpus: Cpus) -> Vec<u32> {
    let llmrt = llmrt();
    let mut command = match cpus {
        Cpus::All => llmrt,
        Cpus::First => {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(llmrt.get_program());
            command
        }
    };
    command.arg("run").arg(artifact).args(["--prompt-ids", &id_list(prompt), "--ignore-eos", "-n", "8"]);
    ids(&json(command.args(["--device", "host", "--threads", &threads.to_string()]))["ids"])
}

#[derive(Clone, Copy)]
enum Cpus {
    All,
    First,
}

#[test]
fn more_threads_than_cpus_are_slower_and_never_stuck() {
    let artifact = artifact(&tiny("llama"), &[]);
    let prompt = &of_tiny("llama")[2].ids;
    let expected = reply(&artifact, prompt, 1, Cpus::All);
    for threads in [2, 3, 8, 64] {
        assert_eq!(reply(&artifact, prompt, threads, Cpus::All), expected, "{threads} threads");
    }
    for threads in [1, 2, 5, 16] {
        assert_eq!(reply(&artifact, prompt, threads, Cpus::First), expected, "{threads} threads on one CPU");
    }
}

#[test]
fn several_processes_on_the_same_cpus_all_finish() {
    let artifact = artifact(&tiny("llama"), &[]);
    let prompt = &of_tiny("llama")[1].ids;
    let expected = reply(&artifact, prompt, 1, Cpus::All);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| reply(&artifact, prompt, 2, Cpus::All))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_trace_has_every_launch_of_a_step_once_per_thread() {
    let path = artifact(&tiny("llama"), &[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trace.json");
    let mut command = llmrt();
    command.arg("bench").arg(&path).args(["-p", "100", "-n", "2", "--depth", "33", "--batch", "1,3", "-r", "1"]);
    succeeds(command.args(["--device", "host", "--threads", "3", "--trace"]).arg(&file));
    let trace: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let opened = Artifact::open(&path).unwrap();
    let plan = &opened.manifest().plan;
    let events = trace["traceEvents"].as_array().unwrap();
    let names: BTreeMap<u64, &str> = (events.iter().filter(|event| event["ph"] == "M"))
        .map(|event| (event["pid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(names.len(), 3, "a process per test: {names:?}");
    for (process, name) in names {
        let (test, rest) = name.split_once(": ").unwrap();
        let program = plan.programs.iter().find(|program| rest.starts_with(&format!("{} (", program.name))).unwrap();
        assert_eq!(program.bounds.one_token_per_sequence, test.starts_with("tg"), "{name}");
        for thread in 0..3u64 {
            let own =
                events.iter().filter(|event| event["ph"] == "X" && event["pid"] == process && event["tid"] == thread);
            let (mut end, mut launches) = (0.0, BTreeSet::new());
            for event in own {
                let start = event["ts"].as_f64().unwrap();
                assert!(start >= end - 1e-3, "{name}: {event} before {end}");
                end = start + event["dur"].as_f64().unwrap();
                if event["cat"] == "kernel" {
                    launches.insert(event["args"]["launch"].as_u64().unwrap());
                }
            }
            let expected: BTreeSet<u64> = (0..program.launches_per_step() as u64).collect();
            assert_eq!(launches, expected, "{name}, thread {thread}");
        }
        // Every weight but the table of embeddings is read once.
        let read = |event: &Value| event["args"]["bytes of all threads"].as_f64();
        let mut seen = BTreeSet::new();
        let first =
            events.iter().filter(|event| event["pid"] == process && event["tid"] == 0 && event["cat"] == "kernel");
        let bytes: f64 = first.filter(|event| seen.insert(event["args"]["launch"].as_u64())).filter_map(read).sum();
        let contexts = match test {
            "pp100" => vec![100],
            "tg2 @ d33" => vec![35],
            _ => vec![35; 3],
        };
        assert_eq!(bytes, program.work.bytes(contexts.into_iter()), "{name}");
    }
}
