//! The passes once more, watched, and the report of all that is known then.

use super::draw::{Drawn, draw};
use super::kept::Kept;
use super::report::{Graph, Pass, PassTime, Phase, Report, Size, Target, Timing, WeightGroup};
use super::saturation::{describe_rule, saturations, used_rules};
use super::{ExplainError, gpu, kernels, origin};
use llmc_artifact::Artifact;
use llmc_codegen::disassemble::kernel_sizes;
use llmc_ir::module::SpecializedModule;
use llmc_ir::plan::{PackedWeight, Plan, WeightLayout};
use llmc_ir::region::PlannedModel;
use llmc_passes::instrument::{self, Instrument, Moment, Statistics, Verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase;
use llmc_passes::pipeline::{pipeline, run_pipeline};
use std::cell::RefCell;
use std::rc::Rc;

/// Reads an artifact, runs its passes again and reports.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(artifact: &Artifact) -> Result<Report, ExplainError> {
    let (kept, module) = Kept::read(artifact)?;
    let plan = &artifact.manifest().plan;
    let context =
        Context { prefill_chunk: kept.prefill_chunk, ..Context::new(plan.model.clone(), kept.machine.clone()) };
    let states = Rc::new(RefCell::new(Vec::new()));
    let mut instruments: Vec<Box<dyn Instrument>> = vec![Box::new(Verify), Box::new(KeepStates(Rc::clone(&states)))];
    let (last, passes) = run_pipeline(State::Module(module), &context, &kept.options(), &mut instruments)?;
    let states = states.take();
    let mut graphs = Graphs::default();
    let phases = phases(&states, &passes, &kept, &mut graphs);
    let code = code_sizes(artifact)?;
    let planned = match last {
        State::Planned(planned) => Some(planned),
        State::Module(_) | State::Programs(_) | State::Fused(_) => None,
    };
    let rules = used_rules(&kept.without);
    let mut report = Report {
        artifact: artifact.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: artifact.size_bytes(),
        compiler_version: artifact.manifest().compiler_version.clone(),
        model: plan.model.clone(),
        kv: plan.kv,
        notes: notes(&kept, plan, planned.as_deref(), &artifact.manifest().compiler_version),
        saturation: Vec::new(),
        rules: rules.iter().map(describe_rule).collect(),
        programs: planned.map(|planned| kernels::programs(&planned, &kept.machine, &code)).unwrap_or_default(),
        weights: weight_groups(&plan.weights),
        targets: targets(artifact),
        gpus: Vec::new(),
        timing: timing(&passes),
        machine: kept.machine.clone(),
        without: kept.without.clone(),
        phases,
        graphs: Vec::new(),
    };
    if let Some((before, after)) = around_saturation(&states, &passes) {
        let rewritten = report.phases.iter().find(|phase| phase.name == phase::Phase::Rewritten.name());
        let views = rewritten.map(|phase| &phase.views[..]).unwrap_or_default();
        let graph_of = |program: &str, function: &str| {
            let of =
                |view: &&super::report::View| view.program.as_deref() == Some(program) && view.function == function;
            views.iter().find(of).map_or(0, |view| view.graph)
        };
        report.saturation = saturations(before, after, (&rules, &kept.machine), graph_of)?;
    }
    report.gpus = gpu::gpus(artifact, &report.programs);
    report.graphs = graphs.0;
    Ok(report)
}

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
fn phases(states: &[State], passes: &instrument::Report, kept: &Kept, graphs: &mut Graphs) -> Vec<Phase> {
    let Some(first) = states.first() else { return Vec::new() };
    let descriptions = pipeline();
    let mut drawn = draw(first, &kept.machine);
    let mut phases =
        vec![Phase { name: phase::Phase::Imported.name(), passes: Vec::new(), views: views(&drawn, graphs) }];
    for (pass, state) in passes.passes.iter().zip(&states[1..]) {
        let mut after = draw(state, &kept.machine);
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
    phases
}

fn views(drawn: &[Drawn], graphs: &mut Graphs) -> Vec<super::report::View> {
    drawn.iter().map(|function| function.view(graphs.index(&function.graph))).collect()
}

fn size(statistics: &Statistics) -> Size {
    let Statistics { functions, nodes, dots, regions } = *statistics;
    Size { functions, nodes, dots, regions }
}

/// The programs before and behind a pass.
type Around<'a> = (&'a [SpecializedModule], &'a [SpecializedModule]);

/// The programs before and behind equality saturation, if it ran.
fn around_saturation<'a>(states: &'a [State], passes: &instrument::Report) -> Option<Around<'a>> {
    let position = passes.passes.iter().position(|pass| pass.name == "eqsat")?;
    match (states.get(position)?, states.get(position + 1)?) {
        (State::Programs(before), State::Programs(after)) => Some((before, after)),
        _ => None,
    }
}

fn notes(kept: &Kept, plan: &Plan, planned: Option<&PlannedModel>, version: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if !kept.without.is_empty() {
        notes.push(format!("compiled without {}", kept.without.join(", ")));
    }
    if kept.without.iter().any(|name| name == "eqsat") {
        notes.push("equality saturation did not run: what is computed is what the model's definition says".to_owned());
    }
    if planned.is_none_or(|planned| planned.plan != *plan) {
        notes.push(format!(
            "this llmc ({}) plans the model differently than the one that made the artifact ({version}): what follows is \
             what this one does",
            env!("CARGO_PKG_VERSION")
        ));
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
