//! `llmc compile`: a checkpoint becomes an artifact.

use super::{interrupt, machine, shapes};
use clap::Args;
use llmc::compile::{InvarianceCost, Outcome, Progress, Request, Summary};
use llmc::error::CompileError;
use llmc::model::Model;
use llmc::tune::{Tuned, Tunings};
use llmc_codegen::gpu::{self, GpuTarget};
use llmc_codegen::host::HostTarget;
use llmc_console::{CliError, output};
use llmc_ir::dtype::DType;
use llmc_ir::machine::{Machines, Processor};
use llmc_passes::eqsat::rule::{Family, Invariance, Numerics};
use llmc_passes::instrument::Report;
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, pipeline};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Compile a Hugging Face checkpoint into one file that llmrt runs.
///
/// config.json, tokenizer.json and what else belongs to the model are taken from the checkpoint's directory.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmc compile SmolLM2-135M-Instruct/model.safetensors -o smollm2.llmc
  llmc compile Qwen2.5-0.5B-Instruct --target x86-64-v3,x86-64-v4 --max-context 8192
  llmc compile Qwen2.5-0.5B-Instruct --target native,cuda:sm_80
  llmc compile SmolLM2-135M-Instruct --dump ir --without cse
  llmc compile SmolLM2-135M-Instruct --stop-after fused
  llmc compile --shapes-only Llama-3-8B/config.json --machine a100")]
pub struct CompileArguments {
    /// model.safetensors, model.safetensors.index.json, or the directory of either
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: PathBuf,
    /// Where the artifact goes [default: the checkpoint directory's name with .llmc, here]; with --shapes-only where the
    /// page of `llmc explain` goes, which must end in .html
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Element type of weight matrices and of what they multiply: bf16 or f32. Sums are always f32
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub dtype: DType,
    /// What to make code for, several with commas or several times: CPUs (native, x86-64, x86-64-v2, x86-64-v3,
    /// x86-64-v4, znver4, znver5, sapphirerapids, graniterapids) and NVIDIA GPUs (cuda:sm_80, cuda:sm_86, cuda:sm_87,
    /// cuda:sm_89, cuda:sm_90: those and newer ones)
    #[arg(long, value_name = "TARGET", value_delimiter = ',', default_value = "native")]
    target: Vec<String>,
    /// The most positions of a sequence [default: what the model was made for]
    #[arg(long, value_name = "N")]
    max_context: Option<usize>,
    /// The most sequences in one step
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_batch: usize,
    /// The machines whose costs decide between equal forms, one for CPUs and one for GPUs: host, a100, h100, l4, rtx4090,
    /// or a JSON file with the same fields as theirs [default: host, and a GPU of the first such target's kind]
    #[arg(long, value_name = "MACHINE", value_delimiter = ',')]
    machine: Vec<String>,
    /// Write the IR after each pass, and the code of each target, into a directory
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Stop after a phase and print what there is instead of writing an artifact: imported, canonical, specialized,
    /// rewritten, fused or planned
    #[arg(long, value_name = "PHASE")]
    stop_after: Option<Phase>,
    /// Leave out an optional pass or a family of rewrite rules; may be given several times
    #[arg(long, value_name = "PASS", long_help = without_help())]
    without: Vec<String>,
    /// How far rewrite rules may go: exact (the same operations), reassociates (sums in another order), blocks (and
    /// products of many rows in block floating point, where a CPU is faster at it) or rounds (results may be rounded to bf16 at
    /// other places)
    #[arg(long, value_name = "CLASS", default_value = "blocks")]
    numerics: Numerics,
    /// Take every sum in one order in all programs, so that a sequence's logits have the same bits in a prompt, in chunks of
    /// any size, token by token, and beside any others; what that costs is said. For CPUs only, whose matrix units it does
    /// without
    #[arg(long)]
    batch_invariant: bool,
    /// Measure on this machine which sizes the kernels of each CPU are best cut to, which takes about half a minute, instead of
    /// taking the defaults. The artifact keeps what was chosen and why
    #[arg(long, conflicts_with_all = ["tuning", "stop_after", "shapes_only"])]
    tune: bool,
    /// Cut kernels as an earlier --tune chose: a file with what `llmc inspect --tuning` prints of its artifact
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stop_after", "shapes_only"])]
    tuning: Option<PathBuf>,
    /// Read nothing but the shapes of a model, from the config.json that CHECKPOINT names: run the passes, print what they
    /// chose and why, what a step launches and moves, and sizes, and write no artifact
    #[arg(long)]
    shapes_only: bool,
    /// Print a JSON object about the result; with --shapes-only the one that `llmc explain --json` prints
    #[arg(long)]
    pub json: bool,
}

