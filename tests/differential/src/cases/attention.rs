//! Attention alone: queries, keys and values come straight from tables, so that nothing but attention is between exact
//! numbers and the logits, and the bounds are as tight as they get.

use super::steps_by;
use crate::case::{Build, Case, Limits, Target, random_weight, weight_types};
use crate::check::Tokens;
use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::module::{Argument, Call, LOGITS, Module};
use llmc_ir::op::{AttendMethod, Attention, Op};
use llmc_ir::plan::StepInput;
use llmc_ir::shape::Type;
use llmc_ir::testing::Random;
use llmc_passes::fuse::Epilogues;

const VOCAB: usize = 61;

/// One kind of attention.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions that a token sees, where not all.
    pub window: Option<usize>,
    /// Scores are about this large.
    pub scores: f64,
}

impl Kind {
    /// Of everything before a token.
    pub const fn full(heads: usize, kv_heads: usize, head_dim: usize) -> Kind {
        Kind { heads, kv_heads, head_dim, window: None, scores: 1.5 }
    }

    /// Of as many positions only.
    pub const fn sliding(self, window: usize) -> Kind {
        Kind { window: Some(window), ..self }
    }
}

/// Two layers that differ in nothing but their caches: the second one's values are the first one's result's rows.
fn module(kind: Kind, dtype: DType) -> Module {
    let Kind { heads, kv_heads, head_dim, window, scores } = kind;
    let numerics = Numerics::new(dtype);
    let mut b = FunctionBuilder::new("embed", numerics);
    let ids = b.step(StepInput::TokenIds);
    let rows = ["query", "key", "value"].map(|name| {
        let heads = if name == "query" { heads } else { kv_heads };
        let table = b.matrix(name, VOCAB, heads * head_dim);
        b.add(Op::Gather, &[table, ids])
    });
    let embed = b.finish(&rows).expect("tables are well-typed");

    let mut b = FunctionBuilder::new("attend", numerics);
    let wide = |heads: usize| Type::tensor(dtype, &[Dim::from(Symbol::Tokens), (heads * head_dim).into()]);
    let (query, key, value) = (b.param("q", wide(heads)), b.param("k", wide(kv_heads)), b.param("v", wide(kv_heads)));
    let kv = b.kv_param("kv", kv_heads, head_dim);
    let kv = b.kv_write(kv, key, value);
    let scale = (scores / (head_dim as f64).sqrt()).into();
    let mixed = b.attend(query, kv, Attention { heads, kv_heads, scale, window, method: AttendMethod::Whole });
    let attend = b.finish(&[mixed]).expect("attention is well-typed");

    let mut b = FunctionBuilder::new("head", numerics);
    let mixed = b.param("x", wide(heads));
    let rows = b.step(StepInput::SampleRows);
    let sampled = b.add(Op::Gather, &[mixed, rows]);
    let logits = b.convert(sampled, DType::F32);
    let head = b.finish(&[logits]).expect("logits are well-typed");

    let value = |name: &str| Argument::Value(name.into());
    let call = |function: &str, arguments: Vec<Argument>, results: &[&str]| Call {
        function: function.into(),
        scope: String::new(),
        arguments,
        results: results.iter().map(ToString::to_string).collect(),
    };
    let calls = vec![
        call("embed", vec![], &["q", "k", "v"]),
        // What the first layer makes is not used; that it does not disturb the second is the point.
        call("attend", vec![value("q"), value("v"), value("k"), Argument::Kv(0)], &["x"]),
        call("attend", vec![value("q"), value("k"), value("v"), Argument::Kv(1)], &["x"]),
        call("head", vec![value("x")], &[LOGITS]),
    ];
    Module { name: "Attention".into(), functions: vec![embed, attend, head], calls }
}

/// A case of one kind of attention, and steps of so many new tokens per sequence.
///
/// # Panics
/// If the kind is not sound.
pub fn case(
    kind: Kind,
    dtype: DType,
    target: Target,
    limits: Limits,
    lengths: &[&[(u64, usize)]],
) -> (Case, Vec<Tokens>) {
    let module = module(kind, dtype);
    let mut random = Random::new(kind.head_dim as u64);
    let weights = weight_types(&module).into_iter().map(|(name, ty)| {
        let weight = random_weight(&mut random, &ty, 1.7);
        (name, weight)
    });
    let weights = weights.collect();
    let build = Build { target, without: vec![], epilogues: Epilogues::Fused, method: None };
    let case = Case { module, weights, limits, build };
    (case, steps_by(&mut random, VOCAB, lengths))
}
