//! What equality saturation is shown on: real models' shapes, and functions of models that are yet to come.

use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Bindings, Dim, Promise, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::{Machine, MatrixFlops};
use llmc_ir::module::{Function, Module};
use llmc_ir::op::{BinaryOp, DotMethod, Op, ReduceOp, UnaryOp};
use llmc_ir::shape::{Shape, Type};
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_models::weights::{Limits, facts};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use std::path::Path;

/// A step: what it is called, its sizes, and what all steps of its program promise.
pub type Step = (&'static str, Bindings, Promise);

/// The steps that forms are shown for.
pub const STEPS: [Step; 3] = [
    ("decode 1", Bindings { tokens: 1, samples: 1, sequences: 1, context: 1024 }, Promise::OneTokenPerSequence),
    ("decode 64", Bindings { tokens: 64, samples: 64, sequences: 64, context: 1024 }, Promise::OneTokenPerSequence),
    ("prefill 2048", Bindings { tokens: 2048, samples: 1, sequences: 1, context: 2048 }, Promise::None),
];

/// Between them.
pub const OTHER_STEPS: [Step; 3] = [
    ("decode 16", Bindings { tokens: 16, samples: 16, sequences: 16, context: 1024 }, Promise::OneTokenPerSequence),
    ("prefill 64", Bindings { tokens: 64, samples: 1, sequences: 1, context: 64 }, Promise::None),
    ("prefill 512", Bindings { tokens: 512, samples: 64, sequences: 64, context: 1024 }, Promise::None),
];

/// The functions of a model behind canonicalisation, as saturation finds them.
pub fn canonical(config: &ModelConfig, layers: usize) -> Module {
    canonical_in(config, layers, Numerics::new(DType::BF16))
}

/// The same in other element types.
pub fn canonical_in(config: &ModelConfig, layers: usize, numerics: Numerics) -> Module {
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

/// Numerics of `--dtype f32` for a bf16 checkpoint.
pub fn wide() -> Numerics {
    Numerics { stored: DType::BF16, ..Numerics::new(DType::F32) }
}

/// A model of those sizes: hidden, intermediate, query heads, key/value heads, layers, vocabulary; `more` is JSON.
fn real(architecture: Architecture, sizes: [usize; 6], more: &str) -> ModelConfig {
    let (name, model_type) = (architecture.name(), architecture.model_type());
    let [hidden, intermediate, heads, kv_heads, layers, vocab] = sizes;
    let config = format!(
        r#"{{"architectures": ["{name}"], "model_type": "{model_type}", "hidden_size": {hidden},
        "intermediate_size": {intermediate}, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
        "num_hidden_layers": {layers}, "vocab_size": {vocab}, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
        "hidden_act": "silu", {more}}}"#
    );
    ModelConfig::parse(&config, Path::new("config.json")).unwrap().config
}

/// SmolLM2-135M.
pub fn smollm2() -> ModelConfig {
    let more = r#""rope_theta": 100000, "tie_word_embeddings": true"#;
    real(Architecture::Llama, [576, 1536, 9, 3, 30, 49152], more)
}

/// Llama-3-8B.
pub fn llama3_8b() -> ModelConfig {
    real(Architecture::Llama, [4096, 14336, 32, 8, 32, 128_256], r#""rope_theta": 500000"#)
}

/// Real shapes of every family, from small to large.
pub fn real_models() -> Vec<(&'static str, ModelConfig)> {
    vec![
        ("SmolLM2-135M", smollm2()),
        ("Llama-3-8B", llama3_8b()),
        ("Llama-3-70B", real(Architecture::Llama, [8192, 28672, 64, 8, 80, 128_256], r#""rope_theta": 500000"#)),
        ("Mistral-7B", real(Architecture::Mistral, [4096, 14336, 32, 8, 32, 32000], r#""sliding_window": 4096"#)),
        ("Qwen2.5-0.5B", real(Architecture::Qwen2, [896, 4864, 14, 2, 24, 151_936], r#""tie_word_embeddings": true"#)),
        (
            "Qwen2.5-72B",
            real(Architecture::Qwen2, [8192, 29568, 64, 8, 80, 152_064], r#""tie_word_embeddings": false"#),
        ),
    ]
}

/// Real and tiny models.
pub fn models() -> Vec<(&'static str, ModelConfig)> {
    let tiny = Architecture::ALL.map(|architecture| (architecture.model_type(), architecture.tiny()));
    tiny.into_iter().chain(real_models()).collect()
}

/// Functions that no supported model has yet.
pub fn written_by_hand() -> Vec<Function> {
    let mut functions = low_rank();
    functions.extend([latent_attention(), written_out_attention(), rounded_chain()]);
    functions
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
pub fn low_rank() -> Vec<Function> {
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
pub fn latent_attention() -> Function {
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

/// Attention of 16 heads of 64 in primitives, as it is often written: scores times a constant, a softmax, its product with
/// the values.
pub fn written_out_attention() -> Function {
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

/// A server whose cores outnumber the panels of a small model's weights.
pub fn many_cores(host: &Machine) -> Machine {
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
