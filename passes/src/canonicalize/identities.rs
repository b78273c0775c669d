//! Operations that change nothing: `x * 1`, a reshape to the same shape, a conversion there and back.
//!
//! All are exact except that `x + 0` may keep the sign of a zero that the addition would have dropped.

use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::{BinaryOp, Op, UnaryOp};

/// Adds a node, or returns the existing one that it would equal.
pub fn emit(graph: &mut Graph, op: Op, operands: &[NodeId]) -> Result<NodeId, String> {
    let op = match merge(graph, &op, operands) {
        Some((merged, operand)) => return emit(graph, merged, &[operand]),
        None => op,
    };
    match neutral(graph, &op, operands) {
        Some(node) => Ok(node),
        None => graph.add(op, operands),
    }
}

/// The operand that the operation's result equals.
fn neutral(graph: &Graph, op: &Op, operands: &[NodeId]) -> Option<NodeId> {
    let first = *operands.first()?;
    let ty = graph.ty(first).as_tensor()?;
    let keep = |same: bool| same.then_some(first);
    match op {
        Op::Binary(binary) => {
            let second = operands[1];
            let (left, right) = (splat(graph, first), splat(graph, second));
            match binary {
                BinaryOp::Multiply if left == Some(1.0) => Some(second),
                BinaryOp::Add if left == Some(0.0) => Some(second),
                BinaryOp::Multiply | BinaryOp::Divide => keep(right == Some(1.0)),
                BinaryOp::Add | BinaryOp::Subtract => keep(right == Some(0.0)),
                BinaryOp::Maximum | BinaryOp::Minimum => keep(first == second),
            }
        }
        Op::Unary(UnaryOp::Negate) => match graph.op(first) {
            Op::Unary(UnaryOp::Negate) => Some(graph.operands(first)[0]),
            _ => None,
        },
        Op::Select => (operands[1] == operands[2]).then_some(operands[1]),
        Op::Convert { to } if *to == ty.dtype => Some(first),
        Op::Convert { to } => match graph.op(first) {
            Op::Convert { .. } => {
                let original = graph.operands(first)[0];
                let from = graph.ty(original).as_tensor()?.dtype;
                (from == *to && widens(from, ty.dtype)).then_some(original)
            }
            _ => None,
        },
        Op::Reshape { shape } | Op::Broadcast { shape } => keep(*shape == ty.shape),
        Op::Permute { order } => keep(order.is_sorted()),
        Op::Slice { axis, start, end } => keep(*start == 0 && ty.shape.0[*axis].as_fixed() == Some(*end)),
        Op::Concat { .. } => keep(operands.len() == 1),
        Op::Gather => match graph.op(operands[1]) {
            Op::Iota { shape, .. } => keep(shape.0.first() == ty.shape.0.first()),
            _ => None,
        },
        _ => None,
    }
}

/// One operation that does the work of this one and its operand's together, and what to apply it to.
fn merge(graph: &Graph, op: &Op, operands: &[NodeId]) -> Option<(Op, NodeId)> {
    let &[operand] = operands else { return None };
    let merged = match (op, graph.op(operand)) {
        (Op::Reshape { .. }, Op::Reshape { .. }) | (Op::Broadcast { .. }, Op::Broadcast { .. }) => op.clone(),
        (Op::Permute { order: outer }, Op::Permute { order: inner }) => {
            Op::Permute { order: outer.iter().map(|&axis| inner[axis]).collect() }
        }
        (Op::Slice { axis: outer, start, end }, Op::Slice { axis, start: offset, .. }) if outer == axis => {
            Op::Slice { axis: *axis, start: start + offset, end: end + offset }
        }
        _ => return None,
    };
    Some((merged, graph.operands(operand)[0]))
}

/// The value of a constant that has only one.
fn splat(graph: &Graph, node: NodeId) -> Option<f64> {
    match graph.op(node) {
        Op::Constant { values, .. } if values.len() == 1 => Some(values[0].get()),
        _ => None,
    }
}

