//! What a node costs: the roofline of a machine at the sizes that a program typically runs with (Williams et al.,
//! "Roofline", 2009).
//!
//! Nodes that move or map elements end up inside of kernels that others anchor, so they cost their arithmetic and no
//! memory traffic; what anchors a kernel (a dot, a reduction, attention) reads its operands and costs a launch.

use super::analysis::{Dependence, Facts, Graph};
use super::language::Node;
use egg::Id;
use llmc_ir::dim::{Bindings, Bounds, Promise};
use llmc_ir::dtype::DType;
use llmc_ir::machine::{Machine, Processor};
use llmc_ir::op::{AttendMethod, Attention, DotMethod, Op, UnaryOp};
use llmc_ir::shape::Type;
use std::fmt;

/// Sizes for which forms of a function are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target<'m> {
    /// The machine.
    pub machine: &'m Machine,
    /// A step as the program typically sees it.
    pub sizes: Bindings,
    /// What every step of the program promises.
    pub promise: Promise,
}

impl<'m> Target<'m> {
    /// The typical step of a program with those bounds.
    pub fn of(machine: &'m Machine, bounds: &Bounds) -> Target<'m> {
        Target { machine, sizes: typical(bounds), promise: bounds.promise() }
    }
}

/// Positions that sequences have on average, where the limit allows it: a chat of a few turns.
const TYPICAL_CONTEXT: usize = 1024;

/// A typical step within bounds: as many tokens as they allow, one prompt or one token per sequence.
pub fn typical(bounds: &Bounds) -> Bindings {
    let max = bounds.max;
    let context = max.context.min(TYPICAL_CONTEXT);
    match bounds.one_token_per_sequence {
        true => Bindings { context, ..max },
        false => Bindings { tokens: max.tokens, samples: 1, sequences: 1, context },
    }
}

/// What a node makes the machine do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes that move between memory and kernels.
    pub bytes: f64,
    /// Operations of matrix products.
    pub matrix_flops: f64,
    /// Operations of elementwise work.
    pub vector_flops: f64,
    /// Kernels that it anchors.
    pub launches: f64,
    /// Bytes that it adds to the artifact.
    pub stored_bytes: f64,
}

/// Seconds of a node's work, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// All of it.
    pub seconds: f64,
    /// What bounds it.
    pub bound: Bound,
}

impl Price {
    /// Of what a program cannot run.
    const IMPOSSIBLE: Price = Price { seconds: f64::INFINITY, bound: Bound::Impossible };
}

/// What a kernel's time depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It costs nothing.
    Free,
    /// On memory bandwidth.
    Bandwidth,
    /// On arithmetic.
    Compute,
    /// On starting it.
    Launch,
    /// The program cannot run it.
    Impossible,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Free => "free",
            Bound::Bandwidth => "bandwidth",
            Bound::Compute => "compute",
            Bound::Launch => "launch",
            Bound::Impossible => "impossible",
        })
    }
}

/// What a byte of the artifact costs in seconds per step: so little that it only decides between forms that are
/// otherwise equal.
const SECONDS_PER_STORED_BYTE: f64 = 1e-18;

/// What another node costs: of equal forms the shortest wins.
const SECONDS_PER_NODE: f64 = 1e-15;

/// The part of the memory bandwidth that a gemm reaches where reading weights bounds it: it looks at blocks as it comes to
/// them, not ahead. Whole decode steps on the host measured 0.68 to 0.74.
const GEMM_BANDWIDTH: f64 = 0.7;

/// The part of the f32 rate that a gemv reaches where multiplying bounds it: it cuts neither rows nor sums into blocks that
/// stay in caches. Whole prefill steps of 512 rows on the host measured 0.93 to 0.97.
const GEMV_COMPUTE: f64 = 0.97;

/// Products per weight that making a weight's block of whole numbers takes the time of, measured on Zen 3: from some 30 rows on a
/// gemm in block floating point is faster there.
const MAKING_BLOCKS: f64 = 11.0;

/// Query rows (tokens times query heads per key/value head) of a work item of whole attention.
const ATTEND_ROWS: f64 = 24.0;

