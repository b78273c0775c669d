//! Byte-level BPE (`tokenizer.ggml.model` = gpt2): every byte is a character, merges are listed, and `tokenizer.ggml.pre`
//! names how text is cut into words first.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::json::{AddedTokens, Bpe, TokenizerJson, Vocab, sequence};
use super::{Metadata, Problem, SpecialIds, TokenKind, TokenizerFiles, Vocabulary, malformed, required, unsupported};

/// How text is cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// GPT-2's own expression, which is built into the library's byte-level step.
    Gpt2,
    /// The same after each digit was cut off.
    DigitsThenGpt2,
    Qwen2,
    Llama3,
    Tekken,
}

/// Names that converters give (`get_vocab_base_pre` in llama.cpp's `convert_hf_to_gguf.py`).
const NAMES: [(&str, Words); 12] = [
    ("gpt-2", Words::Gpt2),
    ("phi-2", Words::Gpt2),
    ("smollm", Words::DigitsThenGpt2),
    ("starcoder", Words::DigitsThenGpt2),
    ("refact", Words::DigitsThenGpt2),
    ("command-r", Words::DigitsThenGpt2),
    ("qwen2", Words::Qwen2),
    ("deepseek-r1-qwen", Words::Qwen2),
    ("llama-bpe", Words::Llama3),
    ("llama3", Words::Llama3),
    ("llama-v3", Words::Llama3),
    ("tekken", Words::Tekken),
];

/// End-of-text tokens beside the one that GGUF names: a list that the chat models generate with.
const LLAMA3_ENDS: [&str; 3] = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"];
const QWEN2_ENDS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

pub(super) fn build<'a>(
    metadata: &'a Metadata<'a>,
    vocabulary: &Vocabulary<'a>,
) -> Result<TokenizerFiles<'a>, Problem> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let mut warnings = Vec::new();
    let words = words(metadata.text("tokenizer.ggml.pre")?, &mut warnings)?;
    let added =
        vocabulary.added(|kind, token| kind != TokenKind::UserDefined && !(words == Words::Qwen2 && is_plain(token)));
    let add_bos =
        vocabulary.add_bos.unwrap_or(vocabulary.bos.is_some() && matches!(words, Words::Llama3 | Words::Tekken));
    let add_eos = vocabulary.add_eos.unwrap_or(false);
    let tokenizer = TokenizerJson {
        version: "1.0",
        truncation: (),
        padding: (),
        normalizer: if words == Words::Qwen2 { json!({ "type": "NFC" }) } else { Value::Null },
        pre_tokenizer: words.pre_tokenizer(),
        post_processor: vocabulary.template(add_bos, add_eos)?,
        decoder: byte_level(Expression::BuiltIn),
        model: Bpe {
            kind: "BPE",
            dropout: (),
            unk_token: None,
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: matches!(words, Words::Llama3 | Words::Tekken),
            vocab: model_vocabulary(vocabulary, &added),
            merges: merges(required(metadata.texts(MERGES)?, MERGES)?, vocabulary)?,
        },
        added_tokens: added.clone(),
    };
    let mut config = vocabulary.config(&added, words.class());
    config.insert("add_bos_token", json!(add_bos));
    config.insert("add_prefix_space", json!(false));
    if words == Words::Qwen2 && !add_bos {
        // Qwen has no such token; GGUF names one only because llama.cpp wants it.
        config.insert("bos_token", Value::Null);
    }
    let ids = SpecialIds { bos: vocabulary.bos, eos: ends(metadata, vocabulary, words)?, pad: vocabulary.pad };
    Ok(TokenizerFiles { tokenizer, config, ids, warnings })
}

fn words(name: Option<&str>, warnings: &mut Vec<String>) -> Result<Words, Problem> {
    match name {
        None | Some("default") => {
            warnings.push(
                "the file does not name its pre-tokenizer: GPT-2's is assumed, and if that is wrong, texts are cut into other tokens"
                    .to_string(),
            );
            Ok(Words::Gpt2)
        }
        Some(name) => match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, words)) => Ok(*words),
            None => unsupported(
                format!("its pre-tokenizer (tokenizer.ggml.pre) is {name}"),
                format!("the known ones are {}", NAMES.map(|(known, _)| known).join(", ")),
            ),
        },
    }
}

