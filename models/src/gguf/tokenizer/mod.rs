//! The tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.
//!
//! GGUF keeps the vocabulary, the kind of each token and either the merges (byte-level BPE) or the scores (SentencePiece BPE);
//! how text is normalised and cut before that is only named. Each of the two kinds rebuilds what the name stands for.

mod byte_level;
mod json;
mod sentencepiece;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::Object;
use super::error::{Problem, malformed, unsupported};
use super::metadata::{Metadata, required};
use json::{AddedToken, AddedTokens, TokenizerJson};

/// Both files, ready to be written.
pub(super) struct TokenizerFiles<'a> {
    pub(super) tokenizer: TokenizerJson<'a>,
    pub(super) config: Object,
    pub(super) ids: SpecialIds,
    pub(super) warnings: Vec<String>,
}

/// Ids of the tokens with a role.
#[derive(Debug, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    /// The main end token first.
    pub(super) eos: Vec<u32>,
    pub(super) pad: Option<u32>,
}

/// What a token is, as in llama.cpp's `llama_token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The vocabulary and the settings that both kinds of tokenizers share.
struct Vocabulary<'a> {
    tokens: &'a [&'a str],
    kinds: Vec<TokenKind>,
    /// Token to id, without the unused ones.
    ids: BTreeMap<&'a str, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    pad: Option<u32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

/// Rebuilds the tokenizer for a model with `rows` embeddings and `context` positions.
pub(super) fn build<'a>(
    metadata: &'a Metadata<'a>,
    rows: usize,
    context: usize,
) -> Result<TokenizerFiles<'a>, Problem> {
    const MODEL: &str = "tokenizer.ggml.model";
    let vocabulary = Vocabulary::read(metadata, rows)?;
    let mut files = match required(metadata.text(MODEL)?, MODEL)? {
        "gpt2" => byte_level::build(metadata, &vocabulary)?,
        "llama" => sentencepiece::build(metadata, &vocabulary)?,
        other => {
            return unsupported(
                format!("its tokenizer is of the kind {other}"),
                "the kinds gpt2 (byte-level BPE) and llama (SentencePiece BPE) can be imported",
            );
        }
    };
    files.config.insert("model_max_length", json!(context));
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        files.config.insert("chat_template", json!(template));
    } else {
        files.warnings.push("the file has no chat template: only raw prompts will work".to_string());
    }
    if let Some(names) = metadata.texts("tokenizer.chat_templates")? {
        files.warnings.push(format!("the additional chat templates {} are left out", names.join(", ")));
    }
    Ok(files)
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata<'a>, rows: usize) -> Result<Vocabulary<'a>, Problem> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let tokens = required(metadata.texts(TOKENS)?, TOKENS)?;
        // The second bound is that of token ids, which the first cannot exceed in practice.
        if tokens.is_empty() || tokens.len() > rows || u32::try_from(tokens.len()).is_err() {
            return malformed(format!("it has {} tokens for {rows} embeddings", tokens.len()));
        }
        let role = |name: &str| -> Result<Option<u32>, Problem> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.unsigned(&key)? {
                // Fits: below the number of tokens.
                Some(id) if id < tokens.len() => Ok(Some(id as u32)),
                Some(id) => malformed(format!("{key} is {id}, but there are {} tokens", tokens.len())),
                None => Ok(None),
            }
        };
        let (bos, eos, unknown, pad) = (role("bos")?, role("eos")?, role("unknown")?, role("padding")?);
        let kinds = kinds(metadata, tokens.len(), [bos, eos, unknown, pad])?;
        let mut ids = BTreeMap::new();
        for ((&token, kind), id) in tokens.iter().zip(&kinds).zip(0..) {
            if *kind != TokenKind::Unused && ids.insert(token, id).is_some() {
                return malformed(format!("the token {token:?} occurs twice"));
            }
        }
        Ok(Vocabulary {
            tokens,
            kinds,
            ids,
            bos,
            eos,
            unknown,
            pad,
            add_bos: metadata.boolean("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.boolean("tokenizer.ggml.add_eos_token")?,
        })
    }

    fn token(&self, id: u32) -> &'a str {
        self.tokens[id as usize]
    }

    /// The tokens that are recognised before anything else; `is_special` says which of them decoding leaves out.
    fn added(&self, is_special: impl Fn(TokenKind, &str) -> bool) -> AddedTokens<'a> {
        let tokens = self.tokens.iter().zip(&self.kinds).zip(0..);
        let added = tokens
            .filter(|((_, kind), _)| matches!(kind, TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined));
        AddedTokens(added.map(|((&token, &kind), id)| AddedToken::new(id, token, is_special(kind, token))).collect())
    }

    /// What the tokenizer puts around a text: the default for `add_bos` depends on the tokenizer.
    fn template(&self, add_bos: bool, add_eos: bool) -> Result<Value, Problem> {
        let around = |add: bool, id: Option<u32>, role: &str| match (add, id) {
            (true, Some(id)) => Ok(Some((self.token(id), id))),
            (true, None) => malformed(format!("add_{role}_token is set, but {role}_token_id is missing")),
            (false, _) => Ok(None),
        };
        Ok(json::template(around(add_bos, self.bos, "bos")?, around(add_eos, self.eos, "eos")?))
    }

    /// The entries of `tokenizer_config.json` that all tokenizers have.
    fn config(&self, added: &AddedTokens<'a>, class: &str) -> Object {
        let name = |id: Option<u32>| id.map_or(Value::Null, |id| json!(self.token(id)));
        Object::from([
            ("added_tokens_decoder", added.decoder()),
            ("bos_token", name(self.bos)),
            ("clean_up_tokenization_spaces", json!(false)),
            ("eos_token", name(self.eos)),
            ("pad_token", name(self.pad)),
            ("tokenizer_class", json!(class)),
            ("unk_token", name(self.unknown)),
        ])
    }
}

/// The kind of each token. Without the table only tokens with a role are known to be special.
fn kinds(metadata: &Metadata<'_>, count: usize, roles: [Option<u32>; 4]) -> Result<Vec<TokenKind>, Problem> {
    const KINDS: &str = "tokenizer.ggml.token_type";
    let Some(codes) = metadata.integers(KINDS)? else {
        let mut kinds = vec![TokenKind::Normal; count];
        for id in roles.into_iter().flatten() {
            kinds[id as usize] = TokenKind::Control;
        }
        return Ok(kinds);
    };
    if codes.len() != count {
        return malformed(format!("{KINDS} has {} entries for {count} tokens", codes.len()));
    }
    codes
        .into_iter()
        .map(|code| {
            Ok(match code {
                1 => TokenKind::Normal,
                2 => TokenKind::Unknown,
                3 => TokenKind::Control,
                4 => TokenKind::UserDefined,
                5 => TokenKind::Unused,
                6 => TokenKind::Byte,
                _ => return malformed(format!("{KINDS} holds the unknown kind {code}")),
            })
        })
        .collect()
}
