//! Where narrow weights are widened: in the product that reads them, or once while compiling.
//!
//! In the product fewer bytes move, which is what decode waits for. Widened once, the weight takes more of the artifact
//! and of memory bandwidth, and the product's inner loop has nothing to do but multiply.

use super::super::analysis::Dependence;
use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use egg::Id;
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::Graph;
use llmc_ir::module::{Function, Param};
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::shape::Type;

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    vec![Rule {
        name: "dequant-in-dot",
        family: Family::Dequant,
        numerics: Numerics::Exact,
        equation: "dot(x, convert(w)) = dot(x, w) where every value of w is one of the wider type",
        apply: in_dot,
        example,
    }]
}

fn in_dot(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let (Op::Dot { method: DotMethod::Gemm, .. }, &[x, weight]) = (&node.op, &node.operands[..]) else {
        return Vec::new();
    };
    if terms.dependence(weight) != Dependence::Weights {
        return Vec::new();
    }
    let narrow = terms.nodes(weight).into_iter().filter_map(|node| {
        let &[operand] = &node.operands[..] else { return None };
        let [from, to] = [terms.tensor(operand)?.dtype, terms.tensor(weight)?.dtype];
        let widens = to == DType::F32 && matches!(from, DType::BF16 | DType::F16);
        (matches!(node.op, Op::Convert { .. }) && widens).then_some(operand)
    });
    let narrow: Vec<Id> = narrow.collect();
    narrow.into_iter().filter_map(|narrow| terms.add(node.op.clone(), &[x, narrow])).collect()
}

fn example(seed: u64) -> Function {
    let ty = Type::tensor(DType::F32, &[Dim::from(Symbol::Tokens), 8.into()]);
    let narrow = if seed.is_multiple_of(2) { DType::BF16 } else { DType::F16 };
    let mut graph = Graph::default();
    let mut build = || {
        let x = graph.add(Op::Input { index: 0, ty: ty.clone() }, &[])?;
        let weight = Op::Weight { name: "w".into(), ty: Type::tensor(narrow, &[5, 8]) };
        let weight = graph.add(weight, &[])?;
        let wide = graph.add(Op::Convert { to: DType::F32 }, &[weight])?;
        graph.add(Op::PRODUCT, &[x, wide])
    };
    let result = build().expect("examples are well-typed");
    Function { name: "example".into(), params: vec![Param { name: "x".into(), ty }], graph, results: vec![result] }
}
