//! The passes once more, watched, and the report of all that is known then.

use super::draw::{Drawn, draw};
use super::kept::Kept;
use super::report::{Graph, Pass, PassTime, Phase, Report, Size, Target, Timing, View, WeightGroup};
use super::saturation::{describe_rule, saturations};
use super::{ExplainError, gpu, kernels, origin};
use llmc_artifact::Artifact;
use llmc_codegen::disassemble::kernel_sizes;
use llmc_ir::machine::{Machines, Processor};
use llmc_ir::module::{Module, SpecializedModule};
use llmc_ir::plan::{PackedWeight, WeightLayout};
use llmc_ir::region::PlannedModel;
use llmc_passes::eqsat::rules::selected;
use llmc_passes::instrument::{self, Instrument, Moment, Statistics, Verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase;
use llmc_passes::pipeline::{Options, PipelineError, pipeline, run_pipeline};
use std::cell::RefCell;
use std::rc::Rc;

/// Reads an artifact, runs its passes again and reports.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(artifact: &Artifact) -> Result<Report, ExplainError> {
    let (kept, module) = Kept::read(artifact)?;
    let plan = &artifact.manifest().plan;
    let mut report = rerun(artifact, &kept, module, &code_sizes(artifact)?, |planned| {
        (planned.plan != *plan).then(|| {
            format!(
                "this llmc ({}) plans the model differently than the one that made the artifact ({}): what follows is what \
                 this one does",
                env!("CARGO_PKG_VERSION"),
                artifact.manifest().compiler_version
            )
        })
    })?;
    report.kv = Some(plan.kv);
    report.weights = weight_groups(&plan.weights);
    report.targets = targets(artifact);
    report.gpus = gpu::gpus(artifact, &report.programs);
    Ok(report)
}

/// As [`explain`], had the artifact been compiled for other machines. There is no code of that to report.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain_for(artifact: &Artifact, machines: &Machines) -> Result<Report, ExplainError> {
    let (kept, module) = Kept::read(artifact)?;
    let note = format!(
        "the artifact was compiled for {}; what follows is what the passes would do for {}",
        names(&kept.machines),
        names(machines)
    );
    // What the code can do is as it was.
    let block_float = kept.machines.of(Processor::Cpu).ok().and_then(|machine| machine.block_float);
    let kept = Kept { machines: machines.clone().with_block_float(block_float), ..kept };
    rerun(artifact, &kept, module, &[], |_| Some(note))
}

fn names(machines: &Machines) -> String {
    let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
    names.join(" and ")
}

/// The report of an artifact's passes; `note` may add one about the plan that comes out.
fn rerun(
    artifact: &Artifact,
    kept: &Kept,
    module: Module,
    code: &[kernels::CodeSizes],
    note: impl FnOnce(&PlannedModel) -> Option<String>,
) -> Result<Report, ExplainError> {
    let facts = artifact.manifest().plan.model.clone();
    let Kept { prefill_chunk, rounded_rate, ref flagged, .. } = *kept;
    let flagged = flagged.clone();
    let context = Context { prefill_chunk, rounded_rate, flagged, ..Context::new(facts, kept.machines.clone()) };
    let watched = Watched::run(module, &context, &kept.options(), vec![Box::new(Verify)])?;
    let name = artifact.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = watched.report(name, &context, kept, code)?;
    report.notes.extend(watched.planned().and_then(note));
    report.bytes = Some(artifact.size_bytes());
    report.compiler_version = artifact.manifest().compiler_version.clone();
    Ok(report)
}

/// A run of the passes, with every state.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Before the first pass and behind each one.
    states: Vec<State>,
    /// The passes.
    passes: instrument::Report,
}

impl Watched {
    /// Runs the passes.
    ///
    /// # Errors
    /// If a pass fails, or an instrument objects.
    pub fn run(
        module: Module,
        context: &Context,
        options: &Options,
        mut instruments: Vec<Box<dyn Instrument>>,
    ) -> Result<Watched, PipelineError> {
        let states = Rc::new(RefCell::new(Vec::new()));
        instruments.push(Box::new(KeepStates(Rc::clone(&states))));
        let (_, passes) = run_pipeline(State::Module(module), context, options, &mut instruments)?;
        Ok(Watched { states: states.take(), passes })
    }

    /// What came out.
    pub fn last(&self) -> Option<&State> {
        self.states.last()
    }

