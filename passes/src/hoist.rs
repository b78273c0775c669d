//! Hoisting: what layers compute from step inputs and constants alone is the same in each of them, such as the
//! cosines and sines of rotary embeddings. It moves into a `prelude` function that runs once per step; layers
//! receive it as extra arguments.
//!
//! Only what costs something moves: a value must hold arithmetic, and it must be computed by two calls or more.
//! Reshapes and broadcasts of it stay where they are used, so that the small form travels between calls.

use crate::canonicalize::sweep;
use crate::fuse::unique_name;
use crate::pass::{Context, State};
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::{Argument, Call, Function, Module, Param};
use llmc_ir::op::Op;
use std::collections::{BTreeMap, BTreeSet};

/// Moves layer-invariant computations into a prelude. Applying it again changes nothing.
pub fn hoist(state: State, _: &Context) -> Result<State, String> {
    state.map_modules(hoist_module)
}

fn hoist_module(module: &mut Module) -> Result<(), String> {
    let mut prelude = Prelude::default();
    let mut candidates: Vec<BTreeMap<NodeId, NodeId>> = Vec::new();
    let mut computed_by: BTreeMap<NodeId, usize> = BTreeMap::new();
    for function in &module.functions {
        let calls = module.calls.iter().filter(|call| call.function == function.name).count();
        let found = prelude.candidates(function)?;
        for value in found.values().collect::<BTreeSet<_>>() {
            *computed_by.entry(*value).or_default() += calls;
        }
        candidates.push(found);
    }
    let worthwhile: Vec<NodeId> =
        computed_by.iter().filter(|(_, calls)| **calls >= 2).map(|(&value, _)| value).collect();
    if worthwhile.is_empty() {
        return Ok(());
    }

    let mut taken: BTreeSet<String> = module.functions.iter().flat_map(|f| &f.params).map(|p| p.name.clone()).collect();
    taken.extend(module.calls.iter().flat_map(|call| call.results.iter().cloned()));
    let names: BTreeMap<NodeId, String> =
        worthwhile.iter().map(|&value| (value, unique_name(prelude.graph.op(value).name(), '_', &mut taken))).collect();
    for (function, found) in module.functions.iter_mut().zip(&candidates) {
        let passed = replace(function, found, &names, &prelude.graph)?;
        for call in module.calls.iter_mut().filter(|call| call.function == function.name) {
            call.arguments.extend(passed.iter().cloned().map(Argument::Value));
        }
    }
    let name =
        unique_name("prelude", '_', &mut module.functions.iter().map(|function| function.name.clone()).collect());
    let results = worthwhile.iter().map(|value| names[value].clone()).collect();
    module.calls.insert(0, Call { function: name.clone(), scope: String::new(), arguments: Vec::new(), results });
    let mut function = Function { name, params: Vec::new(), graph: prelude.graph, results: worthwhile };
    sweep(&mut function)?;
    module.functions.insert(0, function);
    Ok(())
}

/// Invariant computations of all functions, each once.
#[derive(Default)]
struct Prelude {
    graph: Graph,
    known: BTreeMap<(Op, Vec<NodeId>), NodeId>,
    /// Nodes that hold arithmetic themselves or in what they are computed from.
    arithmetic: BTreeSet<NodeId>,
}

impl Prelude {
    /// Nodes of the function that could be passed in instead, and what they are in the prelude.
    fn candidates(&mut self, function: &Function) -> Result<BTreeMap<NodeId, NodeId>, String> {
        let graph = &function.graph;
        let mut invariant: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for node in graph.topological() {
            let op = graph.op(node);
            let operands: Option<Vec<NodeId>> =
                graph.operands(node).iter().map(|operand| invariant.get(operand).copied()).collect();
            if let (false, Some(operands)) = (matches!(op, Op::Input { .. } | Op::Weight { .. }), operands) {
                invariant.insert(node, self.add(op, operands)?);
            }
        }
        let needed_here = |node: NodeId| {
            function.results.contains(&node) || graph.users(node).iter().any(|user| !invariant.contains_key(user))
        };
        let mut pending: Vec<NodeId> = invariant.keys().copied().filter(|&node| needed_here(node)).collect();
        let mut found = BTreeMap::new();
        while let Some(node) = pending.pop() {
            if is_rearrangement(graph.op(node)) {
                pending.extend(graph.operands(node));
            } else if self.arithmetic.contains(&invariant[&node]) {
                found.insert(node, invariant[&node]);
            }
        }
        Ok(found)
    }

    fn add(&mut self, op: &Op, operands: Vec<NodeId>) -> Result<NodeId, String> {
        let key = (op.clone(), operands);
        if let Some(&node) = self.known.get(&key) {
            return Ok(node);
        }
        let node = self.graph.add(op.clone(), &key.1)?;
        if is_arithmetic(op) || key.1.iter().any(|operand| self.arithmetic.contains(operand)) {
            self.arithmetic.insert(node);
        }
        self.known.insert(key, node);
        Ok(node)
    }
}

/// Makes parameters of those values in `found` that have a name; returns the names in the order of the parameters.
fn replace(
    function: &mut Function,
    found: &BTreeMap<NodeId, NodeId>,
    names: &BTreeMap<NodeId, String>,
    prelude: &Graph,
) -> Result<Vec<String>, String> {
    let passed: BTreeMap<NodeId, &String> =
        found.values().filter_map(|value| Some((*value, names.get(value)?))).collect();
    let first = function.params.len();
    for (&value, name) in &passed {
        function.params.push(Param { name: (*name).clone(), ty: prelude.ty(value).clone() });
    }
    for (node, value) in found.iter().filter(|(_, value)| passed.contains_key(value)) {
        let index = first + passed.keys().take_while(|other| *other < value).count();
        let input = function.graph.add(Op::Input { index, ty: prelude.ty(*value).clone() }, &[])?;
        function.graph.replace_uses(*node, input);
        for result in function.results.iter_mut().filter(|result| *result == node) {
            *result = input;
        }
    }
    sweep(function)?;
    Ok(passed.into_values().cloned().collect())
}

/// Whether the operation computes something, as opposed to reading, converting or moving it.
fn is_arithmetic(op: &Op) -> bool {
    !(op.is_leaf() || matches!(op, Op::Convert { .. }) || is_rearrangement(op))
}

fn is_rearrangement(op: &Op) -> bool {
    matches!(op, Op::Reshape { .. } | Op::Permute { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Concat { .. })
}
