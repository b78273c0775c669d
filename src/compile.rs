//! The whole compilation in one function, from a model to a file.

use crate::census::Census;
use crate::error::CompileError;
use crate::explain::kept::Kept;
use crate::model::{Definition, Model};
use crate::package::Package;
use crate::tune::{Tuned, Tunings, tuned_targets};
use llmc_artifact::{IMPORTED, check_writable};
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::{ByteProducts, HostTarget};
use llmc_codegen::{Output, compile_gpu, compile_host, host_ir, host_listing};
use llmc_ir::machine::{Machine, Machines, Processor};
use llmc_ir::module::SpecializedModule;
use llmc_ir::region::{FusedProgram, PlannedModel};
use llmc_ir::text::{print_fused, print_module};
use llmc_models::config::ModelConfig;
use llmc_models::weights::{Limits, facts};
use llmc_passes::eqsat::form::step_seconds;
use llmc_passes::eqsat::rule::Invariance;
use llmc_passes::instrument::{Dump, Instrument, Moment, Report, Verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// What to make of a model.
#[derive(Clone, Debug)]
pub struct Request {
    /// The CPU levels that code is made for.
    pub targets: Vec<HostTarget>,
    /// The GPU architectures that code is made for. Here or in `targets` there is at least one.
    pub gpus: Vec<GpuTarget>,
    /// The most positions of a sequence; `None`: what the model was made for.
    pub max_context: Option<usize>,
    /// The most sequences in one step.
    pub max_batch: usize,
    /// What the cost model prices forms for: a machine for each kind of processor that there are targets of.
    pub machines: Machines,
    /// Which passes run.
    pub passes: Options,
    /// Where the sizes come from that kernels for CPUs are cut to.
    pub tuning: Tunings,
    /// Where the IR goes after each pass, and the code of each target.
    pub dump: Option<PathBuf>,
}

/// What a compilation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Counting exponents: elements of weights done and in all.
    Census(u64, u64),
    /// Running the pass pipeline.
    Passes,
    /// Measuring sizes of kernels: rounds done and in all, which may turn out fewer.
    Tuning(u64, u64),
    /// Making code for a target, or for several, whose names have commas between them.
    Code(&'a str),
    /// Packing weights: bytes of the artifact's weights done and in all.
    Weights(u64, u64),
}

/// What came out.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An artifact was written.
    Written(Summary),
    /// Compilation stopped after a phase, as asked; this is the state as text.
    Stopped(String, Report),
}

/// An artifact and how it came about.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Size of the file.
    pub bytes: u64,
    /// Number of parameters as counted in the checkpoint.
    pub parameters: u64,
    /// The passes.
    pub passes: Report,
    /// Seconds of code generation.
    pub code_seconds: CodeSeconds,
    /// Seconds of packing and writing.
    pub write_seconds: f64,
    /// Launches of one step, by program.
    pub launches: Vec<(String, usize)>,
    /// How sizes of kernels were found that are not the defaults.
    pub tuned: Vec<Tuned>,
    /// With batch-invariant logits: what the cost model says of a typical step, by program.
    pub invariance: Vec<InvarianceCost>,
}

/// Seconds of code generation.
#[derive(Clone, Debug)]
pub struct CodeSeconds {
    /// Of each target by name. Several are made at the same time.
    pub by_target: Vec<(String, f64)>,
    /// From the first one's start to the last one's end.
    pub total: f64,
}

/// Seconds of a program's step as predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InvarianceCost {
    /// The program.
    pub program: String,
    /// As it would be if each program computed as suits it.
    pub default_seconds: f64,
    /// As it is.
    pub seconds: f64,
}

/// The most positions and sequences that an artifact can be compiled for: sizes of a step are 32-bit numbers.
const LARGEST_LIMIT: usize = 1 << 24;

