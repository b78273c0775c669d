//! The LLVM IR of each kernel template and of a step, as written, for a model of one small layer. The target is the one
//! with the fewest registers: its blocks are the shortest, and what they consist of is the same.

use llmc_codegen::host::HostTarget;
use llmc_codegen::host_ir;
use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Argument, Call, LOGITS, Module};
use llmc_ir::op::{AttendMethod, Attention, Op};
use llmc_ir::plan::{ModelFacts, StepInput};
use llmc_passes::pass::{Context, State};
use llmc_passes::pipeline::{Options, run_pipeline};

const WIDTH: usize = 32;
const VOCAB: usize = 48;

fn module() -> Module {
    let numerics = Numerics::new(DType::BF16);
    let mut b = FunctionBuilder::new("embed", numerics);
    let ids = b.step(StepInput::TokenIds);
    let table = b.matrix("table", VOCAB, WIDTH);
    let rows = b.embedding(table, ids);
    let embed = b.finish(&[rows]).unwrap();

    let mut b = FunctionBuilder::new("layer", numerics);
    let x = b.rows_param("x", WIDTH);
    let kv = b.kv_param("kv", 1, WIDTH);
    let normed = b.rms_norm(x, "norm", 1e-5);
    let normed = b.to_matrix_type(normed);
    let mixed = b.linear(normed, "mix", (WIDTH, WIDTH), Bias::Present);
    let mixed = b.to_matrix_type(mixed);
    let kv = b.kv_write(kv, mixed, mixed);
    let attention = Attention { heads: 1, kv_heads: 1, scale: 0.25.into(), window: None, method: AttendMethod::Whole };
    let attended = b.attend(mixed, kv, attention);
    let attended = b.convert(attended, DType::F32);
    let x = b.plus(x, attended);
    let layer = b.finish(&[x]).unwrap();

    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.rows_param("x", WIDTH);
    let rows = b.step(StepInput::SampleRows);
    let x = b.add(Op::Gather, &[x, rows]);
    let x = b.to_matrix_type(x);
    let logits = b.linear(x, "logits", (WIDTH, VOCAB), Bias::Absent);
    let head = b.finish(&[logits]).unwrap();

    let value = || Argument::Value("x".into());
    let call = |function: &str, scope: &str, arguments, result: &str| Call {
        function: function.into(),
        scope: scope.into(),
        arguments,
        results: vec![result.into()],
    };
    let calls = vec![
        call("embed", "", vec![], "x"),
        call("layer", "0.", vec![value(), Argument::Kv(0)], "x"),
        call("layer", "1.", vec![value(), Argument::Kv(1)], "x"),
        call("head", "", vec![value()], LOGITS),
    ];
    Module { name: "Small".into(), functions: vec![embed, layer, head], calls }
}

/// The functions of the module's code by name.
fn functions() -> Vec<(String, String)> {
    let facts = ModelFacts {
        architecture: "Small".into(),
        dtype: DType::BF16,
        vocab: VOCAB,
        hidden: WIDTH,
        layers: 2,
        max_context: 64,
        max_batch: 1,
        parameters: 0,
    };
    let context = Context { prefill_chunk: 16, ..Context::new(facts, Machine::named("host").unwrap()) };
    let state = State::Module(module());
    // So that rows are a kernel of their own.
    let options = Options { without: vec!["prologue".into()], ..Options::default() };
    let (state, _) = run_pipeline(state, &context, &options, &mut []).unwrap();
    let State::Planned(planned) = state else { panic!("expected a plan, found {}", state.kind()) };
    let ir = host_ir(&planned, &HostTarget::named("x86-64-v2").unwrap()).unwrap();
    let mut functions = Vec::new();
    let mut rest = ir.as_str();
    while let Some(start) = rest.find("\ndefine ") {
        let end = rest[start..].find("\n}\n").expect("functions end") + start + 3;
        let text = &rest[start + 1..end];
        let name = text.split('@').nth(1).and_then(|name| name.split('(').next()).expect("functions have names");
        functions.push((name.to_owned(), text.to_owned()));
        rest = &rest[end - 1..];
    }
    functions
}

/// The function of that name.
fn function(functions: &[(String, String)], name: &str) -> String {
    functions.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("there is no @{name}")).1.clone()
}

#[test]
fn each_template() {
    let functions = functions();
    insta::assert_snapshot!("rows", function(&functions, "prefill.norm"));
    insta::assert_snapshot!("attend", function(&functions, "prefill.attend"));
    // The dot, and the inner function that multiplies.
    let dot = function(&functions, "prefill.logits");
    let mut called = dot.lines().filter_map(|line| line.trim().strip_prefix("call void @")?.split('(').next());
    let inner = called.find(|name| name.starts_with("multiply_")).expect("a dot multiplies");
    let inner = function(&functions, inner);
    insta::assert_snapshot!("dot", format!("{dot}\n{inner}"));
}

#[test]
fn a_step() {
    insta::assert_snapshot!(function(&functions(), "llmc_decode"));
}
