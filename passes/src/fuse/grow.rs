//! Which node belongs to which region.

use super::Epilogues;
use super::space::{self, is_view};
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::region::Anchor;
use std::collections::{BTreeMap, BTreeSet};

/// A function's nodes, divided among regions.
pub(super) struct Partition {
    /// The regions; emptied ones stay in place so that indices keep their meaning.
    pub regions: Vec<Draft>,
    /// Where a node is computed. Nodes that are missing cost nothing and are repeated wherever they are used.
    pub region_of: BTreeMap<NodeId, usize>,
    /// Nodes that must be in memory as they are: results, and operands that kernels read at random.
    pub pinned: BTreeSet<NodeId>,
    live: BTreeSet<NodeId>,
    epilogues: Epilogues,
}

/// A region in the making.
pub(super) struct Draft {
    /// What shapes its iteration space.
    pub anchor: Anchor,
    /// What it computes.
    pub nodes: BTreeSet<NodeId>,
}

/// Divides the nodes of a function: greedily in topological order, then moving to later regions what only
/// they need and what would otherwise cross memory, then uniting the regions of each list of `merged` dots.
pub(super) fn grow(function: &Function, epilogues: Epilogues, merged: &[Vec<NodeId>]) -> Partition {
    let graph = &function.graph;
    let live = graph.reachable(&roots(function));
    let order: Vec<NodeId> = graph.topological().into_iter().filter(|node| live.contains(node)).collect();
    let mut pinned: BTreeSet<NodeId> = function.results.iter().copied().collect();
    pinned.extend(order.iter().flat_map(|&node| operands_in_memory(graph, node)));
    let mut partition = Partition { regions: Vec::new(), region_of: BTreeMap::new(), pinned, live, epilogues };
    let folded = folded(graph, &order, &partition.pinned);
    if !folded.is_empty() {
        partition.region_of.extend(folded.iter().map(|&node| (node, 0)));
        partition.regions.push(Draft { anchor: Anchor::Weights, nodes: folded.clone() });
    }
    let mut invariant = BTreeSet::new();
    for &node in order.iter().filter(|node| !folded.contains(node)) {
        if is_invariant(graph, node, &invariant) {
            invariant.insert(node);
        }
        let computed_here = invariant.contains(&node) && !partition.pinned.contains(&node);
        let in_memory = matches!(graph.op(node), Op::Input { .. } | Op::Step(_) | Op::Weight { .. });
        if !computed_here && !in_memory {
            partition.place(graph, node);
        }
    }
    for &node in order.iter().rev() {
        partition.sink(graph, node);
    }
    for dots in merged {
        partition.unite_merged(graph, dots);
    }
    partition
}

/// What a function is run for: its results, and what it leaves in the cache.
pub(super) fn roots(function: &Function) -> Vec<NodeId> {
    let graph = &function.graph;
    let writes = graph.topological().into_iter().filter(|&node| matches!(graph.op(node), Op::KvWrite { .. }));
    function.results.iter().copied().chain(writes).collect()
}

/// Nodes that are computed while compiling: arithmetic on weights alone that does not depend on a step's size, what is
/// made of it, and parts of weights that must be in memory as they are.
fn folded(graph: &Graph, order: &[NodeId], pinned: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let mut known: BTreeSet<NodeId> = BTreeSet::new();
    let mut folded = BTreeSet::new();
    for &node in order {
        let op = graph.op(node);
        let operands = graph.operands(node);
        let fixed = graph.ty(node).as_tensor().is_some_and(|ty| ty.shape.0.iter().all(|dim| dim.as_fixed().is_some()));
        let leaf = matches!(op, Op::Weight { .. } | Op::Constant { .. } | Op::Iota { .. });
        let inner = !op.is_leaf() && operands.iter().all(|operand| known.contains(operand));
        if !fixed || !(leaf || inner) {
            continue;
        }
        known.insert(node);
        let moves = matches!(op, Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Concat { .. });
        let has_weight = graph.reachable(&[node]).iter().any(|&below| matches!(graph.op(below), Op::Weight { .. }));
        let made_of_folded = operands.iter().any(|operand| folded.contains(operand));
        if inner && has_weight && (!moves || made_of_folded || pinned.contains(&node)) {
            folded.insert(node);
        }
    }
    folded
}

