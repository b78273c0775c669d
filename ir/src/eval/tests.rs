//! Tests of the interpreter.

use super::*;
use crate::dtype::DType;
use crate::module::Module;
use crate::testing::{Random, TEST_VOCAB, example_module, example_weight};

fn logits(module: &Module, state: &mut KvState, step: &StepInputs, mode: Mode) -> Vec<f64> {
    eval_module(module, &example_weight, state, step, mode).unwrap().into_data()
}

fn tokens(count: usize, seed: u64) -> Vec<i32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(TEST_VOCAB) as i32).collect()
}

#[test]
fn a_model_of_three_layers_is_fast_and_modes_agree() {
    let module = example_module(3, DType::F32);
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
    let module = example_module(2, DType::BF16);
    let (first, second) = (tokens(9, 1), tokens(6, 2));
    let whole = logits(&module, &mut KvState::default(), &StepInputs::one_sequence(0, &first), Mode::AsTyped);
    let mut state = KvState::default();
    let steps = [
        StepInputs::batch(&[(1, 0, &second[..4]), (0, 0, &first[..5])]),
        StepInputs::batch(&[(0, 5, &first[5..8])]),
        StepInputs::batch(&[(0, 8, &first[8..]), (1, 4, &second[4..])]),
    ];
    let results = steps.map(|step| logits(&module, &mut state, &step, Mode::AsTyped));
    assert_eq!(results[2][..TEST_VOCAB], whole);
    let alone = logits(&module, &mut KvState::default(), &StepInputs::one_sequence(0, &second), Mode::AsTyped);
    assert_eq!(results[2][TEST_VOCAB..], alone);
}

#[test]
fn mistakes_are_errors_that_say_where() {
    let module = example_module(1, DType::F32);
    let run = |step: &StepInputs, weights: &Weights<'_>| {
        let mut state = KvState::default();
        let error = eval_module(&module, weights, &mut state, step, Mode::AsTyped).unwrap_err();
        assert_eq!(state, KvState::default(), "a failed step changes nothing");
        error.to_string()
    };
    let error = run(&StepInputs::one_sequence(0, &[11]), &example_weight);
    assert_eq!(error, "call 0 of the step, function @embed, %2 = gather: index 11 is outside the table's rows 0..11");
    let error = run(&StepInputs::one_sequence(3, &[5]), &example_weight);
    assert!(error.contains("has 0 positions in the cache, the step starts at 3"), "{error}");
    let error = run(&StepInputs::one_sequence(0, &[5]), &|key| example_weight(key).filter(|_| !key.contains(".k.")));
    assert!(error.starts_with("call 1 of the step in \"layers.0.\", function @layer, %"), "{error}");
    assert!(error.ends_with(" = weight: there is no weight `k.weight`"), "{error}");
    let wrong = |_: &str| Tensor::new(DType::F32, vec![2], vec![0.0; 2]).ok();
    assert!(run(&StepInputs::one_sequence(0, &[5]), &wrong).contains("expected f32[11, 64], found sizes [2]"));
}

#[test]
fn fused_functions_mean_what_they_did_before() {
    use crate::text::{Document, parse};
    let plain = r#"module @M
func @f(%x: f32[tokens, 8], %kv: kv<2 x 4, bf16>) -> (f32[tokens, 8]) {
  %0 = weight "w" : f32[8, 8]
  %1 = dot %x, %0 {contract = [1] x [1]} : f32[tokens, 8]
  %2 = convert %1 : bf16[tokens, 8]
  %3 = kv_write %kv, %2 {part = key} : kv<2 x 4, bf16>
  %4 = kv_write %3, %2 {part = value} : kv<2 x 4, bf16>
  %5 = attend %2, %4 {heads = 2, kv_heads = 2, scale = 0.5, mask = window 3} : bf16[tokens, 8]
  %6 = convert %5 : f32[tokens, 8]
  return %6
}
step { %logits = call @f(%x, kv 0) }"#;
    let fused = r#"program @p {tokens <= 8, samples <= 8, sequences <= 8, context <= 8}
fused module @M
func @f(%x: f32[tokens, 8], %kv: kv<2 x 4, bf16>) -> (f32[tokens, 8]) {
  region @project: dot {
    %in0 = %x : f32[tokens, 8]
    %in1 = weight "w" : f32[8, 8]
    %in2 = %kv : kv<2 x 4, bf16>
    %0 = dot %in0, %in1 {contract = [1] x [1]} : f32[tokens, 8]
    %1 = convert %0 : bf16[tokens, 8]
    %2 = kv_write %in2, %1 {part = key} : kv<2 x 4, bf16>
    yield %1, %2
  }
  region @store: rows {
    %in0 = %project#0 : bf16[tokens, 8]
    %in1 = %project#1 : kv<2 x 4, bf16>
    %0 = kv_write %in1, %in0 {part = value} : kv<2 x 4, bf16>
    yield %0
  }
  region @mix: attend {
    %in0 = %project#0 : bf16[tokens, 8]
    %in1 = %store#0 : kv<2 x 4, bf16>
    %0 = attend %in0, %in1 {heads = 2, kv_heads = 2, scale = 0.5, mask = window 3} : bf16[tokens, 8]
    %1 = convert %0 : f32[tokens, 8]
    yield %1
  }
  return %mix#0
}
step { %logits = call @f(%x, kv 0) }"#;
    let (Document::Module(plain), Document::Fused(fused)) = (parse(plain).unwrap(), parse(fused).unwrap()) else {
        panic!("a module and a fused program");
    };
    let mut random = Random::new(1);
    let weight = random.tensor(DType::F32, &[8, 8]);
    let weights = |name: &str| (name == "w").then(|| weight.clone());
    let mut caches = [Value::Kv(KvCache::default()), Value::Kv(KvCache::default())];
    for (start, count) in [(0, 5), (5, 1), (6, 2)] {
        let step = StepInputs::one_sequence(start, &vec![0; count]);
        let x = Value::from(random.tensor(DType::F32, &[count, 8]));
        let [before, after] = caches;
        let (mut before, mut after) = ([x.clone(), before], [x, after]);
        let expected = eval_function(&plain.functions[0], &mut before, &weights, &step, Mode::AsTyped).unwrap();
        let function = &fused[0].module.functions[0];
        let found = eval_fused_function(function, &mut after, &weights, &step, Mode::AsTyped).unwrap();
        assert_eq!(expected, found);
        assert_eq!(before, after);
        assert!(matches!(&before[1], Value::Kv(cache) if cache.values[&0].len() == (start + count) * 8));
        caches = [before[1].clone(), after[1].clone()];
        let inputs = [found[0].clone(), before[0].clone()];
        let wrong = eval_region(&function.regions[2], &inputs, &step, Mode::AsTyped).unwrap_err();
        assert!(wrong.to_string().starts_with("region @mix, %in"), "{wrong}");
    }
}
