//! How a kernel divides its work among cores: which way is best depends on how many rows a step has, how long contexts
//! are, and how many cores share them.
//!
//! A gemm keeps blocks in fast memory; in block floating point it multiplies integers, of which a CPU without any unit for
//! bf16 takes more at once, for the price of making them of both sides. A gemv reads the weight ahead in one stream; with
//! its sums split it also keeps cores busy that outnumber the columns, for the price of adding parts. Attention as a whole
//! gives a core one sequence and head; split over the context it also keeps many cores busy with few sequences, for the
//! price of putting parts together.

use super::super::analysis::Dependence;
use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example, weight};
use egg::Id;
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::Graph;
use llmc_ir::module::{Function, Param};
use llmc_ir::op::{AttendMethod, Attention, DotMethod, KvPart, Op};
use llmc_ir::shape::{KvType, Type};

/// The rule that lets few rows read a weight ahead.
pub(super) const GEMV: &str = "choose-gemv";

/// The rule that lets products be of integers.
pub(super) const BLOCK_FLOAT: &str = "choose-block-float";

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    let rule = |name, equation, apply, example| Rule {
        name,
        family: Family::Choose,
        numerics: Numerics::Reassociates,
        equation,
        apply,
        example,
    };
    vec![
        rule(GEMV, "dot(x, w) = dot(x, w) by gemv where w is a weight", gemv, dot_example),
        rule("choose-split-k", "dot(x, w) = dot(x, w) by split_k where w is a weight", split_k, dot_example),
        Rule {
            numerics: Numerics::Blocks,
            ..rule(
                BLOCK_FLOAT,
                "dot(x, w) = dot(x, w) by block_float where w is a weight in bf16",
                block_float,
                narrow_dot_example,
            )
        },
        rule("choose-split", "attend(q, kv) = attend(q, kv) by split", split, attend_example),
    ]
}

fn gemv(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    product_by(terms, node, DotMethod::Gemv)
}

fn split_k(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    product_by(terms, node, DotMethod::SplitK)
}

fn block_float(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    product_by(terms, node, DotMethod::BlockFloat)
}

fn product_by(terms: &mut Terms<'_>, node: &Node, method: DotMethod) -> Vec<Id> {
    if node.op != Op::PRODUCT || terms.dependence(node.operands[1]) != Dependence::Weights {
        return Vec::new();
    }
    terms.add(Op::Dot { left: 1, right: 1, batch: 0, method }, &node.operands).into_iter().collect()
}

fn split(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let Op::Attend(attention @ Attention { method: AttendMethod::Whole, .. }) = node.op else { return Vec::new() };
    let split = Op::Attend(Attention { method: AttendMethod::Split, ..attention });
    terms.add(split, &node.operands).into_iter().collect()
}

fn dot_example(_: u64) -> Function {
    example(|graph, x| {
        let weight = weight(graph, "w", DType::F32, &[5, 8])?;
        graph.add(Op::PRODUCT, &[x, weight])
    })
}

fn narrow_dot_example(_: u64) -> Function {
    example(|graph, x| {
        let x = graph.add(Op::Convert { to: DType::BF16 }, &[x])?;
        let weight = weight(graph, "w", DType::BF16, &[5, 8])?;
        graph.add(Op::PRODUCT, &[x, weight])
    })
}

fn attend_example(seed: u64) -> Function {
    let group = 1 + seed as usize % 3;
    let rows = |heads: usize| Type::tensor(DType::F32, &[Dim::from(Symbol::Tokens), (heads * 4).into()]);
    let kv = Type::Kv(KvType { heads: 2, head_dim: 4, dtype: DType::F32 });
    let params = [("query", rows(2 * group)), ("keys", rows(2)), ("values", rows(2)), ("kv", kv)];
    let params = params.map(|(name, ty)| Param { name: name.into(), ty });
    let mut graph = Graph::default();
    let mut build = || {
        let mut inputs = Vec::new();
        for (index, param) in params.iter().enumerate() {
            inputs.push(graph.add(Op::Input { index, ty: param.ty.clone() }, &[])?);
        }
        let kv = graph.add(Op::KvWrite { part: KvPart::Key }, &[inputs[3], inputs[1]])?;
        let kv = graph.add(Op::KvWrite { part: KvPart::Value }, &[kv, inputs[2]])?;
        let window = if seed.is_multiple_of(2) { None } else { Some(3) };
        let (heads, method) = (2 * group, AttendMethod::Whole);
        let attention = Attention { heads, kv_heads: 2, scale: 0.5.into(), window, method };
        graph.add(Op::Attend(attention), &[inputs[0], kv])
    };
    let result = build().expect("examples are well-typed");
    Function { name: "example".into(), params: params.into(), graph, results: vec![result] }
}
