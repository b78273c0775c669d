//! Elementary functions and conversions against f64 over dense sweeps: every bf16 number (so every exponent, zeros,
//! subnormals, infinities and NaN), numbers around the places where the code changes its mind, and many at random.

use llmc_differential::case::{Build, Case, Limits, Target};
use llmc_differential::check::compile;
use llmc_differential::enclosure::error::{SMALLEST, UNIT, of_function};
use llmc_differential::pool::Pool;
use llmc_differential::targets;
use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::eval::{StepInputs, Tensor};
use llmc_ir::graph::NodeId;
use llmc_ir::module::{Call, LOGITS, Module};
use llmc_ir::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, StepInput};
use llmc_ir::shape::Shape;
use llmc_ir::testing::Random;
use llmc_passes::fuse::Epilogues;

/// Rows of numbers; a row is some whole vectors and a rest that is computed one by one.
const ROWS: usize = 512;
const COLUMNS: usize = 16 * 20 + 3;

/// Sine and cosine of larger angles are NaN; positions are far below.
const LARGEST_ANGLE: f64 = 1e9;

/// What happens to a row of numbers.
type Body = fn(&mut FunctionBuilder, NodeId) -> NodeId;

/// Applies `body` to rows of a table of numbers, for every target that runs here and the device.
fn for_targets(numbers: &[f32], width: usize, body: Body, mut check: impl FnMut(&Target, &[f32])) {
    let mut b = FunctionBuilder::new("all", Numerics::new(DType::F32));
    let ids = b.step(StepInput::TokenIds);
    let rows = numbers.len() / width;
    let table = b.matrix("numbers", rows, width);
    let x = b.add(Op::Gather, &[table, ids]);
    let result = body(&mut b, x);
    let samples = b.step(StepInput::SampleRows);
    let logits = b.add(Op::Gather, &[result, samples]);
    let function = b.finish(&[logits]).expect("the rows are well-typed");
    let call = Call { function: "all".into(), scope: String::new(), arguments: vec![], results: vec![LOGITS.into()] };
    let module = Module { name: "Functions".into(), functions: vec![function], calls: vec![call] };
    let table = numbers.iter().copied().map(f64::from).collect();
    let table = Tensor::new(DType::F32, vec![rows, width], table).expect("whole rows");
    for target in targets::runnable().into_iter().chain([targets::device()]) {
        let case = Case {
            module: module.clone(),
            weights: [("numbers".to_owned(), table.clone())].into(),
            limits: Limits { max_context: rows, max_batch: 2, prefill_chunk: rows },
            build: Build { target: target.clone(), without: vec![], epilogues: Epilogues::Fused, method: None },
        };
        let programs = case.programs().expect("rows have programs");
        let plan = case.plan(&programs).expect("rows have a plan");
        let compiled = compile(&case, plan).expect("rows have code");
        let mut pool = Pool::new(compiled.plan().kv, rows.div_ceil(KV_BLOCK_POSITIONS), 0);
        let tokens: Vec<i32> = (0..rows as i32).collect();
        let mut step = StepInputs::one_sequence(0, &tokens);
        step.sample_rows = tokens;
        let prefill = compiled.plan().programs.iter().position(|program| program.name == "prefill");
        let batch = pool.batch(&step);
        let results = compiled.run(prefill.expect("a prefill program"), &batch, &mut pool, 1).expect("sound writes");
        check(&target, &results);
    }
}

fn sweep() -> Vec<f32> {
    let mut numbers: Vec<f32> = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
    for edge in [-126.0f32, 128.0, -87.336_54, 88.722_84, 0.3, 1.0, std::f32::consts::FRAC_1_SQRT_2, f32::MIN_POSITIVE]
    {
        let near = (-40..40).map(|by| f32::from_bits(edge.to_bits().wrapping_add_signed(by)));
        numbers.extend(near.flat_map(|x| [x, -x]));
    }
    let mut random = Random::new(5);
    while numbers.len() < ROWS * COLUMNS {
        let scale = *random.choose(&[0.4, 1.0, 5.0, 20.0, 100.0, 1e4, 1e9]);
        numbers.push((scale * random.unit()) as f32);
    }
    // So that every kind of number is met in vectors and in rests.
    for index in (1..numbers.len()).rev() {
        numbers.swap(index, random.below(index + 1));
    }
    numbers
}

