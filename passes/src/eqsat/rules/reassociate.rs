//! Products of products in another order, and products of sums: weights that meet before a step does are multiplied while
//! compiling.
//!
//! Low-rank factors (Hu et al., "LoRA", 2021) stay apart where they are thin, and are multiplied out where that reads less
//! or saves launches. Keys that are made of a latent (DeepSeek-AI, "DeepSeek-V2", 2024: multi-head latent attention) need
//! not be made for a few queries: the queries go through the weight instead. For a long prompt it is the other way round.

use super::super::analysis::Dependence;
use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example, weight};
use egg::Id;
use llmc_ir::dim::Symbol;
use llmc_ir::dtype::DType;
use llmc_ir::module::Function;
use llmc_ir::op::{BinaryOp, DotMethod, Op, UnaryOp};
use llmc_ir::shape::Shape;

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    let rule = |name, equation, apply, example| Rule {
        name,
        family: Family::Reassociate,
        numerics: Numerics::Reassociates,
        equation,
        apply,
        example,
    };
    vec![
        rule("reassociate-join", "dot(x, w) + dot(x, v) = dot(x, w + v) for weights w and v", join, join_example),
        rule(
            "reassociate-weights",
            "dot(dot(x, a), b) = dot(x, dot(b, a)) for weights a and b",
            weights,
            chain_example,
        ),
        Rule {
            name: "reassociate-rounded-weights",
            numerics: Numerics::Rounds,
            equation: "dot(convert(dot(x, a)), b) = dot(x, convert(dot(b, a))) for weights a and b",
            apply: rounded_weights,
            example: rounded_example,
            family: Family::Reassociate,
        },
        rule("reassociate-rows", "dot(x, dot(b, a)) = dot(dot(x, a), b) for weights a and b", rows, product_example),
        rule(
            "reassociate-absorb",
            "dot(q, dot(w, c)) = dot(dot(q, w), c) for a weight w and rows q, c",
            absorb,
            keys_example,
        ),
    ]
}

fn is_weight(terms: &Terms<'_>, class: Id) -> bool {
    terms.dependence(class) == Dependence::Weights
}

/// The operands of a product of rows with a weight that this family may take apart.
fn product(terms: &Terms<'_>, node: &Node) -> Option<(Id, Id)> {
    let &[x, weight] = &node.operands[..] else { return None };
    (node.op == Op::PRODUCT && is_weight(terms, weight) && !is_weight(terms, x)).then_some((x, weight))
}

const ADD: Op = Op::Binary(BinaryOp::Add);

fn join(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let (&ADD, &[left, right]) = (&node.op, &node.operands[..]) else { return Vec::new() };
    let products = |terms: &Terms<'_>, class: Id| -> Vec<(Id, Id)> {
        terms.nodes(class).iter().filter_map(|node| product(terms, node)).collect()
    };
    let mut found = Vec::new();
    for (x, w) in products(terms, left) {
        for (y, v) in products(terms, right) {
            if x == y && left != right {
                let sum = terms.add(ADD, &[w, v]);
                found.extend(sum.and_then(|sum| terms.add(Op::PRODUCT, &[x, sum])));
            }
        }
    }
    found
}

/// Rows of `b` times columns of `a`: `[n, r] x [r, k]`.
const OF_WEIGHTS: Op = Op::Dot { left: 1, right: 0, batch: 0, method: DotMethod::Gemm };

fn weights(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let Some((inner, b)) = product(terms, node) else { return Vec::new() };
    let inner: Vec<(Id, Id)> = terms.nodes(inner).iter().filter_map(|node| product(terms, node)).collect();
    let folded = inner.into_iter().filter_map(|(x, a)| {
        let weight = terms.add(OF_WEIGHTS, &[b, a])?;
        terms.add(Op::PRODUCT, &[x, weight])
    });
    folded.collect()
}

fn rounded_weights(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let Some((rounded, b)) = product(terms, node) else { return Vec::new() };
    let mut found = Vec::new();
    for convert in terms.nodes(rounded) {
        let (Op::Convert { .. }, &[inner]) = (&convert.op, &convert.operands[..]) else { continue };
        let inner: Vec<(Id, Id)> = terms.nodes(inner).iter().filter_map(|node| product(terms, node)).collect();
        found.extend(inner.into_iter().filter_map(|(x, a)| {
            let to = terms.tensor(x)?.dtype;
            let weight = terms.add(OF_WEIGHTS, &[b, a])?;
            let weight = terms.add(Op::Convert { to }, &[weight])?;
            terms.add(Op::PRODUCT, &[x, weight])
        }));
    }
    found
}