    /// The plan and its kernels, if the passes got that far.
    pub fn planned(&self) -> Option<&PlannedModel> {
        match self.last() {
            Some(State::Planned(planned)) => Some(planned),
            Some(State::Module(_) | State::Programs(_) | State::Fused(_)) | None => None,
        }
    }

    /// The programs before and behind equality saturation, if it ran.
    pub fn around_saturation(&self) -> Option<Around<'_>> {
        let position = self.passes.passes.iter().position(|pass| pass.name == "eqsat")?;
        match (self.states.get(position)?, self.states.get(position + 1)?) {
            (State::Programs(before), State::Programs(after)) => Some((before, after)),
            _ => None,
        }
    }

    /// Everything that follows from the passes alone, under the name of what they ran on.
    ///
    /// # Errors
    /// If saturation fails, which it then did in the pass.
    pub fn report(
        &self,
        name: String,
        context: &Context,
        kept: &Kept,
        code: &[kernels::CodeSizes],
    ) -> Result<Report, ExplainError> {
        let mut graphs = Graphs::default();
        let phases = phases(&self.states, &self.passes, kept, &mut graphs).map_err(ExplainError::Machine)?;
        let options = kept.options();
        let rules = selected(&options.families(), options.numerics, options.invariance, &kept.machines);
        let planned = self.planned();
        let programs = planned.map(|planned| kernels::programs(planned, &kept.machines, code));
        let programs = programs.transpose().map_err(ExplainError::Machine)?.unwrap_or_default();
        let mut report = Report {
            artifact: name,
            bytes: None,
            compiler_version: env!("CARGO_PKG_VERSION").to_owned(),
            model: context.facts.clone(),
            kv: planned.map(|planned| planned.plan.kv),
            notes: notes(kept).into_iter().chain(self.passes.notes.iter().cloned()).collect(),
            saturation: Vec::new(),
            rules: rules.iter().map(describe_rule).collect(),
            programs,
            weights: planned.map(|planned| weight_groups(&planned.plan.weights)).unwrap_or_default(),
            targets: Vec::new(),
            gpus: Vec::new(),
            timing: timing(&self.passes),
            machines: kept.machines.clone(),
            without: kept.without.clone(),
            phases,
            graphs: Vec::new(),
        };
        if let Some((before, after)) = self.around_saturation() {
            let rewritten = report.phases.iter().find(|phase| phase.name == phase::Phase::Rewritten.name());
            let views = rewritten.map(|phase| &phase.views[..]).unwrap_or_default();
            let graph_of = |program: &str, function: &str| {
                let of = |view: &&View| view.program.as_deref() == Some(program) && view.function == function;
                views.iter().find(of).map_or(0, |view| view.graph)
            };
            report.saturation = saturations(before, after, (&rules, &kept.machines), graph_of)?;
        }
        report.graphs = graphs.0;
        Ok(report)
    }
}

/// The programs before and behind a pass.
pub type Around<'a> = (&'a [SpecializedModule], &'a [SpecializedModule]);

/// Keeps the state before the first pass and after each one.
struct KeepStates(Rc<RefCell<Vec<State>>>);

impl Instrument for KeepStates {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn observe(&mut self, _: Moment<'_>, state: &State) -> Result<(), String> {
        self.0.borrow_mut().push(state.clone());
        Ok(())
    }
}

/// Graphs, each once.
#[derive(Default)]
struct Graphs(Vec<Graph>);

impl Graphs {
    fn index(&mut self, graph: &Graph) -> usize {
        if let Some(index) = self.0.iter().position(|known| known == graph) {
            return index;
        }
        self.0.push(graph.clone());
        self.0.len() - 1
    }
}

/// The phases that were reached, each with its passes and the functions behind them.
fn phases(
    states: &[State],
    passes: &instrument::Report,
    kept: &Kept,
    graphs: &mut Graphs,
) -> Result<Vec<Phase>, String> {
    let Some(first) = states.first() else { return Ok(Vec::new()) };
    let descriptions = pipeline();
    let mut drawn = draw(first, &kept.machines)?;
    let mut phases =
        vec![Phase { name: phase::Phase::Imported.name(), passes: Vec::new(), views: views(&drawn, graphs) }];
    for (pass, state) in passes.passes.iter().zip(&states[1..]) {
        let mut after = draw(state, &kept.machines)?;
        let new_nodes = match state {
            State::Planned(_) => None,
            State::Module(_) | State::Programs(_) | State::Fused(_) => {
                Some(origin::trace(&drawn, &mut after, pass.name))
            }
        };
        drawn = after;
        let known = descriptions.iter().find(|known| known.name == pass.name && known.phase == pass.phase);
        let entry = Pass {
            name: pass.name,
            description: known.map_or("", |known| known.description),
            before: size(&pass.before),
            after: size(&pass.after),
            new_nodes,
        };
        match phases.last_mut() {
            Some(last) if last.name == pass.phase.name() => {
                last.passes.push(entry);
                last.views.clear();
            }
            _ => phases.push(Phase { name: pass.phase.name(), passes: vec![entry], views: Vec::new() }),
        }
        let is_last = passes.passes.get(phases.iter().map(|phase| phase.passes.len()).sum::<usize>());
        if is_last.is_none_or(|next| next.phase != pass.phase)
            && let Some(last) = phases.last_mut()
        {
            last.views = views(&drawn, graphs);
        }
    }
    Ok(phases)
}

