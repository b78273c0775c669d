//! One request through the engine, its text handed on as it comes.

use llmc_console::CliError;
use llmrt::engine::{Engine, Event, FinishReason, Request};
use llmrt::sampler::TokenLogprobs;
use llmrt::tokenizer::{ShowSpecial, TextStream, Tokenizer};

/// What a request produced.
#[derive(Debug)]
pub struct Reply {
    /// The generated tokens.
    pub ids: Vec<u32>,
    /// Their text without special tokens; `None` without a tokenizer.
    pub text: Option<String>,
    /// Per token, when the request asked for them.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub reason: FinishReason,
}

/// The name of a reason in the output.
pub fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Context => "context",
        FinishReason::Cancelled => "cancelled",
    }
}

/// Runs a request to its end. `show` gets pieces of text, or without a tokenizer token ids with spaces between them.
/// `interrupted` is asked after every step whether to stop early.
pub fn generate(
    engine: &mut Engine,
    request: Request,
    tokenizer: Option<&Tokenizer>,
    mut show: impl FnMut(&str) -> Result<(), CliError>,
    interrupted: impl Fn() -> bool,
) -> Result<Reply, CliError> {
    let sequence = engine.submit(request).map_err(CliError::usage)?;
    let mut writer = ReplyWriter { ids: Vec::new(), text: String::new(), stream: stream(tokenizer) };
    let mut logprobs = Vec::new();
    let mut reason = None;
    while reason.is_none() {
        for event in engine.step().map_err(CliError::failure)? {
            match event {
                Event::Token { id, logprob, .. } => {
                    logprobs.extend(logprob);
                    writer.push(id, &mut show)?;
                }
                Event::Finished { reason: why, .. } => reason = Some(why),
            }
        }
        if reason.is_none() && (interrupted() || engine.is_idle()) {
            engine.cancel(sequence);
            reason = Some(FinishReason::Cancelled);
        }
    }
    let (ids, text) = writer.finish(&mut show)?;
    let text = tokenizer.map(|_| text);
    Ok(Reply { ids, text, logprobs, reason: reason.unwrap_or(FinishReason::Cancelled) })
}

fn stream(tokenizer: Option<&Tokenizer>) -> Option<TextStream<'_>> {
    tokenizer.map(|tokenizer| tokenizer.stream(ShowSpecial::Hide))
}

struct ReplyWriter<'a> {
    ids: Vec<u32>,
    text: String,
    stream: Option<TextStream<'a>>,
}

impl ReplyWriter<'_> {
    fn push(&mut self, id: u32, show: &mut impl FnMut(&str) -> Result<(), CliError>) -> Result<(), CliError> {
        let piece = match &mut self.stream {
            Some(stream) => stream.push(id).map_err(CliError::failure)?,
            None if self.ids.is_empty() => id.to_string(),
            None => format!(" {id}"),
        };
        self.ids.push(id);
        self.text.push_str(&piece);
        if piece.is_empty() { Ok(()) } else { show(&piece) }
    }

    fn finish(mut self, show: &mut impl FnMut(&str) -> Result<(), CliError>) -> Result<(Vec<u32>, String), CliError> {
        if let Some(stream) = self.stream.take() {
            let piece = stream.finish().map_err(CliError::failure)?;
            if !piece.is_empty() {
                show(&piece)?;
                self.text.push_str(&piece);
            }
        }
        Ok((self.ids, self.text))
    }
}
