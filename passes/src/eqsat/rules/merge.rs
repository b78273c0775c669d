//! Products of one operand become one product: queries, keys and values; gate and up.
//!
//! One launch instead of several, and the operand is read once. It loses where the parts' own kernels already fill the
//! machine and what follows each of them fits one kernel better than all together.

use super::super::analysis::Dependence;
use super::super::language::Node;
use super::super::rule::{Family, Numerics, Rule, Terms};
use super::example::{example_of_many, weight};
use egg::Id;
use llmc_ir::dtype::DType;
use llmc_ir::module::Function;
use llmc_ir::op::Op;

/// The family's rules.
pub fn rules() -> Vec<Rule> {
    vec![Rule {
        name: "merge-dots",
        family: Family::Merge,
        numerics: Numerics::Exact,
        equation: "dot(x, w) = slice(dot(x, concat(w, v, ...))) for all weights v that x is multiplied by",
        apply: merge_dots,
        example: products_example,
    }]
}

fn merge_dots(terms: &mut Terms<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(weight) = mergeable(terms, node) else { return Vec::new() };
    let x = node.operands[0];
    let siblings: Vec<(Id, Id)> = terms
        .users(x)
        .into_iter()
        .filter(|(_, user)| user.operands.first() == Some(&x))
        .filter_map(|(dot, user)| Some((dot, mergeable(terms, &user)?)))
        .filter(|&(_, other)| terms.tensor(other).map(|ty| ty.dtype) == terms.tensor(weight).map(|ty| ty.dtype))
        .collect();
    let (class, weight) = (terms.find(class), terms.find(weight));
    let position = siblings.iter().position(|&(dot, operand)| (dot, operand) == (class, weight));
    let (Some(position), 2..) = (position, siblings.len()) else { return Vec::new() };
    let size = |terms: &Terms<'_>, weight: Id| terms.tensor(weight).and_then(|ty| ty.shape.0[0].as_fixed());
    let sizes: Option<Vec<usize>> = siblings.iter().map(|&(_, weight)| size(terms, weight)).collect();
    let Some(sizes) = sizes else { return Vec::new() };
    let start: usize = sizes[..position].iter().sum();
    let weights: Vec<Id> = siblings.iter().map(|&(_, weight)| weight).collect();
    let merged = terms.add(Op::Concat { axis: 0 }, &weights).and_then(|joined| terms.add(Op::PRODUCT, &[x, joined]));
    let part = merged.and_then(|dot| terms.add(Op::Slice { axis: 1, start, end: start + sizes[position] }, &[dot]));
    part.into_iter().collect()
}

/// The weight that a dot multiplies by, if the dot is of the kind that is merged and not merged already.
fn mergeable(terms: &Terms<'_>, node: &Node) -> Option<Id> {
    let &[_, weight] = &node.operands[..] else { return None };
    let plain = node.op == Op::PRODUCT && terms.dependence(weight) == Dependence::Weights;
    let merged = terms.nodes(weight).iter().any(|node| matches!(node.op, Op::Concat { .. }));
    (plain && !merged).then_some(weight)
}

fn products_example(seed: u64) -> Function {
    example_of_many(|graph, x| {
        let mut dot = |number: usize| {
            let weight = weight(graph, &format!("w{number}"), DType::F32, &[3 + number, 8])?;
            graph.add(Op::PRODUCT, &[x, weight])
        };
        (1..=2 + seed as usize % 3).map(&mut dot).collect()
    })
}