impl Words {
    fn pre_tokenizer(self) -> Value {
        let digits = json!({ "individual_digits": true, "type": "Digits" });
        let split = |expression: &str| {
            let split = json!({
                "behavior": "Isolated",
                "invert": false,
                "pattern": { "Regex": expression },
                "type": "Split",
            });
            sequence("pretokenizers", vec![split, byte_level(Expression::None)])
        };
        match self {
            Words::Gpt2 => byte_level(Expression::BuiltIn),
            Words::DigitsThenGpt2 => sequence("pretokenizers", vec![digits, byte_level(Expression::BuiltIn)]),
            Words::Qwen2 => split(&expression(r"\p{N}")),
            Words::Llama3 => split(&expression(r"\p{N}{1,3}")),
            Words::Tekken => split(TEKKEN),
        }
    }

    /// The class that loads such a tokenizer in transformers.
    fn class(self) -> &'static str {
        match self {
            Words::Gpt2 | Words::DigitsThenGpt2 => "GPT2Tokenizer",
            Words::Qwen2 => "Qwen2Tokenizer",
            Words::Llama3 | Words::Tekken => "PreTrainedTokenizerFast",
        }
    }
}

/// The expression of cl100k and its descendants, which differ only in how digits are grouped: English contractions; a word
/// with at most one other character before it; digits; punctuation with a space before and line ends after; space.
fn expression(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// Mistral's expression from Nemo on: words are also cut between lower and upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Whether the byte-level step cuts words itself.
#[derive(PartialEq, Eq)]
enum Expression {
    BuiltIn,
    None,
}

fn byte_level(expression: Expression) -> Value {
    json!({
        "add_prefix_space": false,
        "trim_offsets": true,
        "type": "ByteLevel",
        "use_regex": expression == Expression::BuiltIn,
    })
}

/// Tokens that Qwen 2.5 recognises but does not treat as special; GGUF marks them as control tokens for their looks.
fn is_plain(token: &str) -> bool {
    token.starts_with("<|fim_") || token == "<|repo_name|>" || token == "<|file_sep|>"
}

/// The tokens of the BPE model. Added tokens are left out where the library gives them the same ids on its own, so that text
/// which is encoded without recognising special tokens can never become one.
fn model_vocabulary<'a>(vocabulary: &Vocabulary<'a>, added: &AddedTokens<'a>) -> Vocab<'a> {
    let added_ids: BTreeSet<u32> = added.0.iter().map(|token| token.id).collect();
    let used = vocabulary.ids.len() as u32;
    let first_added = used - added_ids.len() as u32;
    let follow_the_rest =
        vocabulary.ids.values().all(|id| *id < used && (*id >= first_added) == added_ids.contains(id));
    let mut tokens: Vec<(&str, u32)> = (vocabulary.ids.iter())
        .map(|(&token, &id)| (token, id))
        .filter(|(_, id)| !(follow_the_rest && added_ids.contains(id)))
        .collect();
    tokens.sort_by_key(|(_, id)| *id);
    Vocab(tokens)
}

fn merges<'a>(lines: &[&'a str], vocabulary: &Vocabulary<'a>) -> Result<Vec<(&'a str, &'a str)>, Problem> {
    let mut merges = Vec::with_capacity(lines.len());
    let mut merged = String::new();
    for line in lines {
        let Some((left, right)) = line.split_once(' ') else {
            return malformed(format!("the merge {line:?} is not two tokens with a space between"));
        };
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        if let Some(unknown) = [left, right, &merged].into_iter().find(|token| !vocabulary.ids.contains_key(token)) {
            return malformed(format!("the merge {line:?} needs the token {unknown:?}, which does not exist"));
        }
        merges.push((left, right));
    }
    Ok(merges)
}

/// The ids that end a generated text, the main one first.
fn ends(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>, words: Words) -> Result<Vec<u32>, Problem> {
    let Some(eos) = vocabulary.eos else { return Ok(Vec::new()) };
    let mut ends = vec![eos];
    // Chat models end a turn with a token of its own; a base model named by its end of text stays with that.
    let listed: &[&str] = match (words, vocabulary.token(eos)) {
        (Words::Qwen2, "<|im_end|>") => &QWEN2_ENDS,
        (Words::Llama3, "<|eot_id|>") => &LLAMA3_ENDS,
        _ => &[],
    };
    ends.extend(listed.iter().filter_map(|token| vocabulary.ids.get(token)));
    for role in ["eot", "eom"] {
        let id = metadata.unsigned(&format!("tokenizer.ggml.{role}_token_id"))?;
        ends.extend(id.filter(|&id| id < vocabulary.tokens.len()).map(|id| id as u32));
    }
    let mut seen = BTreeSet::new();
    ends.retain(|&id| seen.insert(id));
    Ok(ends)
}
