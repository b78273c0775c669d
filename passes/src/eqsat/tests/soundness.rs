//! Every rule of the table is checked against the interpreter: both sides, on random operands.

use super::super::analysis::Graph;
use super::super::extract::{Choice, function};
use super::super::language::Node;
use super::super::rule::{Apply, Numerics, Rule};
use super::super::rules::rules;
use super::super::saturate::{Saturated, saturate};
use egg::Id;
use llmc_ir::eval::{KvCache, Mode, StepInputs, Tensor, Value, eval_function};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::testing::{Random, TEST_VOCAB};
use std::collections::{BTreeMap, BTreeSet};

/// Examples per rule.
const EXAMPLES: u64 = 24;

/// How far a sum in another order may be off, relative to the largest element, in f64.
const REASSOCIATED: f64 = 1e-12;

/// The same where values are rounded as their types say, sums to f32: far less than what rounding to bf16 makes of it.
const REASSOCIATED_IN_F32: f64 = 1e-5;

/// The same for products in block floating point, which may be off by a few times 2^-13.
const IN_BLOCKS: f64 = 1e-3;

#[test]
fn every_rule_fires_on_its_examples_and_keeps_their_values() {
    for rule in rules() {
        check(rule).unwrap_or_else(|error| panic!("{}: {error}", rule.name));
    }
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = rules().iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), rules().len());
}

/// The net catches rules that swap operands, take the wrong columns or drop an operation.
#[test]
fn wrong_rules_are_caught() {
    let wrong: [Apply; 3] = [
        |terms, _, node| match node.op {
            Op::Binary(_) => terms.add(node.op.clone(), &[node.operands[1], node.operands[0]]).into_iter().collect(),
            _ => Vec::new(),
        },
        |terms, _, node| match node.op {
            Op::Slice { axis, start, end } if start > 0 => {
                terms.add(Op::Slice { axis, start: start - 1, end: end - 1 }, &node.operands).into_iter().collect()
            }
            _ => Vec::new(),
        },
        |_, _, node| match node.op {
            Op::Unary(_) => vec![node.operands[0]],
            _ => Vec::new(),
        },
    ];
    let map = rules().into_iter().find(|rule| rule.name == "prune-map").unwrap();
    for apply in wrong {
        let error = check(Rule { apply, ..map }).unwrap_err();
        assert!(error.contains("differs"), "{error}");
    }
}

/// A class that is too strict lets a rule round elsewhere by default, one that is too loose keeps it from doing its work.
#[test]
fn wrong_classes_are_caught() {
    for rule in rules() {
        let wrong = match rule.numerics {
            Numerics::Exact | Numerics::Reassociates => Numerics::Rounds,
            Numerics::Blocks | Numerics::Rounds => Numerics::Reassociates,
        };
        let error = check(Rule { numerics: wrong, ..rule }).unwrap_err();
        assert!(error.contains("differs") || error.contains("rounds nothing"), "{}: {error}", rule.name);
    }
}

/// Applies the rule to its examples and compares every form that it makes with the original: over the real numbers, and
/// rounded where the types say, which only rules that round may do elsewhere.
fn check(rule: Rule) -> Result<(), String> {
    let (mut fired, mut rounded_elsewhere) = (0, false);
    for seed in 0..EXAMPLES {
        let original = (rule.example)(seed);
        let saturated = saturate(&original, &[rule])?;
        fired += usize::from(!saturated.statistics.fired.is_empty());
        for form in forms_of(&original, &saturated) {
            compare(rule, seed, &original, &form, Mode::Wide)?;
            match (rule.numerics, compare(rule, seed, &original, &form, Mode::AsTyped)) {
                (Numerics::Rounds, found) => rounded_elsewhere |= found.is_err(),
                (Numerics::Exact | Numerics::Reassociates | Numerics::Blocks, found) => found?,
            }
        }
    }
    match (fired, rule.numerics) {
        (0, _) => Err("it never fired".into()),
        (_, Numerics::Rounds) if !rounded_elsewhere => Err("it rounds nothing elsewhere".into()),
        _ => Ok(()),
    }
}

