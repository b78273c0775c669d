//! What equality saturation makes of models: every function that it changes, saturated once, and its cheapest form for a
//! decode step, a batched one and a prompt, with the price of every line. The snapshots are meant to be read.

use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Bindings, Bounds, Dim, Promise, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::{Machine, MatrixFlops};
use llmc_ir::module::{Function, Module};
use llmc_ir::op::{BinaryOp, DotMethod, Op, ReduceOp, UnaryOp};
use llmc_ir::shape::{Shape, Type};
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_models::weights::{Limits, facts};
use llmc_passes::eqsat::cost::Target;
use llmc_passes::eqsat::form::form_cost;
use llmc_passes::eqsat::rule::Rule;
use llmc_passes::eqsat::rules::rules;
use llmc_passes::eqsat::saturate::saturate;
use llmc_passes::eqsat::{best_form, explain};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use std::fmt::Write;
use std::path::Path;

/// The steps that forms are shown for.
const STEPS: [(&str, Bindings, Promise); 3] = [
    ("decode 1", Bindings { tokens: 1, samples: 1, sequences: 1, context: 1024 }, Promise::OneTokenPerSequence),
    ("decode 64", Bindings { tokens: 64, samples: 64, sequences: 64, context: 1024 }, Promise::OneTokenPerSequence),
    ("prefill 2048", Bindings { tokens: 2048, samples: 1, sequences: 1, context: 2048 }, Promise::None),
];

fn canonical(config: &ModelConfig, layers: usize) -> Module {
    canonical_in(config, layers, Numerics::new(DType::BF16))
}

fn canonical_in(config: &ModelConfig, layers: usize, numerics: Numerics) -> Module {
    let config = ModelConfig { windows: config.windows[..layers].to_vec(), ..config.clone() };
    let module = llmc_models::build(&config, numerics).unwrap();
    let facts = facts(&config, &module, numerics, Limits { max_context: 2048, max_batch: 64 });
    let context = Context::new(facts, Machine::named("host").unwrap());
    let options = Options { stop_after: Some(Phase::Canonical), ..Options::default() };
    match run_pipeline(State::Module(module), &context, &options, &mut []).unwrap().0 {
        State::Module(module) => module,
        other => panic!("canonical modules are modules, found {}", other.kind()),
    }
}

/// The report of a model on a machine.
fn report(config: &ModelConfig, machine: &str) -> String {
    report_functions(canonical(config, config.windows.len()).functions, machine)
}

fn report_functions(functions: Vec<Function>, machine: &str) -> String {
    report_on(functions, &Machine::named(machine).unwrap())
}

fn report_on(functions: Vec<Function>, machine: &Machine) -> String {
    let mut out = String::new();
    for original in functions {
        let saturated = saturate(&original, &rules()).unwrap();
        if saturated.statistics.fired.is_empty() {
            continue;
        }
        writeln!(out, "{}", explain::statistics(&original.name, &saturated.statistics)).unwrap();
        let mut forms: Vec<(String, Function)> = Vec::new();
        for (name, sizes, promise) in STEPS {
            let target = Target { machine, sizes, promise };
            let form = best_form(&saturated, &original, &target).unwrap();
            let [original_cost, cost] = [&original, &form].map(|function| form_cost(function, &target));
            let [before, after] = [original_cost, cost].map(|cost| cost.seconds);
            writeln!(out, "=== @{} for {name}: {:.2} us -> {:.2} us", original.name, 1e6 * before, 1e6 * after)
                .unwrap();
            if !cost.is_better_than(&original_cost) {
                writeln!(out, "stays as it was: the gain is less than the prices are exact\n").unwrap();
                continue;
            }
            let text = llmc_ir::text::function_text(&form);
            match forms.iter().find(|(_, known)| llmc_ir::text::function_text(known) == text) {
                Some((known, _)) => writeln!(out, "the same form as for {known}").unwrap(),
                None => writeln!(out, "{}", explain::priced(&form, &target).unwrap()).unwrap(),
            }
            forms.push((name.to_owned(), form));
        }
        writeln!(out).unwrap();
    }
    out
}

fn real(config: &str) -> ModelConfig {
    ModelConfig::parse(config, Path::new("config.json")).unwrap().config
}

fn smollm2() -> ModelConfig {
    real(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30, "vocab_size": 49152,
        "rms_norm_eps": 1e-5, "rope_theta": 100000, "max_position_embeddings": 8192, "tie_word_embeddings": true,
        "hidden_act": "silu"}"#,
    )
}

fn llama3_8b() -> ModelConfig {
    real(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
        "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000, "max_position_embeddings": 8192,
        "tie_word_embeddings": false, "hidden_act": "silu"}"#,
    )
}

