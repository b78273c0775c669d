//! Functions that rules bring along for the soundness tests: small ones of rows `x: f32[tokens, 8]`.

use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::{Function, Param};
use llmc_ir::op::Op;
use llmc_ir::shape::{Shape, Type};

/// A function that returns what `body` makes of its rows.
pub fn example(body: impl FnOnce(&mut Graph, NodeId) -> Result<NodeId, String>) -> Function {
    example_of_many(|graph, x| Ok(vec![body(graph, x)?]))
}

/// The same with several results.
pub fn example_of_many(body: impl FnOnce(&mut Graph, NodeId) -> Result<Vec<NodeId>, String>) -> Function {
    let ty = Type::tensor(DType::F32, &[Dim::from(Symbol::Tokens), 8.into()]);
    let mut graph = Graph::default();
    let x = graph.add(Op::Input { index: 0, ty: ty.clone() }, &[]);
    let results = x.and_then(|x| body(&mut graph, x)).expect("examples are well-typed");
    Function { name: "example".into(), params: vec![Param { name: "x".into(), ty }], graph, results }
}

/// A weight.
pub fn weight(graph: &mut Graph, name: &str, dtype: DType, shape: &[usize]) -> Result<NodeId, String> {
    graph.add(Op::Weight { name: name.into(), ty: Type::tensor(dtype, shape) }, &[])
}

/// The shape of rows, behind the axis of tokens.
pub fn rows(columns: &[usize]) -> Shape {
    Shape([Dim::from(Symbol::Tokens)].into_iter().chain(columns.iter().map(|&size| size.into())).collect())
}
