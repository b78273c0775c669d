//! `llmrt run`: one prompt, one reply.

use super::load::{self, Session};
use super::options::{self, ModelFlags, SamplingFlags};
use super::reply::{self, Reply};
use clap::{ArgGroup, Args};
use llmc_console::CliError;
use llmc_console::output::{self, rate};
use llmrt::chat::{GenerationPrompt, Message};
use llmrt::device::host::WeightPlace;
use llmrt::engine::{Engine, EngineOptions, Request, StopPolicy};
use llmrt::tokenizer::AddSpecial;
use serde::Serialize;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Generate text from one prompt.
///
/// The text goes to stdout as it comes, everything else to stderr. Unless sampling flags say
/// otherwise the likeliest token is always taken, so that equal calls give equal text.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("prompt_source").required(true))]
#[command(after_help = "Examples:
  llmrt run model.llmc -p \"What is the boiling point of water?\"
  llmrt run model.llmc --raw -p \"Once upon a time\" -n 64 --temperature 0.8 --top-p 0.95 --seed 1
  llmrt run model.llmc --prompt-ids 504,3575,282 -n 8 --logprobs 5 --json")]
pub struct RunArguments {
    #[command(flatten)]
    model: ModelFlags,
    /// The prompt
    #[arg(short, long, value_name = "TEXT", group = "prompt_source", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from a file, exactly as it is (- is stdin)
    #[arg(long, value_name = "F", group = "prompt_source")]
    prompt_file: Option<PathBuf>,
    /// The prompt as token ids, used exactly as given
    #[arg(long, value_name = "1,2,3", group = "prompt_source", conflicts_with = "chat", allow_hyphen_values = true)]
    prompt_ids: Option<String>,
    /// Make the prompt a user's message in the model's chat template [default if it has one]
    #[arg(long, conflicts_with = "raw")]
    chat: bool,
    /// Continue the prompt as plain text [default without a chat template]
    #[arg(long)]
    raw: bool,
    /// Most tokens to generate, at least 1 [default: until the model stops or its context is full]
    #[arg(short = 'n', value_name = "N")]
    max_tokens: Option<usize>,
    /// Go on after the model's end-of-text token
    #[arg(long)]
    ignore_eos: bool,
    /// Report log-probabilities (of the logits as computed, before sampling) of each token and of
    /// the K likeliest; part of the --json output
    #[arg(long, value_name = "K")]
    logprobs: Option<NonZeroUsize>,
    /// Print one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingFlags,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct RunOutput {
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    /// Null without a tokenizer.
    text: Option<String>,
    /// `stop`: an end token; `length`: `-n` tokens; `context`: no room for another token.
    finish_reason: &'static str,
    /// Null unless asked for.
    logprobs: Option<Vec<LogprobsOutput>>,
    timing: Timing,
    target: String,
    peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct LogprobsOutput {
    id: u32,
    logprob: f32,
    top: Vec<(u32, f32)>,
}

/// Seconds and tokens. The first token comes out of the prefill.
#[derive(Serialize)]
struct Timing {
    load_s: f64,
    prefill_tokens: usize,
    prefill_s: f64,
    decode_tokens: usize,
    decode_s: f64,
}

/// Runs the command; `started` is when the process did.
pub fn run(arguments: &RunArguments, started: Instant) -> Result<(), CliError> {
    let sampling = arguments.sampling.params()?;
    let max_tokens = options::max_tokens(arguments.max_tokens)?;
    let prompt = read_prompt(arguments)?;
    let session = load::open(&arguments.model, WeightPlace::Mapped, |_| Ok(()))?;
    let load_seconds = started.elapsed().as_secs_f64();
    let prompt_ids = prompt.ids(&session, arguments)?;
    let context = session.artifact.manifest().plan.model.max_context;
    if prompt_ids.len() > context {
        return Err(CliError::Usage(format!(
            "the prompt has {} tokens, but the model's context is {context} tokens; shorten the prompt",
            prompt_ids.len()
        )));
    }
    let stop_ids = session.stop_ids();
    let Session { executor, text, tokenizer_seconds, .. } = session;
    let target = executor.target().to_owned();
    let device = executor.describe();
    let mut engine = Engine::new(executor, EngineOptions::default());
    let request = Request {
        prompt: prompt_ids.clone(),
        max_tokens,
        sampling,
        stop_ids,
        ignore_stop: if arguments.ignore_eos { StopPolicy::IgnoreStop } else { StopPolicy::HonourStop },
        logprobs: arguments.logprobs.map_or(0, Into::into),
    };
    let tokenizer = text.as_ref().map(|text| &text.tokenizer);
    let show = |piece: &str| if arguments.json { Ok(()) } else { output::print(piece) };
    let reply = reply::generate(&mut engine, request, tokenizer, show, || false)?;
    let stats = engine.stats();
    let timing = Timing {
        load_s: load_seconds,
        prefill_tokens: stats.prefill_tokens as usize,
        prefill_s: stats.prefill_seconds,
        decode_tokens: stats.decode_tokens as usize,
        decode_s: stats.decode_seconds,
    };
    if !arguments.json {
        output::end_line_on_terminal()?;
    }
    output::note(&summary(&timing, tokenizer_seconds, &device));
    if arguments.json {
        output::print_json(&object(prompt_ids, reply, arguments, timing, target))?;
    }
    Ok(())
}

fn object(prompt_ids: Vec<u32>, reply: Reply, arguments: &RunArguments, timing: Timing, target: String) -> RunOutput {
    let logprobs = arguments.logprobs.map(|_| {
        let pairs = reply.ids.iter().zip(reply.logprobs);
        pairs.map(|(&id, logprobs)| LogprobsOutput { id, logprob: logprobs.logprob, top: logprobs.top }).collect()
    });
    RunOutput {
        prompt_ids,
        ids: reply.ids,
        text: reply.text,
        finish_reason: reply::reason_name(reply.reason),
        logprobs,
        timing,
        target,
        peak_rss_bytes: output::peak_rss_bytes(),
    }
}

fn summary(timing: &Timing, tokenizer_seconds: f64, target: &str) -> String {
    format!(
        "prefill {} tokens, {:.1} tokens/s; decode {} tokens, {:.1} tokens/s; load {:.3} s (tokenizer {:.3} s); {target}",
        timing.prefill_tokens,
        rate(timing.prefill_tokens, timing.prefill_s),
        timing.decode_tokens,
        rate(timing.decode_tokens, timing.decode_s),
        timing.load_s,
        tokenizer_seconds,
    )
}

/// What was asked, before there is a tokenizer.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

fn read_prompt(arguments: &RunArguments) -> Result<Prompt, CliError> {
    if let Some(list) = &arguments.prompt_ids {
        return parse_ids(list).map(Prompt::Ids);
    }
    let text = match (&arguments.prompt, &arguments.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text_file(path)?,
        (None, None) => String::new(),
    };
    Ok(Prompt::Text(text))
}

/// A text file, or stdin for `-`.
pub fn read_text_file(path: &Path) -> Result<String, CliError> {
    let cannot = |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(cannot)?;
        bytes
    } else {
        std::fs::read(path).map_err(cannot)?
    };
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        CliError::Usage(format!("{} is not UTF-8 text: see byte {position}", path.display()))
    })
}