/// Operands that the node's kernel needs in memory, because it does not read them row by row.
fn operands_in_memory(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    match graph.op(node) {
        Op::Dot { .. } | Op::Gather | Op::Attend(_) => graph.operands(node),
        _ => Vec::new(),
    }
}

/// Whether the node is computed from weights and literals alone, element by element.
fn is_invariant(graph: &Graph, node: NodeId, invariant: &BTreeSet<NodeId>) -> bool {
    match graph.op(node) {
        Op::Weight { .. } | Op::Constant { .. } | Op::Iota { .. } => true,
        op => op.is_map() && graph.operands(node).iter().all(|operand| invariant.contains(operand)),
    }
}

impl Partition {
    /// Finds the node a region, or leaves it to its users if it is only indexing.
    fn place(&mut self, graph: &Graph, node: NodeId) {
        let op = graph.op(node);
        let anchor = match op {
            Op::Dot { .. } => Anchor::Dot,
            Op::Attend(_) => Anchor::Attend,
            _ => Anchor::Rows,
        };
        let operands = match op {
            Op::KvWrite { .. } => vec![graph.operands(node)[1]],
            op if op.is_map() || matches!(op, Op::Reduce { .. }) => graph.operands(node),
            _ => Vec::new(),
        };
        let candidates: BTreeSet<usize> =
            operands.iter().filter_map(|operand| self.region_of.get(operand)).copied().collect();
        for set in self.choices(&candidates) {
            let mut nodes: BTreeSet<NodeId> =
                set.iter().flat_map(|&region| self.regions[region].nodes.clone()).collect();
            nodes.insert(node);
            if self.can_be_one(graph, self.regions[set[0]].anchor, &nodes) {
                self.unite(&set, nodes);
                return;
            }
        }
        if !is_view(op) || self.pinned.contains(&node) {
            self.region_of.insert(node, self.regions.len());
            self.regions.push(Draft { anchor, nodes: BTreeSet::from([node]) });
        }
    }

    /// Sets of regions to unite with a node, the best first: dots before rows, all of a kind before the latest one.
    fn choices(&self, candidates: &BTreeSet<usize>) -> Vec<Vec<usize>> {
        let mut choices = Vec::new();
        for anchor in [Anchor::Dot, Anchor::Rows] {
            if anchor == Anchor::Dot && self.epilogues == Epilogues::Separate {
                continue;
            }
            let of_kind: Vec<usize> =
                candidates.iter().copied().filter(|&region| self.regions[region].anchor == anchor).collect();
            if of_kind.len() > 1 {
                choices.push(of_kind.clone());
            }
            choices.extend(of_kind.iter().rev().map(|&region| vec![region]));
        }
        choices
    }

    /// Whether the nodes can be one region: one iteration space, nothing that must go through memory inside, and
    /// no way out and back in through other regions.
    fn can_be_one(&self, graph: &Graph, anchor: Anchor, nodes: &BTreeSet<NodeId>) -> bool {
        let lefts: BTreeSet<NodeId> = nodes
            .iter()
            .filter(|&&node| matches!(graph.op(node), Op::Dot { .. }))
            .map(|&node| graph.operands(node)[0])
            .collect();
        lefts.len() <= 1
            && space::check(anchor, graph, nodes).is_ok()
            && nodes.iter().all(|&node| operands_in_memory(graph, node).iter().all(|operand| !nodes.contains(operand)))
            && self.is_convex(graph, nodes)
    }

