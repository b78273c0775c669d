//! The same models in code for AMX: the real binary runs it, and a library that is preloaded executes the instructions
//! that this CPU lacks.

use super::support::binaries::{fails_saying, id_list, ids, json, llmrt};
use super::support::golden::{Prompt, assert_continues, of_tiny};
use super::support::models::{TINY, artifact, fixtures, smollm2, tiny};
use super::support::tiles::{LEVEL, can_run, has_amx, with_amx};
use std::path::Path;
use std::process::Command;

/// Where the reference is ahead by less than this, bf16 may choose another token, as on other CPUs.
const BF16_MARGIN: f64 = 0.25;

fn run(artifact: &Path, prompt: &Prompt, flags: &[&str]) -> Command {
    let mut command = llmrt();
    command.arg("run").arg(artifact).args(["--prompt-ids", &id_list(&prompt.ids), "--ignore-eos"]);
    command.args(["-n", &prompt.greedy.len().to_string()]).args(flags);
    command
}

#[test]
fn models_generate_the_golden_tokens() {
    if !can_run() {
        return;
    }
    for name in TINY {
        let artifact = artifact(&tiny(name), &["--target", LEVEL]);
        for prompt in of_tiny(name) {
            let one = json(with_amx(&mut run(&artifact, &prompt, &["--threads", "1"])));
            assert_eq!(one["target"], LEVEL);
            let what = format!("{name}, {} tokens", prompt.ids.len());
            assert_continues(&what, &ids(&one["ids"]), &prompt, BF16_MARGIN);
            let three = json(with_amx(&mut run(&artifact, &prompt, &["--threads", "3"])));
            assert_eq!(one["ids"], three["ids"], "{what}");
        }
    }
}

#[test]
fn without_amx_such_code_is_refused_or_passed_over() {
    if !can_run() || has_amx() {
        return;
    }
    let prompt = &of_tiny("llama")[0];
    let only = artifact(&tiny("llama"), &["--target", LEVEL]);
    fails_saying(&mut run(&only, prompt, &[]), &["sapphirerapids needs amx-bf16, amx-int8, amx-tile", "x86-64-v4"]);
    // The most demanding level that the CPU has, in whatever order they were asked for.
    for targets in ["x86-64-v3,sapphirerapids", "sapphirerapids,x86-64-v3"] {
        let both = artifact(&tiny("llama"), &["--target", targets]);
        assert_eq!(json(&mut run(&both, prompt, &[]))["target"], "x86-64-v3");
        assert_eq!(json(with_amx(&mut run(&both, prompt, &[])))["target"], LEVEL);
    }
}

#[test]
fn a_real_model_is_as_close_to_f32_as_on_other_cpus() {
    if !can_run() {
        return;
    }
    let window = |flags: &[&str]| {
        let mut command = llmrt();
        command.arg("eval").arg(artifact(&smollm2(), flags)).arg("--file").arg(fixtures().join("golden/text.txt"));
        command.args(["--window", "64", "--windows", "1", "--threads", "1"]);
        command
    };
    let nll = |command: &mut Command| json(command)["nll"].as_f64().unwrap();
    let exact = nll(&mut window(&["--dtype", "f32", "--max-context", "2048"]));
    let vectors = nll(&mut window(&[]));
    let tiles = nll(with_amx(&mut window(&["--target", LEVEL])));
    assert!((tiles - exact).abs() <= 0.005 * exact, "{tiles}, in f32 {exact}, by vectors {vectors}");
    println!("{tiles}, in f32 {exact}, by vectors {vectors}");
}
