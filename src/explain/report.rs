//! The report's data: what `--json` prints, and what the text and the page are made of. All times that a clock measured
//! are in [`Timing`], so that everything else is the same in every run.

use llmc_ir::dim::Bindings;
use llmc_ir::machine::Machines;
use llmc_ir::plan::{KvLayout, ModelFacts};
use serde::Serialize;
use std::collections::BTreeMap;

/// How a model became an artifact, and what its steps cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The name of the artifact's file, or of what the passes ran on.
    pub artifact: String,
    /// The artifact's size; `None` if there is no artifact.
    pub bytes: Option<u64>,
    /// Version of the compiler that made it.
    pub compiler_version: String,
    /// What the checkpoint said.
    pub model: ModelFacts,
    /// How the cache lies in memory; `None` before there is a plan.
    pub kv: Option<KvLayout>,
    /// The machines that forms were priced for, one for each kind of processor.
    pub machines: Machines,
    /// Passes that were left out.
    pub without: Vec<String>,
    /// What the reader should know, a sentence each.
    pub notes: Vec<String>,
    /// The model's path.
    pub phases: Vec<Phase>,
    /// Graphs that phases and forms refer to by index.
    pub graphs: Vec<Graph>,
    /// What equality saturation did, a function each; empty if it did not run.
    pub saturation: Vec<Saturation>,
    /// The rules that saturation may use.
    pub rules: Vec<Rule>,
    /// The programs, the tightest first.
    pub programs: Vec<Program>,
    /// Weights by what they are.
    pub weights: Vec<WeightGroup>,
    /// Code by CPU level.
    pub targets: Vec<Target>,
    /// Code by GPU architecture.
    pub gpus: Vec<Gpu>,
    /// What a clock measured.
    pub timing: Timing,
}

/// A phase of compilation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// As `--stop-after` calls it.
    pub name: &'static str,
    /// Its passes in order.
    pub passes: Vec<Pass>,
    /// The functions behind its last pass.
    pub views: Vec<View>,
}

/// What a pass changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// As `--without` calls it.
    pub name: &'static str,
    /// One line.
    pub description: &'static str,
    /// What it received.
    pub before: Size,
    /// What it made.
    pub after: Size,
    /// Nodes in its result that no node before it corresponds to; `None` where nodes became launches.
    pub new_nodes: Option<usize>,
}

/// The size of a model, summed over its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Functions.
    pub functions: usize,
    /// Nodes in functions, or in the bodies of regions or kernels.
    pub nodes: usize,
    /// Dots among them.
    pub dots: usize,
    /// Regions, or kernels.
    pub regions: usize,
}

/// A function in a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// The program; `None` before there are programs.
    pub program: Option<String>,
    /// The function.
    pub function: String,
    /// How often a step calls it.
    pub calls: usize,
    /// Index into [`Report::graphs`].
    pub graph: usize,
}

/// A function as a graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graph {
    /// In an order in which operands come first.
    pub nodes: Vec<Node>,
    /// From operand to user.
    pub edges: Vec<[usize; 2]>,
    /// What is computed together.
    pub regions: Vec<Region>,
}

/// An operation, or a launch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What it is called in the text form.
    pub name: String,
    /// The operation with its operands and attributes.
    pub text: String,
    /// The type of its result.
    pub ty: String,
    /// What sort of operation it is.
    pub kind: &'static str,
    /// The pass that made it; `definition`: the model's definition wrote it.
    pub origin: &'static str,
    /// Its price at the program's typical sizes; `None` if it costs nothing or there are no sizes yet.
    pub price: Option<Price>,
    /// Index into [`Graph::regions`].
    pub region: Option<usize>,
    /// Whether the function returns it.
    pub result: bool,
}

/// Nodes that become one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// What the kernel will be called.
    pub name: String,
    /// What shapes its iteration space.
    pub anchor: &'static str,
}

/// What something costs on the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Price {
    /// Bytes to and from memory.
    pub bytes: f64,
    /// Operations.
    pub flops: f64,
    /// Predicted seconds.
    pub seconds: f64,
    /// What they are spent on.
    pub bound: String,
}

/// A function's e-graph and what was taken out of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Saturation {
    /// The function.
    pub function: String,
    /// Rounds of all rules.
    pub iterations: usize,
    /// E-nodes as it came.
    pub nodes_before: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// Classes at the end.
    pub classes: usize,
    /// Why it ended.
    pub stop: String,
    /// How often each rule made two classes one.
    pub fired: BTreeMap<&'static str, usize>,
    /// The form of each program that has the function.
    pub forms: Vec<Form>,
}

/// What extraction chose for a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Form {
    /// The program.
    pub program: String,
    /// Predicted seconds of the function as it came.
    pub seconds_before: f64,
    /// Predicted seconds of the chosen form.
    pub seconds: f64,
    /// Whether the function changed.
    pub changed: bool,
    /// The form, an index into [`Report::graphs`].
    pub graph: usize,
}

/// A rewrite rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Its family.
    pub family: &'static str,
    /// The equation.
    pub equation: &'static str,
    /// What it does to numbers.
    pub numerics: &'static str,
}

