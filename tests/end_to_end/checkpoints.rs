//! Checkpoints that are damaged, hostile or not understood: one clear error each, and no artifact.

use super::support::binaries::{compile, fails_saying, llmc, llmrt, succeeds};
use super::support::broken::{self, Broken};
use super::support::models::{TINY, tiny};
use serde_json::{Value, json};
use std::path::Path;

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Compiles what is in `directory` and expects an error that says `parts`, with nothing left behind.
#[track_caller]
fn refused_with(directory: &Path, flags: &[&str], parts: &[&str]) {
    let outputs = tempfile::tempdir().unwrap();
    fails_saying(compile(directory, outputs.path().join("x.llmc")).args(flags), parts);
    assert_eq!(std::fs::read_dir(outputs.path()).unwrap().count(), 0);
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Broken), parts: &[&str]) {
    let parent = tempfile::tempdir().unwrap();
    let mut broken = Broken::new();
    change(&mut broken);
    refused_with(&broken.write(parent.path()), &[], parts);
}

/// Refuses a model.safetensors with these bytes, by name.
#[track_caller]
fn file_refused(bytes: &[u8], parts: &[&str]) {
    let parent = tempfile::tempdir().unwrap();
    let directory = broken::write(parent.path(), bytes, Broken::new().config.to_string().as_bytes());
    refused_with(&directory, &[], &[&["model.safetensors is not a valid safetensors file"], parts].concat());
}

#[test]
fn weights_files_that_are_cut_or_lie_about_their_header() {
    let good = Broken::new().file();
    let header = u64::from_le_bytes(*good.first_chunk().unwrap());
    file_refused(b"", &["0 bytes"]);
    file_refused(&good[..7], &["7 bytes"]);
    file_refused(&good[..8], &["ends after 0"]);
    file_refused(&good[..100], &["ends after 92", "truncated"]);
    file_refused(&good[..good.len() / 2], &["truncated", "download"]);
    file_refused(&good[..good.len() - 1], &["truncated"]);
    file_refused(&[&good[..], b"more"].concat(), &["357252"]);
    let with_length = |length: u64| [&length.to_le_bytes(), &good[8..]].concat();
    for length in [1 << 63, u64::MAX, u64::MAX - 7, 100_000_001] {
        file_refused(&with_length(length), &[&format!("claims a header of {length} bytes")]);
    }
    for length in [0, 1, header - 1, header + 1, good.len() as u64 - 8] {
        file_refused(&with_length(length), &["header is not the expected JSON"]);
    }
    let with_header = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text, &good[8 + header as usize..]].concat();
    for text in
        [&b"not json"[..], b"[]", b"null", b"{}", &[0xff; 64], &b"[".repeat(100_000), &b"{\"a\":".repeat(50_000)]
    {
        file_refused(&with_header(text), &[]);
    }
}

#[test]
fn tensors_that_overlap_leave_gaps_or_reach_outside() {
    let offsets =
        |start: Value, end: Value| move |broken: &mut Broken| broken.header[HEAD]["data_offsets"] = json!([start, end]);
    let says = |part: &'static str| ["model.safetensors", part];
    refused(offsets(json!(0), json!(1u64 << 62)), &says("ends at byte 4611686018427387904"));
    refused(offsets(json!(u64::MAX), json!(u64::MAX)), &says("not a valid safetensors file"));
    refused(offsets(json!(49152), json!(0)), &says(HEAD));
    refused(offsets(json!(-1), json!(5)), &says("-1"));
    refused(offsets(json!(0.5), json!(5)), &says("header"));
    refused(offsets(json!("0"), json!("5")), &says("header"));
    refused(
        |broken| broken.header[EMBEDDING]["data_offsets"] = broken.header[HEAD]["data_offsets"].clone(),
        &says("overlaps"),
    );
    refused(|broken| drop(broken.header.as_object_mut().unwrap().remove(HEAD)), &says("leaves a gap"));
    refused(|broken| drop(broken.header[HEAD].as_object_mut().unwrap().remove("shape")), &says("shape"));
    let twice = |broken: &Broken| {
        let text = broken.header.to_string();
        let header = text.replacen(EMBEDDING, HEAD, 1);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &broken.data].concat()
    };
    file_refused(&twice(&Broken::new()), &["occurs twice"]);
}

