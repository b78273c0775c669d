//! `llmc compile --shapes-only`: a config.json alone says what the compiler would do, and says the same as an artifact.

use super::support::binaries::{compile, fails_saying, json, llmc, succeeds};
use super::support::models::tiny;
use serde_json::{Value, json as value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LLAMA_3_8B: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000, "max_position_embeddings": 8192,
    "tie_word_embeddings": false, "hidden_act": "silu"}"#;

fn shapes(config: &Path) -> Command {
    let mut command = llmc();
    command.args(["compile", "--shapes-only"]).arg(config);
    command
}

fn write(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("shapes.json");
    fs::write(&path, text).unwrap();
    path
}

/// A report without what only an artifact has, or a clock measured.
fn of_passes(mut report: Value) -> Value {
    let object = report.as_object_mut().unwrap();
    for field in ["artifact", "bytes", "notes", "targets", "timing"] {
        object.remove(field).unwrap();
    }
    for program in report["programs"].as_array_mut().unwrap() {
        for kernel in program["kernels"].as_array_mut().unwrap() {
            kernel["code_bytes"] = value!({});
        }
    }
    report
}

#[test]
fn shapes_say_what_an_artifact_says() {
    let directory = tempfile::tempdir().unwrap();
    // One whose weights are stored as they are multiplied, and one whose are not.
    for (model, dtype) in [("qwen2", "bf16"), ("llama", "f32")] {
        // How far weights shrink, shapes do not tell.
        let flags =
            ["--dtype", dtype, "--max-batch", "1", "--max-context", "64", "--without", "cse", "--without", "compress"];
        let config = directory.path().join("anything.json");
        fs::copy(tiny(model).join("config.json"), &config).unwrap();
        let artifact = directory.path().join("x.llmc");
        succeeds(compile(tiny(model), &artifact).args(flags));
        let expected = json(llmc().arg("explain").arg(&artifact));
        let found = json(shapes(&config).args(flags));
        assert_eq!(found["artifact"], "anything.json");
        assert_eq!(found["bytes"], Value::Null);
        assert!(found["notes"][0].as_str().unwrap().contains("no weights were read"), "{}", found["notes"]);
        assert!(of_passes(found) == of_passes(expected), "{model}");
        // So are the phases.
        let mut from_weights = llmc();
        from_weights.arg("compile").arg(tiny(model)).args(flags).args(["--stop-after", "fused"]);
        assert_eq!(succeeds(shapes(&config).args(flags).args(["--stop-after", "fused"])), succeeds(&mut from_weights));
    }
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 2, "nothing is written");
}

#[test]
fn shapes_have_a_page_too() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), LLAMA_3_8B);
    let page = directory.path().join("report.html");
    let said = succeeds(shapes(&config).args(["--max-batch", "1", "-o"]).arg(&page));
    assert!(said.contains("report.html"), "{said}");
    let page = fs::read_to_string(&page).unwrap();
    for part in ["<!DOCTYPE html>", "shapes.json", "no weights were read", "\"bytes\":null"] {
        assert!(page.contains(part), "`{part}` is not in the page");
    }
}

#[test]
fn a_large_model_s_choices_have_reasons() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), LLAMA_3_8B);
    let text = succeeds(shapes(&config).args(["--machine", "a100"]));
    for part in [
        "shapes.json: shapes only",
        "8.03 G parameters",
        "no artifact was written",
        "machine  a100",
        "eqsat ",
        "weights: 16.1 GB",
        "cache: 131 kB per position",
        "activations of decode_1: ",
        "launches, ",
        "=== @layer for decode_1: ",
        "on a100: ",
        "the same form as for ",
        "bandwidth",
        "compute",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    // Another machine, other prices.
    let host = succeeds(shapes(&config).args(["--machine", "host", "--max-batch", "1"]));
    assert!(host.contains("machine  host") && !host.contains("a100"), "{host}");
    let without = succeeds(shapes(&config).args(["--without", "eqsat", "--max-batch", "1"]));
    assert!(without.contains("did not run") && !without.contains("==="), "{without}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), LLAMA_3_8B);
    let output = directory.path().join("x.llmc");
    fails_saying(shapes(&config).arg("-o").arg(&output), &["--shapes-only", "x.llmc", "leave out -o", ".html"]);
    assert!(!output.exists());
    fails_saying(&mut shapes(&directory.path().join("nothing.json")), &["cannot read", "nothing.json"]);
    fails_saying(&mut shapes(directory.path()), &["cannot read", "config.json"]);
    for (text, parts) in [
        ("", ["not a JSON object", "shapes.json"]),
        ("[1]", ["not a JSON object", "shapes.json"]),
        ("{}", ["shapes.json", "architectures"]),
        (&LLAMA_3_8B.replace("\"hidden_size\": 4096", "\"hidden_size\": -1"), ["shapes.json", "hidden_size"]),
        (&LLAMA_3_8B.replace("LlamaForCausalLM", "MambaForCausalLM"), ["shapes.json", "MambaForCausalLM"]),
    ] {
        fails_saying(&mut shapes(&write(directory.path(), text)), &parts);
    }
    let config = write(directory.path(), LLAMA_3_8B);
    fails_saying(shapes(&config).args(["--max-context", "9999"]), &["--max-context is 9999", "8192"]);
    fails_saying(shapes(&config).args(["--max-batch", "0"]), &["--max-batch is 0"]);
}
