//! Weights and configuration.

use std::fs;

use half::bf16;
use llmc_models::checkpoint::Checkpoint;
use llmc_models::gguf::import;
use serde_json::json;

use super::writer::{HEAD_DIM, HIDDEN, LAYERS, Q8_0, Writer, byte_level, model, values};
use super::{Imported, assert_says, imported, refused};

const VOCABULARY: usize = 260;

/// A whole tiny model with the simplest of tokenizers.
pub fn complete(architecture: &str) -> Writer {
    byte_level(model(architecture, VOCABULARY), "gpt-2", &["a b"], &["<s>", "</s>"])
        .u32("tokenizer.ggml.bos_token_id", 257)
        .u32("tokenizer.ggml.eos_token_id", 258)
}

fn weights(imported: &Imported, name: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&imported.path()).expect("the import is a checkpoint");
    let tensor = checkpoint.tensor(name).expect("the tensor exists");
    let mut values = Vec::new();
    tensor.read_f32(0..tensor.elements(), &mut values).expect("it is bf16");
    values
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect()
}

#[test]
fn a_llama_model_becomes_a_checkpoint() {
    let imported = imported(&complete("llama").text("tokenizer.chat_template", "{{ messages }}"));
    let summary = &imported.summary;
    assert_eq!((summary.architecture.as_str(), summary.tensors), ("llama", 2 + 9 * LAYERS));
    assert_eq!(summary.warnings, Vec::<String>::new());
    let names: Vec<_> = summary.files.iter().map(|path| path.file_name().expect("a name").to_owned()).collect();
    let expected =
        ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"];
    assert_eq!(names, expected);
    let mut present: Vec<_> = fs::read_dir(imported.path())
        .expect("it exists")
        .map(|entry| entry.expect("it is readable").file_name())
        .collect();
    present.sort();
    let mut names = names;
    names.sort();
    assert_eq!(present, names, "nothing else is there");

    let checkpoint = Checkpoint::open(&imported.path()).expect("the import is a checkpoint");
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(
        names[..3],
        ["model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.mlp.down_proj.weight"]
    );
    assert_eq!(checkpoint.names().map(|name| checkpoint.tensor(name).expect("listed").bytes.len()).sum::<usize>(), {
        summary.bytes as usize
    });
    assert_eq!(
        weights(&imported, "model.layers.1.mlp.up_proj.weight"),
        rounded(&values("blk.1.ffn_up.weight", 64 * HIDDEN))
    );
    assert_eq!(
        imported.json("config.json"),
        json!({
            "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 257,
            "eos_token_id": 258, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 64,
            "max_position_embeddings": 128, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 4,
            "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_scaling": null,
            "rope_theta": 10_000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
            "vocab_size": 260,
        })
    );
    assert_eq!(imported.json("generation_config.json"), json!({ "bos_token_id": 257, "eos_token_id": 258 }));
    let config = imported.json("tokenizer_config.json");
    assert_eq!(config["chat_template"], "{{ messages }}");
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&json!("<s>"), &json!("</s>")));
}

#[test]
fn llama_files_interleave_the_rows_of_queries_and_keys() {
    let llama = imported(&complete("llama"));
    let stored = rounded(&values("blk.0.attn_k.weight", 2 * HEAD_DIM * HIDDEN));
    let row = |values: &[f32], row: usize| values[row * HIDDEN..(row + 1) * HIDDEN].to_vec();
    let read = weights(&llama, "model.layers.0.self_attn.k_proj.weight");
    for head in [0, HEAD_DIM] {
        for i in 0..HEAD_DIM / 2 {
            assert_eq!(row(&read, head + i), row(&stored, head + 2 * i));
            assert_eq!(row(&read, head + HEAD_DIM / 2 + i), row(&stored, head + 2 * i + 1));
        }
    }
    let qwen2 = imported(&complete("qwen2"));
    assert_eq!(weights(&qwen2, "model.layers.0.self_attn.k_proj.weight"), stored);
}

#[test]
fn biases_follow_their_rows() {
    let qwen2 = imported(&complete("qwen2"));
    assert_eq!(weights(&qwen2, "model.layers.1.self_attn.q_proj.bias"), rounded(&values("blk.1.attn_q.bias", HIDDEN)));
    assert_eq!(qwen2.json("config.json")["use_sliding_window"], false);

    let mut llama = complete("llama");
    for layer in 0..LAYERS {
        for (leaf, size) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32)] {
            let counting: Vec<f32> = (0..size).map(|i| i as f32).collect();
            llama = llama.tensor(&format!("blk.{layer}.{leaf}.bias"), &[size], &counting);
        }
    }
    let imported = imported(&llama);
    assert_eq!(imported.json("config.json")["attention_bias"], true);
    assert_eq!(
        weights(&imported, "model.layers.0.self_attn.k_proj.bias"),
        [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15].map(|i| i as f32)
    );
    assert_says(&refused(&llama.without_tensor("blk.0.attn_q.bias").finish()), &["biases in a combination"]);
}

/// Q8_0 blocks of these values.
fn quantized(values: &[f32]) -> Vec<u8> {
    let block = |values: &[f32]| {
        let scale = half::f16::from_f32(values.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0);
        let codes = values.iter().map(move |value| (value / scale.to_f32()).round() as i8 as u8);
        scale.to_le_bytes().into_iter().chain(codes).collect::<Vec<_>>()
    };
    values.chunks(32).flat_map(block).collect()
}

