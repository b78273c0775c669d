//! Properties of the text form, of inference and of the interpreter, over random functions.

use super::*;
use crate::dim::{Bindings, Promise};
use crate::eval::{Mode, eval_function, eval_module};
use crate::graph::{Graph, NodeId};
use crate::module::{Module, Param};
use crate::op::{AttendMethod, Attention, BinaryOp, DotMethod, KvPart, Op};
use crate::shape::{KvType, Shape, TensorType};
use crate::text::{Document, parse, print, print_module};
use crate::verify::verify_module;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn in_module(function: Function) -> Module {
    Module { name: "Random".into(), functions: vec![function], calls: Vec::new() }
}

fn configs() -> impl Strategy<Value = Config> {
    (0..3, 0usize..30).prop_map(|(kind, operations)| {
        let config = match kind {
            0 => Config::rowwise(),
            1 => Config::modellike(),
            _ => Config::everything(),
        };
        Config { operations, ..config }
    })
}

fn run(random: &RandomFunction, step: &StepInputs, mode: Mode) -> Vec<Tensor> {
    let mut inputs = random.inputs(3, step);
    let results = eval_function(&random.function, &mut inputs, &random.weight_source(), step, mode).unwrap();
    results.iter().map(|value| value.as_tensor().unwrap().clone()).collect()
}

