//! Regions: what is computed together in one kernel. A fused function is a list of them.

use crate::dim::Bounds;
use crate::graph::{Graph, NodeId};
use crate::machine::Processor;
use crate::module::{Call, Function, Param};
use crate::op::Op;
use crate::plan::{Plan, Program, StepInput, WeightLayout};
use crate::shape::Type;
use std::collections::{BTreeMap, BTreeSet};

/// A part of a function that becomes one kernel. Its body is an ordinary graph whose inputs are the
/// region's inputs, so the interpreter gives it its meaning.
#[derive(Clone, Debug)]
pub struct Region {
    /// A name that tells what it computes, unique in the function.
    pub name: String,
    /// What shapes its iteration space.
    pub anchor: Anchor,
    /// The computation; `Op::Input { index }` refers to `inputs`. It holds neither weights nor step inputs.
    pub body: Graph,
    /// Where the body's inputs come from.
    pub inputs: Vec<Source>,
    /// Nodes of the body that are visible outside, each written to memory (or to the KV cache).
    pub outputs: Vec<NodeId>,
}

/// What shapes a region's iteration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anchor {
    /// Rows of elementwise work and reductions along the last axis: rows are independent.
    Rows,
    /// One or several dots of one left operand `[rows, k]` with weights `[n, k]`, and elementwise work on
    /// `[rows, n]` behind them. Columns are independent in groups that the epilogue's reshapes define. Dots that are not
    /// combined with each other may differ in n: see [`Region::parts`]. The left operand is an input, or rows that the
    /// region computes before it multiplies: see [`Region::prologue`].
    Dot,
    /// One `attend`.
    Attend,
    /// Anything that depends on weights alone: computed once, while compiling, and stored in the artifact.
    Weights,
}

impl Anchor {
    /// Every anchor, in declaration order.
    pub const ALL: [Anchor; 4] = [Anchor::Rows, Anchor::Dot, Anchor::Attend, Anchor::Weights];

    /// The name used in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Anchor::Rows => "rows",
            Anchor::Dot => "dot",
            Anchor::Attend => "attend",
            Anchor::Weights => "weights",
        }
    }
}

/// Where a region's input comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A parameter of the function.
    Param(usize),
    /// An output of an earlier region of the function.
    Output {
        /// Index of the region.
        region: usize,
        /// Index into its outputs.
        output: usize,
    },
    /// A weight, named as in [`Op::Weight`].
    Weight(String),
    /// A step input.
    Step(StepInput),
}

/// A function after fusion: regions in order of execution.
#[derive(Clone, Debug)]
pub struct FusedFunction {
    /// Its name, without `@`.
    pub name: String,
    /// What callers pass.
    pub params: Vec<Param>,
    /// The regions; inputs refer to earlier ones only.
    pub regions: Vec<Region>,
    /// What callers receive.
    pub results: Vec<Source>,
}

/// A module after fusion.
#[derive(Clone, Debug)]
pub struct FusedModule {
    /// The architecture's name.
    pub name: String,
    /// Functions, each name once.
    pub functions: Vec<FusedFunction>,
    /// The step.
    pub calls: Vec<Call>,
}

/// A fused module and what its steps may be assumed to be like.
#[derive(Clone, Debug)]
pub struct FusedProgram {
    /// The program's name: `decode`, `prefill`, ...
    pub name: String,
    /// What runs it.
    pub processor: Processor,
    /// The steps that it can run.
    pub bounds: Bounds,
    /// What a step computes.
    pub module: FusedModule,
}

impl FusedModule {
    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<&FusedFunction> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl Region {
    /// The types of the inputs, in order. Every input is used by the body.
    pub fn input_types(&self) -> Vec<Type> {
        let mut types: Vec<Option<Type>> = vec![None; self.inputs.len()];
        for node in self.body.topological() {
            if let Op::Input { index, ty } = self.body.op(node) {
                types[*index] = Some(ty.clone());
            }
        }
        types.into_iter().map(|ty| ty.expect("every input of a region occurs in its body")).collect()
    }
}

/// Outputs of a region that must be computed together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Indices into [`Region::outputs`].
    pub outputs: Vec<usize>,
    /// What they are computed from, themselves and inputs included; the cache that a `kv_write` writes to and the left
    /// operands of dots excluded.
    pub nodes: BTreeSet<NodeId>,
}

/// The rows that a dot region computes before it multiplies them, such as a norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// The left operand of the region's dots.
    pub left: NodeId,
    /// What it is computed from, itself and inputs included.
    pub nodes: BTreeSet<NodeId>,
}

impl Region {
    /// The independent parts of a dot region, each with its own columns: outputs that are made of a common dot belong to
    /// one part. All other regions are one part.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for index in 0..self.outputs.len() {
            let mut part = Part { outputs: vec![index], nodes: self.computed_from(self.outputs[index]) };
            let dots = |part: &Part| -> BTreeSet<NodeId> {
                let is_dot = |node: &NodeId| matches!(self.body.op(*node), Op::Dot { .. });
                part.nodes.iter().copied().filter(is_dot).collect()
            };
            let own = dots(&part);
            let together = |other: &Part| {
                self.anchor != Anchor::Dot || own.is_empty() || dots(other).is_empty() || !own.is_disjoint(&dots(other))
            };
            let (joined, apart): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(together);
            for other in joined {
                part.outputs.extend(other.outputs);
                part.nodes.extend(other.nodes);
            }
            parts = apart;
            part.outputs.sort_unstable();
            parts.push(part);
        }
        parts.sort_by_key(|part| part.outputs[0]);
        parts
    }

    /// What a dot region computes of its left operand; `None` if that is an input.
    pub fn prologue(&self) -> Option<Prologue> {
        let body = &self.body;
        let dot = body.topological().into_iter().find(|&node| matches!(body.op(node), Op::Dot { .. }))?;
        let left = body.operands(dot)[0];
        let computed = self.anchor == Anchor::Dot && !matches!(body.op(left), Op::Input { .. });
        computed.then(|| Prologue { left, nodes: self.computed_from(left) })
    }

    fn computed_from(&self, output: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut pending = vec![output];
        while let Some(node) = pending.pop() {
            if found.insert(node) {
                let operands = self.body.operands(node);
                let skipped = usize::from(matches!(self.body.op(node), Op::KvWrite { .. } | Op::Dot { .. }));
                pending.extend(&operands[skipped..]);
            }
        }
        found
    }
}

/// A region as codegen receives it: its body and how its inputs lie in memory.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Unique in the program; what [`crate::plan::Launch::kernel`] refers to.
    pub name: String,
    /// What it computes. The sources of the inputs no longer matter: launches bind operands.
    pub region: Region,
    /// Layout of each input that is a weight. Other tensors are row-major and unpadded.
    pub weight_layouts: Vec<Option<WeightLayout>>,
}

/// A planned model: the plan that goes into the artifact, and what codegen makes the code of.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    /// The plan.
    pub plan: Plan,
    /// How the weights that no checkpoint has are computed, by their names in the plan: functions without parameters and
    /// with one result, whose weights are absolute keys of the checkpoint.
    pub recipes: BTreeMap<String, Function>,
    /// The kernels of each program, parallel to `plan.programs`.
    pub kernels: Vec<Vec<Kernel>>,
}

impl PlannedModel {
    /// The programs that a kind of processor runs, with their kernels.
    pub fn programs_on(&self, processor: Processor) -> impl Iterator<Item = (&Program, &[Kernel])> {
        let all = self.plan.programs.iter().zip(&self.kernels);
        all.filter(move |(program, _)| program.processor == processor).map(|(program, kernels)| (program, &kernels[..]))
    }
}