fn without_help() -> String {
    let mut help = "Leave out an optional pass or a family of rewrite rules; may be given several times:".to_owned();
    let mut known: Vec<&str> = Vec::new();
    for pass in pipeline().iter().filter(|pass| pass.necessity == llmc_passes::pass::Necessity::Optional) {
        if !known.contains(&pass.name) {
            known.push(pass.name);
            help.push_str(&format!("\n{:<12}{}", pass.name, pass.description));
        }
    }
    for family in Family::ALL {
        help.push_str(&format!("\n{:<12}rewrite rules of eqsat: {}", family.name(), family.description()));
    }
    help
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct CompileOutput<'a> {
    artifact: &'a Path,
    bytes: u64,
    architecture: &'static str,
    parameters: u64,
    dtype: &'static str,
    targets: Vec<&'a str>,
    /// Kernel launches of one step, by program.
    launches: Vec<Launches<'a>>,
    warnings: Vec<&'a String>,
    /// With --batch-invariant, what it costs by price.
    invariance: &'a [InvarianceCost],
    /// With --tune or --tuning, what kernels are cut to and why.
    tuning: &'a [Tuned],
    timing: Timing<'a>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Launches<'a> {
    program: &'a str,
    launches: usize,
}

#[derive(Serialize)]
struct Timing<'a> {
    total_s: f64,
    load_s: f64,
    passes: Vec<PassTime>,
    code: Vec<CodeTime<'a>>,
    write_s: f64,
}

#[derive(Serialize)]
struct PassTime {
    pass: &'static str,
    phase: &'static str,
    /// In the pass itself.
    s: f64,
    /// In verification and dumps behind it.
    instruments_s: f64,
}

#[derive(Serialize)]
struct CodeTime<'a> {
    target: &'a str,
    s: f64,
}

