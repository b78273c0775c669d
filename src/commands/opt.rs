//! `llmc opt`: passes over the IR's text form.

use super::compile::targets;
use super::machine;
use clap::Args;
use llmc::compile::with_targets;
use llmc_console::{CliError, output};
use llmc_ir::dtype::DType;
use llmc_ir::plan::ModelFacts;
use llmc_ir::text::parse;
use llmc_passes::eqsat::rule::{Invariance, Numerics};
use llmc_passes::instrument::{Instrument, Verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, PipelineError, run_pipeline};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Read the IR's text form, run passes on it and print the result.
///
/// The input is verified first, and again after each pass. Without --passes and --stop-after the whole pipeline runs,
/// from the phase that the input is in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmc opt --passes cse,dce layer.tir
  llmc compile SmolLM2-135M-Instruct --stop-after imported | llmc opt --stop-after fused -")]
pub struct OptArguments {
    /// The text form of a module, of specialised modules or of fused programs (- is stdin)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Run exactly these passes, in this order
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "stop_after")]
    passes: Option<Vec<String>>,
    /// Run the pipeline up to this phase
    #[arg(long, value_name = "PHASE")]
    stop_after: Option<Phase>,
    /// Leave out an optional pass or a family of rewrite rules; may be given several times
    #[arg(long, value_name = "PASS")]
    without: Vec<String>,
    /// How far rewrite rules may go: exact (the same operations), reassociates (sums in another order), blocks (and
    /// products of many rows in block floating point, where a CPU is faster at it) or rounds (results may be rounded to bf16 at
    /// other places)
    #[arg(long, value_name = "CLASS", default_value = "blocks")]
    numerics: Numerics,
    /// The most positions of a sequence, for `specialize`
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_context: usize,
    /// The most sequences in one step, for `specialize`
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_batch: usize,
    /// The machines whose costs decide, one for CPUs and one for GPUs: names or JSON files
    #[arg(long, value_name = "MACHINE", value_delimiter = ',', default_value = "host")]
    machine: Vec<String>,
    /// The CPUs that code is to be made for, as for `compile`: what they can do decides as well
    #[arg(long, value_name = "TARGET", value_delimiter = ',', default_value = "native")]
    target: Vec<String>,
    /// Print a table of the passes, their times and what they changed, to stderr
    #[arg(long)]
    report: bool,
}

/// Runs the command.
pub fn opt(arguments: &OptArguments) -> Result<(), CliError> {
    let text = read(&arguments.file)?;
    let document = parse(&text).map_err(|error| CliError::Usage(format!("{}:{error}", arguments.file.display())))?;
    let state = State::from(document);
    let (targets, _) = targets(&arguments.target)?;
    let context = Context::new(facts(&state, arguments), machine::read_all(&arguments.machine)?);
    let context = with_targets(context, &targets);
    let options = Options {
        without: arguments.without.clone(),
        stop_after: arguments.stop_after,
        only: arguments.passes.clone(),
        numerics: arguments.numerics,
        invariance: Invariance::default(),
    };
    let mut instruments: Vec<Box<dyn Instrument>> = vec![Box::new(Verify)];
    let (state, report) = run_pipeline(state, &context, &options, &mut instruments).map_err(failed)?;
    report.notes.iter().for_each(|note| output::note(&format!("warning: {note}")));
    if arguments.report {
        output::note(report.to_string().trim_end());
    }
    output::print(&state.text())
}

fn failed(error: PipelineError) -> CliError {
    match error {
        PipelineError::Instrument { .. } | PipelineError::Pass { .. } => CliError::failure(error),
        PipelineError::UnknownPass { .. } | PipelineError::NotOptional { .. } => CliError::usage(error),
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    let cannot = |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    if path != Path::new("-") {
        return std::fs::read_to_string(path).map_err(cannot);
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

/// What the passes want to know of the model, as far as the text says it.
fn facts(state: &State, arguments: &OptArguments) -> ModelFacts {
    let (max_context, max_batch) = (arguments.max_context, arguments.max_batch);
    ModelFacts {
        architecture: state.name().to_owned(),
        dtype: DType::BF16,
        vocab: state.vocab().unwrap_or(0),
        hidden: 0,
        layers: 0,
        max_context,
        max_batch,
        parameters: 0,
    }
}
