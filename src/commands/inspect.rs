//! `llmc inspect`: what is in an artifact.

use clap::Args;
use llmc::explain::explain;
use llmc::explain::kept::Kept;
use llmc::explain::report::{Gpu, Report};
use llmc::explain::text::bracket;
use llmc::tune::Tuned;
use llmc_artifact::{Artifact, Manifest, code_tensor_name, ir_tensor_name};
use llmc_codegen::disassemble::{disassemble, kernel_sizes};
use llmc_codegen::gpu;
use llmc_console::{CliError, output};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Goal, Plan, Program};
use llmc_passes::eqsat::explain::quantity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Show what is in a compiled model: facts, programs, kernels, bytes, targets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmc inspect smollm2.llmc
  llmc inspect smollm2.llmc --ir decode
  llmc inspect smollm2.llmc --asm decode.norm --target x86-64-v4
  llmc inspect smollm2.llmc --ptx sm_80")]
pub struct InspectArguments {
    /// The compiled model
    #[arg(value_name = "ART")]
    artifact: PathBuf,
    /// Print a JSON object
    #[arg(long, conflicts_with_all = ["ir", "asm", "ptx", "tuning"])]
    json: bool,
    /// Print the IR of a program, as it was after fusion, or what all programs were made of: imported
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["asm", "ptx"])]
    ir: Option<String>,
    /// Print the machine code of a kernel (PROGRAM.KERNEL, as listed) or of a program's entry point (PROGRAM)
    #[arg(long, value_name = "KERNEL", conflicts_with = "ptx")]
    asm: Option<String>,
    /// Print the PTX for a GPU architecture, such as sm_80
    #[arg(long, value_name = "ARCHITECTURE")]
    ptx: Option<String>,
    /// Print what kernels are cut to and the measurements that chose it, for `llmc compile --tuning FILE`
    #[arg(long, conflicts_with_all = ["ir", "asm", "ptx"])]
    tuning: bool,
    /// Which target's code --asm shows [default: the first]
    #[arg(long, value_name = "CPU", requires = "asm")]
    target: Option<String>,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct InspectOutput<'a> {
    path: &'a Path,
    /// Bytes of the file.
    bytes: u64,
    manifest: &'a Manifest,
    programs: Vec<ProgramOutput>,
    /// What each program launches on GPUs, with estimated times. Empty without code for GPUs.
    gpus: Vec<Gpu>,
    /// What kernels are cut to by measurements, and those.
    tuning: Vec<Tuned>,
    /// Bytes of each tensor, in file order.
    tensors: Vec<TensorOutput<'a>>,
}

#[derive(Serialize)]
struct ProgramOutput {
    name: String,
    launches_per_step: usize,
    barriers_per_step: usize,
    kernels: Vec<KernelOutput>,
}

#[derive(Serialize)]
struct KernelOutput {
    name: String,
    launches_per_step: usize,
    /// Bytes of machine code, by target; 0 where it is part of the entry point.
    code_bytes: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct TensorOutput<'a> {
    name: &'a str,
    bytes: u64,
}

/// Runs the command.
pub fn inspect(arguments: &InspectArguments) -> Result<(), CliError> {
    let artifact = Artifact::open(&arguments.artifact).map_err(CliError::usage)?;
    if let Some(program) = &arguments.ir {
        return output::print(ir(&artifact, program)?);
    }
    if let Some(architecture) = &arguments.ptx {
        return output::print(ptx(&artifact, architecture)?);
    }
    if let Some(kernel) = &arguments.asm {
        return output::print(&asm(&artifact, kernel, arguments.target.as_deref())?);
    }
    let tuning = Kept::read(&artifact).map(|(kept, _)| kept.tuning).unwrap_or_default();
    if arguments.tuning {
        return match tuning.is_empty() {
            true => {
                Err(CliError::usage("kernels are cut to the default sizes: nothing was measured (llmc compile --tune)"))
            }
            false => output::print_json(&tuning),
        };
    }
    let programs = programs(&artifact)?;
    let report = match artifact.manifest().cuda.is_empty() {
        true => None,
        false => Some(explain(&artifact).map_err(CliError::failure)?),
    };
    if arguments.json {
        return output::print_json(&InspectOutput {
            path: artifact.path(),
            bytes: artifact.size_bytes(),
            manifest: artifact.manifest(),
            programs,
            gpus: report.map(|report| report.gpus).unwrap_or_default(),
            tuning,
            tensors: artifact.tensors().map(|(name, bytes)| TensorOutput { name, bytes }).collect(),
        });
    }
    let summary = summary(&artifact, &programs, &tuning)
        .and_then(|mut out| report.iter().try_for_each(|report| gpu_summary(&mut out, report)).map(|()| out));
    output::print(&summary.map_err(CliError::failure)?)
}

