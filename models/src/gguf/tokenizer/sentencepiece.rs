//! SentencePiece BPE (`tokenizer.ggml.model` = llama): spaces are written as U+2581, bytes are the fallback, and scores
//! order the merges. The result is what transformers converts such a tokenizer to (`LlamaConverter`).

use serde_json::{Value, json};

use super::json::{Bpe, TokenizerJson, Vocab, replace, sequence};
use super::{Metadata, Problem, SpecialIds, TokenKind, TokenizerFiles, Vocabulary, malformed, required, unsupported};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

pub(super) fn build<'a>(
    metadata: &'a Metadata<'a>,
    vocabulary: &Vocabulary<'a>,
) -> Result<TokenizerFiles<'a>, Problem> {
    const SCORES: &str = "tokenizer.ggml.scores";
    for key in ["tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"] {
        if metadata.keys().any(|name| name == key) && metadata.boolean(key).ok().flatten() != Some(false) {
            return unsupported(
                format!("its tokenizer normalises text in a way of its own ({key})"),
                "get the model in its original Hugging Face form instead",
            );
        }
    }
    let scores = required(metadata.floats(SCORES)?, SCORES)?;
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return malformed(format!("{SCORES} should hold a number for each of {} tokens", vocabulary.tokens.len()));
    }
    let add_bos = vocabulary.add_bos.unwrap_or(vocabulary.bos.is_some());
    let add_eos = vocabulary.add_eos.unwrap_or(false);
    let prefix = metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let added = vocabulary.added(|kind, _| kind != TokenKind::UserDefined);
    let mut vocab: Vec<(&str, u32)> = vocabulary.ids.iter().map(|(&token, &id)| (token, id)).collect();
    vocab.sort_by_key(|(_, id)| *id);
    let (normalizer, decoder) = spaces(if prefix { Prefix::Space } else { Prefix::None });
    let tokenizer = TokenizerJson {
        version: "1.0",
        truncation: (),
        padding: (),
        normalizer,
        pre_tokenizer: Value::Null,
        post_processor: vocabulary.template(add_bos, add_eos)?,
        decoder,
        model: Bpe {
            kind: "BPE",
            dropout: (),
            unk_token: unknown(vocabulary),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: true,
            byte_fallback: vocabulary.kinds.contains(&TokenKind::Byte),
            ignore_merges: false,
            vocab: Vocab(vocab),
            merges: merges(vocabulary, &scores),
        },
        added_tokens: added.clone(),
    };
    let mut config = vocabulary.config(&added, "LlamaTokenizer");
    config.insert("add_bos_token", json!(add_bos));
    config.insert("add_eos_token", json!(add_eos));
    let ids = SpecialIds { bos: vocabulary.bos, eos: vocabulary.eos.into_iter().collect(), pad: vocabulary.pad };
    Ok(TokenizerFiles { tokenizer, config, ids, warnings: Vec::new() })
}

/// The token for what even bytes cannot express: the named one, or the only one of that kind.
fn unknown<'a>(vocabulary: &Vocabulary<'a>) -> Option<&'a str> {
    let kind = vocabulary.kinds.iter().position(|&kind| kind == TokenKind::Unknown);
    vocabulary.unknown.map(|id| id as usize).or(kind).map(|id| vocabulary.tokens[id])
}

/// Whether a text gets a space in front.
#[derive(PartialEq, Eq)]
enum Prefix {
    Space,
    None,
}

/// Normalizer and decoder: spaces to U+2581 and back.
fn spaces(prefix: Prefix) -> (Value, Value) {
    let mut normalizers = Vec::new();
    let mut decoders = vec![replace(SPACE, " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if prefix == Prefix::Space {
        normalizers.push(json!({ "prepend": SPACE, "type": "Prepend" }));
        decoders.push(json!({ "content": " ", "start": 1, "stop": 0, "type": "Strip" }));
    }
    normalizers.push(replace(" ", SPACE));
    (sequence("normalizers", normalizers), sequence("decoders", decoders))
}

/// Every way to cut a token into two others is a merge; merges into tokens of higher score come first, and among those of
/// one score, as transformers orders them, those with the longer left, then the longer right part.
fn merges<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    struct Merge<'a> {
        score: f32,
        lengths: (usize, usize),
        parts: (&'a str, &'a str),
    }
    let mut merges = Vec::new();
    for (id, &token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kinds[id] != TokenKind::Normal {
            continue;
        }
        let characters = token.chars().count();
        let mut cuts: Vec<((u32, u32), Merge<'_>)> = (token.char_indices().enumerate().skip(1))
            .filter_map(|(left_length, (at, _))| {
                let parts = token.split_at(at);
                let ids = (*vocabulary.ids.get(parts.0)?, *vocabulary.ids.get(parts.1)?);
                let lengths = (left_length, characters - left_length);
                Some((ids, Merge { score: scores[id], lengths, parts }))
            })
            .collect();
        cuts.sort_by_key(|(ids, _)| *ids);
        merges.extend(cuts.into_iter().map(|(_, merge)| merge));
    }
    // Stable, so that what is equal stays in the order of the ids. Scores are not NaN.
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
    merges.into_iter().map(|merge| merge.parts).collect()
}
