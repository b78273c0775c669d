//! Files that are damaged or lie: one clear sentence each, and nothing is left behind.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use llmc_models::gguf::{GgufError, import};

use super::model::complete;
use super::writer::{F32, HIDDEN, Writer};
use super::{assert_says, refused, try_import};

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = complete("llama").finish();
    // Every length up to the tensor data would take long; a prime step meets all kinds of fields.
    for length in (0..file.len() - 1).step_by(211).chain([3, 4, 7, 8, 23, 24]) {
        refused(&file[..length]);
    }
}

#[test]
fn a_flipped_byte_never_panics() {
    let file = complete("qwen2").finish();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut refused = 0;
    for at in (0..file.len().min(16_384)).step_by(23) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x81;
        refused += usize::from(try_import(directory.path(), &damaged).is_err());
    }
    assert!(refused > 50, "only {refused} of the damaged files were refused");
}

#[test]
fn lies_are_named() {
    let good = complete("llama");
    let says = |file: Vec<u8>, parts: &[&str]| assert_says(&refused(&file), parts);
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.finish();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    says(b"".to_vec(), &["truncated"]);
    says(b"PK\x03\x04 a zip file".to_vec(), &["letters GGUF"]);
    says(patched(4, &1u32.to_le_bytes()), &["version 1", "2 and 3"]);
    says(patched(4, &3u32.to_be_bytes()), &["big-endian"]);
    says(patched(8, &u64::MAX.to_le_bytes()), &["tensor"]);
    says(patched(16, &u64::MAX.to_le_bytes()), &["not a valid GGUF file"]);
    // The length of the first key.
    says(patched(24, &u64::MAX.to_le_bytes()), &["truncated"]);

    let set = |change: fn(Writer) -> Writer| change(good.clone()).finish();
    says(set(|w| w.raw("x", 99, &[])), &["x", "type 99"]);
    says(set(|w| w.raw("x", 7, &[2])), &["boolean", "2"]);
    says(set(|w| w.raw("x", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff])), &["x", "UTF-8"]);
    let nested: Vec<u8> = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(1000);
    says(good.clone().raw("x", 9, &nested).finish(), &["nested"]);
    let endless = [[4, 0, 0, 0].as_slice(), &u64::MAX.to_le_bytes()].concat();
    says(good.clone().raw("x", 9, &endless).finish(), &["truncated"]);
    says(set(|w| w.u32("general.alignment", 0)), &["general.alignment", "power of two"]);
    says(set(|w| w.u32("general.alignment", 24)), &["general.alignment", "power of two"]);
    says(set(|w| w.u32("split.count", 3)), &["llama-gguf-split"]);
    says(set(|w| w.text("general.architecture", "mamba")), &["architecture is mamba", "llama and qwen2"]);
    says(set(|w| w.without("general.architecture")), &["general.architecture is missing"]);
    says(set(|w| w.without("llama.block_count")), &["llama.block_count is missing"]);
    says(set(|w| w.text("llama.block_count", "two")), &["llama.block_count", "a string"]);
    says(set(|w| w.u32("llama.block_count", 0)), &["block_count is zero"]);
    says(set(|w| w.u32("llama.block_count", u32::MAX)), &["blk.2.attn_norm.weight is missing"]);
    says(set(|w| w.u32("llama.attention.head_count", 3)), &["3 heads do not divide"]);
    says(set(|w| w.u32("llama.attention.head_count_kv", 3)), &["3 key-value heads"]);
    says(set(|w| w.u32("llama.attention.head_count", u32::MAX)), &["do not divide"]);
    says(set(|w| w.raw("llama.attention.key_length", 10, &(1u64 << 62).to_le_bytes())), &["head size is"]);
    says(set(|w| w.u32("llama.rope.dimension_count", 4)), &["rope.dimension_count is 4"]);
    says(set(|w| w.f32("llama.rope.freq_base", f32::NAN)), &["rope.freq_base", "finite"]);
    says(set(|w| w.u32("llama.expert_count", 8)), &["mixture-of-experts"]);
    says(set(|w| w.f32("llama.logit_scale", 2.0)), &["llama.logit_scale"]);
}