#[test]
fn tiny_models_on_the_host() {
    for architecture in Architecture::ALL {
        insta::assert_snapshot!(format!("tiny_{}", architecture.model_type()), report(&architecture.tiny(), "host"));
    }
}

#[test]
fn smollm2_on_the_host() {
    insta::assert_snapshot!(report(&smollm2(), "host"));
}

/// Columns are fewer than blocks that run at once: sums are split among them.
#[test]
fn smollm2_on_an_a100() {
    insta::assert_snapshot!(report(&smollm2(), "a100"));
}

#[test]
fn llama3_8b_on_an_a100() {
    insta::assert_snapshot!(report(&llama3_8b(), "a100"));
}

/// A function of rows of 4096.
fn of_rows(name: &str, dtype: DType, body: impl FnOnce(&mut FunctionBuilder, NodeId) -> NodeId) -> Function {
    let mut b = FunctionBuilder::new(name, Numerics::new(dtype));
    let x = b.rows_param("x", 4096);
    let x = b.to_matrix_type(x);
    let result = body(&mut b, x);
    b.finish(&[result]).unwrap()
}

/// Weights of rank 16 beside a square one (Hu et al., "LoRA", 2021), apart and put together, and a square one in thin
/// factors.
fn low_rank() -> Vec<Function> {
    let of_weights = Op::Dot { left: 1, right: 0, batch: 0, method: DotMethod::Gemm };
    let adapter =
        |b: &mut FunctionBuilder| [b.matrix("w", 4096, 4096), b.matrix("a", 16, 4096), b.matrix("b", 4096, 16)];
    let apart = of_rows("adapter", DType::F32, |b, x| {
        let [w, a, up] = adapter(b);
        let (whole, thin) = (b.dot(x, w), b.dot(x, a));
        let thin = b.dot(thin, up);
        b.plus(whole, thin)
    });
    let together = of_rows("adapted", DType::F32, |b, x| {
        let [w, a, up] = adapter(b);
        let product = b.add(of_weights.clone(), &[up, a]);
        let sum = b.plus(w, product);
        b.dot(x, sum)
    });
    let factors = of_rows("factors", DType::F32, |b, x| {
        let (a, up) = (b.matrix("a", 64, 4096), b.matrix("b", 4096, 64));
        let product = b.add(of_weights, &[up, a]);
        b.dot(x, product)
    });
    vec![apart, together, factors]
}

/// Two square weights one behind the other, with rounding between them.
fn rounded_chain() -> Function {
    of_rows("chain", DType::BF16, |b, x| {
        let (down, up) = (b.matrix("a", 4096, 4096), b.matrix("b", 4096, 4096));
        let y = b.dot(x, down);
        let y = b.to_matrix_type(y);
        b.dot(y, up)
    })
}

/// Scores of multi-head latent attention (DeepSeek-AI, "DeepSeek-V2", 2024): 16 heads of 128, keys made of a latent of 512.
fn latent_attention() -> Function {
    let mut b = FunctionBuilder::new("scores", Numerics::new(DType::F32));
    let queries = Type::tensor(DType::F32, &[16.into(), Dim::from(Symbol::Tokens), 128.into()]);
    let q = b.param("q", queries);
    let c = b.param("c", Type::tensor(DType::F32, &[Dim::from(Symbol::Context), 512.into()]));
    let w = Op::Weight { name: "kv_b_proj.weight".into(), ty: Type::tensor(DType::F32, &[16, 128, 512]) };
    let w = b.add(w, &[]);
    let keys = b.add(Op::Dot { left: 2, right: 1, batch: 0, method: DotMethod::Gemm }, &[w, c]);
    let scores = b.add(Op::Dot { left: 2, right: 1, batch: 1, method: DotMethod::Gemm }, &[q, keys]);
    b.finish(&[scores]).unwrap()
}

#[test]
fn weights_of_low_rank_on_an_a100() {
    insta::assert_snapshot!(report_functions(low_rank(), "a100"));
}

