//! A small Llama-like module for tests, as it looks after hoisting.

use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dim::{Bindings, Bounds, Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Processor;
use llmc_ir::module::{Argument, Call, Function, LOGITS, Module, SpecializedModule};
use llmc_ir::op::{AttendMethod, Attention, BinaryOp, Op, UnaryOp};
use llmc_ir::plan::{ModelFacts, StepInput};
use llmc_ir::shape::{Shape, Type};

pub(crate) const HIDDEN: usize = 32;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_DIM: usize = 8;
pub(crate) const INNER: usize = 48;
pub(crate) const VOCAB: usize = 40;
pub(crate) const LAYERS: usize = 3;

pub(crate) fn facts() -> ModelFacts {
    ModelFacts {
        architecture: "LlamaForCausalLM".into(),
        dtype: DType::BF16,
        vocab: VOCAB,
        hidden: HIDDEN,
        layers: LAYERS,
        max_context: 64,
        max_batch: 4,
        parameters: 0,
    }
}

/// Up to 16 tokens of 4 sequences.
pub(crate) fn program() -> SpecializedModule {
    let max = Bindings { tokens: 16, samples: 16, sequences: 4, context: 64 };
    let bounds = Bounds { max, one_token_per_sequence: false };
    SpecializedModule { name: "prefill".into(), processor: Processor::Cpu, bounds, module: module() }
}

pub(crate) fn module() -> Module {
    let value = |name: &str| Argument::Value(name.into());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut calls = vec![
        Call { function: "prelude".into(), scope: String::new(), arguments: vec![], results: names(&["cos", "sin"]) },
        Call {
            function: "embed".into(),
            scope: "model.".into(),
            arguments: vec![],
            results: names(&["update", "residual"]),
        },
    ];
    calls.extend((0..LAYERS).map(|layer| Call {
        function: "layer".into(),
        scope: format!("model.layers.{layer}."),
        arguments: vec![value("update"), value("residual"), Argument::Kv(layer), value("cos"), value("sin")],
        results: names(&["update", "residual"]),
    }));
    calls.push(Call {
        function: "head".into(),
        scope: "model.".into(),
        arguments: vec![value("update"), value("residual")],
        results: names(&[LOGITS]),
    });
    Module { name: "LlamaForCausalLM".into(), functions: vec![prelude(), embed(), layer(), head()], calls }
}

fn builder(name: &str) -> FunctionBuilder {
    FunctionBuilder::new(name, Numerics::new(DType::BF16))
}

pub(crate) fn prelude() -> Function {
    let mut b = builder("prelude");
    let positions = b.step(StepInput::Positions);
    let positions = b.convert(positions, DType::F32);
    let positions = b.reshape(positions, &[Dim::from(Symbol::Tokens), 1.into()]);
    let shape = Shape::of(&[Dim::from(Symbol::Tokens), (HEAD_DIM / 2).into()]);
    let positions = b.add(Op::Broadcast { shape }, &[positions]);
    let values = (0..HEAD_DIM / 2).map(|i| 0.25_f64.powi(i32::try_from(i).unwrap()).into()).collect();
    let frequencies = Op::Constant { values, dtype: DType::F32, shape: Shape::of(&[1, HEAD_DIM / 2]) };
    let frequencies = b.add(frequencies, &[]);
    let angles = b.times(positions, frequencies);
    let (cos, sin) = (b.unary(UnaryOp::Cos, angles), b.unary(UnaryOp::Sin, angles));
    b.finish(&[cos, sin]).unwrap()
}

/// The residual starts as zero, a constant that is a result.
pub(crate) fn embed() -> Function {
    let mut b = builder("embed");
    let ids = b.step(StepInput::TokenIds);
    let table = b.matrix("embed_tokens.weight", VOCAB, HIDDEN);
    let rows = b.embedding(table, ids);
    let zero = b.constant_like(0.0, rows);
    b.finish(&[rows, zero]).unwrap()
}

pub(crate) fn layer() -> Function {
    let mut b = builder("layer");
    let (update, residual) = (b.rows_param("update", HIDDEN), b.rows_param("residual", HIDDEN));
    let kv = b.kv_param("kv", KV_HEADS, HEAD_DIM);
    let angles = Type::tensor(DType::F32, &[Dim::from(Symbol::Tokens), (HEAD_DIM / 2).into()]);
    let (cos, sin) = (b.param("cos", angles.clone()), b.param("sin", angles));
    let residual = b.plus(residual, update);
    let x = b.rms_norm(residual, "input_layernorm", 1e-5);
    let x = b.to_matrix_type(x);
    let attended = b.scope("self_attn", |b| {
        let q = b.linear(x, "q_proj", (HIDDEN, HEADS * HEAD_DIM), Bias::Present);
        let k = b.linear(x, "k_proj", (HIDDEN, KV_HEADS * HEAD_DIM), Bias::Absent);
        let v = b.linear(x, "v_proj", (HIDDEN, KV_HEADS * HEAD_DIM), Bias::Absent);
        let (q, k) = (rotate(b, q, HEADS, (cos, sin)), rotate(b, k, KV_HEADS, (cos, sin)));
        let kv = b.kv_write(kv, k, v);
        let scale = (HEAD_DIM as f64).powf(-0.5).into();
        let attention =
            Attention { heads: HEADS, kv_heads: KV_HEADS, scale, window: None, method: AttendMethod::Whole };
        let attended = b.attend(q, kv, attention);
        b.linear(attended, "o_proj", (HEADS * HEAD_DIM, HIDDEN), Bias::Absent)
    });
    let residual = b.plus(residual, attended);
    let x = b.rms_norm(residual, "post_attention_layernorm", 1e-5);
    let x = b.to_matrix_type(x);
    let update = b.scope("mlp", |b| {
        let gate = b.linear(x, "gate_proj", (HIDDEN, INNER), Bias::Absent);
        let up = b.linear(x, "up_proj", (HIDDEN, INNER), Bias::Absent);
        let gate = b.silu(gate);
        let inner = b.times(gate, up);
        let inner = b.to_matrix_type(inner);
        b.linear(inner, "down_proj", (INNER, HIDDEN), Bias::Absent)
    });
    b.finish(&[update, residual]).unwrap()
}

pub(crate) fn head() -> Function {
    let mut b = builder("head");
    let (update, residual) = (b.rows_param("update", HIDDEN), b.rows_param("residual", HIDDEN));
    let rows = b.step(StepInput::SampleRows);
    let (update, residual) = (b.add(Op::Gather, &[update, rows]), b.add(Op::Gather, &[residual, rows]));
    let x = b.plus(residual, update);
    let x = b.rms_norm(x, "norm", 1e-5);
    let x = b.to_matrix_type(x);
    let logits = b.linear(x, "embed_tokens", (HIDDEN, VOCAB), Bias::Absent);
    b.finish(&[logits]).unwrap()
}

/// Rotates the halves of each head, with angles that came from outside.
pub(crate) fn rotate(b: &mut FunctionBuilder, x: NodeId, heads: usize, (cos, sin): (NodeId, NodeId)) -> NodeId {
    let (tokens, half) = (Dim::from(Symbol::Tokens), HEAD_DIM / 2);
    let parts = b.reshape(x, &[tokens, heads.into(), HEAD_DIM.into()]);
    let first = b.add(Op::Slice { axis: 2, start: 0, end: half }, &[parts]);
    let second = b.add(Op::Slice { axis: 2, start: half, end: HEAD_DIM }, &[parts]);
    let [cos, sin] = [cos, sin].map(|angle| {
        let angle = b.reshape(angle, &[tokens, 1.into(), half.into()]);
        b.spread(angle, first)
    });
    let (first_cos, second_sin) = (b.times(first, cos), b.times(second, sin));
    let (second_cos, first_sin) = (b.times(second, cos), b.times(first, sin));
    let left = b.binary(BinaryOp::Subtract, first_cos, second_sin);
    let right = b.binary(BinaryOp::Add, second_cos, first_sin);
    let joined = b.add(Op::Concat { axis: 2 }, &[left, right]);
    b.reshape(joined, &[tokens, (heads * HEAD_DIM).into()])
}
