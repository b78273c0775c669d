//! Saturation: a function's graph becomes an e-graph that holds every form the rules reach.

use super::analysis::{Analysis, Graph};
use super::language::Node;
use super::rule::{Rule, rewrite};
use crate::canonicalize::roots;
use egg::{Id, Runner, SimpleScheduler, StopReason};
use llmc_ir::graph::NodeId;
use llmc_ir::module::{Function, Param};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Iterations after which saturation gives up. Layers of known models take three; heads eleven, one for each operation that a
/// gather of rows moves through.
pub const ITERATION_LIMIT: usize = 16;

/// E-nodes at which saturation gives up: some hundred times what known layers need.
pub const NODE_LIMIT: usize = 50_000;

/// A function with all its forms.
#[derive(Clone, Debug)]
pub struct Saturated {
    /// The function's name.
    pub name: String,
    /// What callers pass.
    pub params: Vec<Param>,
    /// The e-graph.
    pub graph: Graph,
    /// The classes of the function's results.
    pub results: Vec<Id>,
    /// The classes that must be computed although no result needs them: writes to the cache.
    pub effects: Vec<Id>,
    /// How it went.
    pub statistics: Statistics,
}

/// What saturation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Rounds of all rules.
    pub iterations: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// Classes at the end.
    pub classes: usize,
    /// E-nodes of the function as it came.
    pub nodes_before: usize,
    /// How often each rule made two classes one, by name; rules that never did are left out.
    pub fired: BTreeMap<&'static str, usize>,
    /// Why it ended.
    pub stop: Stop,
}

/// Why saturation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No rule finds anything new.
    Saturated,
    /// After [`ITERATION_LIMIT`].
    Iterations,
    /// At [`NODE_LIMIT`].
    Nodes,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Saturated => f.write_str("saturated"),
            Stop::Iterations => write!(f, "stopped at the limit of {ITERATION_LIMIT} iterations"),
            Stop::Nodes => write!(f, "stopped at the limit of {NODE_LIMIT} nodes"),
        }
    }
}

/// Applies the rules until nothing new is found or a limit is met.
///
/// # Errors
/// If egg stops for a reason of its own.
pub fn saturate(function: &Function, rules: &[Rule]) -> Result<Saturated, String> {
    let mut graph = Graph::new(Analysis);
    let mut classes: BTreeMap<NodeId, Id> = BTreeMap::new();
    for node in function.graph.topological() {
        let operands = function.graph.operands(node).iter().map(|operand| classes[operand]).collect();
        classes.insert(node, graph.add(Node { op: function.graph.op(node).clone(), operands }));
    }
    let nodes_before = graph.total_size();
    let rewrites: Vec<_> = rules.iter().map(|&rule| rewrite(rule)).collect();
    // The scheduler of egg's default skips rules that match often; ours match everywhere by design.
    let runner = Runner::default()
        .with_egraph(graph)
        .with_scheduler(SimpleScheduler)
        .with_iter_limit(ITERATION_LIMIT)
        .with_node_limit(NODE_LIMIT)
        .with_time_limit(Duration::MAX)
        .run(&rewrites);
    let stop = match runner.stop_reason {
        Some(StopReason::Saturated) => Stop::Saturated,
        Some(StopReason::IterationLimit(_)) => Stop::Iterations,
        Some(StopReason::NodeLimit(_)) => Stop::Nodes,
        reason => return Err(format!("function @{}: saturation ended by {reason:?}", function.name)),
    };
    let mut fired = BTreeMap::new();
    for iteration in &runner.iterations {
        for (name, count) in &iteration.applied {
            let name = rules.iter().map(|rule| rule.name).find(|known| *known == name.as_str());
            *fired.entry(name.unwrap_or_default()).or_insert(0) += count;
        }
    }
    let graph = runner.egraph;
    let class = |node: &NodeId| graph.find(classes[node]);
    let statistics = Statistics {
        iterations: runner.iterations.len(),
        nodes: graph.total_number_of_nodes(),
        classes: graph.number_of_classes(),
        nodes_before,
        fired,
        stop,
    };
    let results: Vec<Id> = function.results.iter().map(class).collect();
    let effects = roots(&function.graph, &[]).iter().map(class).collect();
    let (name, params) = (function.name.clone(), function.params.clone());
    Ok(Saturated { name, params, results, effects, statistics, graph })
}
