//! A region's body in the making: nodes are added operand before user, and each source becomes one input.

use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, Region, Source};
use llmc_ir::shape::Type;

/// Nodes and inputs so far.
#[derive(Default)]
pub(crate) struct Body {
    graph: Graph,
    inputs: Vec<Source>,
    /// The node of each input.
    nodes: Vec<NodeId>,
}

impl Body {
    /// The node that reads a source.
    pub fn input(&mut self, source: &Source, ty: &Type) -> NodeId {
        if let Some(known) = self.inputs.iter().position(|input| input == source) {
            return self.nodes[known];
        }
        let node = self.add(Op::Input { index: self.inputs.len(), ty: ty.clone() }, &[]);
        self.inputs.push(source.clone());
        self.nodes.push(node);
        node
    }

    /// A copy of a node of a well-typed graph, over operands in this one.
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op, operands).expect("a copy of a well-typed node is well-typed")
    }

    /// The region.
    pub fn finish(self, name: String, anchor: Anchor, outputs: Vec<NodeId>) -> Region {
        Region { name, anchor, body: self.graph, inputs: self.inputs, outputs }
    }
}
