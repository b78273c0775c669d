//! A small model of the Llama kind, for tests that need a whole step.

use super::{Random, TEST_VOCAB};
use crate::builder::{Bias, FunctionBuilder, Numerics, Rope};
use crate::dtype::DType;
use crate::eval::Tensor;
use crate::module::{Argument, Call, Module};
use crate::op::{AttendMethod, Attention, Op};
use crate::plan::StepInput;

const HIDDEN: usize = 64;
const HEADS: (usize, usize) = (4, 2);
const HEAD_DIM: usize = 16;

/// A model with attention, rotary embeddings, a norm and a bias in each of its `layers`; 64 wide, with a
/// vocabulary of [`TEST_VOCAB`]. Matrices are of type `matrix`.
pub fn example_module(layers: usize, matrix: DType) -> Module {
    let numerics = Numerics::new(matrix);
    let mut b = FunctionBuilder::new("embed", numerics);
    let table = b.matrix("embed_tokens.weight", TEST_VOCAB, HIDDEN);
    let ids = b.step(StepInput::TokenIds);
    let rows = b.embedding(table, ids);
    let embed = b.finish(&[rows]).expect("the example is well-typed");

    let mut b = FunctionBuilder::new("layer", numerics);
    let x = b.rows_param("x", HIDDEN);
    let kv = b.kv_param("kv", HEADS.1, HEAD_DIM);
    let normed = b.rms_norm(x, "norm", 1e-5);
    let normed = b.to_matrix_type(normed);
    let rope = Rope { frequencies: (0..HEAD_DIM / 2).map(|i| 0.5f32.powi(i as i32)).collect(), factor: 1.0 };
    let kv_width = HEADS.1 * HEAD_DIM;
    let q = b.linear(normed, "q", (HIDDEN, HEADS.0 * HEAD_DIM), Bias::Absent);
    let k = b.linear(normed, "k", (HIDDEN, kv_width), Bias::Present);
    let v = b.linear(normed, "v", (HIDDEN, kv_width), Bias::Absent);
    let (q, k) = (b.rope(q, HEADS.0, &rope), b.rope(k, HEADS.1, &rope));
    let kv = b.kv_write(kv, k, v);
    let attention =
        Attention { heads: HEADS.0, kv_heads: HEADS.1, scale: 0.25.into(), window: None, method: AttendMethod::Whole };
    let mixed = b.attend(q, kv, attention);
    let out = b.linear(mixed, "o", (HEADS.0 * HEAD_DIM, HIDDEN), Bias::Absent);
    let x = b.plus(x, out);
    let layer = b.finish(&[x]).expect("the example is well-typed");

    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.rows_param("x", HIDDEN);
    let rows = b.step(StepInput::SampleRows);
    let x = b.add(Op::Gather, &[x, rows]);
    let x = b.to_matrix_type(x);
    let logits = b.linear(x, "lm_head", (HIDDEN, TEST_VOCAB), Bias::Absent);
    let head = b.finish(&[logits]).expect("the example is well-typed");

    let x = || vec!["x".to_owned()];
    let mut calls = vec![Call { function: "embed".into(), scope: String::new(), arguments: vec![], results: x() }];
    calls.extend((0..layers).map(|i| Call {
        function: "layer".into(),
        scope: format!("layers.{i}."),
        arguments: vec![Argument::Value("x".into()), Argument::Kv(i)],
        results: x(),
    }));
    let arguments = vec![Argument::Value("x".into())];
    calls.push(Call { function: "head".into(), scope: String::new(), arguments, results: vec!["logits".into()] });
    Module { name: "Test".into(), functions: vec![embed, layer, head], calls }
}

/// A weight of the example by its checkpoint key: noise that depends on the key alone, of the size that its name
/// implies.
pub fn example_weight(key: &str) -> Option<Tensor> {
    let kv_width = HEADS.1 * HEAD_DIM;
    let sizes = match key.rsplit('.').nth(1)? {
        "embed_tokens" | "lm_head" => vec![TEST_VOCAB, HIDDEN],
        "norm" => vec![HIDDEN],
        "k" if key.ends_with("bias") => vec![kv_width],
        "k" | "v" => vec![kv_width, HIDDEN],
        "q" | "o" => vec![HIDDEN, HIDDEN],
        _ => return None,
    };
    let seed = key.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let noise = Random::new(seed).tensor(DType::F32, &sizes);
    let data = noise.into_data().into_iter().map(|x| x * 0.3).collect();
    Tensor::new(DType::F32, sizes, data).ok()
}
