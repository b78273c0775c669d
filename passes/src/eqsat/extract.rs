//! Extraction: from an e-graph the cheapest form of a function, shared work counted once.
//!
//! egg's own extractor prices terms as trees: it would pay for a merged product once per part and so never merge. Here
//! the price of a class is that of the set of nodes it needs (greedy DAG extraction): sets grow from the leaves up, each
//! class keeping the cheapest set seen, until no class finds a cheaper one. A local search behind it finds what only pays
//! when several users choose it together.

use super::analysis::Graph;
use super::cost::{Target, Term};
use super::language::Node;
use super::saturate::Saturated;
use egg::Id;
use llmc_ir::graph::NodeId;
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use std::collections::{BTreeMap, BTreeSet};

/// A node chosen for each class that a function needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice<'g> {
    /// The node and its seconds, by class.
    pub nodes: BTreeMap<Id, (&'g Node, f64)>,
}

impl<'g> Choice<'g> {
    /// Seconds of all nodes together.
    pub fn seconds(&self) -> f64 {
        self.nodes.values().map(|(_, seconds)| seconds).sum()
    }

    /// Takes in what another choice needs; classes that are here already stay as they are.
    fn unite(&mut self, other: &Choice<'g>) {
        for (&class, &chosen) in &other.nodes {
            self.nodes.entry(class).or_insert(chosen);
        }
    }
}

/// Chooses the cheapest form for a target: what growing sets finds, improved as long as sharing one more product pays.
///
/// A product of several users is dearer than each one's own, so no single class would choose it. Each one is therefore
/// tried as if it were free; if the form that comes of it is cheaper at its true price, it stays.
///
/// # Errors
/// If a class has no finite form, which saturation of a function cannot cause.
pub fn extract<'g>(saturated: &'g Saturated, target: &Target<'_>) -> Result<Choice<'g>, String> {
    let candidates = candidates(&saturated.graph, target);
    let mut shared: BTreeSet<Id> = BTreeSet::new();
    let mut best = grow(saturated, &candidates, &shared)?;
    let mut anchors: Vec<Id> = candidates.iter().filter(|(_, node, _)| is_anchor(node)).map(|(id, ..)| *id).collect();
    anchors.dedup();
    loop {
        let mut improved = false;
        for &class in &anchors {
            // One that is chosen already may still be worth more: to users that have a cheaper way on their own.
            if shared.contains(&class) {
                continue;
            }
            shared.insert(class);
            let tried = grow(saturated, &candidates, &shared)?;
            if tried.seconds() < best.seconds() * (1.0 - 1e-12) {
                best = tried;
                improved = true;
            } else {
                shared.remove(&class);
            }
        }
        if !improved {
            return Ok(best);
        }
    }
}

/// Whether a node anchors a kernel, which is what is worth sharing.
fn is_anchor(node: &Node) -> bool {
    matches!(node.op, Op::Dot { .. } | Op::Attend(_) | Op::Reduce { .. })
}

/// What is paid of a shared class: next to nothing, and still less for the cheaper one of its nodes.
const SHARED_PART: f64 = 1e-6;