fn ptx<'a>(artifact: &'a Artifact, architecture: &str) -> Result<&'a str, CliError> {
    let all = &artifact.manifest().cuda;
    let found =
        all.iter().find(|code| code.name == architecture || code.name.strip_prefix(gpu::PREFIX) == Some(architecture));
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|code| code.name.trim_start_matches(gpu::PREFIX)).collect();
        CliError::Usage(match names.is_empty() {
            true => "the artifact has no code for GPUs: compile it with --target cuda:sm_80".to_owned(),
            false => format!("there is no code for `{architecture}`; --ptx must be one of {}", names.join(", ")),
        })
    })?;
    let bytes = artifact.tensor(&found.tensor).unwrap_or_default();
    std::str::from_utf8(bytes)
        .map_err(|error| CliError::Failure(format!("the PTX of {} is no text: {error}", found.name)))
}

/// What a step does on each GPU architecture that there is code for.
fn gpu_summary(out: &mut String, report: &Report) -> std::fmt::Result {
    for gpu in &report.gpus {
        writeln!(
            out,
            "\n{}: {} of PTX, {} of workspace; times are estimates from data sheets, nothing has run on hardware",
            gpu.name,
            quantity(gpu.bytes as f64, "B"),
            quantity(gpu.workspace_bytes as f64, "B")
        )?;
        for program in &gpu.programs {
            let Some(priced) = report.programs.iter().find(|priced| priced.name == program.name) else { continue };
            let Bindings { tokens, sequences, context, .. } = priced.sizes;
            writeln!(
                out,
                "  {:<12} {} launches per step; {tokens} tokens of {sequences} sequences, context {context}: moves {}, of \
                 which {} cannot be avoided",
                program.name,
                program.launches,
                quantity(priced.bytes, "B"),
                quantity(priced.floor_bytes, "B")
            )?;
            program.brackets.iter().try_for_each(|estimate| writeln!(out, "  {:<12} {}", "", bracket(estimate)))?;
        }
    }
    Ok(())
}

fn ir<'a>(artifact: &'a Artifact, program: &str) -> Result<&'a str, CliError> {
    let bytes = artifact.tensor(&ir_tensor_name(program)).ok_or_else(|| {
        let known: Vec<&str> = artifact.tensors().filter_map(|(name, _)| name.strip_prefix("ir/")).collect();
        CliError::Usage(format!("there is no program `{program}`; the artifact has {}", known.join(", ")))
    })?;
    std::str::from_utf8(bytes).map_err(|error| CliError::Failure(format!("the IR of {program} is damaged: {error}")))
}

fn asm(artifact: &Artifact, kernel: &str, target: Option<&str>) -> Result<String, CliError> {
    let manifest = artifact.manifest();
    let names: Vec<&str> = manifest.targets.iter().map(|target| target.name.as_str()).collect();
    let named =
        |name: &str| names.iter().copied().find(|known| *known == name || known.split(':').next() == Some(name));
    let target = match target {
        None => names.first().copied(),
        Some(name) => named(name),
    };
    let target = target.ok_or_else(|| CliError::Usage(format!("--target must be one of {}", names.join(", "))))?;
    let code = artifact.tensor(&code_tensor_name(target)).unwrap_or_default();
    let program = manifest.plan.programs.iter().find(|program| program.name == kernel);
    let symbol = match program {
        Some(program) => program.entry_symbol(Goal::Logits),
        None => match kernel.split_once('.') {
            Some((program, kernel)) => llmc_codegen::kernel_symbol(program, kernel),
            None => kernel.to_owned(),
        },
    };
    disassemble(code, &symbol).map_err(|error| CliError::Usage(format!("{error}; `llmc inspect` lists the kernels")))
}

fn programs(artifact: &Artifact) -> Result<Vec<ProgramOutput>, CliError> {
    let manifest = artifact.manifest();
    let mut sizes = Vec::new();
    for target in &manifest.targets {
        let code = artifact.tensor(&target.tensor).unwrap_or_default();
        sizes.push((target.name.as_str(), kernel_sizes(code).map_err(CliError::failure)?));
    }
    let sizes_of = |program: &Program| if program.processor == Processor::Cpu { &sizes[..] } else { &[] };
    Ok(manifest.plan.programs.iter().map(|program| describe(program, sizes_of(program))).collect())
}