/// The function in the form that prefers the original's operations, and with one class at a time computed by another of
/// its nodes.
fn forms_of(original: &Function, saturated: &Saturated) -> Vec<Function> {
    let unchanged = saturate(original, &[]).unwrap();
    let first = chosen_first(&saturated.graph, &unchanged.graph);
    let base = Choice { nodes: first.iter().map(|(&class, &node)| (class, (node, 1.0))).collect() };
    let mut forms: Vec<Function> = function(saturated, &base).into_iter().collect();
    for class in saturated.graph.classes() {
        for node in class.nodes.iter().filter(|node| first.get(&class.id) != Some(node)) {
            let mut choice = base.clone();
            choice.nodes.insert(class.id, (node, 1.0));
            // A node that stands for the class it needs is no form of its own.
            forms.extend(function(saturated, &choice));
        }
    }
    forms
}

/// For each class the node of the original, or the first one.
fn chosen_first<'g>(graph: &'g Graph, original: &Graph) -> BTreeMap<Id, &'g Node> {
    let old: BTreeSet<&Op> = original.classes().flat_map(|class| class.nodes.iter().map(|node| &node.op)).collect();
    let pick = |class: &'g egg::EClass<Node, _>| {
        let mut nodes: Vec<&Node> = class.nodes.iter().collect();
        nodes.sort_by_key(|node| (!old.contains(&node.op), *node));
        (class.id, nodes[0])
    };
    graph.classes().map(pick).collect()
}

fn compare(rule: Rule, seed: u64, original: &Function, form: &Function, mode: Mode) -> Result<(), String> {
    let tokens: Vec<i32> = (0..1 + seed as i32 % 7).map(|token| token % TEST_VOCAB as i32).collect();
    let step = StepInputs::batch(&[(0, 0, &tokens), (1, 0, &tokens[..1])]);
    let [expected, found] = [original, form].map(|function| results(function, seed, &step, mode));
    for (expected, found) in expected?.iter().zip(&found?) {
        let (expected, found) = (tensor(expected), tensor(found));
        let scale = expected.data().iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
        let tolerance = match (rule.numerics, mode) {
            (Numerics::Exact, _) => 0.0,
            (Numerics::Blocks, Mode::AsTyped) => IN_BLOCKS * scale,
            (_, Mode::Wide) => REASSOCIATED * scale,
            (_, Mode::AsTyped) => REASSOCIATED_IN_F32 * scale,
        };
        let same = expected.sizes() == found.sizes()
            && expected.data().iter().zip(found.data()).all(|(a, b)| (a - b).abs() <= tolerance);
        if !same {
            return Err(format!("example {seed} differs:\n{}", llmc_ir::text::function_text(form)));
        }
    }
    Ok(())
}

fn results(function: &Function, seed: u64, step: &StepInputs, mode: Mode) -> Result<Vec<Value>, String> {
    let mut random = Random::new(seed);
    let bindings = step.bindings();
    let mut inputs: Vec<Value> = Vec::new();
    for param in &function.params {
        inputs.push(match param.ty.as_tensor() {
            Some(ty) => random.tensor(ty.dtype, &ty.shape.evaluate(&bindings)).into(),
            None => Value::Kv(KvCache::default()),
        });
    }
    let mut types: BTreeMap<String, llmc_ir::shape::TensorType> = BTreeMap::new();
    for node in function.graph.topological() {
        if let (Op::Weight { name, .. }, Some(ty)) = (function.graph.op(node), function.graph.ty(node).as_tensor()) {
            types.insert(name.clone(), ty.clone());
        }
    }
    let weights = |name: &str| {
        let ty = types.get(name)?;
        let seed = name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Some(Random::new(seed).tensor(ty.dtype, &ty.shape.evaluate(&bindings)))
    };
    eval_function(function, &mut inputs, &weights, step, mode).map_err(|error| error.to_string())
}

fn tensor(value: &Value) -> &Tensor {
    match value {
        Value::Tensor(tensor) => tensor,
        Value::Kv(_) => panic!("examples return tensors"),
    }
}
