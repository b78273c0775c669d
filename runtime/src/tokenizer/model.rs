//! The model inside a tokenizer: as the `tokenizers` crate reads it, or BPE over a table.

use llmc_artifact::Vocabulary;
use llmc_artifact::vocabulary::Merge;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::{Model as _, ModelWrapper, Result, Token};

/// The longest word, in bytes, that gets a model of its own: the effort grows with the cube of its length.
const WORD_BYTES: usize = 32;

/// How many words get a model of their own. One costs about 30 us, the model of 50 thousand tokens about 25 ms.
const WORDS: usize = 1024;

/// A tokenizer's model.
#[derive(Debug)]
pub enum Model {
    /// Of any kind.
    Parsed(ModelWrapper),
    /// Byte pair encoding.
    Table(TableBpe),
}

/// Byte pair encoding over a [`Vocabulary`]. The maps that the `tokenizers` crate's model consists of take tens of
/// milliseconds to build, but only those tokens and merges can become part of a word that are part of its text. So the
/// first words get a model of just these; the model of all words is built when there is much to do.
#[derive(Debug)]
pub struct TableBpe {
    vocabulary: Vocabulary,
    options: BpeOptions,
    /// Words that came before there was a model of all.
    words: AtomicUsize,
    all: OnceLock<BPE>,
}

/// What tokenizer.json says of a BPE model besides its vocabulary.
#[derive(Clone, Debug, Deserialize)]
pub struct BpeOptions {
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

impl BpeOptions {
    fn builder(&self) -> BpeBuilder {
        let builder = BPE::builder()
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        match &self.unk_token {
            Some(token) => builder.unk_token(token.clone()),
            None => builder,
        }
    }
}

impl TableBpe {
    /// A model of `vocabulary`.
    pub fn new(vocabulary: Vocabulary, options: BpeOptions) -> Self {
        TableBpe { vocabulary, options, words: AtomicUsize::new(0), all: OnceLock::new() }
    }

    /// The same tokens, whichever model gives them.
    fn tokenize(&self, word: &str) -> Result<Vec<Token>> {
        if let Some(all) = self.all.get() {
            return all.tokenize(word);
        }
        if word.len() <= WORD_BYTES && self.words.fetch_add(1, Ordering::Relaxed) < WORDS {
            return self.model_of(word)?.tokenize(word);
        }
        let all = self.model_of_all()?;
        self.all.get_or_init(|| all).tokenize(word)
    }

    /// A model that does to `word` what the model of all words does.
    fn model_of(&self, word: &str) -> Result<BPE> {
        let mut vocab = Vocab::new();
        let mut find = |token: &str| {
            let id = self.vocabulary.id(token)?;
            vocab.insert(token.to_owned(), id);
            Some(id)
        };
        // What stands for characters that are no token, which no merge takes; the word, if merges are ignored.
        self.options.unk_token.as_deref().and_then(&mut find);
        if self.options.byte_fallback == Some(true) {
            for byte in word.bytes() {
                find(&format!("<0x{byte:02X}>"));
            }
        }
        find(word);
        // Characters that are no token may vanish, and their neighbours meet.
        let known: String =
            word.chars().filter(|character| find(character.encode_utf8(&mut [0; 4])).is_some()).collect();
        let bounds: Vec<usize> = known.char_indices().map(|(at, _)| at).chain([known.len()]).collect();
        let part = |from: usize, to: usize| &known[bounds[from]..bounds[to]];
        let mut ids: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        let mut merges: BTreeMap<u32, (String, String)> = BTreeMap::new();
        for to in 1..bounds.len() {
            for from in (0..to).rev() {
                let Some(id) = find(part(from, to)) else { continue };
                ids.insert((from, to), id);
                for middle in from + 1..to {
                    let (Some(&left), Some(&right)) = (ids.get(&(from, middle)), ids.get(&(middle, to))) else {
                        continue;
                    };
                    if let Some(rank) = self.vocabulary.rank(left, right) {
                        merges.insert(rank, (part(from, middle).to_owned(), part(middle, to).to_owned()));
                    }
                }
            }
        }
        // No cache: the crate keeps one per model for good.
        let builder = self.options.builder().cache_capacity(0);
        builder.vocab_and_merges(vocab, merges.into_values().collect()).build()
    }

    fn model_of_all(&self) -> Result<BPE> {
        let vocabulary = &self.vocabulary;
        let tokens = || (0..vocabulary.len() as u32).filter_map(|id| Some((vocabulary.token(id)?, id)));
        let longest = tokens().map(|(token, _)| token.len()).max().unwrap_or(0);
        let mut vocab = Vocab::with_capacity(vocabulary.len());
        vocab.extend(tokens().map(|(token, id)| (token.to_owned(), id)));
        let mut merges = vocabulary.merges().to_vec();
        merges.sort_unstable_by_key(|merge| merge.rank);
        let texts = |merge: &Merge| {
            let (left, right) = (vocabulary.token(merge.left)?, vocabulary.token(merge.right)?);
            // The builder relies on it.
            (left.len() + right.len() <= longest).then(|| (left.to_owned(), right.to_owned()))
        };
        let merges: Option<Merges> = merges.iter().map(texts).collect();
        let merges =
            merges.ok_or("a merge makes no token: the artifact's tokenizer is damaged; compile the model again")?;
        self.options.builder().vocab_and_merges(vocab, merges).build()
    }
}

impl tokenizers::Model for Model {
    type Trainer = tokenizers::models::TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        match self {
            Model::Parsed(model) => model.tokenize(sequence),
            Model::Table(model) => model.tokenize(sequence),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Model::Parsed(model) => model.token_to_id(token),
            Model::Table(model) => model.vocabulary.id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Model::Parsed(model) => model.id_to_token(id),
            Model::Table(model) => model.vocabulary.token(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Model::Parsed(model) => model.get_vocab(),
            Model::Table(TableBpe { vocabulary, .. }) => {
                (0..vocabulary.len() as u32).filter_map(|id| Some((vocabulary.token(id)?.to_owned(), id))).collect()
            }
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Model::Parsed(model) => model.get_vocab_size(),
            Model::Table(model) => model.vocabulary.len(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        match self {
            Model::Parsed(model) => model.save(folder, prefix),
            Model::Table(model) => model.model_of_all()?.save(folder, prefix),
        }
    }

    fn get_trainer(&self) -> Self::Trainer {
        match self {
            Model::Parsed(model) => model.get_trainer(),
            Model::Table(_) => tokenizers::models::bpe::BpeTrainer::default().into(),
        }
    }
}

#[cfg(test)]
mod tests;
