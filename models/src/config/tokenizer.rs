//! tokenizer_config.json: special tokens and the chat template.

use super::fields::{Fields, shown};
use super::{ConfigError, json_object, read_optional};
use serde_json::Value;
use std::path::Path;

/// What a runtime needs to know beside tokenizer.json.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Jinja source that turns messages into a prompt.
    pub chat_template: Option<String>,
    /// Text of the beginning-of-sequence token.
    pub bos: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos: Option<String>,
    /// Text of the padding token.
    pub pad: Option<String>,
    /// Text of the token for what the vocabulary lacks.
    pub unk: Option<String>,
    /// Whether a prompt is to begin with `bos`, where the file says so.
    pub add_bos: Option<bool>,
    /// Whether a prompt is to end with `eos`, where the file says so.
    pub add_eos: Option<bool>,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json` in a model's directory, and `chat_template.jinja`, which comes first where both
    /// hold a template. Without the files everything is absent.
    ///
    /// # Errors
    /// See [`ConfigError`]: a file cannot be read, or fields have the wrong type.
    pub fn load(directory: &Path) -> Result<TokenizerConfig, ConfigError> {
        let path = directory.join("tokenizer_config.json");
        let mut config = match read_optional(&path)? {
            Some(text) => TokenizerConfig::parse(&text, &path)?,
            None => TokenizerConfig::default(),
        };
        if let Some(template) = read_optional(&directory.join("chat_template.jinja"))? {
            config.chat_template = Some(template);
        }
        Ok(config)
    }

    /// Reads the text of a tokenizer_config.json; `path` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<TokenizerConfig, ConfigError> {
        let object = json_object(text, path)?;
        let fields = Fields::new(&object, "");
        let config = TokenizerConfig {
            chat_template: chat_template(&fields),
            bos: special_token(&fields, "bos_token"),
            eos: special_token(&fields, "eos_token"),
            pad: special_token(&fields, "pad_token"),
            unk: special_token(&fields, "unk_token"),
            add_bos: fields.boolean("add_bos_token"),
            add_eos: fields.boolean("add_eos_token"),
        };
        match fields.into_problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::Invalid { path: path.to_path_buf(), problems }),
        }
    }
}

/// A text, or a list of `{name, template}` of which the one named `default` counts.
fn chat_template(fields: &Fields<'_>) -> Option<String> {
    let value = fields.value("chat_template")?;
    let Value::Array(templates) = value else { return fields.text("chat_template").map(str::to_owned) };
    let text = |template: &Value, key: &str| template.get(key).and_then(Value::as_str).map(str::to_owned);
    let default = templates.iter().find(|template| text(template, "name").as_deref() == Some("default"));
    let source = default.and_then(|template| text(template, "template"));
    if source.is_none() {
        let names: Vec<_> = templates.iter().filter_map(|template| text(template, "name")).collect();
        let message = format!("must hold a template named `default`, found [{}]", names.join(", "));
        fields.problem("chat_template", message);
    }
    source
}

/// A text, or an object with the text in `content`.
fn special_token(fields: &Fields<'_>, name: &str) -> Option<String> {
    let value = fields.value(name)?;
    let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
    if text.is_none() {
        fields.problem(name, format_args!("must be a text or an object with `content`, found {}", shown(value)));
    }
    text.map(str::to_owned)
}
