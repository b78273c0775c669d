//! Scales before or behind a product: they go where there are fewer elements.
//!
//! The sum of a softmax divides a row of weights as long as the context, or what comes out of their product with the
//! values, as wide as a head. What scores are multiplied by can be applied to the queries instead. Which side is shorter
//! depends on the shapes, and whether it matters on what bounds the product.

use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example, rows, weight};
use egg::Id;
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::module::Function;
use llmc_ir::op::{BinaryOp, DotMethod, Op, ReduceOp};
use llmc_ir::shape::Shape;

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    let rule = |name, equation, apply, example| Rule {
        name,
        family: Family::Factor,
        numerics: Numerics::Reassociates,
        equation,
        apply,
        example,
    };
    vec![
        rule(
            "factor-out",
            "dot(x * s, y) = dot(x, y) * s, and for / too, where s is the same along the summed axis",
            out,
            out_example,
        ),
        rule("factor-in", "dot(x, y) * c = dot(x * c, y) for a constant c", inside, in_example),
    ]
}

fn is_scaling(op: &Op) -> bool {
    matches!(op, Op::Binary(BinaryOp::Multiply | BinaryOp::Divide))
}

fn out(terms: &mut Terms<'_>, class: Id, node: &Node) -> Vec<Id> {
    let (&Op::Dot { left, method: DotMethod::Gemm, .. }, &[x, y]) = (&node.op, &node.operands[..]) else {
        return Vec::new();
    };
    let Some(result) = terms.tensor(class).map(|ty| ty.shape.clone()) else { return Vec::new() };
    let scaled: Vec<Node> = terms.nodes(x).into_iter().filter(|node| is_scaling(&node.op)).collect();
    let mut found = Vec::new();
    for scaled in scaled {
        let (x, repeated) = (scaled.operands[0], scaled.operands[1]);
        let scales: Vec<Id> = terms
            .nodes(repeated)
            .into_iter()
            .filter(|node| matches!(node.op, Op::Broadcast { .. }))
            .map(|node| node.operands[0])
            .collect();
        found.extend(scales.into_iter().filter_map(|scale| {
            let mut dims = terms.tensor(scale)?.shape.0.clone();
            if dims[left] != Dim::fixed(1) {
                return None;
            }
            // The result has the left operand's other axes first.
            dims.remove(left);
            dims.resize(result.rank(), Dim::fixed(1));
            let product = terms.add(node.op.clone(), &[x, y])?;
            let scale = terms.add(Op::Reshape { shape: Shape(dims) }, &[scale])?;
            let scale = terms.add(Op::Broadcast { shape: result.clone() }, &[scale])?;
            terms.add(scaled.op.clone(), &[product, scale])
        }));
    }
    found
}

fn inside(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let (Op::Binary(BinaryOp::Multiply), &[product, factor]) = (&node.op, &node.operands[..]) else {
        return Vec::new();
    };
    let constants = terms.nodes(factor).into_iter().filter_map(|node| constant(terms, &node));
    let constants: Vec<_> = constants.collect();
    let plain = |node: &Node| matches!(node.op, Op::Dot { method: DotMethod::Gemm, .. });
    let products: Vec<Node> = terms.nodes(product).into_iter().filter(plain).collect();
    let mut found = Vec::new();
    for product in products {
        for (values, dtype) in &constants {
            let (x, y) = (product.operands[0], product.operands[1]);
            let inner = terms.tensor(x).filter(|ty| ty.dtype == *dtype).map(|ty| ty.shape.clone()).and_then(|shape| {
                let one = Op::Constant {
                    values: values.clone(),
                    dtype: *dtype,
                    shape: Shape(vec![Dim::fixed(1); shape.rank()]),
                };
                let one = terms.add(one, &[])?;
                let repeated = terms.add(Op::Broadcast { shape }, &[one])?;
                let scaled = terms.add(node.op.clone(), &[x, repeated])?;
                terms.add(product.op.clone(), &[scaled, y])
            });
            found.extend(inner);
        }
    }
    found
}

/// The one value that a node repeats, if it is a literal.
fn constant(terms: &Terms<'_>, node: &Node) -> Option<(Vec<llmc_ir::op::Number>, DType)> {
    match &node.op {
        Op::Constant { values, dtype, .. } if values.len() == 1 => Some((values.clone(), *dtype)),
        Op::Broadcast { .. } | Op::Reshape { .. } => {
            let inner = terms.nodes(node.operands[0]);
            inner.iter().find_map(|node| match &node.op {
                Op::Constant { values, dtype, .. } if values.len() == 1 => Some((values.clone(), *dtype)),
                _ => None,
            })
        }
        _ => None,
    }
}

/// What the rule is for, and a shift, which is no scale.
fn out_example(seed: u64) -> Function {
    let op = [BinaryOp::Multiply, BinaryOp::Divide, BinaryOp::Add][seed as usize % 3];
    example(|graph, x| {
        let weight = weight(graph, "w", DType::F32, &[5, 8])?;
        let square = graph.add(Op::Binary(BinaryOp::Multiply), &[x, x])?;
        let sum = graph.add(Op::Reduce { op: ReduceOp::Sum, axis: 1 }, &[square])?;
        let sum = graph.add(Op::Broadcast { shape: rows(&[8]) }, &[sum])?;
        let scaled = graph.add(Op::Binary(op), &[x, sum])?;
        graph.add(Op::PRODUCT, &[scaled, weight])
    })
}

/// One factor for all, and one for each column, which no row can have before the product.
fn in_example(seed: u64) -> Function {
    example(|graph, x| {
        let weight = weight(graph, "w", DType::F32, &[5, 8])?;
        let product = graph.add(Op::PRODUCT, &[x, weight])?;
        if seed.is_multiple_of(2) {
            let values = (1..=5).map(|column| f64::from(column).into()).collect();
            let factors = Op::Constant { values, dtype: DType::F32, shape: Shape(vec![1.into(), 5.into()]) };
            let factors = graph.add(factors, &[])?;
            let factors = graph.add(Op::Broadcast { shape: rows(&[5]) }, &[factors])?;
            return graph.add(Op::Binary(BinaryOp::Multiply), &[product, factors]);
        }
        let values = vec![(seed as f64 + 0.5).into()];
        let factor = graph.add(Op::Constant { values, dtype: DType::F32, shape: rows(&[5]) }, &[])?;
        graph.add(Op::Binary(BinaryOp::Multiply), &[product, factor])
    })
}
