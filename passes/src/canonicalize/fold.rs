//! Constant folding: what depends on constants alone is computed now, by the interpreter, with the rounding that the
//! types ask for. Constants never grow by it: one value for all elements stays one value.

use llmc_ir::eval::{Mode, StepInputs, Value, eval_function};
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::infer::infer;
use llmc_ir::module::Function;
use llmc_ir::op::{Number, Op};
use llmc_ir::shape::{Shape, TensorType, Type};

/// Results with more elements stay what they are: a compiler is a slow computer, and its output a slow constant.
const MOST_ELEMENTS: usize = 4096;

/// Adds a node, or the constant that it would compute.
pub fn emit(graph: &mut Graph, op: Op, operands: &[NodeId]) -> Result<NodeId, String> {
    match folded(graph, &op, operands) {
        Some(constant) => graph.add(constant, &[]),
        None => graph.add(op, operands),
    }
}

fn folded(graph: &Graph, op: &Op, operands: &[NodeId]) -> Option<Op> {
    let constants: Vec<(&[Number], &TensorType)> =
        operands.iter().map(|&node| constant(graph, node)).collect::<Option<_>>()?;
    if constants.is_empty() {
        return None;
    }
    let types: Vec<&Type> = operands.iter().map(|&node| graph.ty(node)).collect();
    let TensorType { dtype, shape } = infer(op, &types).ok()?.as_tensor()?.clone();
    let uniform = constants.iter().all(|(values, _)| values.len() == 1);
    let values = match op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Convert { .. } if uniform => {
            let one = |&(values, ty): &(&[Number], &TensorType)| (values.to_vec(), with_shape(ty, Shape::of(&[1])));
            evaluate(op, constants.iter().map(one).collect())?
        }
        Op::Reshape { .. } | Op::Broadcast { .. } | Op::Permute { .. } | Op::Slice { .. } if uniform => {
            constants[0].0.to_vec()
        }
        Op::Broadcast { .. } => return None,
        _ => {
            let small = |shape: &Shape| shape.elements().and_then(|n| n.as_fixed()).is_some_and(|n| n <= MOST_ELEMENTS);
            if !small(&shape) || !constants.iter().all(|(_, ty)| small(&ty.shape)) {
                return None;
            }
            evaluate(op, constants.iter().map(|&(values, ty)| (values.to_vec(), ty.clone())).collect())?
        }
    };
    values.iter().all(|value| value.get().is_finite()).then_some(Op::Constant { values, dtype, shape })
}

fn constant(graph: &Graph, node: NodeId) -> Option<(&[Number], &TensorType)> {
    match graph.op(node) {
        Op::Constant { values, .. } => Some((values, graph.ty(node).as_tensor()?)),
        _ => None,
    }
}

fn with_shape(ty: &TensorType, shape: Shape) -> TensorType {
    TensorType { dtype: ty.dtype, shape }
}

/// The elements of `op` applied to constants of fixed shapes, as the interpreter computes them.
fn evaluate(op: &Op, constants: Vec<(Vec<Number>, TensorType)>) -> Option<Vec<Number>> {
    let mut graph = Graph::default();
    let add = |(values, TensorType { dtype, shape })| graph.add(Op::Constant { values, dtype, shape }, &[]).ok();
    let operands: Vec<NodeId> = constants.into_iter().map(add).collect::<Option<_>>()?;
    let result = graph.add(op.clone(), &operands).ok()?;
    let function = Function { name: "fold".to_owned(), params: Vec::new(), graph, results: vec![result] };
    let values = eval_function(&function, &mut [], &|_| None, &StepInputs::default(), Mode::AsTyped).ok()?;
    match values.first()? {
        Value::Tensor(tensor) => Some(tensor.data().iter().map(|&value| value.into()).collect()),
        Value::Kv(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::dim::{Dim, Symbol};
    use llmc_ir::dtype::DType;
    use llmc_ir::op::{BinaryOp, UnaryOp};

    fn rows() -> Shape {
        Shape::of(&[Dim::from(Symbol::Tokens), 8.into()])
    }

    fn add_constant(graph: &mut Graph, values: &[f64], dtype: DType, shape: Shape) -> NodeId {
        let values = values.iter().map(|&value| value.into()).collect();
        graph.add(Op::Constant { values, dtype, shape }, &[]).unwrap()
    }

    fn values(graph: &Graph, node: NodeId) -> Option<Vec<f64>> {
        Some(constant(graph, node)?.0.iter().map(|value| value.get()).collect())
    }

    #[test]
    fn uniform_values_fold_in_symbolic_shapes_with_rounding() {
        let mut graph = Graph::default();
        let x = add_constant(&mut graph, &[1.0], DType::BF16, rows());
        let y = add_constant(&mut graph, &[f64::powi(2.0, -9)], DType::BF16, rows());
        let sum = emit(&mut graph, Op::Binary(BinaryOp::Add), &[x, y]).unwrap();
        assert_eq!(values(&graph, sum), Some(vec![1.0]));
        assert_eq!(graph.ty(sum), graph.ty(x));
        let wide = emit(&mut graph, Op::Convert { to: DType::F32 }, &[y]).unwrap();
        assert_eq!(values(&graph, wide), Some(vec![f64::powi(2.0, -9)]));
    }

    #[test]
    fn fixed_shapes_fold_element_by_element() {
        let mut graph = Graph::default();
        let x = add_constant(&mut graph, &[1.0, 4.0], DType::F32, Shape::of(&[1, 2]));
        let root = emit(&mut graph, Op::Unary(UnaryOp::Sqrt), &[x]).unwrap();
        assert_eq!(values(&graph, root), Some(vec![1.0, 2.0]));
        let wide = emit(&mut graph, Op::Broadcast { shape: rows() }, &[x]);
        assert!(wide.is_err(), "types are still checked");
        let wide = emit(&mut graph, Op::Broadcast { shape: Shape::of(&[9, 2]) }, &[x]).unwrap();
        assert_eq!(values(&graph, wide), None, "constants do not grow");
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        let mut graph = Graph::default();
        let x = add_constant(&mut graph, &[0.0], DType::F32, rows());
        let inverse = emit(&mut graph, Op::Unary(UnaryOp::Reciprocal), &[x]).unwrap();
        assert_eq!(values(&graph, inverse), None);
    }
}