/// Positions that a work item of split attention covers.
const ATTEND_SPLIT: f64 = AttendMethod::SPLIT_POSITIONS as f64;

/// Elementwise operations that a transcendental function takes.
const TRANSCENDENTAL_FLOPS: f64 = 16.0;

/// An operation with what is known of its operands and result.
#[derive(Clone, Debug)]
pub struct Term<'a> {
    /// The operation.
    pub op: &'a Op,
    /// Types of its operands.
    pub operands: Vec<&'a Type>,
    /// Its type.
    pub ty: &'a Type,
    /// What its value depends on.
    pub dependence: Dependence,
}

impl<'a> Term<'a> {
    /// A node of a class of an e-graph.
    pub fn of_node(graph: &'a Graph, class: Id, node: &'a Node) -> Term<'a> {
        let facts: Vec<&Facts> = node.operands.iter().map(|&operand| &graph[operand].data).collect();
        Term {
            op: &node.op,
            operands: facts.iter().map(|facts| &facts.ty).collect(),
            ty: &graph[class].data.ty,
            dependence: dependence(&node.op, facts.iter().map(|facts| facts.dependence)),
        }
    }

    /// Bytes, operations and launches.
    pub fn work(&self, sizes: &Bindings) -> Work {
        let result = elements(self.ty, sizes);
        if self.dependence < Dependence::Runtime {
            return match self.op {
                // The parts of a joined weight stay where they are.
                Op::Weight { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Concat { .. } => Work::default(),
                _ => Work { stored_bytes: bytes(self.ty, sizes), ..Work::default() },
            };
        }
        match self.op {
            Op::Dot { left, method, .. } => {
                let k = self.operands[0].as_tensor().map_or(1, |ty| ty.shape.0[*left].evaluate(sizes));
                // What follows a dot in its kernel leaves it in the type that the next one reads.
                let stored = result * DType::BF16.bytes() as f64;
                let bytes = bytes(self.operands[0], sizes) + bytes(self.operands[1], sizes) + stored;
                let matrix_flops = 2.0 * k as f64 * result;
                match method {
                    DotMethod::Gemm | DotMethod::Gemv | DotMethod::BlockFloat => {
                        Work { bytes, matrix_flops, launches: 1.0, ..Work::default() }
                    }
                    // Parts of the sums wait in f32 to be added by another kernel.
                    DotMethod::SplitK => {
                        let parts = 2.0 * result * 4.0 * DotMethod::sum_parts(k).len() as f64;
                        Work { bytes: bytes + parts, matrix_flops, launches: 2.0, ..Work::default() }
                    }
                }
            }
            Op::Attend(attention) => {
                let Type::Kv(kv) = self.operands[1] else { return Work::default() };
                let seen = attention.window.map_or(sizes.context, |window| window.min(sizes.context)) as f64;
                let width = (attention.heads * kv.head_dim) as f64;
                let cache = 2.0 * (kv.heads * kv.head_dim * kv.dtype.bytes()) as f64;
                let (parts, launches) = match attention.method {
                    AttendMethod::Whole => (0.0, 1.0),
                    // Each part leaves its sum of values, in f32, for another kernel that combines them.
                    AttendMethod::Split => ((seen / ATTEND_SPLIT).ceil() * sizes.tokens as f64 * width * 4.0, 2.0),
                };
                Work {
                    bytes: 2.0 * (bytes(self.operands[0], sizes) + parts) + sizes.sequences as f64 * seen * cache,
                    matrix_flops: 4.0 * sizes.tokens as f64 * seen * width,
                    launches,
                    ..Work::default()
                }
            }
            Op::Reduce { .. } => Work {
                bytes: bytes(self.operands[0], sizes),
                vector_flops: elements(self.operands[0], sizes),
                launches: 1.0,
                ..Work::default()
            },
            Op::Gather => Work { bytes: 2.0 * bytes(self.ty, sizes), ..Work::default() },
            Op::KvWrite { .. } => Work { bytes: 2.0 * bytes(self.operands[1], sizes), ..Work::default() },
            Op::Unary(UnaryOp::Negate | UnaryOp::Absolute)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Convert { .. } => Work { vector_flops: result, ..Work::default() },
            Op::Unary(_) => Work { vector_flops: TRANSCENDENTAL_FLOPS * result, ..Work::default() },
            _ => Work::default(),
        }
    }

    /// Seconds on a machine, and why. What a program cannot run has no finite price.
    pub fn price(&self, target: &Target<'_>) -> Price {
        let dtype = self.operands.first().and_then(|ty| ty.as_tensor()).map_or(DType::F32, |ty| ty.dtype);
        let rates = Rates::of(target.machine, dtype);
        let rates = match self.op {
            Op::Dot { method: DotMethod::BlockFloat, .. } => return self.price_in_blocks(target),
            Op::Dot { left: 1, right: 1, batch: 0, method } if self.dependence == Dependence::Runtime => {
                self.dot_rates(*method, rates, target)
            }
            Op::Attend(attention) => match (attention.method, target.promise) {
                (AttendMethod::Split, Promise::None) => {
                    return Price::IMPOSSIBLE;
                }
                _ => rates.times(busy(attend_items(attention, &target.sizes), target.machine)),
            },
            _ => rates,
        };
        rates.price(&self.work(&target.sizes), target.machine.launch_seconds)
    }

    /// A dot in block floating point, for prompts. Blocks of a weight are made anew for each block of rows. What that gains is a
    /// share of any other way's time, so that all programs for prompts choose alike: a prompt has the same bits in any company then.
    fn price_in_blocks(&self, target: &Target<'_>) -> Price {
        let rows = self.ty.as_tensor().map_or(0, |ty| ty.shape.0[0].evaluate(&target.sizes)) as f64;
        let together = rows.min(target.machine.gemm_tile.rows);
        let rate = target.machine.block_float.filter(|_| target.promise == Promise::None).unwrap_or(0.0);
        let gain = rate * together / (together + MAKING_BLOCKS);
        let others = DotMethod::ALL.iter().filter(|method| **method != DotMethod::BlockFloat);
        let others = others.map(|&method| {
            let op = Op::Dot { left: 1, right: 1, batch: 0, method };
            Term { op: &op, ..self.clone() }.price(target)
        });
        match others.min_by(|a, b| a.seconds.total_cmp(&b.seconds)) {
            Some(Price { seconds, bound }) if gain > 1.0 => Price { seconds: seconds / gain, bound },
            _ => Price::IMPOSSIBLE,
        }
    }

    /// What a dot's kernel reaches with its way to divide the work.
    fn dot_rates(&self, method: DotMethod, rates: Rates, target: &Target<'_>) -> Rates {
        let Machine { processor, gemm_tile, gemv_tile, ref matrix_flops, .. } = *target.machine;
        let columns = match self.operands[1].as_tensor() {
            Some(ty) => ty.shape.evaluate(&target.sizes).first().copied().unwrap_or(1) as f64,
            None => 1.0,
        };
        let rows = elements(self.ty, &target.sizes) / columns;
        match method {
            DotMethod::Gemm | DotMethod::BlockFloat => {
                let items = (rows / gemm_tile.rows).ceil() * (columns / gemm_tile.columns).ceil();
                let busy = busy(items, target.machine);
                let filled = filled(rows, gemm_tile.least_rows);
                Rates { memory: rates.memory * GEMM_BANDWIDTH * busy, matrix: rates.matrix * filled * busy, ..rates }
            }
            DotMethod::Gemv | DotMethod::SplitK => {
                let k = self.operands[1].as_tensor().and_then(|ty| ty.shape.0.get(1)?.as_fixed()).unwrap_or(1);
                // Blocks of rows are at work together, or one behind the other where their parts must meet.
                let beside = match method {
                    DotMethod::SplitK => DotMethod::sum_parts(k).len() as f64,
                    _ => (rows / gemv_tile.rows).ceil(),
                };
                let items = (columns / gemv_tile.columns).ceil() * beside;
                match processor {
                    Processor::Cpu => {
                        let busy = busy(items, target.machine);
                        Rates { memory: rates.memory * busy, matrix: matrix_flops.f32 * GEMV_COMPUTE * busy, ..rates }
                    }
                    // The matrix instruction takes the weight as its left operand, whose rows are many; and each block
                    // of rows reads the weight anew. A multiprocessor has several blocks at a time, so that the last
                    // ones leave little of it idle.
                    Processor::Gpu => {
                        let busy = (items / target.machine.units).min(1.0);
                        let filled = filled(rows, gemv_tile.least_rows);
                        let again = (rows / gemv_tile.rows).ceil();
                        Rates { memory: rates.memory * busy / again, matrix: rates.matrix * filled * busy, ..rates }
                    }
                }
            }
        }
    }
}