/// Attention of 16 heads of 64 in primitives, as it is often written: scores times a constant, a softmax, its product with
/// the values.
fn written_out_attention() -> Function {
    let mut b = FunctionBuilder::new("attention", Numerics::new(DType::F32));
    let context = Dim::from(Symbol::Context);
    let q = b.param("q", Type::tensor(DType::F32, &[16.into(), Dim::from(Symbol::Tokens), 64.into()]));
    let [k, v] = ["k", "v"].map(|name| b.param(name, Type::tensor(DType::F32, &[16.into(), context, 64.into()])));
    let scores = b.add(Op::Dot { left: 2, right: 2, batch: 1, method: DotMethod::Gemm }, &[q, k]);
    let shape = Shape(vec![16.into(), Symbol::Tokens.into(), context]);
    let one = Shape(vec![Dim::fixed(1); 3]);
    let scale = b.add(Op::Constant { values: vec![0.125.into()], dtype: DType::F32, shape: one }, &[]);
    let scale = b.spread(scale, scores);
    let scores = b.binary(BinaryOp::Multiply, scores, scale);
    let weights = b.unary(UnaryOp::Exp, scores);
    let sum = b.add(Op::Reduce { op: ReduceOp::Sum, axis: 2 }, &[weights]);
    let sum = b.add(Op::Broadcast { shape }, &[sum]);
    let weights = b.binary(BinaryOp::Divide, weights, sum);
    let mixed = b.add(Op::Dot { left: 2, right: 1, batch: 1, method: DotMethod::Gemm }, &[weights, v]);
    b.finish(&[mixed]).unwrap()
}

#[test]
fn written_out_attention_on_the_host() {
    insta::assert_snapshot!(report_functions(vec![written_out_attention()], "host"));
}

#[test]
fn latent_attention_on_an_a100() {
    insta::assert_snapshot!(report_functions(vec![latent_attention()], "a100"));
}

/// Weights of a bf16 checkpoint under rows of f32.
#[test]
fn smollm2_in_f32_on_the_host() {
    let numerics = Numerics { stored: DType::BF16, ..Numerics::new(DType::F32) };
    let layer = canonical_in(&smollm2(), 1, numerics).functions.into_iter().filter(|function| function.name == "layer");
    insta::assert_snapshot!(report_functions(layer.collect(), "host"));
}

/// A server whose cores outnumber the panels of a small model's weights.
fn many_cores(host: &Machine) -> Machine {
    let faster = 32.0;
    Machine {
        name: "64 cores".to_owned(),
        units: faster * host.units,
        memory_bandwidth: faster * host.memory_bandwidth,
        vector_flops: faster * host.vector_flops,
        matrix_flops: MatrixFlops { f32: faster * host.matrix_flops.f32, bf16: faster * host.matrix_flops.bf16 },
        ..host.clone()
    }
}

#[test]
fn smollm2_on_64_cores() {
    let host = Machine::named("host").unwrap();
    let layer = canonical(&smollm2(), 1).functions.into_iter().filter(|function| function.name == "layer");
    insta::assert_snapshot!(report_on(layer.collect(), &many_cores(&host)));
}

/// A rule that never changes what is chosen would be in the way of those who read the table.
#[test]
fn every_rule_changes_what_is_chosen_for_some_model() {
    let mut functions = low_rank();
    functions.extend([latent_attention(), written_out_attention(), rounded_chain()]);
    functions.extend(canonical(&llama3_8b(), 1).functions);
    let narrow = Numerics { stored: DType::BF16, ..Numerics::new(DType::F32) };
    functions.extend(canonical_in(&smollm2(), 1, narrow).functions);
    let [host, a100] = ["host", "a100"].map(|name| Machine::named(name).unwrap());
    let machines = [many_cores(&host), host, a100];
    let forms = |rules: &[Rule]| -> Vec<String> {
        let mut forms = Vec::new();
        for function in &functions {
            let saturated = saturate(function, rules).unwrap();
            for (machine, (_, sizes, promise)) in machines.iter().flat_map(|machine| STEPS.map(|step| (machine, step)))
            {
                let form = best_form(&saturated, function, &Target { machine, sizes, promise }).unwrap();
                forms.push(llmc_ir::text::function_text(&form));
            }
        }
        forms
    };
    let all = forms(&rules());
    for rule in rules() {
        let others: Vec<Rule> = rules().into_iter().filter(|other| other.name != rule.name).collect();
        assert!(forms(&others) != all, "without {} everything stays as it is: remove it", rule.name);
    }
}

/// Layers are rolled, so what saturation does does not depend on how many there are.
#[test]
fn work_is_independent_of_depth() {
    let sizes = |layers: usize| {
        let functions = canonical(&llama3_8b(), layers).functions;
        functions.iter().map(|function| saturate(function, &rules()).unwrap().statistics).collect::<Vec<_>>()
    };
    assert_eq!(sizes(2), sizes(32));
}

/// A step of one sequence has one row; bounds of programs say so to the cost model.
#[test]
fn typical_steps_lie_within_bounds() {
    let max = Bindings { tokens: 16, samples: 16, sequences: 16, context: 512 };
    for one_token_per_sequence in [true, false] {
        let typical = llmc_passes::eqsat::cost::typical(&Bounds { max, one_token_per_sequence });
        let within = |symbol| typical.get(symbol) <= max.get(symbol) && typical.get(symbol) > 0;
        assert!(llmc_ir::dim::Symbol::ALL.into_iter().all(within), "{typical:?}");
    }
}
