//! `llmc explain`: how an artifact came about, and what its steps cost.

use super::machine;
use clap::Args;
use llmc::explain::report::Report;
use llmc::explain::{self, ExplainError, page, text};
use llmc_artifact::{Artifact, write_file};
use llmc_console::{CliError, output};
use std::path::{Path, PathBuf};

/// Show what the compiler did with a model and why: passes, rewrites, chosen forms, kernels, memory.
///
/// The passes run again on what the artifact keeps of the model, which takes milliseconds. Costs are those of the machine
/// that the model was compiled for (--machine of `llmc compile`), or of another one, and not measurements.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmc explain smollm2.llmc
  llmc explain smollm2.llmc -o report.html
  llmc explain smollm2.llmc --machine h100")]
pub struct ExplainArguments {
    /// The compiled model
    #[arg(value_name = "ART")]
    artifact: PathBuf,
    /// What the passes would do for other machines: names or JSON files, as for `llmc compile`
    #[arg(long, value_name = "MACHINE", value_delimiter = ',')]
    machine: Vec<String>,
    /// Write a page with graphs and charts, which needs no network, instead of printing text
    #[arg(short, long, value_name = "HTML", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Print the whole report as a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn explain(arguments: &ExplainArguments) -> Result<(), CliError> {
    let artifact = Artifact::open(&arguments.artifact).map_err(CliError::usage)?;
    if let Some(path) = &arguments.output {
        keep_artifact(&arguments.artifact, path)?;
    }
    let report = match arguments.machine.is_empty() {
        false => explain::explain_for(&artifact, &machine::read_all(&arguments.machine)?).map_err(failed)?,
        true => explain::explain(&artifact).map_err(failed)?,
    };
    if arguments.json {
        return output::print_json(&report);
    }
    let Some(path) = &arguments.output else {
        return output::print(&text::text(&report).map_err(CliError::failure)?);
    };
    write_page(&report, path)
}

/// Writes the page of a report, and says so.
pub fn write_page(report: &Report, path: &Path) -> Result<(), CliError> {
    let html = page::page(report).map_err(CliError::failure)?;
    write_file(path, html.as_bytes()).map_err(CliError::failure)?;
    output::print(&format!("{}: {:.1} kB\n", path.display(), html.len() as f64 / 1e3))
}

/// Refuses to write the page in place of what it is about.
fn keep_artifact(artifact: &Path, output: &Path) -> Result<(), CliError> {
    match (artifact.canonicalize(), output.canonicalize()) {
        (Ok(artifact), Ok(output)) if artifact == output => Err(CliError::Usage(format!(
            "the page would replace the artifact {}; give it another name with -o",
            artifact.display()
        ))),
        _ => Ok(()),
    }
}

fn failed(error: ExplainError) -> CliError {
    match error {
        ExplainError::Artifact(_) | ExplainError::NothingKept { .. } | ExplainError::Damaged { .. } => {
            CliError::usage(error)
        }
        ExplainError::Pipeline(_)
        | ExplainError::Saturation(_)
        | ExplainError::Machine(_)
        | ExplainError::Code { .. } => CliError::failure(error),
    }
}
