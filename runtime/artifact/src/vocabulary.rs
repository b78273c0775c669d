//! A BPE tokenizer's vocabulary and merges as a table that is searched in place: reading the JSON, and building maps of
//! it, takes longer than everything else that a start does.
//!
//! The tensor holds 32-bit little-endian numbers, then text:
//!
//! - the number of tokens `n` and of merges `m`;
//! - `n` ends of the tokens' texts, in bytes, by id;
//! - `n` ids in the order of their texts;
//! - `m` times left id, right id and rank, in the order of the ids;
//! - the texts, one behind the other.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Tokens and merges of a BPE tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    ends: Vec<u32>,
    order: Vec<u32>,
    merges: Vec<Merge>,
    text: String,
}

/// Two tokens that become one, the lowest rank first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Id of the first token.
    pub left: u32,
    /// Id of the second token.
    pub right: u32,
    /// Place among the merges.
    pub rank: u32,
}

impl Vocabulary {
    /// Takes the vocabulary out of a tokenizer.json and returns it with the rest of the file.
    ///
    /// `None`: the file has to stay whole. It is no BPE; it drops merges at random, or marks parts of words; ids have
    /// gaps; or merges make more of unknown characters or bytes, so that a word's tokens need not be parts of its text.
    pub fn split(json: &[u8]) -> Option<(Vocabulary, Vec<u8>)> {
        let mut file: Value = serde_json::from_slice(json).ok()?;
        let model = file.get_mut("model")?.as_object_mut()?;
        let vocabulary = Vocabulary::of_model(model)?;
        model.remove("vocab");
        model.remove("merges");
        Some((vocabulary, serde_json::to_vec(&file).ok()?))
    }

    fn of_model(model: &Map<String, Value>) -> Option<Vocabulary> {
        let unset = |key: &str| match model.get(key) {
            None | Some(Value::Null) => true,
            Some(value) => value.as_str() == Some(""),
        };
        let plain = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(unset);
        if model.get("type")?.as_str() != Some("BPE") || !plain {
            return None;
        }
        let vocab = model.get("vocab")?.as_object()?;
        let mut tokens: Vec<Option<&str>> = vec![None; vocab.len()];
        for (token, id) in vocab {
            // As many ids as tokens, none twice, none too large: there are no gaps.
            let place = tokens.get_mut(usize::try_from(id.as_u64()?).ok()?)?;
            if place.replace(token).is_some() {
                return None;
            }
        }
        let tokens: Vec<&str> = tokens.into_iter().collect::<Option<_>>()?;
        let ids: BTreeMap<&str, u32> = tokens.iter().copied().zip(0..).collect();
        let unknown = model.get("unk_token").and_then(Value::as_str);
        let bytes: BTreeSet<String> = match model.get("byte_fallback").and_then(Value::as_bool) {
            Some(true) => (0..256).map(|byte| format!("<0x{byte:02X}>")).collect(),
            _ => BTreeSet::new(),
        };
        let mut ranks = BTreeMap::new();
        for (merge, rank) in model.get("merges")?.as_array()?.iter().zip(0..) {
            let (left, right) = match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
                (Some(line), _) if line.starts_with("#version") => continue,
                (Some(line), _) => line.split_once(' ').filter(|(_, right)| !right.contains(' '))?,
                (_, Some([left, right])) => (left.as_str()?, right.as_str()?),
                _ => return None,
            };
            if [left, right].into_iter().any(|token| Some(token) == unknown || bytes.contains(token)) {
                return None;
            }
            ids.get(format!("{left}{right}").as_str())?;
            // Of a merge that comes twice the `tokenizers` crate knows the last.
            ranks.insert((*ids.get(left)?, *ids.get(right)?), rank);
        }
        let mut ends = Vec::with_capacity(tokens.len());
        let mut text = String::new();
        for token in &tokens {
            text.push_str(token);
            ends.push(u32::try_from(text.len()).ok()?);
        }
        let merges = ranks.into_iter().map(|((left, right), rank)| Merge { left, right, rank }).collect();
        Some(Vocabulary { ends, order: ids.into_values().collect(), merges, text })
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = [self.ends.len() as u32, self.merges.len() as u32];
        let merges = self.merges.iter().flat_map(|merge| [merge.left, merge.right, merge.rank]);
        let numbers =
            counts.into_iter().chain(self.ends.iter().copied()).chain(self.order.iter().copied()).chain(merges);
        let mut bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        bytes.extend(self.text.as_bytes());
        bytes
    }

    /// Reads what [`Vocabulary::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes. After that every look-up is safe, though nothing says that orders are right.
    pub fn from_bytes(bytes: &[u8]) -> Result<Vocabulary, String> {
        let (counts, rest) = numbers(bytes, 2)?;
        let (tokens, merges) = (counts[0], counts[1]);
        let (ends, rest) = numbers(rest, u64::from(tokens))?;
        let (order, rest) = numbers(rest, u64::from(tokens))?;
        let (merges, rest) = numbers(rest, 3 * u64::from(merges))?;
        let text = str::from_utf8(rest).map_err(|error| format!("its tokens are not UTF-8: {error}"))?;
        let mut start = 0;
        for (id, &end) in ends.iter().enumerate() {
            if end < start || !text.is_char_boundary(end as usize) {
                return Err(format!("token {id} ends at byte {end}, outside of the text or inside a character"));
            }
            start = end;
        }
        let parts = merges.chunks_exact(3);
        let merges: Vec<Merge> = parts.map(|merge| Merge { left: merge[0], right: merge[1], rank: merge[2] }).collect();
        let mentioned = merges.iter().flat_map(|merge| [merge.left, merge.right]).chain(order.iter().copied());
        if let Some(id) = mentioned.into_iter().find(|&id| id >= tokens) {
            return Err(format!("it speaks of token {id} and has {tokens}"));
        }
        Ok(Vocabulary { ends, order, merges, text: text.to_owned() })
    }

    /// How many tokens there are. Their ids are 0 and up.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of a token.
    pub fn token(&self, id: u32) -> Option<&str> {
        let end = *self.ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(Range { start: start as usize, end: end as usize })
    }

    /// The token with exactly this text.
    pub fn id(&self, token: &str) -> Option<u32> {
        let compare = |&id: &u32| self.token(id).map_or(Ordering::Less, |text| text.cmp(token));
        self.order.binary_search_by(compare).ok().map(|place| self.order[place])
    }

    /// The place of a merge among all, if there is such a merge.
    pub fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let place = self.merges.binary_search_by_key(&(left, right), |merge| (merge.left, merge.right)).ok()?;
        Some(self.merges[place].rank)
    }

    /// The merges, in no order that means anything.
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }
}