fn parse_ids(list: &str) -> Result<Vec<u32>, CliError> {
    if list.trim().is_empty() {
        return Err(empty_prompt());
    }
    let parse = |item: &str| {
        let wrong = |_| CliError::Usage(format!("--prompt-ids takes numbers such as 1,2,3, not `{item}`"));
        item.trim().parse().map_err(wrong)
    };
    list.split(',').map(parse).collect()
}

fn empty_prompt() -> CliError {
    CliError::usage("the prompt is empty: there is nothing to continue")
}

impl Prompt {
    fn ids(self, session: &Session, arguments: &RunArguments) -> Result<Vec<u32>, CliError> {
        let text = match self {
            Prompt::Ids(ids) => {
                let vocab = session.artifact.manifest().plan.model.vocab;
                return match ids.iter().find(|&&id| id as usize >= vocab) {
                    Some(id) => Err(CliError::Usage(format!(
                        "token {id} of --prompt-ids does not exist: the model's vocabulary is 0..{vocab}"
                    ))),
                    None => Ok(ids),
                };
            }
            Prompt::Text(text) => text,
        };
        let tools = session.text_for("a text prompt")?;
        let template = if arguments.raw { None } else { tools.template()? };
        let (text, special) = match template {
            Some(_) if text.is_empty() => return Err(empty_prompt()),
            Some(template) => {
                let messages = [Message::new("user", text)];
                let text = template.render(&messages, GenerationPrompt::Add).map_err(CliError::failure)?;
                (text, AddSpecial::Never)
            }
            None if arguments.chat => return Err(CliError::usage("the model has no chat template; use --raw")),
            None => (text, AddSpecial::AsConfigured),
        };
        let ids = tools.tokenizer.encode(&text, special).map_err(CliError::failure)?;
        if ids.is_empty() { Err(empty_prompt()) } else { Ok(ids) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_and_wrong_ones_named() {
        assert_eq!(parse_ids("1, 2,3").unwrap(), [1, 2, 3]);
        for (list, named) in [("", "empty"), ("1,,2", "``"), ("1,x", "`x`"), ("-1", "`-1`"), ("99999999999", "`9")] {
            let CliError::Usage(message) = parse_ids(list).unwrap_err() else { panic!("not a usage error") };
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn the_summary_has_rates() {
        let timing = Timing { load_s: 0.0914, prefill_tokens: 40, prefill_s: 0.02, decode_tokens: 0, decode_s: 0.0 };
        assert_eq!(
            summary(&timing, 0.08, "native, 2 threads"),
            "prefill 40 tokens, 2000.0 tokens/s; decode 0 tokens, 0.0 tokens/s; load 0.091 s (tokenizer 0.080 s); \
             native, 2 threads"
        );
    }
}