fn describe(program: &Program, sizes: &[(&str, BTreeMap<String, u64>)]) -> ProgramOutput {
    let mut kernels: Vec<KernelOutput> = Vec::new();
    let mut barriers = 0;
    for launch in program.calls.iter().flat_map(|call| &program.functions[call.function].launches) {
        barriers += usize::from(launch.barrier);
        match kernels.iter_mut().find(|kernel| kernel.name == launch.kernel) {
            Some(kernel) => kernel.launches_per_step += 1,
            None => {
                let symbol = llmc_codegen::kernel_symbol(&program.name, &launch.kernel);
                let size = |(target, sizes): &(&str, BTreeMap<String, u64>)| {
                    ((*target).to_owned(), sizes.get(&symbol).copied().unwrap_or(0))
                };
                let code_bytes = sizes.iter().map(size).collect();
                kernels.push(KernelOutput { name: launch.kernel.clone(), launches_per_step: 1, code_bytes });
            }
        }
    }
    ProgramOutput {
        name: program.name.clone(),
        launches_per_step: program.launches_per_step(),
        barriers_per_step: barriers,
        kernels,
    }
}

fn summary(artifact: &Artifact, programs: &[ProgramOutput], tuning: &[Tuned]) -> Result<String, std::fmt::Error> {
    let manifest = artifact.manifest();
    let Plan { model, kv, weights, .. } = &manifest.plan;
    let mut out = String::new();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let weight_bytes: u64 = weights.iter().map(|weight| weight.bytes).sum();
    writeln!(
        out,
        "{}: {:.1} MB, llmc {}",
        artifact.path().display(),
        megabytes(artifact.size_bytes()),
        manifest.compiler_version
    )?;
    writeln!(
        out,
        "model      {}, {:.1} M parameters, {}, {} layers, hidden {}, vocabulary {}",
        model.architecture,
        model.parameters as f64 / 1e6,
        model.dtype,
        model.layers,
        model.hidden,
        model.vocab
    )?;
    writeln!(out, "limits     {} positions per sequence, {} sequences per step", model.max_context, model.max_batch)?;
    writeln!(out, "weights    {} tensors, {:.1} MB packed", weights.len(), megabytes(weight_bytes))?;
    writeln!(
        out,
        "KV cache   {} heads of {} in {} layers, {}: {} bytes per position",
        kv.heads,
        kv.head_dim,
        kv.layers,
        kv.dtype,
        kv.block_bytes() / llmc_ir::plan::KV_BLOCK_POSITIONS
    )?;
    if Kept::read(artifact).is_ok_and(|(kept, _)| kept.is_batch_invariant()) {
        writeln!(out, "logits     bit-identical in every step, whatever the program (--batch-invariant)")?;
    }
    let tokenizer = match &manifest.tokenizer {
        None => "none: run with --prompt-ids",
        Some(facts) if facts.chat_template.is_some() => "yes, with a chat template",
        Some(_) => "yes, without a chat template",
    };
    writeln!(out, "tokenizer  {tokenizer}")?;
    for tuned in tuning {
        writeln!(out, "measured   {}", tuned.describe())?;
    }
    for target in &manifest.targets {
        let bytes = artifact.tensor(&target.tensor).map_or(0, <[u8]>::len);
        writeln!(
            out,
            "target     {}: {:.1} kB of code, {} B of working memory per thread",
            target.name,
            bytes as f64 / 1e3,
            target.scratch_bytes
        )?;
        writeln!(out, "           needs {}", target.cpu_features.join(" "))?;
    }
    for (program, planned) in programs.iter().zip(&manifest.plan.programs) {
        writeln!(
            out,
            "\nprogram {} ({}): {} launches and {} barriers per step, {:.1} MB of activations",
            program.name,
            bounds(&planned.bounds),
            program.launches_per_step,
            program.barriers_per_step,
            megabytes(planned.arena_bytes)
        )?;
        writeln!(out, "  {:<28} {:>8}  bytes of code", "kernel", "per step")?;
        for kernel in &program.kernels {
            let sizes: Vec<String> =
                kernel.code_bytes.iter().map(|(target, bytes)| format!("{target} {bytes}")).collect();
            writeln!(out, "  {:<28} {:>8}  {}", kernel.name, kernel.launches_per_step, sizes.join(", "))?;
        }
    }
    Ok(out)
}

fn bounds(bounds: &Bounds) -> String {
    let max = &bounds.max;
    match bounds.one_token_per_sequence {
        true => format!("one token of each of up to {} sequences", max.sequences),
        false => format!("up to {} tokens of up to {} sequences", max.tokens, max.sequences),
    }
}
