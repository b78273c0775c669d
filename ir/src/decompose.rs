//! What the named operations mean, in primitives.
//!
//! [`attend`] defines [`Op::Attend`]: the interpreter evaluates the graph that it builds. [`Op::KvWrite`] is a
//! primitive itself, since it changes state: row r of sequence s is stored at `positions[r]` of the layer's cache
//! of s, which grows by one position or has one overwritten.

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::graph::{Graph, NodeId};
use crate::module::{Function, Param};
use crate::op::{Attention, BinaryOp, CompareOp, DotMethod, Op, ReduceOp, UnaryOp};
use crate::shape::{Shape, Type};

/// Masked softmax attention of one sequence (Vaswani et al., "Attention is all you need", 2017, with the grouped
/// heads of Ainslie et al., "GQA", 2023), in f32 after the element type of its inputs.
///
/// Parameters of the result: `query[tokens, heads*head_dim]`, `keys[context, kv_heads*head_dim]`, `values` like
/// keys, `positions: i32[tokens]` of the query's rows; key j has position j. Its one result is
/// `[tokens, heads*head_dim]` in `dtype`. Each row must see at least one key: `context` exceeds all positions.
pub fn attend(attention: &Attention, head_dim: usize, dtype: DType) -> Result<Function, String> {
    let Attention { heads, kv_heads, scale, window, .. } = *attention;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} query heads are not a multiple of {kv_heads} key/value heads"));
    }
    let (tokens, context) = (Dim::from(Symbol::Tokens), Dim::from(Symbol::Context));
    let group = Dim::fixed(heads / kv_heads);
    let (head_dim, kv_heads) = (Dim::fixed(head_dim), Dim::fixed(kv_heads));
    let width = |heads: Dim| heads.times(head_dim).ok_or("the heads are too large");
    let (query_width, kv_width) = (width(heads.into())?, width(kv_heads)?);
    let mut b = Body::default();
    let query = b.param("query", dtype, &[tokens, query_width])?;
    let keys = b.param("keys", dtype, &[context, kv_width])?;
    let values = b.param("values", dtype, &[context, kv_width])?;
    let positions = b.param("positions", DType::I32, &[tokens])?;

    // scores[kv head, head of the group, row, key] = scale * query . key
    let query = b.reshape(query, &[tokens, kv_heads, group, head_dim])?;
    let query = b.add(Op::Permute { order: vec![1, 2, 0, 3] }, &[query])?;
    let keys = b.reshape(keys, &[context, kv_heads, head_dim])?;
    let keys = b.add(Op::Permute { order: vec![1, 0, 2] }, &[keys])?;
    let scores = b.add(Op::Dot { left: 3, right: 2, batch: 1, method: DotMethod::Gemm }, &[query, keys])?;
    let shape = Shape(vec![kv_heads, group, tokens, context]);
    let scale = b.constant(scale.get(), DType::F32, &shape)?;
    let scores = b.add(Op::Binary(BinaryOp::Multiply), &[scores, scale])?;

    // Causal: key <= row. Window: row < key + window.
    let row = b.reshape(positions, &[1.into(), 1.into(), tokens, 1.into()])?;
    let row = b.broadcast(row, &shape)?;
    let key = b.add(Op::Iota { axis: 3, shape: shape.clone() }, &[])?;
    let hidden = b.constant(f64::NEG_INFINITY, DType::F32, &shape)?;
    let causal = b.add(Op::Compare(CompareOp::LessEqual), &[key, row])?;
    let mut scores = b.add(Op::Select, &[causal, scores, hidden])?;
    if let Some(window) = window {
        let window = b.constant(window as f64, DType::I32, &shape)?;
        let end = b.add(Op::Binary(BinaryOp::Add), &[key, window])?;
        let near = b.add(Op::Compare(CompareOp::Less), &[row, end])?;
        scores = b.add(Op::Select, &[near, scores, hidden])?;
    }

    // softmax(scores) . values, divided by the sum at the end
    let largest = b.add(Op::Reduce { op: ReduceOp::Max, axis: 3 }, &[scores])?;
    let largest = b.broadcast(largest, &shape)?;
    let shifted = b.add(Op::Binary(BinaryOp::Subtract), &[scores, largest])?;
    let weights = b.add(Op::Unary(UnaryOp::Exp), &[shifted])?;
    let sum = b.add(Op::Reduce { op: ReduceOp::Sum, axis: 3 }, &[weights])?;
    let values = b.reshape(values, &[context, kv_heads, head_dim])?;
    let values = b.add(Op::Permute { order: vec![1, 0, 2] }, &[values])?;
    let values = b.add(Op::Convert { to: DType::F32 }, &[values])?;
    let mixed = b.add(Op::Dot { left: 3, right: 1, batch: 1, method: DotMethod::Gemm }, &[weights, values])?;
    let sum = b.broadcast(sum, &Shape(vec![kv_heads, group, tokens, head_dim]))?;
    let mixed = b.add(Op::Binary(BinaryOp::Divide), &[mixed, sum])?;
    let rows = b.add(Op::Permute { order: vec![2, 0, 1, 3] }, &[mixed])?;
    let rows = b.reshape(rows, &[tokens, query_width])?;
    let result = b.add(Op::Convert { to: dtype }, &[rows])?;
    Ok(Function { name: "attend".into(), params: b.params, graph: b.graph, results: vec![result] })
}

/// A graph under construction. Unlike [`crate::builder::FunctionBuilder`] it knows nothing of models.
#[derive(Default)]
struct Body {
    params: Vec<Param>,
    graph: Graph,
}

impl Body {
    fn add(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, String> {
        self.graph.add(op, operands)
    }

    fn param(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> Result<NodeId, String> {
        let ty = Type::tensor(dtype, dims);
        self.params.push(Param { name: name.into(), ty: ty.clone() });
        self.add(Op::Input { index: self.params.len() - 1, ty }, &[])
    }

    fn reshape(&mut self, x: NodeId, dims: &[Dim]) -> Result<NodeId, String> {
        self.add(Op::Reshape { shape: Shape::of(dims) }, &[x])
    }

    fn broadcast(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, String> {
        self.add(Op::Broadcast { shape: shape.clone() }, &[x])
    }

    /// A constant in a shape that may hold two symbols.
    fn constant(&mut self, value: f64, dtype: DType, shape: &Shape) -> Result<NodeId, String> {
        let one = Shape(vec![Dim::fixed(1); shape.rank()]);
        let scalar = self.add(Op::Constant { values: vec![value.into()], dtype, shape: one }, &[])?;
        self.broadcast(scalar, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::AttendMethod;

    #[test]
    fn impossible_heads_are_refused() {
        let attention =
            Attention { heads: 3, kv_heads: 2, scale: 1.0.into(), window: None, method: AttendMethod::Whole };
        assert!(attend(&attention, 4, DType::F32).unwrap_err().contains("multiple"));
        let huge = Attention { heads: usize::MAX, kv_heads: 1, ..attention };
        assert!(attend(&huge, 4, DType::F32).is_err());
    }

    #[test]
    fn the_type_is_that_of_the_operation() {
        let attention =
            Attention { heads: 4, kv_heads: 2, scale: 0.5.into(), window: Some(3), method: AttendMethod::Whole };
        let function = attend(&attention, 8, DType::BF16).unwrap();
        let ty = function.graph.ty(function.results[0]);
        assert_eq!(*ty, function.params[0].ty);
    }
}