#[test]
fn an_embedding_that_is_stored_twice_is_tied() {
    let shape = [VOCABULARY, HIDDEN];
    let embedding = values("token_embd.weight", VOCABULARY * HIDDEN);
    let twice = complete("qwen2").blocks("token_embd.weight", Q8_0, &shape, &quantized(&embedding)).tensor(
        "output.weight",
        &shape,
        &embedding,
    );
    let tied = imported(&twice);
    assert_eq!(tied.json("config.json")["tie_word_embeddings"], true);
    assert_eq!(weights(&tied, "model.embed_tokens.weight"), rounded(&embedding), "the finer one is kept");
    assert_says(&tied.summary.warnings[0], &["Q8_0", "F32", "tied"]);

    let other = values("another matrix", VOCABULARY * HIDDEN);
    let untied = imported(&twice.tensor("output.weight", &shape, &other));
    assert_eq!(untied.json("config.json")["tie_word_embeddings"], false);
    assert_eq!(weights(&untied, "lm_head.weight"), rounded(&other));
    let requantized: Vec<f32> = quantized(&embedding)
        .chunks(34)
        .flat_map(|block| {
            let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
            block[2..].iter().map(move |&code| scale * f32::from(code as i8)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(weights(&untied, "model.embed_tokens.weight"), rounded(&requantized));
}

#[test]
fn rope_scaling_is_stated_in_the_configuration() {
    let scaling = |writer: Writer| imported(&writer).json("config.json")["rope_scaling"].clone();
    let linear = complete("llama").text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0);
    assert_eq!(scaling(linear), json!({ "rope_type": "linear", "factor": 4.0 }));
    let yarn = complete("qwen2")
        .text("qwen2.rope.scaling.type", "yarn")
        .f32("qwen2.rope.scaling.factor", 4.0)
        .u32("qwen2.rope.scaling.original_context_length", 32);
    assert_eq!(scaling(yarn), json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32 }));
    // By Llama 3's rule for a base of 500000: the second frequency has 8192 * 500000^-(1/2) / 2 pi = 1.84 wavelengths.
    let theta = complete("llama").f32("llama.rope.freq_base", 500_000.0);
    let wavelengths = 8192.0 * 500_000f64.powf(-0.5) / std::f64::consts::TAU;
    let blend = (wavelengths - 1.0) / 3.0;
    let middle = (1.0 / ((1.0 - blend) / 32.0 + blend)) as f32;
    let factors = theta.clone().tensor("rope_freqs.weight", &[4], &[1.0, 1.0, middle, 32.0]);
    assert_eq!(
        scaling(factors),
        json!({
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        })
    );
    let odd = theta.tensor("rope_freqs.weight", &[4], &[1.0, 3.0, 2.0, 32.0]);
    assert_says(&refused(&odd.finish()), &["rope_freqs.weight", "Llama 3"]);
    let longrope = complete("llama").text("llama.rope.scaling.type", "longrope");
    assert_says(&refused(&longrope.finish()), &["longrope"]);
}

#[test]
fn mistral_and_odd_head_sizes_are_stated_too() {
    let config = imported(&complete("llama").u32("llama.attention.sliding_window", 64)).json("config.json");
    assert_eq!((&config["model_type"], &config["sliding_window"]), (&json!("mistral"), &json!(64)));
    assert_eq!(config["architectures"], json!(["MistralForCausalLM"]));

    let mut wide = complete("llama").u32("llama.attention.key_length", 16).u32("llama.attention.value_length", 16);
    wide = wide.u32("llama.rope.dimension_count", 16);
    for layer in 0..LAYERS {
        for (leaf, shape) in
            [("attn_q", [64, 32]), ("attn_k", [32, 32]), ("attn_v", [32, 32]), ("attn_output", [32, 64])]
        {
            let name = format!("blk.{layer}.{leaf}.weight");
            wide = wide.tensor(&name, &shape, &values(&name, shape[0] * shape[1]));
        }
    }
    assert_eq!(imported(&wide).json("config.json")["head_dim"], 16);
}

#[test]
fn an_import_replaces_an_earlier_one_and_reports_progress() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (gguf, out) = (directory.path().join("model.gguf"), directory.path().join("out"));
    fs::write(&gguf, complete("llama").finish()).expect("writable");
    fs::create_dir(&out).expect("writable");
    fs::write(out.join("config.json"), "old").expect("writable");
    fs::write(out.join("notes.txt"), "mine").expect("writable");
    let mut calls = Vec::new();
    let mut progress = |done, total| {
        calls.push((done, total));
        true
    };
    let summary = import(&gguf, &out, &mut progress).expect("the file is good");
    assert_eq!((calls.first(), calls.last()), (Some(&(0, summary.bytes)), Some(&(summary.bytes, summary.bytes))));
    assert!(fs::read_to_string(out.join("config.json")).expect("readable").contains("LlamaForCausalLM"));
    assert_eq!(fs::read_to_string(out.join("notes.txt")).expect("readable"), "mine");
    assert_eq!(fs::read_dir(&out).expect("readable").count(), 6);
}

#[test]
fn two_imports_give_the_same_bytes() {
    let (first, second) = (imported(&complete("llama")), imported(&complete("llama")));
    for (a, b) in first.summary.files.iter().zip(&second.summary.files) {
        assert_eq!(fs::read(a).expect("readable"), fs::read(b).expect("readable"), "{}", a.display());
    }
}
