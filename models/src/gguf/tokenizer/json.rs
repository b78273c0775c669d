//! The shape of `tokenizer.json`, as the `tokenizers` library reads it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// The whole file; keys in the library's order.
#[derive(Serialize)]
pub(in crate::gguf) struct TokenizerJson<'a> {
    pub(super) version: &'static str,
    pub(super) truncation: (),
    pub(super) padding: (),
    pub(super) added_tokens: AddedTokens<'a>,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post_processor: Value,
    pub(super) decoder: Value,
    pub(super) model: Bpe<'a>,
}

/// The only model that GGUF files of decoders need.
#[derive(Serialize)]
pub(super) struct Bpe<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) dropout: (),
    pub(super) unk_token: Option<&'a str>,
    pub(super) continuing_subword_prefix: (),
    pub(super) end_of_word_suffix: (),
    pub(super) fuse_unk: bool,
    pub(super) byte_fallback: bool,
    pub(super) ignore_merges: bool,
    pub(super) vocab: Vocab<'a>,
    pub(super) merges: Vec<(&'a str, &'a str)>,
}

/// Tokens with their ids, written as an object in this order.
pub(super) struct Vocab<'a>(pub(super) Vec<(&'a str, u32)>);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, id) in &self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

/// Tokens that are recognised in the text before the model sees it, by id.
#[derive(Clone, Serialize)]
pub(super) struct AddedTokens<'a>(pub(super) Vec<AddedToken<'a>>);

#[derive(Clone, Serialize)]
pub(super) struct AddedToken<'a> {
    pub(super) id: u32,
    pub(super) content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl<'a> AddedToken<'a> {
    /// A token that is matched literally.
    pub(super) fn new(id: u32, content: &'a str, special: bool) -> AddedToken<'a> {
        AddedToken { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }
    }
}

impl AddedTokens<'_> {
    /// `added_tokens_decoder` of `tokenizer_config.json`: the same tokens under their ids.
    pub(super) fn decoder(&self) -> Value {
        let entry = |token: &AddedToken<'_>| {
            let value = json!({
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            });
            (token.id.to_string(), value)
        };
        Value::Object(self.0.iter().map(entry).collect())
    }
}

/// A sequence of normalizers, pre-tokenizers or decoders; `list` is what the library calls the list of that kind.
pub(super) fn sequence(list: &str, steps: Vec<Value>) -> Value {
    let mut object = serde_json::Map::new();
    object.insert(list.to_string(), Value::Array(steps));
    object.insert("type".to_string(), json!("Sequence"));
    Value::Object(object)
}

/// Replaces one string by another.
pub(super) fn replace(from: &str, to: &str) -> Value {
    json!({ "content": to, "pattern": { "String": from }, "type": "Replace" })
}

/// A post-processor that puts tokens around a text, or nothing if there are none.
pub(super) fn template(before: Option<(&str, u32)>, after: Option<(&str, u32)>) -> Value {
    if before.is_none() && after.is_none() {
        return Value::Null;
    }
    let special = |token: Option<(&str, u32)>, part: usize| {
        token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": part } }))
    };
    let part = |name: &str, part: usize| {
        let text = json!({ "Sequence": { "id": name, "type_id": part } });
        special(before, part).into_iter().chain([text]).chain(special(after, part)).collect::<Vec<_>>()
    };
    let mut tokens = serde_json::Map::new();
    for (token, id) in before.into_iter().chain(after) {
        tokens.insert(token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    json!({
        "pair": ([part("A", 0), part("B", 1)].concat()),
        "single": part("A", 0),
        "special_tokens": tokens,
        "type": "TemplateProcessing",
    })
}
