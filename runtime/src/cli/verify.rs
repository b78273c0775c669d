//! `llmrt verify`: every byte against the content hashes.

use clap::Args;
use llmc_artifact::Artifact;
use llmc_console::CliError;
use llmc_console::output;
use std::path::PathBuf;

/// Check every byte of a compiled model against its content hashes.
///
/// Loading a model checks its header, manifest and code only, so that it stays instant.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  llmrt verify model.llmc")]
pub struct VerifyArguments {
    /// The compiled model
    #[arg(value_name = "ART")]
    artifact: PathBuf,
}

/// Runs the command.
pub fn verify(arguments: &VerifyArguments) -> Result<(), CliError> {
    let artifact = Artifact::open(&arguments.artifact).map_err(CliError::failure)?;
    let bar = output::progress(artifact.size_bytes(), "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec}");
    let outcome = artifact.verify(|done, _| bar.set_position(done));
    bar.finish_and_clear();
    let summary = outcome.map_err(CliError::failure)?;
    output::print(&format!(
        "{}: {} tensors, {} bytes: intact\n",
        artifact.path().display(),
        summary.tensors,
        summary.bytes
    ))
}
