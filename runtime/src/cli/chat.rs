//! `llmrt chat`: a conversation in the terminal, or line by line through a pipe.

mod interrupt;
mod lines;

use super::load::{self, Session};
use super::options::{self, ModelFlags, SamplingFlags};
use super::reply;
use clap::Args;
use interrupt::Interrupt;
use lines::Lines;
use llmc_console::CliError;
use llmc_console::output::{self, rate};
use llmrt::chat::{ChatTemplate, Message};
use llmrt::conversation::Conversation;
use llmrt::device::host::WeightPlace;
use llmrt::engine::{Engine, EngineOptions, FinishReason, Request, StopPolicy};
use llmrt::sampler::SamplingParams;
use llmrt::tokenizer::Tokenizer;
use std::io::{IsTerminal, stderr};
use std::time::Instant;

/// What `/help` says.
const HELP: &str = "/help   this list
/reset  forget the conversation
/exit   leave (or Ctrl-D)
Ctrl-C stops a reply.";

/// Talk with a model.
///
/// Replies stream as they come. What has been said stays in the KV cache: only new text is read.
/// /help lists the commands; Ctrl-C stops a reply, Ctrl-D ends. When stdin is not a terminal, each
/// of its lines is a message.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmrt chat model.llmc --system \"You answer in one short sentence.\"
  llmrt chat model.llmc --temperature 0.7 --top-p 0.9")]
pub struct ChatArguments {
    #[command(flatten)]
    model: ModelFlags,
    /// The system message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Most tokens per reply, at least 1 [default: until the model stops or its context is full]
    #[arg(short = 'n', value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingFlags,
}

/// Runs the command; `started` is when the process did.
pub fn chat(arguments: &ChatArguments, started: Instant) -> Result<(), CliError> {
    let sampling = arguments.sampling.params()?;
    let max_tokens = options::max_tokens(arguments.max_tokens)?;
    let session = load::open(&arguments.model, WeightPlace::Auto, |_| Ok(()))?;
    let Some(template) = session.text_for("chat")?.template()? else {
        return Err(CliError::usage("the model has no chat template; use `llmrt run --raw`"));
    };
    let interrupt = Interrupt::install()?;
    let mut lines = Lines::open()?;
    output::note(&format!(
        "{} loaded in {:.2} s ({}); /help lists commands",
        session.artifact.path().display(),
        started.elapsed().as_secs_f64(),
        session.executor.describe()
    ));
    let system = arguments.system.iter().map(|text| Message::new("system", text));
    let system: Vec<Message> = system.collect();
    let mut conversation = Conversation::new(system.clone());
    let stop_ids = session.stop_ids();
    let Session { artifact, executor, text: Some(load::Text { tokenizer, .. }), .. } = session else { return Ok(()) };
    let mut talk = Talk {
        engine: Engine::new(executor, EngineOptions::default()),
        context: artifact.manifest().plan.model.max_context,
        max_tokens,
        tokenizer,
        template,
        sampling,
        stop_ids,
        interrupt,
    };
    while let Some(line) = lines.next()? {
        match line.trim() {
            "" => {}
            "/help" => output::note(HELP),
            "/exit" | "/quit" => break,
            "/reset" => {
                conversation = Conversation::new(system.clone());
                output::note("The conversation starts anew.");
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::note(&format!("{command} is not a command\n{HELP}"));
            }
            _ => talk.turn(&mut conversation, &line)?,
        }
    }
    Ok(())
}

/// All that a turn needs besides the conversation.
struct Talk {
    engine: Engine,
    context: usize,
    max_tokens: usize,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    sampling: SamplingParams,
    stop_ids: Vec<u32>,
    interrupt: Interrupt,
}

impl Talk {
    /// One message and its reply. What is wrong with a message is said and the message forgotten;
    /// the conversation goes on.
    fn turn(&mut self, conversation: &mut Conversation, line: &str) -> Result<(), CliError> {
        let prompt = match conversation.ask(line, &self.template, &self.tokenizer) {
            Ok(prompt) => prompt,
            Err(error) => {
                output::note(&format!("error: {error}"));
                return Ok(());
            }
        };
        if prompt.len() > self.context {
            conversation.forget_question();
            output::note(&format!(
                "error: with this message the conversation has {} tokens, but the model's context is {}; \
                 shorten it or /reset",
                prompt.len(),
                self.context
            ));
            return Ok(());
        }
        let request = Request {
            prompt: prompt.clone(),
            max_tokens: self.max_tokens,
            sampling: self.sampling.clone(),
            stop_ids: self.stop_ids.clone(),
            ignore_stop: StopPolicy::HonourStop,
            logprobs: 0,
        };
        let before = self.engine.stats();
        self.interrupt.start_reply();
        let interrupt = &self.interrupt;
        let stopped = || interrupt.requested();
        let reply = reply::generate(&mut self.engine, request, Some(&self.tokenizer), output::print, stopped);
        self.interrupt.end_reply();
        let reply = reply?;
        output::print("\n")?;
        match reply.reason {
            FinishReason::Cancelled => output::note("(stopped)"),
            FinishReason::Context => output::note("(the model's context is full; /reset starts anew)"),
            FinishReason::Length | FinishReason::Stop => {}
        }
        if stderr().is_terminal() {
            let after = self.engine.stats();
            output::note(&format!(
                "[{} tokens read, {} of {} from the cache; {:.1} tokens/s]",
                after.prefill_tokens - before.prefill_tokens,
                after.cached_prompt_tokens - before.cached_prompt_tokens,
                prompt.len(),
                rate(
                    (after.decode_tokens - before.decode_tokens) as usize,
                    after.decode_seconds - before.decode_seconds
                )
            ));
        }
        conversation.answer(prompt, &reply.ids, &self.stop_ids, &self.tokenizer).map_err(CliError::failure)
    }
}
