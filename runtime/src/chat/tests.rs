//! Templates of real models against reference renderings, and single features of the environment.

use super::*;
use serde::Deserialize;

/// Conversations with the text that transformers' `apply_chat_template` makes of them.
#[derive(Deserialize)]
struct Reference {
    chat_template: String,
    chats: Vec<ReferenceChat>,
}

#[derive(Deserialize)]
struct ReferenceChat {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: String,
}

fn template(source: &str) -> ChatTemplate {
    let facts = TokenizerFacts {
        chat_template: Some(source.to_owned()),
        bos_token: Some("<s>".to_owned()),
        ..TokenizerFacts::default()
    };
    ChatTemplate::new(&facts).unwrap().unwrap()
}

fn render(source: &str) -> Result<String, ChatError> {
    let messages = [Message::new("user", " hello "), Message::new("assistant", "a</think>b")];
    template(source).render(&messages, GenerationPrompt::Add)
}

#[test]
fn real_templates_render_as_the_reference() {
    for file in [include_str!("../../tests/data/chat-smollm2.json"), include_str!("../../tests/data/chat-qwen2.5.json")]
    {
        let reference: Reference = serde_json::from_str(file).unwrap();
        let template = template(&reference.chat_template);
        for chat in &reference.chats {
            let generation = match chat.add_generation_prompt {
                true => GenerationPrompt::Add,
                false => GenerationPrompt::Omit,
            };
            assert_eq!(template.render(&chat.messages, generation).unwrap(), chat.text);
        }
    }
}

#[test]
fn what_templates_use_of_python_works() {
    for (source, expected) in [
        ("{{ bos_token }}{{ eos_token }}", "<s>"),
        ("{{ messages[0].content.strip() }}", "hello"),
        ("{{ messages[1]['content'].split('</think>')[-1] }}", "b"),
        ("{{ messages[0].role.startswith('us') }}", "True"),
        ("{{ messages[0].role.upper().replace('S', 'z').lstrip('U') }}", "zER"),
        ("{{ none }}", "None"),
        ("{% for m in messages[::-1] %}{{ m.role }} {% endfor %}", "assistant user "),
        ("{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}", "3"),
        ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('é') }}", "<é>"),
        ("{{ messages[0] is mapping }}{{ messages[0].content is string }}{{ tools is defined }}", "TrueTrueFalse"),
        ("{% if tools %}x{% endif %}", ""),
        ("{{ {'a': [1, 2.5, true, none], 'b': '<é>'} | tojson }}", r#"{"a": [1, 2.5, true, null], "b": "<é>"}"#),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ strftime_now('%%') }}", "%"),
        ("a{%- generation -%} b {% endgeneration %}\nc", "ab c"),
        ("{% if true %}\n    {% if true %}\nx\n    {% endif %}\n{% endif %}\n", "x\n"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn the_date_has_the_usual_form() {
    let date = render("{{ strftime_now('%d %b %Y') }}").unwrap();
    assert_eq!(date.split(' ').map(str::len).collect::<Vec<_>>(), [2, 3, 4], "{date}");
}

#[test]
fn what_a_template_raises_reaches_the_user() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err().to_string();
    assert!(error.contains("rejects the conversation"), "{error}");
    assert!(error.contains("roles must alternate"), "{error}");
}

#[test]
fn broken_templates_are_named() {
    let facts = TokenizerFacts { chat_template: Some("{% if %}".into()), ..Default::default() };
    let error = ChatTemplate::new(&facts).unwrap_err().to_string();
    assert!(error.contains("chat template cannot be read"), "{error}");
    assert!(ChatTemplate::new(&TokenizerFacts::default()).unwrap().is_none());
}