fn reference(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Negate => -x,
        UnaryOp::Absolute => x.abs(),
        UnaryOp::Exp => x.exp(),
        // Of numbers too small for a normal f32 it is minus infinity.
        UnaryOp::Log if (0.0..SMALLEST).contains(&x) => f64::NEG_INFINITY,
        UnaryOp::Log => x.ln(),
        UnaryOp::Rsqrt => 1.0 / x.sqrt(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Reciprocal => 1.0 / x,
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// Whether `found` is what code may return for `op` of `x`.
fn is_right(op: UnaryOp, x: f32, found: f32) -> bool {
    let x = f64::from(x);
    if matches!(op, UnaryOp::Sin | UnaryOp::Cos) && x.abs() > LARGEST_ANGLE && x.is_finite() {
        return found.is_nan();
    }
    let exact = reference(op, x);
    let nearest = exact as f32;
    if exact.is_nan() {
        return found.is_nan();
    }
    let Some(units) = of_function(op) else { return found == nearest };
    // The ends of what is allowed, rounded as the result is.
    let error = if exact.is_finite() { units * UNIT * exact.abs() + SMALLEST } else { 0.0 };
    let (low, high) = ((exact - error) as f32, (exact + error) as f32);
    low <= found && found <= high
}

#[test]
fn elementary_functions() {
    let numbers = sweep();
    let body: Body = |b, x| {
        let results: Vec<_> = UnaryOp::ALL.iter().map(|&op| b.unary(op, x)).collect();
        b.add(Op::Concat { axis: 1 }, &results)
    };
    for_targets(&numbers, COLUMNS, body, |target, results| {
        for (number, &op) in UnaryOp::ALL.iter().enumerate() {
            let mut worst = 0.0f64;
            for (row, numbers) in numbers.chunks_exact(COLUMNS).enumerate() {
                let start = (row * UnaryOp::ALL.len() + number) * COLUMNS;
                for (&x, &found) in numbers.iter().zip(&results[start..start + COLUMNS]) {
                    let exact = reference(op, f64::from(x));
                    let right = is_right(op, x, found);
                    assert!(right, "{}: {} of {x:?} is {found:?}, should be {exact:?}", target.name(), op.name());
                    if exact.is_finite() && exact.abs() > SMALLEST && found.is_finite() {
                        worst = worst.max((f64::from(found) - exact).abs() / exact.abs() / UNIT);
                    }
                }
            }
            println!("{}: {} is within {worst:.2} units of rounding", target.name(), op.name());
        }
    });
}

#[test]
fn rounding_to_bf16() {
    // Every upper half with the lower halves that are below, at and above the tie.
    let lower = [0u32, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
    let mut numbers: Vec<f32> =
        (0..=u16::MAX).flat_map(|upper| lower.map(|lower| f32::from_bits(u32::from(upper) << 16 | lower))).collect();
    numbers.truncate(numbers.len() / (ROWS * 3) * ROWS * 3);
    let body: Body = |b, x| {
        let rounded = b.convert(x, DType::BF16);
        b.convert(rounded, DType::F32)
    };
    for_targets(&numbers, numbers.len() / ROWS, body, |target, results| {
        for (&x, &found) in numbers.iter().zip(results) {
            let denormal = x.abs() < f32::MIN_POSITIVE && target.takes_denormals_for_zero();
            let expected = if denormal { 0.0f32.copysign(x) } else { DType::BF16.round(f64::from(x)) as f32 };
            let same = if x.is_nan() { found.is_nan() } else { found.to_bits() == expected.to_bits() };
            assert!(same, "{}: {x:?} is rounded to {found:?}, should be {expected:?}", target.name());
        }
    });
}

#[test]
fn conversions_to_integers_saturate() {
    let numbers = sweep();
    let body: Body = |b, x| {
        let whole = b.convert(x, DType::I32);
        b.convert(whole, DType::F32)
    };
    for_targets(&numbers, COLUMNS, body, |target, results| {
        for (&x, &found) in numbers.iter().zip(results) {
            let expected = DType::I32.round(f64::from(x)) as f32;
            assert!(found == expected, "{}: {x:?} becomes {found:?}, should be {expected:?}", target.name());
        }
    });
}

#[test]
fn nan_is_never_lost() {
    // Pairs of columns with every combination of special numbers.
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.5, -2.0];
    let pairs: Vec<f32> = special.iter().flat_map(|&a| special.iter().flat_map(move |&b| [a, b])).collect();
    let body: Body = |b, x| {
        let left = b.add(Op::Slice { axis: 1, start: 0, end: 1 }, &[x]);
        let right = b.add(Op::Slice { axis: 1, start: 1, end: 2 }, &[x]);
        let mut results: Vec<_> = BinaryOp::ALL.iter().map(|&op| b.binary(op, left, right)).collect();
        results.extend(ReduceOp::ALL.iter().map(|&op| b.add(Op::Reduce { op, axis: 1 }, &[x])));
        b.add(Op::Concat { axis: 1 }, &results)
    };
    for_targets(&pairs, 2, body, |target, results| {
        for (pair, found) in pairs.chunks_exact(2).zip(results.chunks_exact(8)) {
            let [a, b] = [pair[0], pair[1]];
            let larger = if a.is_nan() || a > b { a } else { b };
            let smaller = if a.is_nan() || a < b { a } else { b };
            let expected = [a + b, a - b, a * b, a / b, larger, smaller, a + b, larger];
            for (found, expected) in found.iter().zip(expected) {
                let same = found == &expected || (found.is_nan() && expected.is_nan());
                assert!(same, "{}: of {a:?} and {b:?} come {found:?}, should be {expected:?}", target.name());
            }
        }
    });
}

#[test]
fn constants_are_what_their_type_holds() {
    // 0.1 is neither a bf16 nor an f32.
    let body: Body = |b, x| {
        let tokens = Dim::from(Symbol::Tokens);
        let uniform =
            Op::Constant { values: vec![0.1.into()], dtype: DType::BF16, shape: Shape::of(&[tokens, 2.into()]) };
        let listed =
            Op::Constant { values: vec![0.1.into(), 0.3.into()], dtype: DType::BF16, shape: Shape::of(&[1, 2]) };
        let (uniform, listed) = (b.add(uniform, &[]), b.add(listed, &[]));
        let listed = b.add(Op::Broadcast { shape: Shape::of(&[tokens, 2.into()]) }, &[listed]);
        let constants = [uniform, listed].map(|constant| b.convert(constant, DType::F32));
        constants.into_iter().fold(x, |sum, constant| b.plus(sum, constant))
    };
    for_targets(&[0.0, 0.0], 2, body, |target, results| {
        let [tenth, three] = [0.1, 0.3].map(|value| DType::BF16.round(value) as f32);
        assert_eq!(results, [tenth + tenth, tenth + three], "{}", target.name());
    });
}
