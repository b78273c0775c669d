//! Text to token ids and back, whole or as it streams.

mod model;

use llmc_artifact::Vocabulary;
use model::{Model, TableBpe};
use serde::Deserialize;
use std::collections::BTreeSet;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl,
};

type Inner = TokenizerImpl<Model, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// A tokenizer that cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not a tokenizer.json that the `tokenizers` crate reads.
    #[error("the artifact's tokenizer.json cannot be read ({0}); compile the model again")]
    Load(String),
    /// Not the vocabulary that belongs to a tokenizer.json.
    #[error("the artifact's tokenizer vocabulary is damaged ({0}); compile the model again")]
    Vocabulary(String),
    /// The tokenizer's own pipeline failed.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// The decoder failed.
    #[error("the tokens cannot be turned into text: {0}")]
    Decode(String),
}

/// Whether the tokenizer's post-processor adds its special tokens, such as a leading BOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddSpecial {
    /// As tokenizer.json says: for plain text.
    AsConfigured,
    /// No: for text of a chat template, which holds them already, and for scoring.
    Never,
}

/// Whether special tokens appear in decoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowSpecial {
    /// Leave them out: what a reader wants.
    Hide,
    /// Write their names.
    Show,
}

/// What counts in a tokenizer.json, with its model or what is left of it.
#[derive(Deserialize)]
struct File<M> {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    model: M,
}

impl<'a, M: Deserialize<'a>> File<M> {
    fn read(json: &'a [u8]) -> Result<Self, TokenizerError> {
        serde_json::from_slice(json).map_err(|error| TokenizerError::Load(error.to_string()))
    }

    fn tokenizer(self, model: impl FnOnce(M) -> Model) -> Result<Tokenizer, TokenizerError> {
        let load = |error: tokenizers::Error| TokenizerError::Load(error.to_string());
        let mut inner = Inner::new(model(self.model));
        inner.with_normalizer(self.normalizer).map_err(load)?;
        inner
            .with_pre_tokenizer(self.pre_tokenizer)
            .with_post_processor(self.post_processor)
            .with_decoder(self.decoder);
        // Ids that the model lacks are counted up from its own.
        inner.add_tokens(self.added_tokens).map_err(load)?;
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Tokenizer { inner, special })
    }
}

/// A loaded tokenizer.json.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    special: BTreeSet<u32>,
}

impl Tokenizer {
    /// Reads the bytes of a tokenizer.json. Truncation and padding in it are ignored: they belong
    /// to training.
    ///
    /// # Errors
    /// When the bytes are not a tokenizer.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenizerError> {
        File::<ModelWrapper>::read(json)?.tokenizer(Model::Parsed)
    }

    /// Reads a tokenizer.json whose vocabulary was taken out of it ([`Vocabulary::split`]), and that vocabulary.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn from_parts(json: &[u8], vocabulary: &[u8]) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_bytes(vocabulary).map_err(TokenizerError::Vocabulary)?;
        File::read(json)?.tokenizer(|options| Model::Table(TableBpe::new(vocabulary, options)))
    }

    /// The token ids of `text`. The names of special tokens in it become those tokens.
    ///
    /// # Errors
    /// When the tokenizer's pipeline fails on the text.
    pub fn encode(&self, text: &str, special: AddSpecial) -> Result<Vec<u32>, TokenizerError> {
        let add = special == AddSpecial::AsConfigured;
        let encoding = self.inner.encode_fast(text, add);
        let encoding = encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The id of the token with exactly this text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD; unknown ids become nothing.
    ///
    /// # Errors
    /// When the decoder fails.
    pub fn decode(&self, ids: &[u32], special: ShowSpecial) -> Result<String, TokenizerError> {
        let hide = special == ShowSpecial::Hide;
        self.inner.decode(ids, hide).map_err(|error| TokenizerError::Decode(error.to_string()))
    }

    /// A stream that turns tokens into text as they come.
    pub fn stream(&self, special: ShowSpecial) -> TextStream<'_> {
        TextStream { tokenizer: self, special, window: Vec::new(), emitted: 0 }
    }
}

/// Whether a token stands for a single byte (`<0xE3>`) in a run that only decodes as a whole.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

/// Turns tokens into text piece by piece. The pieces put together are what [`Tokenizer::decode`]
/// makes of all tokens at once, and no piece ends inside a character.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    special: ShowSpecial,
    /// The tokens since a place where the text was complete, and before them those of the last
    /// piece: decoders treat the start of a text differently, so a piece needs something before it.
    window: Vec<u32>,
    /// Bytes of the window's text that have been handed out.
    emitted: usize,
}

impl TextStream<'_> {
    /// Takes the next token and returns the text that has become certain, possibly none.
    ///
    /// # Errors
    /// When the decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let hidden = self.special == ShowSpecial::Hide && self.tokenizer.special.contains(&id);
        let Some(token) = self.tokenizer.inner.id_to_token(id).filter(|_| !hidden) else {
            // Decoding leaves the token out too: a run of bytes goes on behind it.
            return Ok(String::new());
        };
        let before = self.window.len();
        self.window.push(id);
        if is_byte(&token) {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.window, self.special)?;
        // Only the last replacement character can still turn into something else: a decoder makes
        // one of an unfinished character, whatever its length.
        let certain = text.strip_suffix(REPLACEMENT).unwrap_or(&text);
        let piece = certain.get(self.emitted..).unwrap_or_default().to_owned();
        if certain.len() == text.len() && !piece.is_empty() {
            self.window.drain(..before);
            self.emitted = self.tokenizer.decode(&self.window, self.special)?.len();
        } else {
            self.emitted += piece.len();
        }
        Ok(piece)
    }

    /// The text that was held back, when no more tokens come.
    ///
    /// # Errors
    /// When the decoder fails.
    pub fn finish(self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(&self.window, self.special)?;
        Ok(text.get(self.emitted..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests;
