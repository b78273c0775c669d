//! Rewriting by copying: a function's graph is built anew, operand before user, and a callback decides what each
//! node becomes. Ids come out dense and the order of nodes is kept, so that equal inputs give equal text.

use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use std::collections::BTreeMap;

/// Replaces the graph of `function`. For every node in order, `emit` gets the new graph, the node's operation and
/// its operands in the new graph, and returns the node that stands for it there.
///
/// # Errors
/// The first that `emit` reports, with the function's name; the function is then unchanged.
pub fn rebuild(
    function: &mut Function,
    mut emit: impl FnMut(&mut Graph, Op, &[NodeId]) -> Result<NodeId, String>,
) -> Result<(), String> {
    let mut graph = Graph::default();
    let mut copies: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for node in function.graph.topological() {
        let operands: Vec<NodeId> = function.graph.operands(node).iter().map(|operand| copies[operand]).collect();
        let copy = emit(&mut graph, function.graph.op(node).clone(), &operands)
            .map_err(|error| format!("function @{}: {error}", function.name))?;
        copies.insert(node, copy);
    }
    function.results = function.results.iter().map(|result| copies[result]).collect();
    function.graph = graph;
    Ok(())
}
