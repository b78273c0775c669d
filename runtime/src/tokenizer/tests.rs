//! Tokenizers small enough to write down: byte-level BPE, and SentencePiece style with byte tokens.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The character that byte-level vocabularies write for each byte.
fn byte_characters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let character = |byte: u32| if printable(&byte) { byte } else { others.next().unwrap() };
    (0..256).map(character).map(|code| char::from_u32(code).unwrap()).collect()
}

/// Ids 0..256 are bytes, 256 is `<s>` (added in front of text), 257 `</s>`, 258 the merge `he`.
fn byte_level() -> Tokenizer {
    let mut vocab: Map<String, Value> =
        byte_characters().iter().enumerate().map(|(id, character)| (character.to_string(), json!(id))).collect();
    for (offset, token) in ["<s>", "</s>", "he"].iter().enumerate() {
        vocab.insert((*token).to_owned(), json!(256 + offset));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let file = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null,
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h e"]}
    });
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

/// Ids 0..256 are byte tokens, then `▁`, `a`, `▁a`, `é` and the special `<s>` (260).
fn byte_fallback() -> Tokenizer {
    let mut vocab: Map<String, Value> = (0..256).map(|byte| (format!("<0x{byte:02X}>"), json!(byte))).collect();
    for (offset, token) in ["▁", "a", "▁a", "é", "<s>"].iter().enumerate() {
        vocab.insert((*token).to_owned(), json!(256 + offset));
    }
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 260, "content": "<s>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]], "byte_fallback": true}
    });
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: ShowSpecial) -> Vec<String> {
    let mut stream = tokenizer.stream(special);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn special_tokens_are_added_only_when_asked() {
    let tokenizer = byte_level();
    let encode = |text, special| tokenizer.encode(text, special).unwrap();
    assert_eq!(encode("", AddSpecial::AsConfigured), [256]);
    assert!(encode("", AddSpecial::Never).is_empty());
    assert_eq!(encode("he", AddSpecial::AsConfigured), [256, 258]);
    // Longer than the file's truncation allows, and with a special token typed by hand.
    assert_eq!(encode("a</s>abab", AddSpecial::Never), [97, 257, 97, 98, 97, 98]);
}

#[test]
fn special_tokens_are_shown_only_when_asked() {
    let tokenizer = byte_level();
    let ids = [256, 104, 105, 257];
    assert_eq!(tokenizer.decode(&ids, ShowSpecial::Hide).unwrap(), "hi");
    assert_eq!(tokenizer.decode(&ids, ShowSpecial::Show).unwrap(), "<s>hi</s>");
    assert_eq!(tokenizer.decode(&[9999], ShowSpecial::Show).unwrap(), "");
}

#[test]
fn a_character_comes_whole() {
    let tokenizer = byte_level();
    let ids: Vec<u32> = "a🙂b".bytes().map(u32::from).collect();
    assert_eq!(streamed(&tokenizer, &ids, ShowSpecial::Hide), ["a", "", "", "", "🙂", "b", ""]);
    // Cut off in the middle: nothing half at first, a replacement at the end.
    assert_eq!(streamed(&tokenizer, &ids[..3], ShowSpecial::Hide), ["a", "", "", "\u{fffd}"]);
}

#[test]
fn leading_spaces_survive_what_comes_first() {
    let tokenizer = byte_fallback();
    let ids = [260, 258, 258, 260, 258];
    assert_eq!(streamed(&tokenizer, &ids, ShowSpecial::Hide).concat(), "a a a");
}

#[test]
fn a_run_of_bytes_goes_on_behind_what_is_not_shown() {
    let tokenizer = byte_fallback();
    for unseen in [260, 9999] {
        let ids = [225, 128, 128, unseen, 224];
        let whole = tokenizer.decode(&ids, ShowSpecial::Hide).unwrap();
        assert_eq!(streamed(&tokenizer, &ids, ShowSpecial::Hide).concat(), whole);
    }
}

#[test]
fn garbage_is_not_a_tokenizer() {
    let error = Tokenizer::from_bytes(b"{\"version\": \"1.0\"}").unwrap_err().to_string();
    assert!(error.starts_with("the artifact's tokenizer.json cannot be read"), "{error}");
}

proptest! {
    #[test]
    fn pieces_make_up_the_whole(
        ids in prop::collection::vec(prop_oneof![0u32..262, 97u32..100, 224u32..240, 128u32..192], 0..60),
    ) {
        for tokenizer in [byte_level(), byte_fallback()] {
            for special in [ShowSpecial::Hide, ShowSpecial::Show] {
                let whole = tokenizer.decode(&ids, special).unwrap();
                prop_assert_eq!(streamed(&tokenizer, &ids, special).concat(), whole);
            }
        }
    }

    #[test]
    fn text_streams_without_replacement_characters(text in "\\PC{0,40}") {
        let tokenizer = byte_level();
        let ids = tokenizer.encode(&text, AddSpecial::Never).unwrap();
        let pieces = streamed(&tokenizer, &ids, ShowSpecial::Hide);
        prop_assert!(text.contains(REPLACEMENT) || !pieces.concat().contains(REPLACEMENT));
    }
}
