//! `llmrt verify`: every byte against the content hashes.

use super::load;
use clap::Args;
use llmc_artifact::Artifact;
use llmc_console::CliError;
use llmc_console::output;
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorOptions};
use std::path::PathBuf;
use std::sync::Arc;

/// Check every byte of a compiled model against its content hashes.
///
/// Loading a model checks its header, manifest and code only, so that it stays instant.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  llmrt verify model.llmc\n  llmrt verify model.llmc --device cuda:0")]
pub struct VerifyArguments {
    /// The compiled model
    #[arg(value_name = "ART")]
    artifact: PathBuf,
    /// Make the model ready to run there as well: host, cuda:0 and so on, or auto [default: do not]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
}

/// Runs the command.
pub fn verify(arguments: &VerifyArguments) -> Result<(), CliError> {
    let artifact = Arc::new(Artifact::open(&arguments.artifact).map_err(CliError::failure)?);
    let bar = output::progress(artifact.size_bytes(), "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec}");
    let outcome = artifact.verify(|done, _| bar.set_position(done));
    bar.finish_and_clear();
    let summary = outcome.map_err(CliError::failure)?;
    let (path, tensors, bytes) = (artifact.path().display().to_string(), summary.tensors, summary.bytes);
    output::print(&format!("{path}: {tensors} tensors, {bytes} bytes: intact\n"))?;
    let Some(device) = arguments.device else { return Ok(()) };
    let kv_blocks = Some(load::one_context(&artifact.manifest().plan));
    let options = ExecutorOptions { device, kv_blocks, ..ExecutorOptions::default() };
    let executor = Executor::new(artifact, options).map_err(CliError::failure)?;
    output::print(&format!("{path}: ready to run: {}\n", executor.describe()))
}