fn rows(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    let Some((x, weight)) = product(terms, node) else { return Vec::new() };
    let products: Vec<Node> = terms.nodes(weight).into_iter().filter(|node| node.op == OF_WEIGHTS).collect();
    let apart = products.iter().filter_map(|product| {
        let inner = terms.add(Op::PRODUCT, &[x, product.operands[1]])?;
        terms.add(Op::PRODUCT, &[inner, product.operands[0]])
    });
    apart.collect()
}

/// `q [h, t, d] x (w [h, d, r] x c [s, r])`: scores of queries with keys that are made of a latent c, head by head.
fn absorb(terms: &mut Terms<'_>, _: Id, node: &Node) -> Vec<Id> {
    const SCORES: Op = Op::Dot { left: 2, right: 1, batch: 1, method: DotMethod::Gemm };
    const KEYS: Op = Op::Dot { left: 2, right: 1, batch: 0, method: DotMethod::Gemm };
    let (&SCORES, &[q, keys]) = (&node.op, &node.operands[..]) else { return Vec::new() };
    let is_key = |terms: &Terms<'_>, node: &Node| node.op == KEYS && is_weight(terms, node.operands[0]);
    let keys: Vec<Node> = terms.nodes(keys).into_iter().filter(|node| is_key(terms, node)).collect();
    let absorbed = keys.iter().filter_map(|keys| {
        let through = terms.add(SCORES, &[q, keys.operands[0]])?;
        terms.add(KEYS, &[through, keys.operands[1]])
    });
    absorbed.collect()
}

/// Products of the same rows, and of others.
fn join_example(seed: u64) -> Function {
    example(|graph, x| {
        let (w, v) = (weight(graph, "w", DType::F32, &[5, 8])?, weight(graph, "v", DType::F32, &[5, 8])?);
        let y = if seed.is_multiple_of(2) { x } else { graph.add(Op::Unary(UnaryOp::Sigmoid), &[x])? };
        let (left, right) = (graph.add(Op::PRODUCT, &[x, w])?, graph.add(Op::PRODUCT, &[y, v])?);
        graph.add(ADD, &[left, right])
    })
}

/// Shapes of factors `a [rank, 8]` and `b [n, rank]`: thin ones, and square ones, in which every order of axes fits.
fn factors(seed: u64) -> [[usize; 2]; 2] {
    let (rank, columns) = if seed.is_multiple_of(5) { (8, 8) } else { (1 + seed as usize % 4, 5) };
    [[rank, 8], [columns, rank]]
}

fn chain_example(seed: u64) -> Function {
    example(|graph, x| {
        let [a, b] = factors(seed);
        let (a, b) = (weight(graph, "a", DType::F32, &a)?, weight(graph, "b", DType::F32, &b)?);
        let inner = graph.add(Op::PRODUCT, &[x, a])?;
        graph.add(Op::PRODUCT, &[inner, b])
    })
}

fn rounded_example(seed: u64) -> Function {
    example(|graph, x| {
        let [a, b] = factors(seed);
        let (a, b) = (weight(graph, "a", DType::BF16, &a)?, weight(graph, "b", DType::BF16, &b)?);
        let x = graph.add(Op::Convert { to: DType::BF16 }, &[x])?;
        let inner = graph.add(Op::PRODUCT, &[x, a])?;
        let inner = graph.add(Op::Convert { to: DType::BF16 }, &[inner])?;
        graph.add(Op::PRODUCT, &[inner, b])
    })
}

fn product_example(seed: u64) -> Function {
    example(|graph, x| {
        let [a, b] = factors(seed);
        let (a, b) = (weight(graph, "a", DType::F32, &a)?, weight(graph, "b", DType::F32, &b)?);
        let product = graph.add(OF_WEIGHTS, &[b, a])?;
        graph.add(Op::PRODUCT, &[x, product])
    })
}

/// Heads that are narrower than the latent, and as wide.
fn keys_example(seed: u64) -> Function {
    let width = if seed.is_multiple_of(2) { 4 } else { 8 };
    example(|graph, c| {
        let w = weight(graph, "w", DType::F32, &[3, width, 8])?;
        let keys = graph.add(Op::Dot { left: 2, right: 1, batch: 0, method: DotMethod::Gemm }, &[w, c])?;
        let shape = Shape(vec![3.into(), Symbol::Tokens.into(), width.into()]);
        let queries = graph.add(Op::Slice { axis: 1, start: 0, end: width }, &[c])?;
        let queries =
            graph.add(Op::Reshape { shape: Shape(vec![1.into(), Symbol::Tokens.into(), width.into()]) }, &[queries])?;
        let queries = graph.add(Op::Broadcast { shape }, &[queries])?;
        graph.add(Op::Dot { left: 2, right: 1, batch: 1, method: DotMethod::Gemm }, &[queries, keys])
    })
}