/// Grows the cheapest set of each class, shared classes being almost free; the prices in the result are the true ones.
fn grow<'g>(
    saturated: &Saturated,
    candidates: &[(Id, &'g Node, f64)],
    shared: &BTreeSet<Id>,
) -> Result<Choice<'g>, String> {
    let mut best: BTreeMap<Id, (Choice<'g>, f64)> = BTreeMap::new();
    loop {
        let mut changed = false;
        for &(class, node, seconds) in candidates {
            let Some(choice) = with_operands(&best, class, node, seconds) else { continue };
            let paid = choice.nodes.iter().map(|(class, (_, seconds))| match shared.contains(class) {
                true => seconds * SHARED_PART,
                false => *seconds,
            });
            let total: f64 = paid.sum();
            let known = best.get(&class).map_or(f64::INFINITY, |(_, known)| *known);
            // A difference below rounding is none, else sums of equal prices in other orders would alternate.
            if total < known * (1.0 - 1e-12) {
                best.insert(class, (choice, total));
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let mut all = Choice::default();
    for root in roots(saturated) {
        let (choice, _) =
            best.get(&root).ok_or_else(|| format!("function @{}: a class has no form", saturated.name))?;
        all.unite(choice);
    }
    Ok(needed(&all, &roots(saturated)))
}

/// Every node with its class and seconds, in an order that equal e-graphs share.
pub fn candidates<'g>(graph: &'g Graph, target: &Target<'_>) -> Vec<(Id, &'g Node, f64)> {
    let nodes = graph.classes().flat_map(|class| class.nodes.iter().map(|node| (class.id, node)));
    let mut candidates: Vec<_> =
        nodes.map(|(class, node)| (class, node, Term::of_node(graph, class, node).price(target).seconds)).collect();
    candidates.sort_by(|(a, x, _), (b, y, _)| (a, x).cmp(&(b, y)));
    candidates
}

/// The classes that must be computed.
pub fn roots(saturated: &Saturated) -> Vec<Id> {
    saturated.results.iter().chain(&saturated.effects).copied().collect()
}

/// What a node needs, itself included; `None` while an operand has no form or needs the class itself.
fn with_operands<'g>(
    best: &BTreeMap<Id, (Choice<'g>, f64)>,
    class: Id,
    node: &'g Node,
    seconds: f64,
) -> Option<Choice<'g>> {
    let mut choice = Choice::default();
    for operand in &node.operands {
        let (needs, _) = best.get(operand)?;
        if needs.nodes.contains_key(&class) {
            return None;
        }
        choice.unite(needs);
    }
    choice.nodes.insert(class, (node, seconds));
    Some(choice)
}

/// Those of the chosen nodes that the roots reach: uniting sets can leave some behind.
fn needed<'g>(all: &Choice<'g>, roots: &[Id]) -> Choice<'g> {
    let mut kept = Choice::default();
    let mut pending = roots.to_vec();
    while let Some(class) = pending.pop() {
        if let (false, Some(&(node, seconds))) = (kept.nodes.contains_key(&class), all.nodes.get(&class)) {
            pending.extend(&node.operands);
            kept.nodes.insert(class, (node, seconds));
        }
    }
    kept
}

/// The function of a choice. Nodes come in the order in which results and effects need them.
///
/// # Errors
/// If the chosen nodes depend on each other in a circle.
pub fn function(saturated: &Saturated, choice: &Choice<'_>) -> Result<Function, String> {
    let failed = |error: String| format!("function @{}: {error}", saturated.name);
    let mut graph = llmc_ir::graph::Graph::default();
    let mut built: BTreeMap<Id, NodeId> = BTreeMap::new();
    // Depth first: a class is entered once, and left when its operands are built.
    let mut pending: Vec<(Id, bool)> = roots(saturated).into_iter().rev().map(|class| (class, false)).collect();
    let mut entered: Vec<Id> = Vec::new();
    while let Some((class, operands_built)) = pending.pop() {
        if built.contains_key(&class) {
            continue;
        }
        let (node, _) = choice.nodes.get(&class).ok_or_else(|| failed("a class was not chosen".into()))?;
        if operands_built {
            let operands: Option<Vec<NodeId>> = node.operands.iter().map(|id| built.get(id).copied()).collect();
            let operands = operands.ok_or_else(|| failed("the chosen nodes form a circle".into()))?;
            built.insert(class, graph.add(node.op.clone(), &operands).map_err(failed)?);
        } else {
            if entered.contains(&class) {
                return Err(failed("the chosen nodes form a circle".into()));
            }
            entered.push(class);
            pending.push((class, true));
            pending.extend(node.operands.iter().rev().map(|&operand| (operand, false)));
        }
    }
    let results = saturated.results.iter().map(|class| built[class]).collect();
    Ok(Function { name: saturated.name.clone(), params: saturated.params.clone(), graph, results })
}
