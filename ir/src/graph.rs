//! A data-flow graph of operations, on petgraph behind a small interface.

use crate::infer::infer;
use crate::op::Op;
use crate::shape::Type;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::collections::{BTreeMap, BTreeSet};

/// A node of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NodeIndex);

impl NodeId {
    /// A number that is unique in the graph; not dense once nodes were removed.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// An operation and its result's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// The type of the result.
    pub ty: Type,
}

/// Nodes in data-flow order; edges go from operand to user and carry the operand's position.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: StableDiGraph<Node, usize>,
}

impl Graph {
    /// Adds a node; its type is inferred. The error says what is wrong with the operands.
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, String> {
        let types: Vec<&Type> = operands.iter().map(|&operand| self.ty(operand)).collect();
        let ty = infer(&op, &types).map_err(|error| format!("{}: {error}", op.name()))?;
        let node = self.nodes.add_node(Node { op, ty });
        for (position, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(operand.0, node, position);
        }
        Ok(NodeId(node))
    }

    /// Whether `node` is a node of this graph.
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains_node(node.0)
    }

    /// The node's operation.
    pub fn op(&self, node: NodeId) -> &Op {
        &self.nodes[node.0].op
    }

    /// The type of the node's result.
    pub fn ty(&self, node: NodeId) -> &Type {
        &self.nodes[node.0].ty
    }

    /// The node's operands in order.
    pub fn operands(&self, node: NodeId) -> Vec<NodeId> {
        let edges = self.nodes.edges_directed(node.0, Direction::Incoming);
        let mut operands: Vec<_> = edges.map(|edge| (*edge.weight(), NodeId(edge.source()))).collect();
        operands.sort_unstable();
        operands.into_iter().map(|(_, operand)| operand).collect()
    }

    /// The nodes that use this one, each once, in the order they were added.
    pub fn users(&self, node: NodeId) -> Vec<NodeId> {
        let users: BTreeSet<_> = self.nodes.neighbors_directed(node.0, Direction::Outgoing).map(NodeId).collect();
        users.into_iter().collect()
    }

    /// Makes every user of `old` use `new` instead. Results of the function are the caller's to replace.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        let edges: Vec<_> = self
            .nodes
            .edges_directed(old.0, Direction::Outgoing)
            .map(|edge| (edge.id(), edge.target(), *edge.weight()))
            .collect();
        for (edge, user, position) in edges {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(new.0, user, position);
        }
    }

    /// Removes every node that `roots` do not need.
    pub fn retain_reachable(&mut self, roots: &[NodeId]) {
        let live = self.reachable(roots);
        self.nodes.retain_nodes(|_, node| live.contains(&NodeId(node)));
    }

    /// Everything that `roots` are computed from, themselves included.
    pub fn reachable(&self, roots: &[NodeId]) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::new();
        let mut pending = roots.to_vec();
        while let Some(node) = pending.pop() {
            if seen.insert(node) {
                pending.extend(self.operands(node));
            }
        }
        seen
    }

    /// All nodes, each after its operands; among the possible orders the one that follows the order in
    /// which nodes were added.
    pub fn topological(&self) -> Vec<NodeId> {
        let mut missing: BTreeMap<NodeId, usize> =
            self.nodes.node_indices().map(|node| (NodeId(node), self.operands(NodeId(node)).len())).collect();
        let mut ready: BTreeSet<NodeId> =
            missing.iter().filter(|(_, count)| **count == 0).map(|(node, _)| *node).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for edge in self.nodes.edges_directed(node.0, Direction::Outgoing) {
                let user = NodeId(edge.target());
                let count = missing.get_mut(&user).expect("users are nodes of the graph");
                *count -= 1;
                if *count == 0 {
                    ready.insert(user);
                }
            }
        }
        order
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