#[test]
fn tensors_of_the_wrong_type_or_shape() {
    refused(|broken| broken.header[HEAD]["dtype"] = json!("F32"), &[HEAD, "needs 98304 bytes"]);
    refused(|broken| broken.header[HEAD]["dtype"] = json!("I16"), &[HEAD, "I16", "BF16, F16 or F32"]);
    refused(|broken| broken.header[HEAD]["dtype"] = json!("F99"), &["F99"]);
    refused(|broken| broken.header[HEAD]["shape"] = json!([64, 384]), &[HEAD, "[64, 384]", "expected [384, 64]"]);
    refused(|broken| broken.header[HEAD]["shape"] = json!([24576]), &[HEAD, "expected [384, 64]"]);
    refused(|broken| broken.header[HEAD]["shape"] = json!([1u64 << 63, 4]), &[HEAD]);
    refused(|broken| broken.header[HEAD]["shape"] = json!([u64::MAX, u64::MAX]), &[HEAD]);
    refused(
        |broken| {
            broken.remove(HEAD);
            broken.add(HEAD, "BF16", &[0, 64], &[]);
        },
        &[HEAD, "no elements"],
    );
}

#[test]
fn tensors_that_are_missing_or_too_many() {
    refused(
        |broken| broken.remove("model.layers.1.mlp.up_proj.weight"),
        &["1 tensor missing: model.layers.1.mlp.up_proj"],
    );
    refused(|broken| broken.remove(HEAD), &["missing", HEAD, "tie_word_embeddings"]);
    refused(
        |broken| broken.add("model.layers.3.mlp.up_proj.weight", "BF16", &[4], &[0; 8]),
        &["no use for", "layers.3"],
    );
    refused(|broken| broken.add("model.layers.0.self_attn.q_proj.bias", "F32", &[1], &[0; 4]), &["q_proj.bias"]);
}

#[test]
fn weights_that_are_not_finite_or_too_large_for_bf16() {
    let poisoned = |bits: u16| {
        move |broken: &mut Broken| {
            broken.tensor("model.layers.1.mlp.up_proj.weight")[10..12].copy_from_slice(&bits.to_le_bytes())
        }
    };
    refused(poisoned(0x7fc0), &["model.layers.1.mlp.up_proj.weight", "NaN", "index 5", "finite"]);
    refused(poisoned(0x7f80), &["inf"]);
    refused(poisoned(0xff80), &["-inf"]);
    // Finite in f32, infinite when rounded to bf16.
    let parent = tempfile::tempdir().unwrap();
    let mut broken = Broken::new();
    broken.remove("model.layers.1.mlp.up_proj.weight");
    let bytes: Vec<u8> = f32::MAX.to_le_bytes().repeat(160 * 64);
    broken.add("model.layers.1.mlp.up_proj.weight", "F32", &[160, 64], &bytes);
    let directory = broken.write(parent.path());
    refused_with(&directory, &[], &["model.layers.1.mlp.up_proj.weight", "3.4028235e38", "--dtype f32"]);
    let artifact = parent.path().join("x.llmc");
    succeeds(compile(&directory, &artifact).args(["--dtype", "f32"]));
    // What then overflows while it runs is said, too.
    let mut command = llmrt();
    fails_saying(command.arg("run").arg(&artifact).args(["--prompt-ids", "1,2,3"]), &["logit that is", "damaged"]);
}

/// Refuses the tiny Llama's config.json after a change.
#[track_caller]
fn config_refused(change: impl FnOnce(&mut Value), parts: &[&str]) {
    refused(|broken| change(&mut broken.config), parts);
}

#[test]
fn configurations_that_lack_something() {
    for field in [
        "architectures",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rms_norm_eps",
        "max_position_embeddings",
    ] {
        config_refused(
            |config| drop(config.as_object_mut().unwrap().remove(field)),
            &["config.json", "missing", field],
        );
    }
    let parent = tempfile::tempdir().unwrap();
    let weights = Broken::new().file();
    for text in ["", "{", "[]", "null", "\u{fffd}", "{\"hidden_size\": 64,}"] {
        let directory = broken::write(parent.path(), &weights, text.as_bytes());
        refused_with(&directory, &[], &["config.json is not a JSON object"]);
    }
    let directory = broken::write(parent.path(), &weights, b"{}");
    std::fs::remove_file(directory.join("config.json")).unwrap();
    refused_with(&directory, &[], &["cannot read", "config.json", "needs this file"]);
}