#[test]
fn lies_about_tensors_are_named() {
    let good = complete("llama");
    let says = |writer: Writer, parts: &[&str]| assert_says(&refused(&writer.finish()), parts);
    let norm = "output_norm.weight";
    let bytes = [0; 4 * HIDDEN];
    says(good.clone().without_tensor(norm), &[norm, "missing"]);
    says(good.clone().tensor(norm, &[HIDDEN / 2], &[0.0; HIDDEN / 2]), &[norm, "[32]", "[16]"]);
    says(good.clone().tensor(norm, &[HIDDEN], &[f32::NAN; HIDDEN]), &[norm, "NaN"]);
    says(good.clone().tensor(norm, &[HIDDEN], &[f32::MAX; HIDDEN]), &[norm, "range of bf16"]);
    says(good.clone().tensor("extra.weight", &[1], &[0.0]), &["extra.weight"]);
    says(good.clone().blocks(norm, 16, &[HIDDEN], &bytes), &[norm, "IQ2_XXS", "Q4_K"]);
    says(good.clone().blocks(norm, 1000, &[HIDDEN], &bytes), &[norm, "number 1000"]);
    says(good.clone().blocks(norm, F32, &[1, 1, 1, 1, HIDDEN], &bytes), &[norm, "5 dimensions"]);
    says(good.clone().blocks(norm, F32, &[HIDDEN, 0], &bytes), &[norm, "[32, 0]"]);
    says(good.clone().blocks(norm, 8, &[HIDDEN - 1], &bytes), &[norm, "Q8_0", "multiple of 32"]);
    says(good.clone().blocks(norm, F32, &[usize::MAX, 2], &bytes), &[norm, "too large"]);
    says(good.clone().blocks(norm, F32, &[1 << 40], &bytes), &[norm]);

    // The first tensor's entry in the table: name, dimensions (1 of 4 + 2 of 8 bytes), type, offset.
    let name = "token_embd.weight";
    let file = good.finish();
    let at = file.windows(name.len()).position(|window| window == name.as_bytes()).expect("it is there") + name.len();
    let offset = |value: u64| {
        let mut file = file.clone();
        file[at + 24..at + 32].copy_from_slice(&value.to_le_bytes());
        refused(&file)
    };
    assert_says(&offset(1), &["overlap"]);
    assert_says(&offset(1 << 40), &[name, "truncated"]);
    assert_says(&offset((1 << 40) + 1), &[name, "multiple of 32"]);
    assert_says(&offset(u64::MAX - 31), &[name, "truncated"]);
}

#[test]
fn lies_about_the_tokenizer_are_named() {
    let good = complete("llama");
    let says = |writer: Writer, parts: &[&str]| assert_says(&refused(&writer.finish()), parts);
    says(good.clone().text("tokenizer.ggml.model", "t5"), &["kind t5"]);
    says(good.clone().text("tokenizer.ggml.pre", "klingon"), &["klingon", "qwen2"]);
    says(good.clone().without("tokenizer.ggml.tokens"), &["tokenizer.ggml.tokens is missing"]);
    let no_roles = good.clone().without("tokenizer.ggml.bos_token_id").without("tokenizer.ggml.eos_token_id");
    says(no_roles.texts("tokenizer.ggml.tokens", &["a"; 4]), &["entries for 4 tokens"]);
    says(good.clone().texts("tokenizer.ggml.tokens", &["a"; 300]), &["300 tokens for 260 embeddings"]);
    says(good.clone().texts("tokenizer.ggml.tokens", &["a"; 259]), &["\"a\" occurs twice"]);
    says(good.clone().i32s("tokenizer.ggml.token_type", &[9; 259]), &["unknown kind 9"]);
    says(good.clone().u32("tokenizer.ggml.eos_token_id", 259), &["eos_token_id is 259"]);
    says(good.clone().texts("tokenizer.ggml.merges", &["ab"]), &["\"ab\"", "two tokens"]);
    says(good.clone().texts("tokenizer.ggml.merges", &["a zz"]), &["\"zz\"", "does not exist"]);
    says(good.clone().without("tokenizer.ggml.merges"), &["merges is missing"]);
    says(good.text("tokenizer.ggml.model", "llama"), &["scores is missing"]);
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("out"), "a file").expect("writable");
    let error = try_import(directory.path(), &complete("llama").finish()).expect_err("out is a file").to_string();
    assert_says(&error, &["out", "create the directory"]);
    let nowhere = import(&directory.path().join("no.gguf"), directory.path(), &mut |_, _| true);
    assert_says(&nowhere.expect_err("there is no such file").to_string(), &["no.gguf", "cannot find"]);
    let itself = import(directory.path(), directory.path(), &mut |_, _| true);
    assert_says(&itself.expect_err("a directory is no file").to_string(), &["not a regular file"]);
}

#[test]
fn an_import_that_is_stopped_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (gguf, out) = (directory.path().join("model.gguf"), directory.path().join("out"));
    fs::write(&gguf, complete("llama").finish()).expect("writable");
    for most in [0, 1] {
        let mut calls = 0;
        let stopped = import(&gguf, &out, &mut |_, _| {
            calls += 1;
            calls <= most
        });
        assert!(matches!(stopped, Err(GgufError::Interrupted)));
        assert!(!out.exists());
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| import(&gguf, &out, &mut |_, _| panic!("stopped"))));
    assert!(panicked.is_err());
    assert!(!out.exists());
}
