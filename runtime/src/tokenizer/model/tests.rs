//! A vocabulary taken out of a tokenizer.json must not change a token.

use crate::tokenizer::{AddSpecial, ShowSpecial, Tokenizer};
use llmc_artifact::Vocabulary;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// What merges start from. The characters `x` and `ü` of texts are in no vocabulary, or only in words.
const LETTERS: [&str; 3] = ["a", "b", "é"];

/// A model whose merges join pairs of tokens that exist by then. The bits of `options` are those in its first lines.
fn file(pairs: &[(usize, usize)], whole: &[String], options: u8) -> Value {
    let [unknown, fuse, fallback, ignore, split] = [1, 2, 4, 8, 16].map(|bit| options & bit != 0);
    let mut tokens: Vec<String> = LETTERS.iter().map(|&letter| letter.to_owned()).collect();
    let mut merges: Vec<Value> = Vec::new();
    for &(left, right) in pairs {
        let (left, right) = (tokens[left % tokens.len()].clone(), tokens[right % tokens.len()].clone());
        let token = format!("{left}{right}");
        merges.push(json!([left, right]));
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    // Words that no merge makes, and what stands for unknown characters.
    let unmade = whole.iter().cloned().chain(["<unk>".to_owned(), "<s>".to_owned()]);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>")).filter(|_| fallback);
    for token in unmade.chain(bytes) {
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    let vocab: Map<String, Value> = tokens.into_iter().zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": !special, "special": special})
    };
    let pattern = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<s>", true), added(vocab.len(), "xx", false), added(vocab.len() + 1, "<e>", true)],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": if split { pattern } else { Value::Null },
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": unknown.then_some("<unk>"), "fuse_unk": fuse, "byte_fallback": fallback,
                  "ignore_merges": ignore, "vocab": vocab, "merges": merges}
    })
}

/// The tokenizer of the file as it is, and of the file in parts.
fn both(file: &Value) -> (Tokenizer, Tokenizer) {
    let json = file.to_string();
    let (vocabulary, rest) = Vocabulary::split(json.as_bytes()).expect("a vocabulary that can be taken out");
    let parts = Tokenizer::from_parts(&rest, &vocabulary.to_bytes()).unwrap();
    (Tokenizer::from_bytes(json.as_bytes()).unwrap(), parts)
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, AddSpecial::AsConfigured).unwrap()
}

proptest! {
    #[test]
    fn a_vocabulary_in_parts_gives_the_same_tokens(
        pairs in prop::collection::vec((0usize..40, 0usize..40), 0..40),
        whole in prop::collection::vec("[abéx]{2,6}", 0..4),
        options in 0u8..32,
        texts in prop::collection::vec("([abéA]{1,8}|[abéxü ]{1,8}|<0x41>|<s>|<e>|xx|<unk>){0,6}", 1..8),
    ) {
        let (json, parts) = both(&file(&pairs, &whole, options));
        for text in texts {
            let expected = ids(&json, &text);
            prop_assert_eq!(&ids(&parts, &text), &expected, "{}", text);
            let decode = |tokenizer: &Tokenizer| tokenizer.decode(&expected, ShowSpecial::Show).unwrap();
            prop_assert_eq!(decode(&parts), decode(&json));
        }
    }
}

#[test]
fn many_and_long_words_get_the_same_tokens() {
    let pairs = [(0, 1), (1, 0), (3, 3), (2, 4), (5, 0), (5, 6)];
    let word = |index: usize| (0..9).map(|bit| ["a", "bé"][(index >> bit) & 1]).collect::<String>();
    let (json, parts) = both(&file(&pairs, &[], 1 | 16));
    let text: String = (0..2 * super::WORDS).map(|index| format!(" {}", word(index))).collect();
    assert_eq!(ids(&parts, &text), ids(&json, &text));
    let (json, parts) = both(&file(&pairs, &[], 0));
    let text: String = (0..100).map(word).collect();
    assert_eq!(ids(&parts, &text), ids(&json, &text));
    assert_eq!(ids(&parts, "abab"), ids(&json, "abab"));
}

#[test]
fn damage_is_an_error() {
    let file = file(&[(0, 1), (3, 3)], &[], 0).to_string();
    let (vocabulary, rest) = Vocabulary::split(file.as_bytes()).unwrap();
    let bytes = vocabulary.to_bytes();
    let error = Tokenizer::from_parts(&rest, &bytes[..9]).unwrap_err().to_string();
    assert!(error.starts_with("the artifact's tokenizer vocabulary is damaged ("), "{error}");
    let error = Tokenizer::from_bytes(&rest).unwrap_err().to_string();
    assert!(error.starts_with("the artifact's tokenizer.json cannot be read"), "{error}");
    for place in 0..bytes.len() {
        for value in [0, 2, 9, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] = value;
            let Ok(tokenizer) = Tokenizer::from_parts(&rest, &bytes) else { continue };
            // A model of one word, and one of all.
            for text in ["abab", &"ab".repeat(super::WORD_BYTES)] {
                if let Err(error) = tokenizer.encode(text, AddSpecial::Never) {
                    assert!(error.to_string().starts_with("the text cannot be tokenized"), "{error}");
                }
            }
        }
    }
}
