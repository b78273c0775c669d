//! Checks of graphs and functions.

use super::Report;
use crate::graph::{Graph, NodeId};
use crate::infer::infer;
use crate::module::Function;
use crate::op::Op;
use crate::shape::Type;
use crate::text::NodeNames;
use std::collections::BTreeMap;

/// Reports what is wrong with a function.
pub(super) fn verify(function: &Function, report: &mut Report) {
    report.enter(&format!("@{}", function.name));
    report.params(&function.params);
    let names = NodeNames::of_function(function);
    let types: Vec<_> = function.params.iter().map(|param| Some(param.ty.clone())).collect();
    verify_graph(&function.graph, &names, &types, "", report);
    for (index, &node) in function.results.iter().enumerate() {
        if function.graph.contains(node) {
            report.result_type(names.get(node), function.graph.ty(node));
        } else {
            let help = "replace results together with uses when a node is removed";
            report.add("", format!("result {index} is not a node of the graph"), help);
        }
    }
}

/// Reports what is wrong with a graph whose inputs have the given types (`None`: unknown). `place` is put in front
/// of node names.
pub(super) fn verify_graph(
    graph: &Graph,
    names: &NodeNames,
    inputs: &[Option<Type>],
    place: &str,
    report: &mut Report,
) {
    let order = graph.topological();
    if order.len() != graph.len() {
        let help = "find the replacement that made a node its own ancestor";
        report.add(place, format!("{} nodes are on a cycle or behind one", graph.len() - order.len()), help);
    }
    for &node in &order {
        let op = graph.op(node);
        let name = format!("{place}{} = {}", names.get(node), op.name());
        let operands = graph.operands(node);
        let types: Vec<_> = operands.iter().map(|&operand| graph.ty(operand)).collect();
        match infer(op, &types) {
            Err(message) => report.add(&*name, message, "make the operands fit"),
            Ok(ty) if ty != *graph.ty(node) => {
                let message = format!("its type is {}, its operands make it {ty}", graph.ty(node));
                report.add(&*name, message, "replace a node only by one of the same type");
            }
            Ok(_) => {}
        }
        if let Op::Input { index, ty } = op {
            match inputs.get(*index) {
                None => {
                    let message = format!("input {index} does not exist, there are {}", inputs.len());
                    report.add(&*name, message, "add the parameter or use another one");
                }
                Some(Some(expected)) if expected != ty => {
                    let message = format!("input {index} is taken for {ty}, it is {expected}");
                    report.add(&*name, message, "give both the same type");
                }
                Some(_) => {}
            }
        }
    }
    verify_caches(graph, names, &order, place, report);
}

/// A cache's states are a chain: each is written at most once, and attention reads the last one only.
fn verify_caches(graph: &Graph, names: &NodeNames, order: &[NodeId], place: &str, report: &mut Report) {
    // An input may occur as several nodes; the cache behind it is one.
    let mut states: BTreeMap<(usize, Option<NodeId>), (NodeId, Vec<NodeId>)> = BTreeMap::new();
    for &node in order.iter().filter(|&&node| matches!(graph.ty(node), Type::Kv(_))) {
        let key = match graph.op(node) {
            Op::Input { index, .. } => (*index, None),
            _ => (0, Some(node)),
        };
        states.entry(key).or_insert((node, Vec::new())).1.extend(graph.users(node));
    }
    for (state, users) in states.into_values() {
        let is_write = |node: &&NodeId| matches!(graph.op(**node), Op::KvWrite { .. });
        let writes: Vec<_> = users.iter().filter(is_write).collect();
        let place = format!("{place}{}", names.get(state));
        if writes.len() > 1 {
            let users: Vec<_> = writes.iter().map(|&&node| names.get(node)).collect();
            let message = format!("this state of the cache is written {} times: {}", writes.len(), users.join(", "));
            report.add(&*place, message, "let each write take the one before it");
        }
        if let (Some(&&write), true) = (writes.first(), writes.len() < users.len()) {
            let message = format!("this state of the cache is read although {} overwrites it", names.get(write));
            report.add(&*place, message, "read the last state of the chain");
        }
    }
}