/// Whether every value of `from` is a value of `to`.
fn widens(from: DType, to: DType) -> bool {
    from == to || (to == DType::F32 && matches!(from, DType::BF16 | DType::F16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::dim::{Dim, Symbol};
    use llmc_ir::shape::{Shape, Type};

    fn with_input(ty: Type) -> (Graph, NodeId) {
        let mut graph = Graph::default();
        let x = graph.add(Op::Input { index: 0, ty }, &[]).unwrap();
        (graph, x)
    }

    fn rows() -> Type {
        Type::tensor(DType::BF16, &[Dim::from(Symbol::Tokens), 8.into()])
    }

    fn constant(graph: &mut Graph, value: f64) -> NodeId {
        let shape = Shape::of(&[Dim::from(Symbol::Tokens), 8.into()]);
        graph.add(Op::Constant { values: vec![value.into()], dtype: DType::BF16, shape }, &[]).unwrap()
    }

    #[test]
    fn neutral_elements_vanish_on_the_sides_where_they_are_neutral() {
        let (mut graph, x) = with_input(rows());
        let (zero, one) = (constant(&mut graph, 0.0), constant(&mut graph, 1.0));
        for (op, operands, vanishes) in [
            (BinaryOp::Multiply, [x, one], true),
            (BinaryOp::Multiply, [one, x], true),
            (BinaryOp::Multiply, [x, zero], false),
            (BinaryOp::Add, [zero, x], true),
            (BinaryOp::Subtract, [x, zero], true),
            (BinaryOp::Subtract, [zero, x], false),
            (BinaryOp::Divide, [x, one], true),
            (BinaryOp::Divide, [one, x], false),
            (BinaryOp::Maximum, [x, zero], false),
        ] {
            assert_eq!(emit(&mut graph, Op::Binary(op), &operands) == Ok(x), vanishes, "{op:?} {operands:?}");
        }
    }

    #[test]
    fn conversions_there_and_back_vanish_only_if_nothing_is_lost() {
        let (mut graph, x) = with_input(rows());
        let wide = emit(&mut graph, Op::Convert { to: DType::F32 }, &[x]).unwrap();
        assert_eq!(emit(&mut graph, Op::Convert { to: DType::BF16 }, &[wide]), Ok(x));
        let half = emit(&mut graph, Op::Convert { to: DType::F16 }, &[x]).unwrap();
        assert_ne!(emit(&mut graph, Op::Convert { to: DType::BF16 }, &[half]), Ok(x));
    }

    #[test]
    fn rearrangements_merge() {
        let (mut graph, x) = with_input(rows());
        let shape = |dims: &[usize]| {
            Shape([Dim::from(Symbol::Tokens)].into_iter().chain(dims.iter().map(|&d| d.into())).collect())
        };
        let heads = emit(&mut graph, Op::Reshape { shape: shape(&[2, 4]) }, &[x]).unwrap();
        assert_eq!(emit(&mut graph, Op::Reshape { shape: shape(&[8]) }, &[heads]), Ok(x));
        let swapped = emit(&mut graph, Op::Permute { order: vec![2, 0, 1] }, &[heads]).unwrap();
        assert_eq!(emit(&mut graph, Op::Permute { order: vec![1, 2, 0] }, &[swapped]), Ok(heads));
        assert_eq!(emit(&mut graph, Op::Slice { axis: 1, start: 0, end: 8 }, &[x]), Ok(x));
        let middle = emit(&mut graph, Op::Slice { axis: 1, start: 2, end: 7 }, &[x]).unwrap();
        let inner = emit(&mut graph, Op::Slice { axis: 1, start: 1, end: 3 }, &[middle]).unwrap();
        assert_eq!(graph.op(inner), &Op::Slice { axis: 1, start: 3, end: 5 });
        assert_eq!(graph.operands(inner), [x]);
    }

    #[test]
    fn gathering_every_row_in_order_vanishes() {
        let (mut graph, x) = with_input(rows());
        let iota = |symbol: Symbol| Op::Iota { axis: 0, shape: Shape::of(&[symbol]) };
        let all = graph.add(iota(Symbol::Tokens), &[]).unwrap();
        let some = graph.add(iota(Symbol::Samples), &[]).unwrap();
        assert_eq!(emit(&mut graph, Op::Gather, &[x, all]), Ok(x));
        assert_ne!(emit(&mut graph, Op::Gather, &[x, some]), Ok(x));
    }
}
