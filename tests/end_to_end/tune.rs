//! Sizes of kernels from measurements: stored, shown, repeatable, and without influence on any bit of a result.

use super::support::binaries::{compile, fails_saying, json, llmc, llmrt, succeeds};
use super::support::models::tiny;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

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

#[test]
fn sizes_change_no_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let target = |tuning: Value| {
        json!([{
            "target": "x86-64-v3", "tuning": tuning, "cpu": "any", "threads": 1, "steps": [], "noise": 0.02, "trials": []
        }])
    };
    let default = json!({"prefetch_bytes": 8192, "block_rows": 96, "sum_part": 1024, "query_rows": 24});
    let other = json!({"prefetch_bytes": 64, "block_rows": 12, "sum_part": 32, "query_rows": 5});
    let logits = [("default", default), ("other", other)].map(|(name, tuning)| {
        let (file, artifact) = (path(&format!("{name}.json")), path(&format!("{name}.llmc")));
        fs::write(&file, target(tuning).to_string()).unwrap();
        succeeds(compile(tiny("llama"), &artifact).args(["--target", "x86-64-v3", "--tuning"]).arg(&file));
        let ids: Vec<String> = (0..70).map(|id| (id % 60).to_string()).collect();
        let mut run = llmrt();
        run.arg("run").arg(&artifact).args(["--prompt-ids", &ids.join(","), "-n", "20", "--ignore-eos"]);
        let said = json(run.args(["--logprobs", "5", "--threads", "3"]));
        (said, fs::read(artifact).unwrap())
    });
    let [(default, default_bytes), (other, other_bytes)] = logits;
    assert_eq!(default["ids"], other["ids"]);
    assert_eq!(default["logprobs"], other["logprobs"]);
    assert!(default_bytes != other_bytes, "the code is the same: the sizes had no influence");
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
    let tuning = r#"{"prefetch_bytes": 64, "block_rows": 0, "sum_part": 32, "query_rows": 5}"#;
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