/// Runs the command.
pub fn compile(arguments: &CompileArguments) -> Result<(), CliError> {
    let started = Instant::now();
    if !matches!(arguments.dtype, DType::BF16 | DType::F32) {
        return Err(CliError::Usage(format!("--dtype is {}, but must be bf16 or f32", arguments.dtype)));
    }
    let (targets, gpus) = targets(&arguments.target)?;
    let machines = machines(arguments, &targets, &gpus)?;
    let request = Request {
        max_context: arguments.max_context,
        max_batch: arguments.max_batch,
        machines,
        targets,
        gpus,
        passes: Options {
            without: arguments.without.clone(),
            stop_after: arguments.stop_after,
            only: None,
            numerics: arguments.numerics,
            invariance: if arguments.batch_invariant { Invariance::Batch } else { Invariance::Program },
        },
        tuning: tunings(arguments)?,
        dump: arguments.dump.clone(),
    };
    if arguments.shapes_only {
        return shapes::study(arguments, &request);
    }
    let interrupted = interrupt::install()?;
    let model = Model::load(&arguments.checkpoint, arguments.dtype).map_err(failed)?;
    model.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let load_seconds = started.elapsed().as_secs_f64();
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => default_output(model.checkpoint.directory())?,
    };
    let bar = output::progress(0, "{msg} {wide_bar} {bytes}/{total_bytes}");
    let outcome = llmc::compile::compile(&model, &request, &path, &mut |progress| {
        match progress {
            Progress::Census(done, total) => {
                bar.set_message("exponents");
                bar.set_length(2 * total);
                bar.set_position(2 * done);
            }
            Progress::Passes => bar.set_message("passes"),
            Progress::Tuning(done, total) => bar.set_message(format!("measuring, round {done} of {total}")),
            Progress::Code(target) => bar.set_message(format!("code for {target}")),
            Progress::Weights(done, total) => {
                bar.set_message("weights");
                bar.set_length(total);
                bar.set_position(done);
            }
        }
        !interrupted.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let summary = match outcome.map_err(failed)? {
        Outcome::Stopped(text, passes) => {
            passes.notes.iter().for_each(|note| output::note(&format!("warning: {note}")));
            return output::print(&text);
        }
        Outcome::Written(summary) => summary,
    };
    for tuned in summary.tuned.iter().filter(|tuned| arguments.tune && tuned.is_disturbed()) {
        output::note(&format!(
            "warning: measurements for {} had noise of {:.0} %: something else had the machine; leave it alone and try again",
            tuned.target,
            100.0 * tuned.noise
        ));
    }
    let total = started.elapsed().as_secs_f64();
    summary.passes.notes.iter().for_each(|note| output::note(&format!("warning: {note}")));
    match arguments.json {
        true => output::print_json(&object(&model, &request, &path, &summary, [total, load_seconds])),
        false => output::print(&report(&model, &request, &path, &summary, total)),
    }
}

/// By whose fault a compilation ended.
pub fn failed(error: CompileError) -> CliError {
    if error.is_input() { CliError::usage(error) } else { CliError::failure(error) }
}

/// The CPU levels and GPU architectures by name, each once.
pub fn targets(names: &[String]) -> Result<(Vec<HostTarget>, Vec<GpuTarget>), CliError> {
    let (mut hosts, mut gpus) = (Vec::new(), Vec::new());
    for name in names {
        match name.starts_with(gpu::PREFIX) {
            true => add(&mut gpus, GpuTarget::parse(name).map_err(CliError::usage)?),
            false => add(&mut hosts, HostTarget::named(name).map_err(CliError::usage)?),
        }
    }
    Ok((hosts, gpus))
}

fn add<T: PartialEq>(targets: &mut Vec<T>, target: T) {
    if !targets.contains(&target) {
        targets.push(target);
    }
}

/// Where sizes of kernels come from.
fn tunings(arguments: &CompileArguments) -> Result<Tunings, CliError> {
    let Some(path) = &arguments.tuning else {
        return Ok(if arguments.tune { Tunings::Measured } else { Tunings::Defaults });
    };
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::Usage(format!("cannot read {name}: {error}; name what `llmc inspect --tuning` printed"))
    })?;
    let given: Vec<Tuned> = serde_json::from_str(&text).map_err(|error| {
        CliError::Usage(format!(
            "{name} holds no sizes of kernels: {error}; expected what `llmc inspect --tuning` prints"
        ))
    })?;
    Ok(Tunings::Given(given))
}

/// The machines to weigh costs for: those named, and others for targets of a kind that none of them is.
fn machines(arguments: &CompileArguments, hosts: &[HostTarget], gpus: &[GpuTarget]) -> Result<Machines, CliError> {
    let mut machines = machine::read_each(&arguments.machine)?;
    let host = (!hosts.is_empty()).then_some((Processor::Cpu, "host"));
    let gpu = gpus.first().map(|gpu| (Processor::Gpu, machine_like(gpu)));
    // Shapes alone are studied on the machines that are named, if any.
    let kinds = host.into_iter().chain(gpu).filter(|_| !arguments.shapes_only || machines.is_empty());
    for (processor, name) in kinds.collect::<Vec<_>>() {
        if machines.iter().all(|machine| machine.processor != processor) {
            machines.push(machine::read(name)?);
        }
    }
    machine::together(machines)
}

