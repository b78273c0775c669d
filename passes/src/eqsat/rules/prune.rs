//! Rows that nobody looks at are not computed: a gather of rows moves through whatever works row by row.
//!
//! Prefill computes logits only for the rows that are sampled, decode for all: which side is cheaper depends on how many
//! rows a step has and how many of them it samples.

use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example, rows, weight};
use egg::Id;
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::{BinaryOp, DotMethod, Op, ReduceOp, UnaryOp};
use llmc_ir::plan::StepInput;
use llmc_ir::shape::Shape;

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    let rule = |name, equation, apply, example| Rule {
        name,
        family: Family::Prune,
        numerics: Numerics::Exact,
        equation,
        apply,
        example,
    };
    vec![
        rule("prune-map", "gather(map(a, b), i) = map(gather(a, i), gather(b, i))", through_map, map_example),
        rule(
            "prune-reshape",
            "gather(reshape(a), i) = reshape(gather(a, i)) where axis 0 stays",
            through_shape,
            shape_example,
        ),
        rule("prune-repeat", "gather(broadcast(a of one row), i) = broadcast(a)", repeated, repeat_example),
        rule("prune-constant", "gather(constant, i) = constant", constant, constant_example),
        rule(
            "prune-reduce",
            "gather(reduce(a), i) = reduce(gather(a, i)) along any axis but 0",
            through_reduce,
            reduce_example,
        ),
        rule("prune-dot", "gather(dot(a, w), i) = dot(gather(a, i), w)", through_dot, dot_example),
    ]
}

/// The operand of a gather of rows by a row of indices, the indices, and how many there are.
fn gathered(terms: &Terms<'_>, node: &Node) -> Option<(Id, Id, Dim)> {
    let &[table, indices] = &node.operands[..] else { return None };
    let rows = terms.tensor(indices)?.shape.0[0];
    let of_rows = terms.row_axis(table) == ROWS && terms.row_axis(indices) == ROWS;
    (node.op == Op::Gather && of_rows).then_some((table, indices, rows))
}

/// Where a gather finds rows.
const ROWS: Option<usize> = Some(0);

/// Terms for each node of the gathered class that `rewrite` can move the gather through.
fn each_operand(
    terms: &mut Terms<'_>,
    node: &Node,
    rewrite: impl Fn(&mut Terms<'_>, &Node, Id, Dim) -> Option<Id>,
) -> Vec<Id> {
    let Some((table, indices, rows)) = gathered(terms, node) else { return Vec::new() };
    terms.nodes(table).iter().filter_map(|inner| rewrite(terms, inner, indices, rows)).collect()
}

fn gather(terms: &mut Terms<'_>, table: Id, indices: Id) -> Option<Id> {
    terms.add(Op::Gather, &[table, indices])
}

fn through_map(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, indices, _| {
        let elementwise =
            matches!(inner.op, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Convert { .. });
        // There are no slices and joins of rows: how many there are is not known.
        let along_columns = matches!(inner.op, Op::Slice { .. } | Op::Concat { .. });
        if !elementwise && !along_columns {
            return None;
        }
        let operands: Option<Vec<Id>> = inner.operands.iter().map(|&operand| gather(terms, operand, indices)).collect();
        terms.add(inner.op.clone(), &operands?)
    })
}

fn with_rows(shape: &Shape, rows: Dim) -> Shape {
    let mut shape = shape.clone();
    shape.0[0] = rows;
    shape
}

fn through_shape(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, indices, rows| {
        let &operand = inner.operands.first().filter(|&&operand| terms.row_axis(operand) == ROWS)?;
        // Where a reshape changes what a row is, the number of elements does not fit, and there is no such term.
        let op = match &inner.op {
            Op::Reshape { shape } => Op::Reshape { shape: with_rows(shape, rows) },
            Op::Broadcast { shape } => Op::Broadcast { shape: with_rows(shape, rows) },
            _ => return None,
        };
        let operand = gather(terms, operand, indices)?;
        terms.add(op, &[operand])
    })
}

fn repeated(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, _, rows| {
        let Op::Broadcast { shape } = &inner.op else { return None };
        let one_row = terms.tensor(inner.operands[0])?.shape.0.first() == Some(&Dim::fixed(1));
        if !one_row { None } else { terms.add(Op::Broadcast { shape: with_rows(shape, rows) }, &inner.operands) }
    })
}