proptest! {
    #[test]
    fn text_round_trips(seed: u64, config in configs()) {
        let module = in_module(random_function(seed, &config).function);
        let text = print_module(&module);
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        prop_assert_eq!(print(&parsed), text);
        // The only mistake in it is that its step is empty.
        let found = verify_module(&module, Promise::None);
        prop_assert_eq!(found.len(), 1, "{}", found.iter().map(|d| format!("{d}\n")).collect::<String>());
    }

    #[test]
    fn damaged_text_is_refused_or_read(seed: u64, cut in 0usize..2000, length in 0usize..20, insert in "[ -~é]{0,5}") {
        let text = print_module(&in_module(random_function(seed, &Config::everything()).function));
        let cut = cut % text.len();
        let end = (cut + length).min(text.len());
        let damaged = format!("{}{insert}{}", &text[..cut], &text[end..]);
        match parse(&damaged) {
            Ok(document) => {
                let printed = print(&document);
                prop_assert_eq!(print(&parse(&printed).unwrap()), printed);
            }
            Err(error) => prop_assert!(error.line >= 1 && error.column >= 1),
        }
    }

    #[test]
    fn any_text_is_refused_or_read(text in "(module @m |func @f|\\(|\\)|%x|: |f32|\\[|\\]|->|\\{|\\}|step|\"|kv|<|=|call|é|9e|\n){0,40}") {
        let _ = parse(&text);
    }

    #[test]
    fn results_have_the_inferred_types_and_are_finite(seed: u64, config in configs()) {
        let random = random_function(seed, &config);
        let step = random_step(seed, 3, 4);
        let bindings = step.bindings();
        for (result, &node) in run(&random, &step, Mode::AsTyped).iter().zip(&random.function.results) {
            let ty = random.function.graph.ty(node).as_tensor().unwrap();
            prop_assert_eq!(result.sizes(), ty.shape.evaluate(&bindings));
            prop_assert_eq!(result.dtype(), ty.dtype);
            for &value in result.data() {
                prop_assert!(value.is_finite());
                prop_assert_eq!(ty.dtype.round(value), value);
            }
        }
    }

    #[test]
    fn modes_agree_up_to_rounding(seed: u64, config in configs()) {
        let config = Config { dtypes: vec![DType::F32], ..config };
        let random = random_function(seed, &config);
        let step = random_step(seed, 3, 4);
        for (typed, wide) in run(&random, &step, Mode::AsTyped).iter().zip(run(&random, &step, Mode::Wide)) {
            let largest = wide.data().iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
            for (a, b) in typed.data().iter().zip(wide.data()) {
                prop_assert!((a - b).abs() <= 2e-3 * largest, "{a} and {b} of at most {largest}");
            }
        }
    }

    #[test]
    fn attention_is_what_loops_compute(
        seed: u64,
        kv_heads in 1usize..4,
        group in 1usize..4,
        head_dim in 1usize..9,
        window in proptest::option::of(1usize..6),
    ) {
        let attention = Attention { heads: kv_heads * group, kv_heads, scale: 0.7.into(), window, method: AttendMethod::Whole };
        let (query_width, kv_width) = (attention.heads * head_dim, kv_heads * head_dim);
        let function = attend_function(&attention, head_dim);
        let mut random = Random::new(seed);
        let step = random_step(seed, 3, 7);
        let rows = step.token_ids.len();
        let tensors = [query_width, kv_width, kv_width].map(|width| random.tensor(DType::F32, &[rows, width]));
        let mut inputs: Vec<Value> = tensors.iter().cloned().map(Value::Tensor).collect();
        inputs.push(Value::Kv(KvCache::default()));
        let result = eval_function(&function, &mut inputs, &|_| None, &step, Mode::Wide).unwrap();
        let expected = attend_by_loops(&attention, head_dim, &tensors, &step);
        for (found, expected) in result[0].as_tensor().unwrap().data().iter().zip(&expected) {
            prop_assert!((found - expected).abs() < 1e-12, "{found} and {expected}");
        }
    }

    #[test]
    fn rearranging_twice_changes_nothing(seed: u64, a in 1usize..5, b in 1usize..5, c in 1usize..5) {
        let shape = Shape::of(&[a, b, c]);
        let result = evaluate(seed, &[a, b, c], |graph, x| {
            let turned = graph.add(Op::Permute { order: vec![2, 0, 1] }, &[x])?;
            let back = graph.add(Op::Permute { order: vec![1, 2, 0] }, &[turned])?;
            let flat = graph.add(Op::Reshape { shape: Shape::of(&[a * b * c]) }, &[back])?;
            let back = graph.add(Op::Reshape { shape: shape.clone() }, &[flat])?;
            let parts: Result<Vec<_>, _> =
                (0..b).map(|i| graph.add(Op::Slice { axis: 1, start: i, end: i + 1 }, &[back])).collect();
            graph.add(Op::Concat { axis: 1 }, &parts?)
        });
        prop_assert_eq!(&result[0], &result[1]);
    }

    #[test]
    fn a_dot_with_the_identity_changes_nothing(seed: u64, a in 1usize..6, b in 1usize..6) {
        let identity = (0..b * b).map(|i| f64::from(u8::from(i % (b + 1) == 0)).into()).collect();
        let result = evaluate(seed, &[a, b], |graph, x| {
            let constant = Op::Constant { values: identity, dtype: DType::F32, shape: Shape::of(&[b, b]) };
            let identity = graph.add(constant, &[])?;
            graph.add(Op::Dot { left: 1, right: 0, batch: 0, method: DotMethod::Gemm }, &[x, identity])
        });
        prop_assert_eq!(&result[0], &result[1]);
    }

    #[test]
    fn twice_is_the_sum_with_itself(seed: u64, a in 1usize..6) {
        let result = evaluate(seed, &[a, 2], |graph, x| {
            let two = Op::Constant { values: vec![0.5.into()], dtype: DType::F32, shape: Shape::of(&[a, 2]) };
            let two = graph.add(two, &[])?;
            let sum = graph.add(Op::Binary(BinaryOp::Add), &[x, x])?;
            graph.add(Op::Binary(BinaryOp::Multiply), &[sum, two])
        });
        prop_assert_eq!(&result[0], &result[1]);
    }
}

/// A tensor of the given sizes and what `build` makes of it.
fn evaluate(
    seed: u64,
    sizes: &[usize],
    build: impl FnOnce(&mut Graph, NodeId) -> Result<NodeId, String>,
) -> Vec<Value> {
    let ty = Type::tensor(DType::F32, sizes);
    let mut graph = Graph::default();
    let x = graph.add(Op::Input { index: 0, ty: ty.clone() }, &[]).unwrap();
    let result = build(&mut graph, x).unwrap();
    let params = vec![Param { name: "x".into(), ty }];
    let function = Function { name: "f".into(), params, graph, results: vec![x, result] };
    let mut inputs = [Value::Tensor(Random::new(seed).tensor(DType::F32, sizes))];
    eval_function(&function, &mut inputs, &|_| None, &StepInputs::default(), Mode::AsTyped).unwrap()
}