#[test]
fn configurations_that_are_not_understood() {
    let set = |field: &'static str, value: Value| move |config: &mut Value| config[field] = value;
    let supported = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM";
    config_refused(set("architectures", json!(["GPT2LMHeadModel"])), &["GPT2LMHeadModel", supported]);
    config_refused(set("model_type", json!("gpt2")), &["model_type", "gpt2"]);
    config_refused(set("hidden_act", json!("gelu")), &["hidden_act", "gelu", "silu"]);
    config_refused(set("rope_scaling", json!({"type": "yarn", "factor": 4.0})), &["yarn", "llama3"]);
    config_refused(set("quantization_config", json!({"bits": 4})), &["quantization_config"]);
    config_refused(set("sliding_window", json!(16)), &["sliding_window"]);
    config_refused(set("attention_bias", json!(true)), &["12 tensors missing", "q_proj.bias"]);
    config_refused(set("tie_word_embeddings", json!(true)), &["differs from model.embed_tokens.weight"]);
    for (field, value) in [
        ("hidden_size", json!(-64)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(1e30)),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(63)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(u64::MAX)),
        ("num_attention_heads", json!(3)),
        ("num_key_value_heads", json!(3)),
        ("vocab_size", json!(0)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(0)),
        ("rms_norm_eps", json!("small")),
        ("rope_theta", json!(-1)),
        ("head_dim", json!(15)),
    ] {
        config_refused(set(field, value), &["config.json", field]);
    }
}

#[test]
fn shards_that_do_not_fit_together() {
    let copy = || {
        let parent = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(tiny("qwen2")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), parent.path().join(entry.file_name())).unwrap();
        }
        parent
    };
    let directory = copy();
    std::fs::remove_file(directory.path().join("model-00003-of-00004.safetensors")).unwrap();
    refused_with(directory.path(), &[], &["model-00003-of-00004.safetensors"]);
    let directory = copy();
    let [second, third] = [2, 3].map(|n| directory.path().join(format!("model-0000{n}-of-00004.safetensors")));
    std::fs::copy(&second, &third).unwrap();
    refused_with(directory.path(), &[], &["model.safetensors.index.json"]);
    let directory = copy();
    let index = directory.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"lm_head.weight": "../../etc/passwd"}}"#).unwrap();
    refused_with(directory.path(), &[], &["../../etc/passwd", "plain file names"]);
    std::fs::write(&index, "{").unwrap();
    refused_with(directory.path(), &[], &["model.safetensors.index.json"]);
}

#[test]
fn tokenizers_that_cannot_be_used() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Broken::new().write(parent.path());
    let tokenizer = directory.join("tokenizer.json");
    for text in ["", "{}", "[]", "not json", r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}"#] {
        std::fs::write(&tokenizer, text).unwrap();
        refused_with(&directory, &[], &["tokenizer.json is not a usable tokenizer", "without a tokenizer"]);
    }
    std::fs::write(&tokenizer, [0x80; 100]).unwrap();
    refused_with(&directory, &[], &["tokenizer.json"]);
    let good = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
    std::fs::write(&tokenizer, good).unwrap();
    for (name, text) in [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", r#"{"chat_template": 5}"#),
        ("generation_config.json", "[]"),
        ("generation_config.json", r#"{"eos_token_id": "x"}"#),
        ("generation_config.json", r#"{"temperature": "hot"}"#),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
        refused_with(&directory, &[], &[name]);
        std::fs::remove_file(directory.join(name)).unwrap();
    }
}

/// A bit anywhere in the header: the file is refused or it is still a checkpoint, but nothing panics.
#[test]
fn flipped_bits_in_the_header() {
    let parent = tempfile::tempdir().unwrap();
    let good = Broken::new().file();
    let config = Broken::new().config.to_string();
    let header = u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    for (number, at) in (0..8 + header).step_by(41).enumerate() {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (number % 8);
        let directory = broken::write(parent.path(), &damaged, config.as_bytes());
        // Loads everything and stops before code is made.
        let output = llmc().arg("compile").arg(&directory).args(["--stop-after", "imported"]).output().unwrap();
        let notes = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 2)), "byte {at}: {:?} {notes}", output.status);
    }
}

#[test]
fn what_is_no_checkpoint_at_all() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &[u8]| {
        let path = parent.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    refused_with(Path::new("/no/such/model"), &[], &["/no/such/model", "check the path"]);
    refused_with(Path::new("/dev/null"), &[], &["/dev/null"]);
    refused_with(parent.path(), &[], &["model.safetensors", "directory"]);
    refused_with(&path("a.gguf", b"GGUF"), &[], &["llmc import"]);
    refused_with(&path("a.bin", b""), &[], &["PyTorch pickle"]);
    refused_with(&path("a.txt", b"just some text, nothing more"), &[], &["a.txt is not a valid safetensors file"]);
    refused_with(&tiny("llama").join("config.json"), &[], &["config.json", "not a shard index"]);
    refused_with(&tiny("qwen2").join("model-00001-of-00004.safetensors"), &[], &["one shard of several"]);
    assert!(TINY.iter().all(|name| tiny(name).is_dir()));
}
