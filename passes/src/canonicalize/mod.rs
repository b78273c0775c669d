//! Canonicalisation: rewrites after which the graph is never worse. They run before and after specialisation.
//!
//! | pass | idea |
//! |---|---|
//! | [`fold()`] | computes what depends on constants alone |
//! | [`identities()`] | drops operations that change nothing |
//! | [`cse`] | merges nodes that compute the same |
//! | [`dce`] | removes what no result needs |

mod fold;
mod identities;

use crate::pass::{Context, State};
use crate::rebuild::rebuild;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::{Function, Module};
use llmc_ir::op::Op;
use std::collections::BTreeMap;

/// Constant folding: what depends on constants alone is computed now.
pub fn fold(state: State, _: &Context) -> Result<State, String> {
    each_function(state, |function| rebuild(function, fold::emit))
}

/// Identities: operations that change nothing go.
pub fn identities(state: State, _: &Context) -> Result<State, String> {
    each_function(state, |function| rebuild(function, identities::emit))
}

/// Common subexpression elimination: the first of several equal nodes serves all users.
pub fn cse(state: State, _: &Context) -> Result<State, String> {
    each_function(state, |function| {
        let mut known: BTreeMap<(Op, Vec<NodeId>), NodeId> = BTreeMap::new();
        rebuild(function, |graph, op, operands| {
            let key = (op.clone(), operands.to_vec());
            if let Some(&node) = known.get(&key) {
                return Ok(node);
            }
            let node = graph.add(op, operands)?;
            known.insert(key, node);
            Ok(node)
        })
    })
}

/// Dead code elimination: drops nodes that neither results nor writes to the KV cache need, and functions that
/// are never called.
pub fn dce(state: State, _: &Context) -> Result<State, String> {
    state.map_modules(|module| {
        let Module { functions, calls, .. } = module;
        functions.retain(|function| calls.iter().any(|call| call.function == function.name));
        functions.iter_mut().try_for_each(sweep)
    })
}

/// Drops the dead nodes of one function.
pub(crate) fn sweep(function: &mut Function) -> Result<(), String> {
    let roots = roots(&function.graph, &function.results);
    function.graph.retain_reachable(&roots);
    rebuild(function, |graph, op, operands| graph.add(op, operands))
}

/// What must stay: the results, and every write to the cache, since later steps see it.
pub(crate) fn roots(graph: &Graph, results: &[NodeId]) -> Vec<NodeId> {
    let writes = graph.topological().into_iter().filter(|&node| matches!(graph.op(node), Op::KvWrite { .. }));
    results.iter().copied().chain(writes).collect()
}

fn each_function(state: State, rewrite: impl Fn(&mut Function) -> Result<(), String>) -> Result<State, String> {
    state.map_modules(|module| module.functions.iter_mut().try_for_each(&rewrite))
}