fn attend_function(attention: &Attention, head_dim: usize) -> Function {
    let kv = Type::Kv(KvType { heads: attention.kv_heads, head_dim, dtype: DType::F32 });
    let rows = |heads: usize| {
        let shape = Shape(vec![crate::dim::Symbol::Tokens.into(), (heads * head_dim).into()]);
        Type::Tensor(TensorType { dtype: DType::F32, shape })
    };
    let types = [rows(attention.heads), rows(attention.kv_heads), rows(attention.kv_heads), kv];
    let mut graph = Graph::default();
    let inputs = types.iter().enumerate().map(|(index, ty)| Op::Input { index, ty: ty.clone() });
    let inputs: Vec<_> = inputs.map(|input| graph.add(input, &[]).unwrap()).collect();
    let kv = graph.add(Op::KvWrite { part: KvPart::Key }, &[inputs[3], inputs[1]]).unwrap();
    let kv = graph.add(Op::KvWrite { part: KvPart::Value }, &[kv, inputs[2]]).unwrap();
    let result = graph.add(Op::Attend(*attention), &[inputs[0], kv]).unwrap();
    let params = types.into_iter().enumerate().map(|(index, ty)| Param { name: format!("p{index}"), ty }).collect();
    Function { name: "f".into(), params, graph, results: vec![result] }
}

fn attend_by_loops(attention: &Attention, head_dim: usize, qkv: &[Tensor; 3], step: &StepInputs) -> Vec<f64> {
    let [query, keys, values] = qkv;
    let group = attention.heads / attention.kv_heads;
    let at = |tensor: &Tensor, row: usize, head: usize, i: usize| {
        tensor.data()[row * tensor.sizes()[1] + head * head_dim + i]
    };
    let mut out = vec![0.0; query.data().len()];
    for (_, rows) in step.sequences() {
        for row in rows.clone() {
            for head in 0..attention.heads {
                let first =
                    attention.window.map_or(rows.start, |window| rows.start.max((row + 1).saturating_sub(window)));
                let score = |other: usize| {
                    let products = (0..head_dim).map(|i| at(query, row, head, i) * at(keys, other, head / group, i));
                    (attention.scale.get() * products.sum::<f64>()).exp()
                };
                let total: f64 = (first..=row).map(score).sum();
                for i in 0..head_dim {
                    let mixed: f64 = (first..=row).map(|other| score(other) * at(values, other, head / group, i)).sum();
                    out[(row * attention.heads + head) * head_dim + i] = mixed / total;
                }
            }
        }
    }
    out
}

#[test]
fn functions_depend_on_the_seed_alone_and_hold_every_operation() {
    let mut names = BTreeSet::new();
    for seed in 0..200 {
        let config = Config::everything();
        let random = random_function(seed, &config);
        let again = random_function(seed, &config);
        assert_eq!(print_module(&in_module(random.function.clone())), print_module(&in_module(again.function)));
        assert_eq!(random.weights, again.weights);
        let graph = &random.function.graph;
        names.extend(graph.topological().into_iter().map(|node| graph.op(node).name()));
    }
    for name in [
        "input",
        "step",
        "weight",
        "const",
        "iota",
        "select",
        "convert",
        "reduce",
        "dot",
        "reshape",
        "permute",
        "broadcast",
        "slice",
        "concat",
        "gather",
        "kv_write",
        "attend",
        "exp",
        "div",
        "less",
    ] {
        assert!(names.contains(name), "no {name}");
    }
}

#[test]
fn rowwise_functions_keep_tokens_in_front() {
    for seed in 0..100 {
        let function = random_function(seed, &Config::rowwise()).function;
        for &result in &function.results {
            let shape = &function.graph.ty(result).as_tensor().unwrap().shape;
            assert_eq!(shape.0[0], crate::dim::Symbol::Tokens.into());
            assert!((2..=3).contains(&shape.rank()));
        }
    }
}

#[test]
fn the_example_prints_verifies_and_runs() {
    for dtype in [DType::F32, DType::BF16] {
        let module = example_module(2, dtype);
        let document = Document::Module(module.clone());
        let text = print(&document);
        assert_eq!(print(&parse(&text).unwrap()), text);
        assert_eq!(verify_module(&module, Promise::None), []);
        let step = random_step(5, 3, 6);
        let logits = eval_module(&module, &example_weight, &mut Default::default(), &step, Mode::AsTyped).unwrap();
        let Bindings { samples, .. } = step.bindings();
        assert_eq!(logits.sizes(), [samples, TEST_VOCAB]);
    }
}
