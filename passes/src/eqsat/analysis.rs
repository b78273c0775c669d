//! What is known of a class: the type of its values, and what they depend on.

use super::cost::dependence;
use super::language::Node;
use egg::{DidMerge, EGraph, Id};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::infer::infer;
use llmc_ir::shape::Type;

/// An e-graph over the IR.
pub type Graph = EGraph<Node, Analysis>;

/// The analysis; see [`Facts`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Analysis;

/// Facts about the values of a class. Equal terms have equal types, so merging two classes asserts it: a rule that
/// breaks it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The type of every term of the class.
    pub ty: Type,
    /// The axis along which the rows of a step lie; none if all rows share the values, or if it is a cache.
    pub row_axis: Option<usize>,
    /// What the values depend on; the least of the class's terms.
    pub dependence: Dependence,
}

/// What a value depends on. Smaller is known earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On nothing: it is known when the compiler runs, whatever the checkpoint.
    Literal,
    /// On weights: it is known when the checkpoint is.
    Weights,
    /// On the step.
    Runtime,
}

/// Rows are what a step has some of: tokens, samples or sequences. Positions of the context are none.
fn row_axis(ty: &Type) -> Option<usize> {
    let is_row = |dim: &Dim| dim.symbol.is_some_and(|symbol| symbol != Symbol::Context);
    ty.as_tensor()?.shape.0.iter().position(is_row)
}

impl egg::Analysis<Node> for Analysis {
    type Data = Facts;

    fn make(graph: &mut Graph, node: &Node, _: Id) -> Facts {
        let operands: Vec<&Facts> = node.operands.iter().map(|&operand| &graph[operand].data).collect();
        let types: Vec<&Type> = operands.iter().map(|facts| &facts.ty).collect();
        // Terms enter through `Terms::add`, which has inferred the type already.
        let ty = infer(&node.op, &types).unwrap_or_else(|error| panic!("{} is ill-typed: {error}", node.op.name()));
        let dependence = dependence(&node.op, operands.iter().map(|facts| facts.dependence));
        Facts { row_axis: row_axis(&ty), ty, dependence }
    }

    fn merge(&mut self, to: &mut Facts, from: Facts) -> DidMerge {
        assert_eq!(to.ty, from.ty, "a rewrite rule made terms of two types equal");
        assert_eq!(to.row_axis, from.row_axis, "a rewrite rule made terms with rows along different axes equal");
        let least = to.dependence.min(from.dependence);
        let merged = DidMerge(to.dependence != least, from.dependence != least);
        to.dependence = least;
        merged
    }
}
