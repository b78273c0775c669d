//! Extraction finds what is best, and something else where something else is.

use super::super::cost::Target;
use super::super::extract::{extract, function};
use super::super::rules::rules;
use super::super::saturate::{Stop, saturate};
use super::exact::exact;
use crate::fuse::sample;
use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Bindings, Promise};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;

/// A typical decode step, a batched one, and a prompt.
const STEPS: [(Bindings, Promise); 3] = [
    (Bindings { tokens: 1, samples: 1, sequences: 1, context: 1024 }, Promise::OneTokenPerSequence),
    (Bindings { tokens: 64, samples: 64, sequences: 64, context: 1024 }, Promise::OneTokenPerSequence),
    (Bindings { tokens: 2048, samples: 1, sequences: 1, context: 2048 }, Promise::None),
];

/// The sample's functions, and a head that leaves to the compiler which rows it computes.
fn functions() -> Vec<Function> {
    let mut b = FunctionBuilder::new("head", Numerics::new(DType::BF16));
    let x = b.rows_param("x", 64);
    let normed = b.rms_norm(x, "norm", 1e-5);
    let normed = b.to_matrix_type(normed);
    let table = b.matrix("table", 1000, 64);
    let logits = b.dot(normed, table);
    let rows = b.step(StepInput::SampleRows);
    let logits = b.add(Op::Gather, &[logits, rows]);
    let head = b.finish(&[logits]).unwrap();
    let mut functions = sample::module().functions;
    functions.retain(|function| function.name != "head");
    functions.push(head);
    functions
}

fn named(name: &str) -> Function {
    functions().into_iter().find(|function| function.name == name).unwrap()
}

fn gathers_logits(function: &Function) -> bool {
    let graph = &function.graph;
    let is_dot = |node| matches!(graph.op(node), Op::Dot { .. });
    graph.topological().into_iter().any(|node| *graph.op(node) == Op::Gather && is_dot(graph.operands(node)[0]))
}

#[test]
fn greedy_extraction_is_within_two_percent_of_the_best() {
    for name in Machine::names() {
        let machine = Machine::named(name).unwrap();
        for function in &functions() {
            let saturated = saturate(function, &rules()).unwrap();
            assert_eq!(saturated.statistics.stop, Stop::Saturated);
            for (sizes, promise) in STEPS {
                let target = Target { machine: &machine, sizes, promise };
                let greedy = extract(&saturated, &target).unwrap().seconds();
                let best = exact(&saturated, &target, greedy).unwrap_or(greedy);
                assert!(greedy <= 1.02 * best, "@{} on {name} at {sizes:?}: {greedy} against {best}", function.name);
            }
        }
    }
}

#[test]
fn one_e_graph_gives_other_forms_for_other_steps() {
    let machine = Machine::named("host").unwrap();
    let head = saturate(&named("head"), &rules()).unwrap();
    let form = |saturated, (sizes, promise)| {
        function(saturated, &extract(saturated, &Target { machine: &machine, sizes, promise }).unwrap()).unwrap()
    };
    let head_form = |step| form(&head, step);
    assert!(!gathers_logits(&head_form(STEPS[2])), "a prompt samples one row: the others are not multiplied");
    let layer = saturate(&named("layer"), &rules()).unwrap();
    let form = form(&layer, STEPS[0]);
    let dots = form.graph.topological().into_iter().filter(|&node| matches!(form.graph.op(node), Op::Dot { .. }));
    assert_eq!(dots.count(), 4, "queries, keys and values are one product, gate and up another");
}

#[test]
fn saturation_is_deterministic() {
    for function in &functions() {
        let [first, second] = [(); 2].map(|()| saturate(function, &rules()).unwrap());
        assert_eq!(first.statistics, second.statistics);
        let classes = |saturated: &super::super::saturate::Saturated| {
            let mut nodes: Vec<_> = saturated.graph.classes().map(|class| (class.id, class.nodes.clone())).collect();
            nodes.sort();
            nodes
        };
        assert_eq!(classes(&first), classes(&second));
    }
}
