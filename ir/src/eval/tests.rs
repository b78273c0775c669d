//! Tests of the interpreter.

use super::*;
use crate::builder::{Bias, FunctionBuilder, Numerics, Rope};
use crate::dtype::DType;
use crate::module::{Argument, Call, Module};
use crate::op::{Attention, Op};
use crate::plan::StepInput;

/// Numbers in -1..1 that look random and depend on `seed` alone.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

const HIDDEN: usize = 64;
const HEADS: (usize, usize) = (4, 2);
const HEAD_DIM: usize = 16;
const VOCAB: usize = 50;

/// A small model of the Llama kind.
fn model(layers: usize, matrix: DType) -> Module {
    let numerics = Numerics::new(matrix);
    let mut b = FunctionBuilder::new("embed", numerics);
    let table = b.matrix("embed_tokens.weight", VOCAB, HIDDEN);
    let ids = b.step(StepInput::TokenIds);
    let rows = b.embedding(table, ids);
    let embed = b.finish(&[rows]).unwrap();

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
    let attention = Attention { heads: HEADS.0, kv_heads: HEADS.1, scale: 0.25.into(), window: None };
    let mixed = b.attend(q, kv, attention);
    let out = b.linear(mixed, "o", (HEADS.0 * HEAD_DIM, HIDDEN), Bias::Absent);
    let x = b.plus(x, out);
    let layer = b.finish(&[x]).unwrap();

    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.rows_param("x", HIDDEN);
    let rows = b.step(StepInput::SampleRows);
    let x = b.add(Op::Gather, &[x, rows]);
    let x = b.to_matrix_type(x);
    let logits = b.linear(x, "lm_head", (HIDDEN, VOCAB), Bias::Absent);
    let head = b.finish(&[logits]).unwrap();

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

/// Weights whose sizes follow from their names.
fn weights(key: &str) -> Option<Tensor> {
    let kv_width = HEADS.1 * HEAD_DIM;
    let sizes = match key.rsplit('.').nth(1)? {
        "embed_tokens" | "lm_head" => vec![VOCAB, HIDDEN],
        "norm" => vec![HIDDEN],
        "k" if key.ends_with("bias") => vec![kv_width],
        "k" | "v" => vec![kv_width, HIDDEN],
        "q" | "o" => vec![HIDDEN, HIDDEN],
        _ => return None,
    };
    let seed = key.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let count = sizes.iter().product();
    let data = noise(seed, count).into_iter().map(|x| x * 0.3).collect();
    Tensor::new(DType::F32, sizes, data).ok()
}

fn logits(module: &Module, state: &mut KvState, step: &StepInputs, mode: Mode) -> Vec<f64> {
    eval_module(module, &weights, state, step, mode).unwrap().into_data()
}

fn tokens(count: usize, seed: u64) -> Vec<i32> {
    noise(seed, count).iter().map(|x| ((x + 1.0) / 2.0 * VOCAB as f64) as i32).collect()
}

#[test]
fn a_model_of_three_layers_is_fast_and_modes_agree() {
    let module = model(3, DType::F32);
    let prompt = tokens(150, 3);
    let step = StepInputs::one_sequence(0, &prompt);
    let started = std::time::Instant::now();
    let typed = logits(&module, &mut KvState::default(), &step, Mode::AsTyped);
    // Generous: it takes a tenth of this on an idle machine.
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
    let wide = logits(&module, &mut KvState::default(), &step, Mode::Wide);
    let difference: f64 = typed.iter().zip(&wide).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let norm: f64 = wide.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(difference > 0.0 && difference < 1e-5 * norm, "{difference} of {norm}");
}

#[test]
fn a_prompt_in_pieces_and_in_company_gives_the_same_logits() {
    let module = model(2, DType::BF16);
    let (first, second) = (tokens(9, 1), tokens(6, 2));
    let whole = logits(&module, &mut KvState::default(), &StepInputs::one_sequence(0, &first), Mode::AsTyped);
    let mut state = KvState::default();
    let steps = [
        StepInputs::batch(&[(1, 0, &second[..4]), (0, 0, &first[..5])]),
        StepInputs::batch(&[(0, 5, &first[5..8])]),
        StepInputs::batch(&[(0, 8, &first[8..]), (1, 4, &second[4..])]),
    ];
    let results = steps.map(|step| logits(&module, &mut state, &step, Mode::AsTyped));
    assert_eq!(results[2][..VOCAB], whole);
    let alone = logits(&module, &mut KvState::default(), &StepInputs::one_sequence(0, &second), Mode::AsTyped);
    assert_eq!(results[2][VOCAB..], alone);
}

#[test]
fn mistakes_are_errors_that_say_where() {
    let module = model(1, DType::F32);
    let run = |step: &StepInputs, weights: &Weights<'_>| {
        let mut state = KvState::default();
        let error = eval_module(&module, weights, &mut state, step, Mode::AsTyped).unwrap_err();
        assert_eq!(state, KvState::default(), "a failed step changes nothing");
        error.to_string()
    };
    let error = run(&StepInputs::one_sequence(0, &[50]), &weights);
    assert_eq!(error, "call 0 of the step, function @embed, %2 = gather: index 50 is outside the table's rows 0..50");
    let error = run(&StepInputs::one_sequence(3, &[5]), &weights);
    assert!(error.contains("has 0 positions in the cache, the step starts at 3"), "{error}");
    let error = run(&StepInputs::one_sequence(0, &[5]), &|key| weights(key).filter(|_| !key.contains(".k.")));
    assert_eq!(
        error,
        "call 1 of the step in \"layers.0.\", function @layer, %16 = weight: there is no weight `k.weight`"
    );
    let wrong = |_: &str| Tensor::new(DType::F32, vec![2], vec![0.0; 2]).ok();
    assert!(run(&StepInputs::one_sequence(0, &[5]), &wrong).contains("expected f32[50, 64], found sizes [2]"));
}
