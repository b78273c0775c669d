//! Chat messages to a prompt, through the checkpoint's Jinja template.
//!
//! Templates are written for the environment of Hugging Face transformers: blocks are trimmed,
//! Python's string methods work, and `raise_exception`, `strftime_now` and a `tojson` in Python's
//! format exist.

use llmc_artifact::TokenizerFacts;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};
use std::error::Error as _;

/// The one template of the environment.
const NAME: &str = "chat_template";

/// Why a conversation does not become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template itself is broken.
    #[error("the model's chat template cannot be read ({0}); use --raw to prompt without it")]
    Template(String),
    /// The template rejected the messages.
    #[error("the model's chat template rejects the conversation: {0}")]
    Render(String),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// Whether the prompt ends with the start of the assistant's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// It does: the model is to answer.
    Add,
    /// It ends with the last message.
    Omit,
}

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// Compiles the template of `facts`; `None` when the model has none.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(facts: &TokenizerFacts) -> Result<Option<Self>, ChatError> {
        let Some(source) = &facts.chat_template else { return Ok(None) };
        let mut environment = environment();
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| ChatError::Template(chain(&error)))?;
        let tokens = [
            ("bos_token", &facts.bos_token),
            ("eos_token", &facts.eos_token),
            ("pad_token", &facts.pad_token),
            ("unk_token", &facts.unk_token),
        ];
        let special_tokens = tokens.into_iter().filter_map(|(k, v)| Some((k, v.clone()?)));
        Ok(Some(ChatTemplate { environment, special_tokens: special_tokens.collect() }))
    }

    /// The prompt's text. Its special tokens are part of the text: encode it without adding more.
    ///
    /// # Errors
    /// When the template raises one, for instance for roles in an order it does not know.
    pub fn render(&self, messages: &[Message], generation: GenerationPrompt) -> Result<String, ChatError> {
        let render = || {
            let template = self.environment.get_template(NAME)?;
            let special: Value = self.special_tokens.iter().map(|(k, v)| (*k, v.as_str())).collect();
            template.render(context! {
                messages,
                add_generation_prompt => generation == GenerationPrompt::Add,
                ..special
            })
        };
        render().map_err(|error| ChatError::Render(chain(&error)))
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match value.kind() {
        // Python's spelling.
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        ValueKind::None => Ok(out.write_str("None")?),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    environment.add_filter("tojson", to_json);
    environment
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let width = " ".repeat(width.min(64));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(width.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, OneLine)),
    };
    let failed = |what: String| Error::new(ErrorKind::BadSerialization, what);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}

/// Python's one-line JSON: a space after every comma and colon.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W>(&mut self, writer: &mut W) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(b": ")
    }
}

/// Transformers' own `{% generation %}` tags mark what to train on and produce no text: turned into
/// comments, with the same trimming of white space.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        let words = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start]);
        if words == "generation" || words == "endgeneration" {
            let left = if tag.starts_with('-') { "-" } else { "" };
            let right = if tag.ends_with('-') { "-" } else { "" };
            out.push_str(&format!("{{#{left} {words} {right}#}}"));
            rest = &rest[start + length + 2..];
        } else {
            out.push_str("{%");
            rest = &rest[start + 2..];
        }
    }
    out.push_str(rest);
    out
}

/// An error with its causes, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
