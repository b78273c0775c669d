//! The rebuilt tokenizers, loaded by the library that the runtime uses.

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::model::complete;
use super::writer::{Writer, byte_level, model};
use super::{Imported, imported};

/// A vocabulary that the `sentencepiece` library trained (`tokens`, `scores`, `types`), and how that library encodes and
/// decodes some texts (`texts`: text, ids, text again).
const SENTENCEPIECE: &str = include_str!("../../testdata/sentencepiece.json");

fn tokenizer(imported: &Imported) -> Tokenizer {
    Tokenizer::from_file(imported.path().join("tokenizer.json")).expect("the library reads it")
}

/// The tokens of a text, as their strings.
fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text, true).expect("any text can be encoded").get_tokens().to_vec()
}

const ROWS: usize = 300;

/// A tokenizer with a few merges, named `pre`.
fn words(pre: &str) -> Imported {
    let merges = ["1 2", "12 3", "Ġ a", "a b", "Ġa b", "b A", "' S", "! /"];
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>"];
    let writer = byte_level(model("llama", ROWS), pre, &merges, &specials);
    imported(&writer.u32("tokenizer.ggml.bos_token_id", 265).u32("tokenizer.ggml.eos_token_id", 266))
}

#[test]
fn words_are_cut_as_the_name_says() {
    let check = |pre: &str, text: &str, expected: &[&str]| {
        assert_eq!(tokens(&tokenizer(&words(pre)), text), expected, "{pre}: {text:?}");
    };
    check("gpt-2", "12345 ab", &["123", "4", "5", "Ġab"]);
    check("smollm", "12345 ab", &["1", "2", "3", "4", "5", "Ġab"]);
    check("refact", "12 ab", &["1", "2", "Ġab"]);
    check("qwen2", "12345 ab", &["1", "2", "3", "4", "5", "Ġab"]);
    check("llama-bpe", "12123", &["<|im_start|>", "12", "1", "2", "3"]);
    check("tekken", "12", &["<|im_start|>", "1", "2"]);
    // Only Tekken cuts between cases, and takes slashes with punctuation.
    check("llama-bpe", "bA!/", &["<|im_start|>", "bA", "!/"]);
    check("tekken", "bA!/", &["<|im_start|>", "b", "A", "!/"]);
    // Contractions in capitals, and composed characters.
    check("gpt-2", "x'S", &["x", "'", "S"]);
    check("qwen2", "x'S", &["x", "'S"]);
    check("qwen2", "e\u{301}", &["Ã", "©"]);
    check("smollm", "e\u{301}", &["e", "Ì", "ģ"]);
}

#[test]
fn special_tokens_are_recognised_and_hidden() {
    let smollm = tokenizer(&words("smollm"));
    let text = "<|im_start|>ab<|fim_prefix|> 12<|im_end|>";
    assert_eq!(tokens(&smollm, text), ["<|im_start|>", "ab", "<|fim_prefix|>", "Ġ", "1", "2", "<|im_end|>"]);
    let ids = smollm.encode(text, true).expect("encodes").get_ids().to_vec();
    assert_eq!(smollm.decode(&ids, false).expect("decodes"), text);
    assert_eq!(smollm.decode(&ids, true).expect("decodes"), "ab 12");
    // Qwen's tokens for filling in the middle are not special although GGUF says so.
    let qwen2 = tokenizer(&words("qwen2"));
    assert_eq!(qwen2.decode(&ids, true).expect("decodes"), "ab<|fim_prefix|> 12");
}

#[test]
fn special_tokens_cannot_be_forged_where_they_are_switched_off() {
    // Llama 3 looks whole words up before it merges, so a special token in the model's vocabulary would be found.
    let mut llama3 = tokenizer(&words("llama-bpe"));
    assert_eq!(llama3.get_vocab_size(true), 268);
    assert_eq!(llama3.get_vocab_size(false), 264);
    llama3.set_encode_special_tokens(true);
    let ids = llama3.encode("<|im_end|>", false).expect("encodes").get_ids().to_vec();
    assert!(ids.iter().all(|&id| id < 264), "{ids:?}");
}

#[test]
fn beginning_and_end_are_added_as_the_file_says() {
    let base = complete("llama").without("tokenizer.ggml.pre").text("tokenizer.ggml.pre", "smollm");
    let both = base.clone().flag("tokenizer.ggml.add_bos_token", true).flag("tokenizer.ggml.add_eos_token", true);
    assert_eq!(tokens(&tokenizer(&imported(&base)), "ab"), ["ab"]);
    assert_eq!(tokens(&tokenizer(&imported(&both)), "ab"), ["<s>", "ab", "</s>"]);
    let unnamed = imported(&base.without("tokenizer.ggml.pre"));
    assert!(unnamed.summary.warnings.iter().any(|warning| warning.contains("does not name its pre-tokenizer")));
}

#[test]
fn chat_models_stop_at_every_end() {
    let generation = |pre: &str, eos: u32| {
        let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"];
        let writer = byte_level(model("llama", ROWS), pre, &["a b"], &specials);
        let writer = writer.u32("tokenizer.ggml.eos_token_id", eos).u32("tokenizer.ggml.padding_token_id", 257);
        imported(&writer).json("generation_config.json")
    };
    assert_eq!(generation("qwen2", 259), json!({ "eos_token_id": [259, 257], "pad_token_id": 257 }));
    assert_eq!(generation("qwen2", 257), json!({ "eos_token_id": 257, "pad_token_id": 257 }));
    assert_eq!(generation("smollm", 259), json!({ "eos_token_id": 259, "pad_token_id": 257 }));
    assert_eq!(generation("llama-bpe", 260), json!({ "eos_token_id": [260, 261], "pad_token_id": 257 }));
}

/// A model with the trained vocabulary.
fn sentencepiece() -> (Writer, Value) {
    let reference: Value = serde_json::from_str(SENTENCEPIECE).expect("it is JSON");
    let list = |key: &str| reference[key].as_array().expect("a list").iter();
    let tokens: Vec<&str> = list("tokens").map(|token| token.as_str().expect("text")).collect();
    let scores: Vec<f32> = list("scores").map(|score| score.as_f64().expect("a number") as f32).collect();
    let types: Vec<i32> = list("types").map(|kind| kind.as_i64().expect("a number") as i32).collect();
    let writer = model("llama", tokens.len())
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0);
    (writer, reference)
}

#[test]
fn sentencepiece_tokenizers_agree_with_their_library() {
    let (writer, reference) = sentencepiece();
    let tokenizer = tokenizer(&imported(&writer));
    for row in reference["texts"].as_array().expect("a list") {
        let text = row[0].as_str().expect("text");
        let expected: Vec<u32> =
            row[1].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect();
        let ids = tokenizer.encode(text, true).expect("any text can be encoded").get_ids().to_vec();
        assert_eq!(ids[0], 1, "the text begins with <s>");
        assert_eq!(ids[1..], expected, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), row[2].as_str().expect("text"));
    }
}

#[test]
fn the_space_in_front_can_be_switched_off() {
    let (writer, _) = sentencepiece();
    let with = tokenizer(&imported(&writer));
    let without = tokenizer(&imported(
        &writer.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", false),
    ));
    assert!(tokens(&with, "and")[1].starts_with('\u{2581}'));
    assert_eq!(tokens(&without, " and")[0], tokens(&with, "and")[1]);
    assert!(!tokens(&without, "and")[0].starts_with('\u{2581}'));
    let ids = without.encode(" and", true).expect("encodes").get_ids().to_vec();
    assert_eq!(without.decode(&ids, true).expect("decodes"), " and");
}
