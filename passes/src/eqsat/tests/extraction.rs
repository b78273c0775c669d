//! Extraction finds what is best, and something else where something else is.

use super::super::analysis::Dependence;
use super::super::cost::Target;
use super::super::extract::{extract, function};
use super::super::rule::{self, Family, Invariance, Rule};
use super::super::rules::{rules, selected};
use super::super::saturate::{ITERATION_LIMIT, saturate};
use super::super::{best_form, eqsat};
use crate::fuse::sample;
use crate::instrument::Instrument;
use crate::pass::{Context, State};
use crate::pipeline::{Options, run_pipeline};
use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Bindings, Bounds, Dim, Promise, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::machine::{Machine, Machines};
use llmc_ir::module::{Function, Module, Param, SpecializedModule};
use llmc_ir::op::{DotMethod, KvPart, Op, UnaryOp};
use llmc_ir::plan::StepInput;
use llmc_ir::shape::{KvType, Type};
use std::collections::{BTreeMap, BTreeSet};

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

/// A head of a long chain of operations, through each of which a gather of rows moves in an iteration of its own.
fn long_head(operations: usize) -> Module {
    let mut b = FunctionBuilder::new("head", Numerics::new(DType::F32));
    let mut x = b.rows_param("x", 64);
    for _ in 0..operations {
        x = b.unary(UnaryOp::Sigmoid, x);
    }
    let rows = b.step(StepInput::SampleRows);
    let x = b.add(Op::Gather, &[x, rows]);
    Module { name: "m".into(), functions: vec![b.finish(&[x]).unwrap()], calls: Vec::new() }
}

/// A limit that is exceeded is said, by its number and with what to do, and the function stays correct.
#[test]
fn an_exceeded_limit_is_reported() {
    let notes = |operations| {
        let program = SpecializedModule { module: long_head(operations), ..sample::program() };
        let context = Context::new(sample::facts(), Machine::named("host").unwrap());
        let only = Some(vec!["eqsat".to_owned()]);
        let options = Options { only, ..Options::default() };
        let mut verify: [Box<dyn Instrument>; 0] = [];
        run_pipeline(State::Programs(vec![program]), &context, &options, &mut verify).unwrap().1.notes
    };
    assert_eq!(notes(ITERATION_LIMIT / 2), Vec::<String>::new());
    let [note] = &notes(2 * ITERATION_LIMIT)[..] else { panic!("one function, one note") };
    for part in ["@head", &ITERATION_LIMIT.to_string(), "iterations", "--without"] {
        assert!(note.contains(part), "`{part}` is not in {note}");
    }
}

/// Kernels divide, join and widen weights, which they find packed. What a step brings lies as it came.
#[test]
fn products_of_two_values_of_the_step_have_one_form() {
    let mut b = FunctionBuilder::new("products", Numerics::new(DType::F32));
    let x = b.rows_param("x", 8);
    let results = ["y", "z"].map(|name| {
        let right = b.param(name, Type::tensor(DType::BF16, &[5, 8]));
        let right = b.add(Op::Convert { to: DType::F32 }, &[right]);
        b.dot(x, right)
    });
    let function = b.finish(&results).unwrap();
    assert_eq!(saturate(&function, &rules()).unwrap().statistics.fired, BTreeMap::new());
}

/// A write that nothing looks at is still to be seen by the next step.
#[test]
fn writes_to_the_cache_are_extracted() {
    let mut graph = Graph::default();
    let rows = Type::tensor(DType::F32, &[Dim::from(Symbol::Tokens), 8.into()]);
    let kv = Type::Kv(KvType { heads: 2, head_dim: 4, dtype: DType::F32 });
    let params = [("x", rows), ("kv", kv)].map(|(name, ty)| Param { name: name.into(), ty });
    let [x, kv] = [0, 1].map(|index| graph.add(Op::Input { index, ty: params[index].ty.clone() }, &[]).unwrap());
    graph.add(Op::KvWrite { part: KvPart::Key }, &[kv, x]).unwrap();
    let result = graph.add(Op::Unary(UnaryOp::Sigmoid), &[x]).unwrap();
    let function = Function { name: "keeps".into(), params: params.into(), graph, results: vec![result] };
    let machine = Machine::named("host").unwrap();
    let saturated = saturate(&function, &rules()).unwrap();
    for (sizes, promise) in STEPS {
        let form = best_form(&saturated, &function, &Target { machine: &machine, sizes, promise }).unwrap();
        let is_write = |node: &NodeId| matches!(form.graph.op(*node), Op::KvWrite { .. });
        assert!(form.graph.topological().iter().any(is_write), "{sizes:?}");
    }
}