/// Compiles a model into a file at `output`. `progress` hears what is going on; as soon as it returns `false`, the
/// compilation ends with [`CompileError::Interrupted`].
///
/// # Errors
/// See [`CompileError`]. The file at `output` is then as it was before.
pub fn compile(
    model: &Model,
    request: &Request,
    output: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> bool,
) -> Result<Outcome, CompileError> {
    let mut going_on = |event: Progress<'_>| if progress(event) { Ok(()) } else { Err(CompileError::Interrupted) };
    keep_checkpoint(model, output)?;
    check_machines(request)?;
    if request.passes.stop_after.is_none_or(|phase| phase == Phase::Compiled) {
        check_writable(output)?;
    }
    let (request, invariance) = &match request.passes.invariance {
        Invariance::Program => (request.clone(), Vec::new()),
        Invariance::Batch => {
            let invariant = batch_invariant(request)?;
            let costs = invariance_costs(&model.definition(), request, &invariant)?;
            (invariant, costs)
        }
    };
    let census = match is_compressed(request) {
        true => Census::of(model, &mut |done, all| going_on(Progress::Census(done, all)))?,
        false => Census::default(),
    };
    going_on(Progress::Passes)?;
    let Lowered { state, passes, ir, mut kept } = run_passes(&model.definition(), request, &census)?;
    let planned = match state {
        State::Planned(planned) if request.passes.stop_after.is_none_or(|phase| phase == Phase::Compiled) => planned,
        state => return Ok(Outcome::Stopped(state.text(), passes)),
    };
    let measure = &mut |done, total| going_on(Progress::Tuning(done, total));
    let (targets, tuned) = tuned_targets(&planned, &request.targets, &request.tuning, measure)?;
    kept.tuning = tuned;
    let started = Instant::now();
    let (mut codes, host_seconds) =
        for_each_target(&targets, |target| &target.name, &mut going_on, |target| Ok(compile_host(&planned, target)?))?;
    let (gpu_codes, gpu_seconds) = for_each_target(
        &request.gpus,
        |target| &target.name,
        &mut going_on,
        |target| Ok(compile_gpu(&planned, target)?),
    )?;
    let code_seconds = CodeSeconds {
        by_target: host_seconds.into_iter().chain(gpu_seconds).collect(),
        total: started.elapsed().as_secs_f64(),
    };
    if let Some(directory) = &request.dump {
        codes.iter().try_for_each(|(target, _)| dump_code(&planned, target, directory))?;
        gpu_codes.iter().try_for_each(|(target, code)| write_dump(directory, &target.name, "ptx", &code.ptx))?;
    }
    // The runtime takes the first one that the CPU can run.
    codes.sort_by_key(|(target, _)| std::cmp::Reverse(target.cpu_features.len()));
    let launches = planned.plan.programs.iter().map(|program| (program.name.clone(), program.launches_per_step()));
    let launches = launches.collect();
    let parameters = planned.plan.model.parameters;
    let started = Instant::now();
    let PlannedModel { plan, recipes, .. } = *planned;
    let package = Package { model, plan, census, recipes, codes, gpu_codes, ir, passes: kept.json() };
    let bytes = package.write(output, &mut |done, total| going_on(Progress::Weights(done, total)))?;
    let write_seconds = started.elapsed().as_secs_f64();
    let invariance = invariance.clone();
    let tuned = kept.tuning;
    Ok(Outcome::Written(Summary {
        bytes,
        parameters,
        passes,
        code_seconds,
        write_seconds,
        launches,
        invariance,
        tuned,
    }))
}

/// What there is of each target, and the seconds that its making took.
type Made<'t, T, C> = (Vec<(&'t T, C)>, Vec<(String, f64)>);

/// Makes something of each target, as many at a time as there are cores.
fn for_each_target<'t, T: Sync, C: Send>(
    targets: &'t [T],
    name: fn(&T) -> &str,
    going_on: &mut dyn FnMut(Progress<'_>) -> Result<(), CompileError>,
    make: impl Fn(&T) -> Result<C, CompileError> + Sync,
) -> Result<Made<'t, T, C>, CompileError> {
    let (mut made, mut seconds) = (Vec::new(), Vec::new());
    for some in targets.chunks(rayon::current_num_threads()) {
        let names = some.iter().map(name).collect::<Vec<_>>().join(", ");
        going_on(Progress::Code(&names))?;
        let timed = |target: &T| {
            let started = Instant::now();
            (make(target), started.elapsed().as_secs_f64())
        };
        let results: Vec<_> = some.par_iter().with_max_len(1).map(timed).collect();
        // Ctrl-C reaches the linker too, whose failure then has no other reason.
        going_on(Progress::Code(&names))?;
        for (target, (code, taken)) in some.iter().zip(results) {
            made.push((target, code?));
            seconds.push((name(target).to_owned(), taken));
        }
    }
    Ok((made, seconds))
}