/// The machine that code for a GPU architecture is likeliest to run on.
fn machine_like(gpu: &GpuTarget) -> &'static str {
    match gpu.capability {
        ..86 => "a100",
        86..89 => "l4",
        89 => "rtx4090",
        90.. => "h100",
    }
}

fn default_output(directory: &Path) -> Result<PathBuf, CliError> {
    let whole = directory.canonicalize().map_err(|error| {
        CliError::Failure(format!("cannot resolve {}: {error}; name the artifact with -o", directory.display()))
    })?;
    let name = whole.file_name().ok_or_else(|| CliError::usage("name the artifact with -o"))?;
    let mut name = name.to_owned();
    name.push(".llmc");
    Ok(PathBuf::from(name))
}

fn object<'a>(
    model: &'a Model,
    request: &'a Request,
    path: &'a Path,
    summary: &'a Summary,
    [total, load]: [f64; 2],
) -> CompileOutput<'a> {
    let launches = summary.launches.iter().map(|(program, launches)| Launches { program, launches: *launches });
    let code = summary.code_seconds.by_target.iter().map(|(target, s)| CodeTime { target, s: *s });
    CompileOutput {
        artifact: path,
        bytes: summary.bytes,
        architecture: model.config.architecture.name(),
        parameters: summary.parameters,
        dtype: model.numerics.matrix.name(),
        targets: target_names(request),
        launches: launches.collect(),
        warnings: model.warnings.iter().chain(&summary.passes.notes).collect(),
        invariance: &summary.invariance,
        tuning: &summary.tuned,
        timing: Timing {
            total_s: total,
            load_s: load,
            passes: pass_times(&summary.passes),
            code: code.collect(),
            write_s: summary.write_seconds,
        },
        peak_rss_bytes: output::peak_rss_bytes(),
    }
}

fn target_names(request: &Request) -> Vec<&str> {
    let hosts = request.targets.iter().map(|target| target.name.as_str());
    hosts.chain(request.gpus.iter().map(|target| target.name.as_str())).collect()
}

fn pass_times(report: &Report) -> Vec<PassTime> {
    let times = report.passes.iter().map(|pass| PassTime {
        pass: pass.name,
        phase: pass.phase.name(),
        s: pass.time.as_secs_f64(),
        instruments_s: pass.instruments.as_secs_f64(),
    });
    times.collect()
}

fn report(model: &Model, request: &Request, path: &Path, summary: &Summary, total: f64) -> String {
    let targets = target_names(request);
    let launches: Vec<String> = summary.launches.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let code = summary.code_seconds.total;
    let costs = summary.invariance.iter().map(|cost| {
        let more = 100.0 * (cost.seconds / cost.default_seconds - 1.0);
        format!("{} {more:+.1} %", cost.program)
    });
    let costs: Vec<String> = costs.collect();
    let invariance = match costs.is_empty() {
        true => String::new(),
        false => format!("  batch-invariant, which by price costs a step: {}\n", costs.join(", ")),
    };
    let tuned: String = summary.tuned.iter().map(|tuned| format!("  measured: {}\n", tuned.describe())).collect();
    format!(
        "{}: {:.1} MB\n  {}, {:.1} M parameters, {}, for {}\n  kernel launches per step: {}\n{invariance}{tuned}  {total:.2} s: \
         passes {:.2}, code {code:.2}, weights {:.2}\n",
        path.display(),
        summary.bytes as f64 / 1e6,
        model.config.architecture.name(),
        summary.parameters as f64 / 1e6,
        model.numerics.matrix,
        targets.join(", "),
        launches.join(", "),
        summary.passes.total().as_secs_f64(),
        summary.write_seconds,
    )
}
