//! `llmrt eval`: how well the model predicts a text.

use super::load::{self, Session};
use super::options::ModelFlags;
use super::run::read_text_file;
use clap::Args;
use llmc_console::CliError;
use llmc_console::output;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan, Program};
use llmrt::device::host::WeightPlace;
use llmrt::executor::{Executor, SampleRows, Step, StepSequence};
use llmrt::sampler::logprobs;
use llmrt::tokenizer::AddSpecial;
use serde::Serialize;
use std::path::PathBuf;

/// Compute a text's perplexity under the model.
///
/// The text is tokenized once, without special tokens, and cut into windows. Each is read from
/// position 0, and each of its tokens but the first is scored given those before it. An incomplete
/// last window is left out, unless it is the only one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  llmrt eval model.llmc --file text.txt --window 512 --json")]
pub struct EvalArguments {
    #[command(flatten)]
    model: ModelFlags,
    /// The text (- is stdin)
    #[arg(long, value_name = "TEXT")]
    file: PathBuf,
    /// Tokens per window
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    window: usize,
    /// Use only the first N windows [default: all]
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct EvalOutput {
    /// Tokens that were scored.
    tokens: usize,
    /// Mean negative log-likelihood per token, in nats.
    nll: f64,
    /// e to the power of `nll`.
    perplexity: f64,
}

/// Tokens that are scored together: enough to keep matrix products busy, few enough that their logits, which have a
/// number for each token of the vocabulary, take little memory beside the weights.
const MOST_SCORED: usize = 128;

/// Runs the command.
pub fn eval(arguments: &EvalArguments) -> Result<(), CliError> {
    let text = read_text_file(&arguments.file)?;
    let window = arguments.window;
    if window < 2 {
        return Err(CliError::Usage(format!(
            "--window is {window}, but must be at least 2: its first token is not scored"
        )));
    }
    let session = load::open(&arguments.model, WeightPlace::Mapped, |plan| match plan.model.max_context {
        context if window > context => {
            Err(CliError::Usage(format!("--window is {window} tokens, but the model's context is {context} tokens")))
        }
        _ => Ok(()),
    })?;
    let tokenizer = &session.text_for("eval")?.tokenizer;
    let ids = tokenizer.encode(&text, AddSpecial::Never).map_err(CliError::failure)?;
    if ids.len() < 2 {
        return Err(CliError::Usage(format!(
            "{} has {} tokens; scoring takes at least 2",
            arguments.file.display(),
            ids.len()
        )));
    }
    let Session { mut executor, .. } = session;
    let windows = windows(&ids, window, arguments.windows);
    let tokens = windows.iter().map(|window| window.len() - 1).sum();
    let bar = output::progress(windows.len() as u64, "{pos}/{len} windows {wide_bar} {eta}");
    let mut sum = 0.0;
    for window in &windows {
        sum += score(&mut executor, window)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    output::note(&executor.describe());
    let nll = sum / tokens as f64;
    let result = EvalOutput { tokens, nll, perplexity: nll.exp() };
    if arguments.json {
        return output::print_json(&result);
    }
    output::print(&format!(
        "perplexity {:.4} (negative log-likelihood {:.5} per token, {} tokens in {} windows)\n",
        result.perplexity,
        result.nll,
        result.tokens,
        windows.len()
    ))
}

/// The windows that are scored.
fn windows(ids: &[u32], window: usize, most: Option<usize>) -> Vec<&[u32]> {
    let mut windows: Vec<&[u32]> = ids.chunks_exact(window).take(most.unwrap_or(usize::MAX)).collect();
    if windows.is_empty() {
        windows.push(ids);
    }
    windows
}

/// The most tokens of one sequence whose logits a step can give.
fn most_scored_tokens(plan: &Plan) -> usize {
    let most = |program: &Program| match program.bounds.one_token_per_sequence {
        true => 1,
        false => program.bounds.max.tokens.min(program.bounds.max.samples),
    };
    plan.programs.iter().map(most).max().unwrap_or(1).clamp(1, MOST_SCORED)
}

/// The summed negative log-likelihood of all tokens of a window but the first.
fn score(executor: &mut Executor, window: &[u32]) -> Result<f64, CliError> {
    let block_table: Vec<u32> = (0..window.len().div_ceil(KV_BLOCK_POSITIONS) as u32).collect();
    let mut sum = 0.0;
    // The last token predicts nothing that is scored.
    let inputs = &window[..window.len() - 1];
    let chunk = most_scored_tokens(executor.plan());
    for (index, tokens) in inputs.chunks(chunk).enumerate() {
        let start = index * chunk;
        let sequence = StepSequence {
            tokens: tokens.to_vec(),
            start_position: start as u32,
            block_table: block_table.clone(),
            sample: SampleRows::All,
        };
        let logits = executor.run(&Step { sequences: vec![sequence] }).map_err(CliError::failure)?;
        for row in 0..tokens.len() {
            sum -= f64::from(logprobs(logits.row(row), window[start + row + 1], 0).logprob);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn an_incomplete_last_window_counts_only_alone() {
        let ids: Vec<u32> = (0..10).collect();
        assert_eq!(windows(&ids, 4, None), [&[0, 1, 2, 3][..], &[4, 5, 6, 7]]);
        assert_eq!(windows(&ids, 4, Some(1)), [&[0, 1, 2, 3]]);
        assert_eq!(windows(&ids, 16, None), [&ids[..]]);
    }
}