/// Refuses a machine that there is no code for, and code that nothing is priced for.
fn check_machines(request: &Request) -> Result<(), CompileError> {
    let wanted = [
        (Processor::Cpu, !request.targets.is_empty(), "native"),
        (Processor::Gpu, !request.gpus.is_empty(), "cuda:sm_80"),
    ];
    for (processor, has_target, example) in wanted {
        match (request.machines.of(processor), has_target) {
            (Ok(machine), false) => {
                return Err(CompileError::Limit(format!(
                    "--machine {} describes a {processor}, but no target is one; add --target {example} or the like, leave \
                     the machine out, or look at its choices with --shapes-only",
                    machine.name
                )));
            }
            (Err(reason), true) => return Err(CompileError::Limit(reason)),
            (Ok(_), true) | (Err(_), false) => {}
        }
    }
    Ok(())
}

/// The request with targets, and machines, that take all sums in one order.
///
/// # Errors
/// If some of them are GPUs.
pub fn batch_invariant(request: &Request) -> Result<Request, CompileError> {
    let target = request.gpus.first().map(|gpu| &gpu.name);
    let machine = request.machines.of(Processor::Gpu).ok().map(|machine| &machine.name);
    if let Some(gpu) = target.or(machine) {
        return Err(CompileError::Limit(format!(
            "--batch-invariant cannot be promised for {gpu}: a GPU's kernels for few rows divide sums among warps, those for \
             many rows do not; leave it out, or compile for CPUs alone"
        )));
    }
    let targets: Vec<HostTarget> = request.targets.iter().cloned().map(HostTarget::with_vectors_alone).collect();
    let without_unit = |machine: &Machine| {
        let mut machine = machine.clone();
        if targets != request.targets {
            machine.matrix_flops.bf16 = machine.matrix_flops.bf16.min(machine.matrix_flops.f32);
        }
        machine
    };
    let machines = Machines::new(request.machines.iter().map(without_unit).collect()).map_err(CompileError::Limit)?;
    Ok(Request { targets, machines, ..request.clone() })
}

/// What the promise costs by price.
fn invariance_costs(
    model: &Definition<'_>,
    request: &Request,
    invariant: &Request,
) -> Result<Vec<InvarianceCost>, CompileError> {
    let steps = |request: &Request, invariance| {
        let context = pass_context(model, request)?;
        let passes = Options { invariance, stop_after: Some(Phase::Rewritten), ..request.passes.clone() };
        let (state, _) = run_pipeline(State::Module(model.module.clone()), &context, &passes, &mut [])?;
        let State::Programs(programs) = state else { return Ok(Vec::new()) };
        let step = |program: &SpecializedModule| {
            let machine = context.machines.of(program.processor).map_err(CompileError::Limit)?;
            Ok((program.name.clone(), step_seconds(program, machine)))
        };
        programs.iter().map(step).collect::<Result<Vec<_>, CompileError>>()
    };
    let default = steps(request, Invariance::Program)?;
    let promised = steps(invariant, Invariance::Batch)?;
    let costs = default.into_iter().zip(promised).map(|((program, default_seconds), (_, seconds))| InvarianceCost {
        program,
        default_seconds,
        seconds,
    });
    Ok(costs.collect())
}

/// Refuses to write the artifact in place of what it is made of.
fn keep_checkpoint(model: &Model, output: &Path) -> Result<(), CompileError> {
    let Ok(output) = output.canonicalize() else { return Ok(()) };
    match model.checkpoint.files().find(|file| file.canonicalize().is_ok_and(|file| file == output)) {
        None => Ok(()),
        Some(file) => Err(CompileError::Limit(format!(
            "the artifact would replace {}, a file of the checkpoint; give it another name with -o",
            file.display()
        ))),
    }
}

/// What the pass pipeline made.
struct Lowered {
    state: State,
    passes: Report,
    /// The imported module and the fused IR of each program as text: what the artifact keeps for people to read.
    ir: Vec<(String, String)>,
    /// What the artifact keeps for the passes to be run again.
    kept: Kept,
}

/// What the passes are told of a model.
///
/// # Errors
/// If a limit is not one that the model and the compiler allow.
pub fn pass_context(model: &Definition<'_>, request: &Request) -> Result<Context, CompileError> {
    let limits = Limits { max_context: max_context(model.config, request)?, max_batch: request.max_batch };
    if limits.max_batch == 0 || limits.max_batch > LARGEST_LIMIT {
        let batch = limits.max_batch;
        return Err(CompileError::Limit(format!("--max-batch is {batch}, but must be in 1..={LARGEST_LIMIT}")));
    }
    let facts = facts(model.config, model.module, model.numerics, limits);
    Ok(with_targets(Context::new(facts, request.machines.clone()), &request.targets))
}

