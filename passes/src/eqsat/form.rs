//! What a function costs as it stands, and when another form of it is worth taking.

use super::analysis::Dependence;
use super::cost::{Price, Target, Term, Work, bytes, dependence};
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Function, SpecializedModule};
use llmc_ir::op::Op;
use std::collections::BTreeMap;

/// What a form of a function takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FormCost {
    /// Seconds of one call.
    pub seconds: f64,
    /// Bytes of the weights that it reads, computed ones included: what the artifact must hold.
    pub stored_bytes: f64,
}

/// The part of a function's time that another form must save to be taken. Prices know bytes, operations and launches; what
/// they do not know (where pages lie, how streams of weights begin) is worth more than a smaller gain.
pub const LEAST_GAIN: f64 = 0.01;

impl FormCost {
    /// Whether this form is worth taking in place of another: it saves time, or space at no loss of time.
    pub fn is_better_than(&self, other: &FormCost) -> bool {
        let saves_time = self.seconds < other.seconds * (1.0 - LEAST_GAIN);
        let saves_space = self.seconds <= other.seconds && self.stored_bytes < other.stored_bytes;
        saves_time || saves_space
    }
}

/// What a function costs for a target.
pub fn form_cost(function: &Function, target: &Target<'_>) -> FormCost {
    let seconds = prices(function, target).iter().map(|(.., price)| price.seconds).sum();
    FormCost { seconds, stored_bytes: stored_bytes(function, target) }
}

/// Seconds of a step of a program as it typically is: of all its calls.
pub fn step_seconds(program: &SpecializedModule, machine: &Machine) -> f64 {
    let target = Target::of(machine, &program.bounds);
    let functions = program.module.calls.iter().filter_map(|call| program.module.function(&call.function));
    functions.map(|function| form_cost(function, &target).seconds).sum()
}

/// The work and the price of each node, in the order of the text.
pub(super) fn prices(function: &Function, target: &Target<'_>) -> Vec<(NodeId, Work, Price)> {
    let known = dependences(function);
    let nodes = function.graph.topological();
    let priced = nodes.into_iter().map(|node| {
        let term = term(function, node, &known);
        (node, term.work(&target.sizes), term.price(target))
    });
    priced.collect()
}

/// Bytes of what is known while compiling and used by what is not. The parts of joined weights count, not the whole.
fn stored_bytes(function: &Function, target: &Target<'_>) -> f64 {
    let graph = &function.graph;
    let known = dependences(function);
    let mut pending: Vec<NodeId> = Vec::new();
    for node in graph.topological().into_iter().filter(|node| known[node] == Dependence::Runtime) {
        pending.extend(graph.operands(node).into_iter().filter(|operand| known[operand] == Dependence::Weights));
    }
    let mut stored: BTreeMap<NodeId, f64> = BTreeMap::new();
    while let Some(node) = pending.pop() {
        let moves = matches!(graph.op(node), Op::Concat { .. } | Op::Reshape { .. } | Op::Broadcast { .. });
        if moves {
            pending.extend(graph.operands(node));
        } else {
            stored.insert(node, bytes(graph.ty(node), &target.sizes));
        }
    }
    stored.values().sum()
}

type Dependences = BTreeMap<NodeId, Dependence>;

fn dependences(function: &Function) -> Dependences {
    let mut known = Dependences::new();
    for node in function.graph.topological() {
        let operands = function.graph.operands(node);
        let found = dependence(function.graph.op(node), operands.iter().map(|operand| known[operand]));
        known.insert(node, found);
    }
    known
}

/// A node of a function, for what it costs.
pub(super) fn term_of(function: &Function, node: NodeId) -> Term<'_> {
    term(function, node, &dependences(function))
}

fn term<'f>(function: &'f Function, node: NodeId, known: &Dependences) -> Term<'f> {
    let graph = &function.graph;
    Term {
        op: graph.op(node),
        operands: graph.operands(node).into_iter().map(|operand| graph.ty(operand)).collect(),
        ty: graph.ty(node),
        dependence: known[&node],
    }
}