fn constant(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, _, rows| match &inner.op {
        Op::Constant { values, dtype, shape } if values.len() == 1 => {
            let op = Op::Constant { values: values.clone(), dtype: *dtype, shape: with_rows(shape, rows) };
            terms.add(op, &[])
        }
        _ => None,
    })
}

fn through_reduce(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, indices, _| match inner.op {
        Op::Reduce { axis, .. } if Some(axis) != ROWS => {
            let operand = gather(terms, inner.operands[0], indices)?;
            terms.add(inner.op.clone(), &[operand])
        }
        _ => None,
    })
}

fn through_dot(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    each_operand(terms, node, |terms, inner, indices, _| match inner.op {
        Op::Dot { left, batch: 0, method: DotMethod::Gemm, .. } if Some(left) != ROWS => {
            let operand = gather(terms, inner.operands[0], indices)?;
            terms.add(inner.op.clone(), &[operand, inner.operands[1]])
        }
        _ => None,
    })
}

/// A function that gathers what `body` makes of its rows: the sampled ones, or as many as there are, with some of them twice.
fn sampled(seed: u64, body: impl FnOnce(&mut Graph, NodeId) -> Result<NodeId, String>) -> Function {
    let by = if (seed / 8).is_multiple_of(2) { StepInput::SampleRows } else { StepInput::Positions };
    example(|graph, x| {
        let table = body(graph, x)?;
        let rows = graph.add(Op::Step(by), &[])?;
        graph.add(Op::Gather, &[table, rows])
    })
}

fn map_example(seed: u64) -> Function {
    sampled(seed, |graph, x| {
        let y = graph.add(Op::Unary(UnaryOp::Sigmoid), &[x])?;
        match seed % 5 {
            0 => Ok(y),
            1 => graph.add(Op::Binary(BinaryOp::Subtract), &[x, y]),
            2 => graph.add(Op::Convert { to: DType::BF16 }, &[x]),
            3 => graph.add(Op::Slice { axis: 1, start: 2, end: 7 }, &[x]),
            _ => graph.add(Op::Concat { axis: 1 }, &[y, x]),
        }
    })
}

fn shape_example(seed: u64) -> Function {
    sampled(seed, |graph, x| {
        if seed.is_multiple_of(3) {
            // Twice as many rows: those that are gathered are others than before.
            let halves = Shape(vec![Dim { coefficient: 2, symbol: Some(Symbol::Tokens) }, 4.into()]);
            return graph.add(Op::Reshape { shape: halves }, &[x]);
        }
        let groups = graph.add(Op::Reshape { shape: rows(&[2, 4]) }, &[x])?;
        if seed.is_multiple_of(2) {
            return Ok(groups);
        }
        let one = graph.add(Op::Slice { axis: 2, start: 1, end: 2 }, &[groups])?;
        graph.add(Op::Broadcast { shape: rows(&[2, 3]) }, &[one])
    })
}

fn repeat_example(seed: u64) -> Function {
    sampled(seed, |graph, x| {
        if seed.is_multiple_of(2) {
            // Rows of their own, repeated along columns.
            let column = graph.add(Op::Slice { axis: 1, start: 3, end: 4 }, &[x])?;
            return graph.add(Op::Broadcast { shape: rows(&[8]) }, &[column]);
        }
        let row = weight(graph, "row", DType::F32, &[1, 8])?;
        graph.add(Op::Broadcast { shape: rows(&[8]) }, &[row])
    })
}

fn constant_example(seed: u64) -> Function {
    sampled(seed, |graph, _| {
        let values = vec![(seed as f64).into()];
        graph.add(Op::Constant { values, dtype: DType::F32, shape: rows(&[8]) }, &[])
    })
}

fn reduce_example(seed: u64) -> Function {
    sampled(seed, |graph, x| {
        let op = if seed.is_multiple_of(2) { ReduceOp::Sum } else { ReduceOp::Max };
        graph.add(Op::Reduce { op, axis: 1 }, &[x])
    })
}

fn dot_example(seed: u64) -> Function {
    sampled(seed, |graph, x| {
        let weight = weight(graph, "w", DType::F32, &[5, 8])?;
        graph.add(Op::PRODUCT, &[x, weight])
    })
}