    /// Whether no operand from outside depends on the nodes (values between regions, and indexing, included).
    fn is_convex(&self, graph: &Graph, nodes: &BTreeSet<NodeId>) -> bool {
        let outside = |node: NodeId| graph.operands(node).into_iter().filter(|operand| !nodes.contains(operand));
        let mut pending: Vec<NodeId> = nodes.iter().flat_map(|&node| outside(node)).collect();
        let mut seen = BTreeSet::new();
        while let Some(node) = pending.pop() {
            if nodes.contains(&node) {
                return false;
            }
            if !seen.insert(node) {
                continue;
            }
            pending.extend(graph.operands(node));
            // A region runs as a whole: whatever any of its nodes waits for, all of them wait for.
            let together = self.region_of.get(&node).map(|&region| &self.regions[region].nodes);
            let together = together.into_iter().flatten().filter(|other| !nodes.contains(other));
            pending.extend(together.filter(|other| !seen.contains(other)));
        }
        true
    }

    fn unite(&mut self, set: &[usize], nodes: BTreeSet<NodeId>) {
        let target = set[0];
        for &region in set {
            self.regions[region].nodes.clear();
        }
        self.region_of.extend(nodes.iter().map(|&node| (node, target)));
        self.regions[target].nodes = nodes;
    }

    /// Moves a node, and what only it needs, into the one region that uses it, if that leaves less to be written:
    /// everything that is needed of the old region in turn must be in memory anyway.
    fn sink(&mut self, graph: &Graph, node: NodeId) {
        let Some(&from) = self.region_of.get(&node) else { return };
        if self.regions[from].anchor == Anchor::Weights {
            return;
        }
        let users: BTreeSet<Option<usize>> =
            self.users(graph, node).iter().map(|user| self.region_of.get(user).copied()).collect();
        let [Some(to)] = users.into_iter().collect::<Vec<_>>()[..] else { return };
        if to == from || (self.epilogues == Epilogues::Separate && self.regions[to].anchor == Anchor::Dot) {
            return;
        }
        let Some(moved) = self.movable(graph, node, from) else { return };
        let nodes = self.regions[to].nodes.union(&moved).copied().collect();
        if self.can_be_one(graph, self.regions[to].anchor, &nodes) {
            self.regions[from].nodes.retain(|node| !moved.contains(node));
            self.region_of.extend(moved.iter().map(|&node| (node, to)));
            self.regions[to].nodes = nodes;
        }
    }

    /// Makes one region of those that hold the dots, where nothing between them has to go through memory. Dots that no
    /// result needs have no region.
    fn unite_merged(&mut self, graph: &Graph, dots: &[NodeId]) {
        let regions: BTreeSet<usize> = dots.iter().filter_map(|dot| self.region_of.get(dot)).copied().collect();
        let set: Vec<usize> = regions.into_iter().collect();
        let nodes: BTreeSet<NodeId> = set.iter().flat_map(|&region| self.regions[region].nodes.clone()).collect();
        let reads = |node: &NodeId| operands_in_memory(graph, *node).iter().any(|operand| nodes.contains(operand));
        let apart = nodes.iter().any(reads) || !self.is_convex(graph, &nodes);
        if set.len() > 1 && !apart && self.epilogues == Epilogues::Fused {
            self.unite(&set, nodes);
        }
    }

    fn users(&self, graph: &Graph, node: NodeId) -> Vec<NodeId> {
        graph.users(node).into_iter().filter(|user| self.live.contains(user)).collect()
    }

    /// `node` and the nodes of its region that only it needs, if all else that it needs is in memory anyway.
    fn movable(&self, graph: &Graph, node: NodeId, from: usize) -> Option<BTreeSet<NodeId>> {
        let mut moved = BTreeSet::new();
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            if self.pinned.contains(&node) || !graph.op(node).is_map() {
                return None;
            }
            moved.insert(node);
            let local = graph.operands(node).into_iter().filter(|operand| self.region_of.get(operand) == Some(&from));
            for operand in local.filter(|operand| !moved.contains(operand)).collect::<Vec<_>>() {
                let users = self.users(graph, operand);
                let outside = |user: &NodeId| !moved.contains(user) && self.region_of.get(user) != Some(&from);
                let in_memory = self.pinned.contains(&operand) || users.iter().any(outside);
                if in_memory {
                    continue;
                }
                if !users.iter().all(|user| moved.contains(user)) {
                    return None;
                }
                pending.push(operand);
            }
        }
        Some(moved)
    }
}