/// Work items of an attention kernel.
fn attend_items(attention: &Attention, sizes: &Bindings) -> f64 {
    let kv_heads = attention.kv_heads as f64;
    let group = attention.heads as f64 / kv_heads;
    let (tokens, sequences) = (sizes.tokens as f64, sizes.sequences as f64);
    let seen = attention.window.map_or(sizes.context, |window| window.min(sizes.context)) as f64;
    kv_heads
        * match attention.method {
            AttendMethod::Whole => sequences * (tokens / sequences * group / ATTEND_ROWS).ceil(),
            AttendMethod::Split => tokens * (seen / ATTEND_SPLIT).ceil(),
        }
}

/// The part of a matrix instruction's rows that hold any.
fn filled(rows: f64, least_rows: f64) -> f64 {
    rows / ((rows / least_rows).ceil() * least_rows)
}

/// The part of a machine that equal items of work keep busy until the last one is done.
fn busy(items: f64, machine: &Machine) -> f64 {
    let items = items.max(1.0);
    items / ((items / machine.units).ceil() * machine.units)
}

/// What a kernel reaches on a machine.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Bytes per second.
    memory: f64,
    /// Operations of matrix products per second.
    matrix: f64,
    /// Operations of elementwise work per second.
    vector: f64,
}

impl Rates {
    /// The machine's limits.
    fn of(machine: &Machine, dtype: DType) -> Rates {
        let matrix = machine.matrix_flops(dtype);
        Rates { memory: machine.memory_bandwidth, matrix, vector: machine.vector_flops }
    }

