//! What a pass is, and the state that passes hand on.

use crate::eqsat::rule::{Family, Invariance, Numerics};
use crate::phase::Phase;
use crate::plan::{print_plan, source_type};
use llmc_ir::machine::Machines;
use llmc_ir::module::{Call, LOGITS, Module, SpecializedModule};
use llmc_ir::plan::ModelFacts;
use llmc_ir::region::{FusedProgram, PlannedModel};
use llmc_ir::text::{self, Document};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// One step of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The name in `--without`, `--passes` and dumps; several entries of the pipeline may share it.
    pub name: &'static str,
    /// One line for `--help` and reports.
    pub description: &'static str,
    /// The phase whose work it is part of: it runs unless compilation stops after an earlier one.
    pub phase: Phase,
    /// Whether `--without` may leave it out.
    pub necessity: Necessity,
    /// The pass itself. An error says what about the model it cannot handle.
    pub run: fn(State, &Context) -> Result<State, String>,
}

/// Whether compilation can do without a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Necessity {
    /// It makes the result better.
    Optional,
    /// It makes the form that later passes take.
    Required,
}

/// What flows through the pipeline.
#[derive(Clone, Debug)]
pub enum State {
    /// Up to [`Phase::Canonical`].
    Module(Module),
    /// From [`Phase::Specialized`] on: programs, the tightest bounds first.
    Programs(Vec<SpecializedModule>),
    /// From [`Phase::Fused`] on.
    Fused(Vec<FusedProgram>),
    /// From [`Phase::Planned`] on.
    Planned(Box<PlannedModel>),
}

/// What passes may know beside the state.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The model and the limits that the artifact is compiled for (`max_context`, `max_batch`).
    pub facts: ModelFacts,
    /// The most tokens in one step of the prefill program.
    pub prefill_chunk: usize,
    /// What programs are made for and forms are priced for: see [`Machines`].
    pub machines: Machines,
    /// The rewrite rules that equality saturation uses; the pipeline sets it from its options.
    pub families: Vec<Family>,
    /// The loosest class of rules that it uses; set likewise.
    pub numerics: Numerics,
    /// Whether all programs must agree bit by bit; set likewise.
    pub invariance: Invariance,
    /// How many products with rounded weights the code that will be made takes in the time of one in f32, if it takes any: see
    /// [`mod@crate::search`].
    pub rounded_rate: Option<f64>,
    /// How many quarters of each weight are flagged if it is compressed, by checkpoint key: see [`mod@crate::compress`]. Weights that
    /// it does not name stay as they are.
    pub flagged: BTreeMap<String, u64>,
    /// What the running pass found that people should know, a sentence each; the pipeline takes it into its report.
    pub notes: RefCell<Vec<String>>,
}

/// Tokens per prefill step: enough rows to make matrix products compute-bound, few enough that the
/// activations of a step stay in the caches.
pub const PREFILL_CHUNK: usize = 512;

impl Context {
    /// A context that uses the rewrite rules of all families, with the usual prefill chunk.
    pub fn new(facts: ModelFacts, machines: impl Into<Machines>) -> Context {
        Context {
            facts,
            prefill_chunk: PREFILL_CHUNK,
            machines: machines.into(),
            families: Family::ALL.into(),
            numerics: Numerics::default(),
            invariance: Invariance::default(),
            rounded_rate: None,
            flagged: BTreeMap::new(),
            notes: RefCell::default(),
        }
    }
}

impl State {
    /// What the state holds, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            State::Module(_) => "a module",
            State::Programs(_) => "specialised modules",
            State::Fused(_) => "fused programs",
            State::Planned(_) => "a planned model",
        }
    }

    /// The architecture's name.
    pub fn name(&self) -> &str {
        match self {
            State::Module(module) => &module.name,
            State::Programs(programs) => programs.first().map_or("", |program| &program.module.name),
            State::Fused(programs) => programs.first().map_or("", |program| &program.module.name),
            State::Planned(planned) => &planned.plan.model.architecture,
        }
    }

    /// The width of the logits; `None` if no call makes them or their width is not fixed.
    pub fn vocab(&self) -> Option<usize> {
        let position = |calls: &[Call]| {
            let results = calls.iter().map(|call| call.results.iter().position(|name| name == LOGITS));
            calls.iter().zip(results).rev().find_map(|(call, result)| Some((call.function.clone(), result?)))
        };
        let ty = match self {
            State::Planned(planned) => return Some(planned.plan.model.vocab),
            State::Fused(programs) => {
                let module = &programs.first()?.module;
                let (function, result) = position(&module.calls)?;
                let function = module.function(&function)?;
                source_type(function, function.results.get(result)?)?
            }
            State::Module(_) | State::Programs(_) => {
                let module = *self.modules().first()?;
                let (function, result) = position(&module.calls)?;
                let function = module.function(&function)?;
                function.graph.ty(*function.results.get(result)?)
            }
        };
        ty.as_tensor()?.shape.0.last()?.as_fixed()
    }

    /// The modules in it, if it is still before fusion.
    pub fn modules(&self) -> Vec<&Module> {
        match self {
            State::Module(module) => vec![module],
            State::Programs(programs) => programs.iter().map(|program| &program.module).collect(),
            State::Fused(_) | State::Planned(_) => Vec::new(),
        }
    }

    /// The state as something that prints, parses and can be verified; a plan is neither.
    pub fn document(&self) -> Option<Document> {
        match self {
            State::Module(module) => Some(Document::Module(module.clone())),
            State::Programs(programs) => Some(Document::Specialized(programs.clone())),
            State::Fused(programs) => Some(Document::Fused(programs.clone())),
            State::Planned(_) => None,
        }
    }

    /// The whole state as text.
    pub fn text(&self) -> String {
        match self {
            State::Module(module) => text::print_module(module),
            State::Programs(programs) => text::print_specialized(programs),
            State::Fused(programs) => text::print_fused(programs),
            State::Planned(planned) => print_plan(&planned.plan),
        }
    }

    /// Applies a rewrite to every module. An error if the state is past fusion.
    pub fn map_modules(mut self, rewrite: impl Fn(&mut Module) -> Result<(), String>) -> Result<State, String> {
        match &mut self {
            State::Module(module) => rewrite(module)?,
            State::Programs(programs) => programs.iter_mut().try_for_each(|program| rewrite(&mut program.module))?,
            State::Fused(_) | State::Planned(_) => {
                return Err(format!("it rewrites modules, found {}; run it before `fuse`", self.kind()));
            }
        }
        Ok(self)
    }
}

impl From<Document> for State {
    fn from(document: Document) -> State {
        match document {
            Document::Module(module) => State::Module(module),
            Document::Specialized(programs) => State::Programs(programs),
            Document::Fused(programs) => State::Fused(programs),
        }
    }
}