/// A specialisation: what its step launches and what that costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The machine that it is for, one of [`Report::machines`].
    pub machine: String,
    /// The steps that it takes, in words.
    pub takes: String,
    /// The step that it is priced for.
    pub sizes: Bindings,
    /// Launches of a step.
    pub launches: usize,
    /// Barriers of a step.
    pub barriers: usize,
    /// Predicted seconds of a step.
    pub seconds: f64,
    /// Bytes that a step moves, all kernels together.
    pub bytes: f64,
    /// Bytes that no step can do without: weights once, what it needs of the cache.
    pub floor_bytes: f64,
    /// Operations of a step.
    pub flops: f64,
    /// Rows of logits up to which greedy steps look for the largest by rounded weights; 0: they compute all.
    pub rounded_rows: usize,
    /// Its kernels in order of first launch.
    pub kernels: Vec<Kernel>,
    /// Memory of activations.
    pub arena: Arena,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// What shapes its iteration space.
    pub anchor: &'static str,
    /// Launches of a step.
    pub launches: usize,
    /// Of one launch.
    pub price: Price,
    /// Operations of the unit that it keeps busiest: matrix products or elementwise work.
    pub unit_flops: f64,
    /// Those per byte.
    pub intensity: f64,
    /// The machine's rate of them, per second.
    pub peak: f64,
    /// The ways in which it could divide its work; none if there is no choice.
    pub ways: Vec<Way>,
    /// Bytes of machine code by target; 0 where it is part of the entry point.
    pub code_bytes: BTreeMap<String, u64>,
}

/// A way in which a kernel could divide its work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// As the text form calls it.
    pub name: &'static str,
    /// Seconds of the kernel's products or attention, by the prices that forms are chosen by.
    pub seconds: f64,
    /// Whether it is the one that was chosen.
    pub chosen: bool,
}

/// Activations in memory over the launches of a step, each function's once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arena {
    /// Its size.
    pub bytes: u64,
    /// The functions in order of their first call.
    pub functions: Vec<ArenaFunction>,
    /// The kernel of each launch on the time axis.
    pub launches: Vec<String>,
    /// What is where and when.
    pub buffers: Vec<Buffer>,
}

/// A function's part of the time axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArenaFunction {
    /// Its name.
    pub name: String,
    /// How often a step calls it.
    pub calls: usize,
    /// Its first launch on the time axis.
    pub first: usize,
    /// Its launches.
    pub launches: usize,
}

/// A value in the arena.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Buffer {
    /// The launch that writes it, or the first of a function that finds it there.
    pub first: usize,
    /// The last launch that reads it, or the last of a function that leaves it there.
    pub last: usize,
    /// Where it begins.
    pub offset: u64,
    /// Its size at the bounds.
    pub bytes: u64,
    /// The kernel that writes it.
    pub writer: String,
}

/// Weights with one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightGroup {
    /// The checkpoint's name with `*` for the layer's number.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Element type.
    pub dtype: &'static str,
    /// Shape before padding.
    pub shape: Vec<usize>,
    /// How the elements lie in memory.
    pub layout: &'static str,
    /// Bytes of all of them, as they are packed.
    pub bytes: u64,
    /// Bytes of the elements alone, before they were packed.
    pub element_bytes: u64,
}

/// Code for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Size of the code.
    pub bytes: u64,
}

/// Code for a GPU architecture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Size of the PTX text.
    pub bytes: u64,
    /// Device memory that launches share.
    pub workspace_bytes: u64,
    /// Those of [`Report::programs`] that are for a GPU.
    pub programs: Vec<GpuProgram>,
}

/// A program on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuProgram {
    /// Its name.
    pub name: String,
    /// Device kernels launched in a step.
    pub launches: usize,
    /// Its kernels in order of first launch.
    pub kernels: Vec<GpuKernel>,
    /// Estimated times of the step that [`Program::sizes`] says.
    pub brackets: Vec<Bracket>,
}

/// What a kernel of the plan becomes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuKernel {
    /// Its name in the plan.
    pub name: String,
    /// How often a step has it.
    pub launches: usize,
    /// The device kernels of each time.
    pub grids: Vec<Grid>,
}

/// A device kernel over its grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grid {
    /// Its name in the PTX.
    pub symbol: String,
    /// Blocks along each axis in terms of a step's sizes, such as `tokens/64, 12, 1`.
    pub blocks: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// Between which times a step could take on a machine: an estimate, not a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bracket {
    /// The machine.
    pub machine: String,
    /// If nothing is moved but what must be, and everything overlaps.
    pub low_seconds: f64,
    /// If nothing overlaps and every launch waits for the one before it.
    pub high_seconds: f64,
}

/// What a clock measured while the passes ran again.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// All of it, verification included.
    pub total_seconds: f64,
    /// The passes in order, through all phases.
    pub passes: Vec<PassTime>,
}

/// Time of a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassTime {
    /// The pass.
    pub name: &'static str,
    /// Its phase.
    pub phase: &'static str,
    /// In the pass itself.
    pub seconds: f64,
    /// In verification behind it.
    pub instruments_seconds: f64,
}
