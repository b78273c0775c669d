//! Where narrow weights are widened: in the product that reads them, or once while compiling.
//!
//! In the product fewer bytes move, which is what decode waits for. Widened once, the weight takes more of the artifact
//! and of memory bandwidth, and the product's inner loop has nothing to do but multiply.

use super::super::analysis::Dependence;
use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example, weight};
use egg::Id;
use llmc_ir::dtype::DType;
use llmc_ir::module::Function;
use llmc_ir::op::{DotMethod, Op};

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    vec![Rule {
        name: "dequant-in-dot",
        family: Family::Dequant,
        numerics: Numerics::Exact,
        equation: "dot(x, convert(w)) = dot(x, w) where every value of w is one of the wider type",
        apply: in_dot,
        example: narrow_example,
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

/// Weights that are widened, and ones that are rounded, which is not undone.
fn narrow_example(seed: u64) -> Function {
    let narrow = if seed.is_multiple_of(2) { DType::BF16 } else { DType::F16 };
    example(|graph, x| {
        if seed.is_multiple_of(3) {
            let weight = weight(graph, "w", DType::F32, &[5, 8])?;
            let rounded = graph.add(Op::Convert { to: narrow }, &[weight])?;
            return graph.add(Op::PRODUCT, &[x, rounded]);
        }
        let weight = weight(graph, "w", narrow, &[5, 8])?;
        let wide = graph.add(Op::Convert { to: DType::F32 }, &[weight])?;
        graph.add(Op::PRODUCT, &[x, wide])
    })
}