/// The same for code for some CPUs, which decides with prices what can be chosen.
pub fn with_targets(context: Context, targets: &[HostTarget]) -> Context {
    let rates = targets.iter().filter_map(HostTarget::byte_products).map(ByteProducts::rate);
    let rounded_rate = rates.reduce(f64::min);
    // Code for other levels takes the same programs by plain gemm.
    let rates = targets.iter().filter_map(HostTarget::block_float);
    let machines = context.machines.with_block_float(rates.reduce(f64::min));
    Context { rounded_rate, machines, ..context }
}

/// Those that look on at every compilation.
pub fn instruments(request: &Request) -> Vec<Box<dyn Instrument>> {
    let dump = request.dump.iter().map(|directory| Box::new(Dump::new(directory)) as Box<dyn Instrument>);
    std::iter::once(Box::new(Verify) as Box<dyn Instrument>).chain(dump).collect()
}

/// Whether weights may be compressed: by a pass that runs, for CPUs that have the instructions, and for nothing else.
fn is_compressed(request: &Request) -> bool {
    let Options { without, stop_after, only, .. } = &request.passes;
    let is_pass = |name: &String| name == "compress";
    request.gpus.is_empty()
        && request.targets.iter().all(HostTarget::decompresses)
        && stop_after.is_none_or(|phase| phase >= Phase::Planned)
        && !without.iter().any(is_pass)
        && only.as_ref().is_none_or(|only| only.iter().any(is_pass))
}

fn run_passes(model: &Definition<'_>, request: &Request, census: &Census) -> Result<Lowered, CompileError> {
    let context = Context { flagged: census.totals(), ..pass_context(model, request)? };
    let fused = Rc::new(RefCell::new(Vec::new()));
    let mut instruments = instruments(request);
    instruments.push(Box::new(KeepFused(Rc::clone(&fused))));
    let state = State::Module(model.module.clone());
    let (state, passes) = run_pipeline(state, &context, &request.passes, &mut instruments)?;
    let mut ir = vec![(IMPORTED.to_owned(), print_module(model.module))];
    ir.extend(fused.take());
    Ok(Lowered { state, passes, ir, kept: Kept::of(&context, &request.passes) })
}

fn max_context(config: &ModelConfig, request: &Request) -> Result<usize, CompileError> {
    let most = config.max_positions.min(LARGEST_LIMIT);
    match request.max_context {
        None => Ok(most),
        Some(context) if (1..=most).contains(&context) => Ok(context),
        Some(context) => Err(CompileError::Limit(format!(
            "--max-context is {context}, but must be in 1..={most}: the model was made for {most} positions"
        ))),
    }
}

/// Keeps the text of each program as it was after fusion.
struct KeepFused(Rc<RefCell<Vec<(String, String)>>>);

impl Instrument for KeepFused {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn observe(&mut self, _: Moment<'_>, state: &State) -> Result<(), String> {
        if let State::Fused(programs) = state {
            let text = |program: &FusedProgram| (program.name.clone(), print_fused(std::slice::from_ref(program)));
            *self.0.borrow_mut() = programs.iter().map(text).collect();
        }
        Ok(())
    }
}

/// Writes `code.<target>.ll` (as emitted), `.opt.ll` (as optimised) and `.s` (assembly) beside the dumps of the passes.
fn dump_code(planned: &PlannedModel, target: &HostTarget, directory: &Path) -> Result<(), CompileError> {
    write_dump(directory, &target.name, "ll", &host_ir(planned, target)?)?;
    write_dump(directory, &target.name, "opt.ll", &host_listing(planned, target, Output::OptimizedIr)?)?;
    write_dump(directory, &target.name, "s", &host_listing(planned, target, Output::Assembly)?)
}

fn write_dump(directory: &Path, target: &str, extension: &str, text: &str) -> Result<(), CompileError> {
    let path = directory.join(format!("code.{}.{extension}", target.replace(':', "-")));
    std::fs::write(&path, text).map_err(|source| CompileError::Dump { path, source })
}