/// The pass prices each program at its own step: one token goes another way than a prompt.
#[test]
fn programs_of_a_function_get_forms_of_their_own() {
    let program = |(max, promise): (Bindings, Promise)| {
        let bounds = Bounds { max, one_token_per_sequence: promise == Promise::OneTokenPerSequence };
        SpecializedModule { bounds, ..sample::program() }
    };
    let context = Context::new(sample::facts(), Machine::named("host").unwrap());
    let programs = State::Programs(vec![program(STEPS[0]), program(STEPS[2])]);
    let State::Programs(programs) = eqsat(programs, &context).unwrap() else { panic!("programs stay programs") };
    let gemvs = |program: &SpecializedModule| {
        let graph = &program.module.function("layer").unwrap().graph;
        let by_gemv = |node: &NodeId| matches!(graph.op(*node), Op::Dot { method: DotMethod::Gemv, .. });
        graph.topological().iter().filter(|node| by_gemv(node)).count()
    };
    assert_eq!(programs.iter().map(gemvs).collect::<Vec<_>>(), [4, 0]);
}

/// Prompts are multiplied in block floating point where a machine does that: not steps of one token per sequence, nor programs for a
/// few tokens alone.
#[test]
fn prompts_are_taken_in_blocks() {
    let of_program = |(max, promise): (Bindings, Promise), rate: Option<f64>| {
        let bounds = Bounds { max, one_token_per_sequence: promise == Promise::OneTokenPerSequence };
        let machines = Machines::from(Machine::named("host").unwrap()).with_block_float(rate);
        let mut program = sample::program();
        program.bounds = bounds;
        let state = State::Programs(vec![program]);
        let State::Programs(programs) = eqsat(state, &Context::new(sample::facts(), machines)).unwrap() else {
            panic!("programs stay programs")
        };
        let graph = &programs[0].module.function("layer").unwrap().graph;
        let methods = graph.topological().into_iter().filter_map(|node| match graph.op(node) {
            Op::Dot { left: 1, right: 1, batch: 0, method } => Some(*method == DotMethod::BlockFloat),
            _ => None,
        });
        let methods: BTreeSet<bool> = methods.collect();
        methods.into_iter().collect::<Vec<bool>>()
    };
    let long = STEPS[2];
    let [middle, short] = [64, 16].map(|tokens| (Bindings { tokens, ..long.0 }, long.1));
    let many = (Bindings { tokens: 512, samples: 512, sequences: 512, ..STEPS[0].0 }, Promise::OneTokenPerSequence);
    let all = [long, middle, short, many].map(|step| of_program(step, Some(1.5)));
    assert_eq!(all, [[true], [true], [false], [false]]);
    // What is no faster is not taken either.
    assert_eq!([Some(1.05), None].map(|rate| of_program(long, rate)), [[false], [false]]);
}

/// What one term of a class knows before a step, the class knows: rows of a constant are constant.
#[test]
fn merging_keeps_the_least_dependence() {
    let rule = rules().into_iter().find(|rule| rule.name == "prune-constant").unwrap();
    let example = (rule.example)(0);
    let dependence = |rules: &[Rule]| {
        let saturated = saturate(&example, rules).unwrap();
        saturated.graph[saturated.results[0]].data.dependence
    };
    assert_eq!((dependence(&[]), dependence(&[rule])), (Dependence::Runtime, Dependence::Literal));
}

/// Terms of two types are never equal, so a rule that says so is wrong.
#[test]
#[should_panic(expected = "a rewrite rule made terms of two types equal")]
fn merging_asserts_types() {
    let drops_conversions = Rule {
        apply: |_, _, node| if matches!(node.op, Op::Convert { .. }) { node.operands.clone() } else { Vec::new() },
        ..rules()[0]
    };
    let _ = saturate(&named("layer"), &[drops_conversions]);
}

/// What the interpreter cannot see of a kernel is said by its rule: whether it takes sums in another order.
#[test]
fn strict_numerics_leave_out_what_changes_sums() {
    let host = Machine::named("host").unwrap();
    let machines = Machines::from(host.clone()).with_block_float(Some(1.5));
    let names = |numerics, invariance| -> Vec<&str> {
        selected(&Family::ALL, numerics, invariance, &machines).into_iter().map(|rule| rule.name).collect()
    };
    let exact = [
        "prune-map",
        "prune-reshape",
        "prune-repeat",
        "prune-constant",
        "prune-reduce",
        "prune-dot",
        "merge-dots",
        "dequant-in-dot",
    ];
    assert_eq!(names(rule::Numerics::Exact, Invariance::Program), exact);
    let invariant: Vec<&str> = exact.into_iter().chain(["choose-gemv"]).collect();
    assert_eq!(names(rule::Numerics::Rounds, Invariance::Batch), invariant);
    let [default, all] =
        [rule::Numerics::default(), rule::Numerics::Rounds].map(|class| names(class, Invariance::Program));
    assert_eq!(all.len(), rules().len());
    assert_eq!(
        all.into_iter().filter(|name| !default.contains(name)).collect::<Vec<_>>(),
        ["reassociate-rounded-weights"]
    );
    assert!(default.contains(&"choose-block-float"));
    let without = selected(&Family::ALL, rule::Numerics::default(), Invariance::Program, &host.into());
    assert_eq!(without.len(), default.len() - 1, "no machine multiplies in blocks");
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