    fn times(self, part: f64) -> Rates {
        Rates { memory: self.memory * part, matrix: self.matrix * part, vector: self.vector * part }
    }

    fn price(&self, work: &Work, launch_seconds: f64) -> Price {
        let moving = work.bytes / self.memory;
        let computing = (work.matrix_flops / self.matrix).max(work.vector_flops / self.vector);
        let launching = work.launches * launch_seconds;
        let bound = match () {
            () if moving.max(computing).max(launching) == 0.0 => Bound::Free,
            () if launching > moving.max(computing) => Bound::Launch,
            () if computing > moving => Bound::Compute,
            () => Bound::Bandwidth,
        };
        let storing = work.stored_bytes * SECONDS_PER_STORED_BYTE;
        Price { seconds: moving.max(computing) + launching + storing + SECONDS_PER_NODE, bound }
    }
}

/// What the value of an operation depends on.
pub fn dependence(op: &Op, operands: impl Iterator<Item = Dependence>) -> Dependence {
    let own = match op {
        Op::Input { .. } | Op::Step(_) => Dependence::Runtime,
        Op::Weight { .. } => Dependence::Weights,
        _ => Dependence::Literal,
    };
    operands.fold(own, Dependence::max)
}

/// Seconds of some work if nothing but the machine limits it, whose products it takes at a rate of `matrix` operations per second.
pub fn price_of(work: &Work, matrix: f64, machine: &Machine) -> Price {
    Rates { matrix, ..Rates::of(machine, DType::F32) }.price(work, machine.launch_seconds)
}

fn elements(ty: &Type, sizes: &Bindings) -> f64 {
    let sizes = ty.as_tensor().map(|ty| ty.shape.evaluate(sizes));
    sizes.map_or(0.0, |sizes| sizes.into_iter().map(|size| size as f64).product())
}

/// Bytes of a value; a cache is counted by those who look into it.
pub(super) fn bytes(ty: &Type, sizes: &Bindings) -> f64 {
    elements(ty, sizes) * ty.as_tensor().map_or(0, |ty| ty.dtype.bytes()) as f64
}
