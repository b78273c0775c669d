//! Sizes of kernels from measurements: stored, shown, repeatable, and without influence on any bit of a result.

use super::support::binaries::{compile, fails_saying, json, llmc, llmrt, succeeds};
use super::support::models::tiny;
use super::support::tiles::{LEVEL, can_run, with_amx};
use llmc_artifact::Artifact;
use llmc_codegen::tuning::{SIZES, Tuning};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

fn tuning(artifact: &Path) -> Value {
    serde_json::from_str(&succeeds(llmc().arg("inspect").arg(artifact).arg("--tuning"))).unwrap()
}

#[test]
fn what_was_measured_is_kept_and_repeats_the_artifact() {
    let directory = tempfile::tempdir().unwrap();
    let [measured, repeated] = ["measured.llmc", "repeated.llmc"].map(|name| directory.path().join(name));
    let said = json(compile(tiny("llama"), &measured).arg("--tune"));
    let tuned = tuning(&measured);
    assert_eq!(said["tuning"], tuned);
    assert_eq!(json(llmc().arg("inspect").arg(&measured))["tuning"], tuned);
    let only = &tuned.as_array().unwrap()[0];
    assert!(only["target"].as_str().unwrap().starts_with("native:"), "{only}");
    assert!(only["noise"].as_f64().unwrap() >= 0.02, "{only}");
    let steps = only["steps"].as_array().unwrap();
    for trial in only["trials"].as_array().unwrap() {
        assert_eq!(trial["ratios"].as_array().unwrap().len(), steps.len(), "{trial}");
    }
    let summary = succeeds(llmc().arg("inspect").arg(&measured));
    assert!(summary.contains("\nmeasured   "), "{summary}");
    assert!(succeeds(llmc().arg("explain").arg(&measured)).contains("(--tune)"));
    // The same choice, and what is said of it, gives the same bytes.
    let file = directory.path().join("tuning.json");
    fs::write(&file, tuned.to_string()).unwrap();
    succeeds(compile(tiny("llama"), &repeated).arg("--tuning").arg(&file));
    assert!(fs::read(&measured).unwrap() == fs::read(&repeated).unwrap());
}

/// The code of a small model with some sizes, and what a run of it says.
fn code_and_results(target: &str, tuning: Tuning, run: impl Fn(&mut Command) -> &mut Command) -> (Vec<u8>, Value) {
    let directory = tempfile::tempdir().unwrap();
    let [file, artifact] = ["tuning.json", "model.llmc"].map(|name| directory.path().join(name));
    let tuned = json!([{
        "target": target, "tuning": tuning, "cpu": "any", "threads": 1, "steps": [], "noise": 0.02, "trials": []
    }]);
    fs::write(&file, tuned.to_string()).unwrap();
    succeeds(compile(tiny("llama"), &artifact).args(["--target", target, "--tuning"]).arg(&file));
    let code = Artifact::open(&artifact).unwrap();
    let code = code.tensor(&code.manifest().targets[0].tensor).unwrap().to_vec();
    let ids: Vec<String> = (0..70).map(|id| (id % 60).to_string()).collect();
    let mut command = llmrt();
    command.arg("run").arg(&artifact).args(["--prompt-ids", &ids.join(","), "-n", "20", "--ignore-eos"]);
    (code, json(run(command.args(["--logprobs", "5", "--threads", "3"]))))
}

/// Each of `steps` has an influence on the code beside the ones before it, and none on results.
fn sizes_change_no_bit(target: &str, steps: &[&[(&str, usize)]], run: impl Fn(&mut Command) -> &mut Command) {
    let mut tuning = Tuning::default();
    let (mut before, results) = code_and_results(target, tuning, &run);
    for step in steps {
        for &(name, value) in *step {
            tuning = tuning.with(SIZES.iter().find(|size| size.name == name).expect("a size"), value);
        }
        let (code, said) = code_and_results(target, tuning, &run);
        assert_eq!((&said["ids"], &said["logprobs"]), (&results["ids"], &results["logprobs"]), "{tuning:?}");
        assert!(code != before, "{step:?} had no influence");
        before = code;
    }
}

#[test]
fn sizes_of_vectors_change_no_bit() {
    // No sum of the model is so long that `sum_part` would cut it.
    let steps: [&[_]; 3] = [&[("prefetch_bytes", 64)], &[("block_rows", 12)], &[("query_rows", 5)]];
    sizes_change_no_bit("x86-64-v3", &steps, |command| command);
}

#[test]
fn sizes_of_tiles_change_no_bit() {
    if can_run() {
        let steps: [&[_]; 6] = [
            &[("tile_block_rows", 32)],
            &[("tile_query_rows", 70)],
            // Sums of 160 are cut, in parts of 64 and of 32; then those of 64 as well.
            &[("tile_longest_sum", 64), ("tile_sum_part", 64)],
            &[("tile_sum_part", 32)],
            &[("tile_longest_sum", 32)],
            &[("tile_cut_columns", 64)],
        ];
        sizes_change_no_bit(LEVEL, &steps, with_amx);
    }
}

#[test]
fn what_cannot_be_measured_or_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("x.llmc");
    let file = directory.path().join("tuning.json");
    let given = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = compile(tiny("llama"), &output);
        command.args(["--target", "x86-64-v3", "--tuning"]).arg(&file);
        command
    };
    fails_saying(&mut given("{}"), &["tuning.json holds no sizes", "llmc inspect --tuning"]);
    fails_saying(&mut given("[]"), &["x86-64-v3", "measured sizes"]);
    let tuning = json!(Tuning { block_rows: 0, ..Tuning::default() });
    let entry = format!(
        r#"[{{"target": "x86-64-v3", "tuning": {tuning}, "cpu": "", "threads": 1, "steps": [], "noise": 0, "trials": []}}]"#
    );
    fails_saying(&mut given(&entry), &["x86-64-v3", "block_rows is 0", "1..=4096"]);
    fails_saying(compile(tiny("llama"), &output).args(["--tuning", "/no/such.json"]), &["/no/such.json"]);
    fails_saying(compile(tiny("llama"), &output).args(["--target", "cuda:sm_80", "--tune"]), &["a CPU"]);
    assert!(!output.exists());
    succeeds(compile(tiny("llama"), &output).args(["--target", "x86-64-v3"]));
    fails_saying(llmc().arg("inspect").arg(&output).arg("--tuning"), &["default sizes", "--tune"]);
}