/// The next `count` numbers, and what comes behind them.
fn numbers(bytes: &[u8], count: u64) -> Result<(Vec<u32>, &[u8]), String> {
    let size = 4 * count;
    let split = usize::try_from(size).ok().and_then(|size| bytes.split_at_checked(size));
    let (numbers, rest) = split.ok_or_else(|| format!("{size} bytes should follow, {} do", bytes.len()))?;
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok((numbers.chunks_exact(4).map(number).collect(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut model = json!({"type": "BPE", "vocab": {"b": 1, "a": 0, "ab": 2, "é": 3, "?": 4, "<0x41>": 5, "a?": 6},
                               "merges": ["#version: 0.2", "a b"], "dropout": null, "end_of_word_suffix": ""});
        change(&mut model);
        json!({"version": "1.0", "model": model}).to_string().into_bytes()
    }

    #[test]
    fn a_vocabulary_is_found_again() {
        let (vocabulary, rest) = Vocabulary::split(&model(|_| ())).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&rest).unwrap(),
            json!({"version": "1.0", "model": {"type": "BPE", "dropout": null, "end_of_word_suffix": ""}})
        );
        let read = Vocabulary::from_bytes(&vocabulary.to_bytes()).unwrap();
        assert_eq!(read, vocabulary);
        let tokens: Vec<&str> = (0..7).map(|id| read.token(id).unwrap()).collect();
        assert_eq!(tokens, ["a", "b", "ab", "é", "?", "<0x41>", "a?"]);
        assert!(tokens.iter().zip(0..).all(|(token, id)| read.id(token) == Some(id)));
        assert_eq!((read.len(), read.token(7), read.id(""), read.id("c")), (7, None, None, None));
        assert_eq!((read.rank(0, 1), read.rank(1, 0)), (Some(1), None));
    }

    #[test]
    fn what_the_table_cannot_say_stays_json() {
        let whole = |change: fn(&mut Value)| Vocabulary::split(&model(change)).is_none();
        assert!(whole(|model| model["type"] = json!("Unigram")));
        assert!(whole(|model| model["dropout"] = json!(0.1)));
        assert!(whole(|model| model["continuing_subword_prefix"] = json!("##")));
        assert!(whole(|model| model["end_of_word_suffix"] = json!("</w>")));
        assert!(whole(|model| model["vocab"]["c"] = json!(8)));
        assert!(whole(|model| model["vocab"]["c"] = json!(2)));
        assert!(whole(|model| model["merges"] = json!(["b a"])));
        assert!(whole(|model| model["merges"] = json!([["a", "b", "c"]])));
        let unknown = |model: &mut Value| model["merges"] = json!([["a", "?"]]);
        assert!(!whole(unknown));
        assert!(Vocabulary::split(&model(|model| (unknown(model), model["unk_token"] = json!("?")).1)).is_none());
        assert!(whole(|model| {
            model["byte_fallback"] = json!(true);
            model["vocab"]["a<0x41>"] = json!(7);
            model["merges"] = json!([["a", "<0x41>"]]);
        }));
    }

    #[test]
    fn no_damage_goes_further() {
        let bytes = Vocabulary::split(&model(|_| ())).unwrap().0.to_bytes();
        for length in 0..bytes.len() - 1 {
            let error = Vocabulary::from_bytes(&bytes[..length]).unwrap_err();
            assert!(error.contains("should follow") || error.contains("outside") || error.contains("UTF-8"), "{error}");
        }
        for place in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[place] = value;
                let Ok(vocabulary) = Vocabulary::from_bytes(&bytes) else { continue };
                for id in 0..9 {
                    let _ = vocabulary.token(id).map(|token| vocabulary.id(token));
                }
            }
        }
    }
}
