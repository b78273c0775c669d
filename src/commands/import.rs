//! `llmc import`: a GGUF file becomes a Hugging Face directory.

use super::interrupt;
use clap::Args;
use llmc_console::{CliError, output};
use llmc_models::gguf::{self, GgufError};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Convert a GGUF file into a Hugging Face directory that `llmc compile` takes.
///
/// Weights are dequantised and rounded to bf16; the tokenizer and its chat template are rebuilt.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  llmc import SmolLM2-135M-Instruct.Q8_0.gguf SmolLM2-135M-Instruct")]
pub struct ImportArguments {
    /// The GGUF file
    #[arg(value_name = "MODEL.gguf")]
    gguf: PathBuf,
    /// Where model.safetensors, config.json and the tokenizer's files go
    #[arg(value_name = "OUTDIR")]
    directory: PathBuf,
    /// Print a JSON object about the result
    #[arg(long)]
    json: bool,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct ImportOutput<'a> {
    directory: &'a Path,
    architecture: &'a str,
    tensors: usize,
    /// Bytes of weights.
    bytes: u64,
    files: &'a [PathBuf],
    warnings: &'a [String],
}

/// Runs the command.
pub fn import(arguments: &ImportArguments) -> Result<(), CliError> {
    let interrupted = interrupt::install()?;
    let bar = output::progress(0, "weights {wide_bar} {bytes}/{total_bytes}");
    let outcome = gguf::import(&arguments.gguf, &arguments.directory, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupted.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let summary = outcome.map_err(|error| match error {
        GgufError::Io { .. } | GgufError::Interrupted => CliError::failure(error),
        GgufError::Malformed { .. } | GgufError::Unsupported { .. } => CliError::usage(error),
    })?;
    summary.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    if arguments.json {
        return output::print_json(&ImportOutput {
            directory: &arguments.directory,
            architecture: &summary.architecture,
            tensors: summary.tensors,
            bytes: summary.bytes,
            files: &summary.files,
            warnings: &summary.warnings,
        });
    }
    output::print(&format!(
        "{}: {}, {} tensors, {:.1} MB of bf16 weights\n",
        arguments.directory.display(),
        summary.architecture,
        summary.tensors,
        summary.bytes as f64 / 1e6
    ))
}
