//! Whether the exact tokens are kept where they can be.

use super::*;
use llmc_artifact::TokenizerFacts;
use serde_json::{Map, Value, json};

/// Tokens: a..z, `<e>` (ends a turn), `hi` as a merge; what a text does not spell is unknown.
fn tokenizer() -> Tokenizer {
    let mut vocab: Map<String, Value> = ('a'..='z').enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    vocab.insert("<e>".to_owned(), json!(26));
    vocab.insert("hi".to_owned(), json!(27));
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "added_tokens": [{"id": 26, "content": "<e>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h i"]}
    });
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    let facts = TokenizerFacts { chat_template: Some(source.to_owned()), ..TokenizerFacts::default() };
    ChatTemplate::new(&facts).unwrap().unwrap()
}

const PLAIN: &str = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}<e>{% endfor %}a";
const H: u32 = 7;
const I: u32 = 8;
const END: u32 = 26;
const HI: u32 = 27;

#[test]
fn the_models_own_tokens_are_kept() {
    let (tokenizer, template) = (tokenizer(), template(PLAIN));
    let mut conversation = Conversation::new(vec![Message::new("system", "x")]);
    let prompt = conversation.ask("hi", &template, &tokenizer).unwrap();
    assert_eq!(prompt, [18, 23, END, 20, HI, END, 0]);
    // The model spells `hi` in two tokens, which its text alone would not.
    conversation.answer(prompt.clone(), &[H, I, END], &[END], &tokenizer).unwrap();
    let second = conversation.ask("b", &template, &tokenizer).unwrap();
    assert_eq!(second, [&prompt[..], &[H, I, END, 20, 1, END, 0]].concat());
}

#[test]
fn an_interrupted_answer_is_closed() {
    let (tokenizer, template) = (tokenizer(), template(PLAIN));
    let mut conversation = Conversation::new(Vec::new());
    let prompt = conversation.ask("b", &template, &tokenizer).unwrap();
    conversation.answer(prompt.clone(), &[H], &[END], &tokenizer).unwrap();
    let second = conversation.ask("b", &template, &tokenizer).unwrap();
    assert_eq!(second, [&prompt[..], &[H, END, 20, 1, END, 0]].concat());
}

#[test]
fn a_template_that_rewrites_the_past_is_followed() {
    let tokenizer = tokenizer();
    let template = template("{{ messages | length == 1 and 'x' or 'y' }}{{ messages[-1].content }}");
    let mut conversation = Conversation::new(Vec::new());
    let prompt = conversation.ask("b", &template, &tokenizer).unwrap();
    assert_eq!(prompt, [23, 1]);
    conversation.answer(prompt, &[2, END], &[END], &tokenizer).unwrap();
    assert_eq!(conversation.ask("d", &template, &tokenizer).unwrap(), [24, 3]);
}

#[test]
fn a_rejected_message_is_forgotten() {
    let tokenizer = tokenizer();
    let template =
        template("{% if 'z' in messages[-1].content %}{{ raise_exception('no z') }}{% endif %}{{ messages | length }}");
    let mut conversation = Conversation::new(Vec::new());
    let error = conversation.ask("z", &template, &tokenizer).unwrap_err();
    assert!(error.to_string().contains("no z"));
    assert!(conversation.ask("b", &template, &tokenizer).is_ok());
    assert_eq!(conversation.messages.len(), 1);
}