fn views(drawn: &[Drawn], graphs: &mut Graphs) -> Vec<View> {
    drawn.iter().map(|function| function.view(graphs.index(&function.graph))).collect()
}

fn size(statistics: &Statistics) -> Size {
    let Statistics { functions, nodes, dots, regions } = *statistics;
    Size { functions, nodes, dots, regions }
}

fn notes(kept: &Kept) -> Vec<String> {
    let mut notes = Vec::new();
    if !kept.without.is_empty() {
        notes.push(format!("compiled without {}", kept.without.join(", ")));
    }
    if kept.is_batch_invariant() {
        notes.push("compiled with --batch-invariant: all programs take every sum in one order".to_owned());
    }
    notes.extend(
        kept.tuning
            .iter()
            .map(|tuned| format!("kernels are cut as measurements had it (--tune): {}", tuned.describe())),
    );
    if kept.without.iter().any(|name| name == "eqsat") {
        notes.push("equality saturation did not run: what is computed is what the model's definition says".to_owned());
    }
    notes
}

fn code_sizes(artifact: &Artifact) -> Result<Vec<kernels::CodeSizes>, ExplainError> {
    let sizes = artifact.manifest().targets.iter().map(|target| {
        let sizes = kernel_sizes(artifact.tensor(&target.tensor).unwrap_or_default());
        let failed = |detail| ExplainError::Code { target: target.name.clone(), detail };
        Ok((target.name.clone(), sizes.map_err(failed)?))
    });
    sizes.collect()
}

fn targets(artifact: &Artifact) -> Vec<Target> {
    let targets = artifact.manifest().targets.iter().map(|target| Target {
        name: target.name.clone(),
        bytes: artifact.tensor(&target.tensor).map_or(0, |code| code.len() as u64),
    });
    targets.collect()
}

fn weight_groups(weights: &[PackedWeight]) -> Vec<WeightGroup> {
    let mut groups: Vec<WeightGroup> = Vec::new();
    for weight in weights {
        let elements = weight.shape.iter().map(|&size| size as u64).fold(1, u64::saturating_mul);
        let group = WeightGroup {
            name: without_numbers(&weight.name),
            count: 1,
            dtype: weight.dtype.name(),
            shape: weight.shape.clone(),
            layout: match weight.layout {
                WeightLayout::RowMajor => "row-major",
                WeightLayout::Panels => "panels",
                WeightLayout::Compressed => "compressed",
                WeightLayout::Rounded => "rounded",
            },
            bytes: weight.bytes,
            element_bytes: elements.saturating_mul(weight.dtype.bytes() as u64),
        };
        let same = |known: &&mut WeightGroup| {
            (&known.name, known.dtype, &known.shape, known.layout)
                == (&group.name, group.dtype, &group.shape, group.layout)
        };
        match groups.iter_mut().find(same) {
            Some(known) => {
                known.count += 1;
                known.bytes = known.bytes.saturating_add(group.bytes);
                known.element_bytes = known.element_bytes.saturating_add(group.element_bytes);
            }
            None => groups.push(group),
        }
    }
    groups.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
    groups
}

/// A checkpoint name with `*` for each part that is a number.
fn without_numbers(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.split('.').map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

fn timing(passes: &instrument::Report) -> Timing {
    let times = passes.passes.iter().map(|pass| PassTime {
        name: pass.name,
        phase: pass.phase.name(),
        seconds: pass.time.as_secs_f64(),
        instruments_seconds: pass.instruments.as_secs_f64(),
    });
    Timing { total_seconds: passes.total().as_secs_f64(), passes: times.collect() }
}
