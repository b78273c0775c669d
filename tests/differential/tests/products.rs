//! Matrix products with their epilogues: sizes that are no multiple of anything, sums that are cut, every number of
//! rows that fills register blocks differently.

use llmc_amx_emulator::{Unit, count_products, unit};
use llmc_differential::case::{Build, Case, Limits, Target, random_weight, weight_types};
use llmc_differential::check::{Bounds, Sharpness, Tokens, check};
use llmc_differential::targets;
use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::module::{Argument, Call, LOGITS, Module};
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;
use llmc_ir::shape::Type;
use llmc_ir::testing::Random;
use llmc_passes::fuse::Epilogues;

const ROWS: usize = 43;
const LIMITS: Limits = Limits { max_context: 1100, max_batch: 7, prefill_chunk: 512 };
const MANY: Limits = Limits { max_batch: 40, ..LIMITS };

/// `x [tokens, inputs]` times a pair of `[inner, inputs]` with a gate, times `[outputs, inner]` with a bias.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    inputs: usize,
    inner: usize,
    outputs: usize,
}

fn module(sizes: Sizes, numerics: Numerics) -> Module {
    let Sizes { inputs, inner, outputs } = sizes;
    let dtype = numerics.matrix;
    let mut b = FunctionBuilder::new("embed", numerics);
    let ids = b.step(StepInput::TokenIds);
    let table = b.matrix("rows", ROWS, inputs);
    let x = b.add(Op::Gather, &[table, ids]);
    let x = b.to_matrix_type(x);
    let embed = b.finish(&[x]).expect("tables are well-typed");

    let mut b = FunctionBuilder::new("gated", numerics);
    let x = b.param("x", Type::tensor(dtype, &[Dim::from(Symbol::Tokens), inputs.into()]));
    let gate = b.linear(x, "gate", (inputs, inner), Bias::Absent);
    let up = b.linear(x, "up", (inputs, inner), Bias::Absent);
    let gate = b.silu(gate);
    let product = b.times(gate, up);
    let product = b.to_matrix_type(product);
    let gated = b.finish(&[product]).expect("products are well-typed");

    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.param("x", Type::tensor(dtype, &[Dim::from(Symbol::Tokens), inner.into()]));
    let rows = b.step(StepInput::SampleRows);
    let sampled = b.add(Op::Gather, &[x, rows]);
    let logits = b.linear(sampled, "down", (inner, outputs), Bias::Present);
    let head = b.finish(&[logits]).expect("logits are well-typed");

    let call = |function: &str, arguments: &[&str], result: &str| Call {
        function: function.into(),
        scope: String::new(),
        arguments: arguments.iter().map(|name| Argument::Value((*name).into())).collect(),
        results: vec![result.into()],
    };
    let calls = vec![call("embed", &[], "x"), call("gated", &["x"], "y"), call("head", &["y"], LOGITS)];
    Module { name: "Products".into(), functions: vec![embed, gated, head], calls }
}

fn run(sizes: Sizes, numerics: Numerics, target: Target, limits: Limits, counts: &[&[usize]]) -> Sharpness {
    let module = module(sizes, numerics);
    let mut random = Random::new(sizes.inputs as u64);
    let weights = weight_types(&module).into_iter().map(|(name, ty)| {
        let columns = if name == "rows" { 1 } else { ty.shape.0.last().and_then(|dim| dim.as_fixed()).unwrap_or(1) };
        let weight = random_weight(&mut random, &ty, 1.7 / (columns as f64).sqrt());
        (name, weight)
    });
    let weights = weights.collect();
    let name = target.name().to_owned();
    let epilogues = if sizes.outputs.is_multiple_of(2) { Epilogues::Fused } else { Epilogues::Separate };
    // Narrow weights are widened in the product, or while compiling.
    let without = if sizes.inner.is_multiple_of(2) { vec![] } else { vec!["dequant".to_owned()] };
    let case = Case { module, weights, limits, build: Build { target, without, epilogues } };
    let mut tokens = |count: usize| (0..count).map(|_| random.below(ROWS) as i32).collect();
    let steps: Vec<Tokens> =
        counts.iter().map(|counts| (0..).zip(*counts).map(|(id, &count)| (id, tokens(count))).collect()).collect();
    check(&case, &steps, Bounds::Rigorous)
        .unwrap_or_else(|failure| panic!("{sizes:?} in {numerics:?} for {name}: {failure}"))
}

/// All in one type, and narrow weights under wide rows.
const NUMERICS: [Numerics; 3] = [
    Numerics { matrix: DType::F32, stored: DType::F32, scalar: DType::F32 },
    Numerics { matrix: DType::BF16, stored: DType::BF16, scalar: DType::F32 },
    Numerics { matrix: DType::F32, stored: DType::BF16, scalar: DType::F32 },
];

fn check_all(all: &[Sizes], counts: &[&[usize]], max_looseness: f64) {
    for (number, &sizes) in all.iter().enumerate() {
        for (turn, numerics) in NUMERICS.into_iter().enumerate() {
            let started = std::time::Instant::now();
            let targets = targets::runnable();
            let target = targets[(number + 2 * turn) % targets.len()].clone();
            let sharpness = run(sizes, numerics, target, LIMITS, counts);
            println!("{sizes:?} {numerics:?} {sharpness:?} {:?}", started.elapsed());
            sharpness.assert(numerics.matrix, sizes.inputs, max_looseness);
        }
    }
}

/// Numbers of rows around the sizes of register blocks and row blocks, in one sequence or several.
const COUNTS: &[&[usize]] =
    &[&[1], &[1, 1], &[2, 1], &[1; 5], &[7], &[1, 11], &[23], &[24], &[25], &[5, 42], &[1, 97, 2], &[193]];

#[test]
fn odd_sizes() {
    check_all(
        &[
            Sizes { inputs: 1, inner: 1, outputs: 1 },
            Sizes { inputs: 31, inner: 33, outputs: 50 },
            Sizes { inputs: 97, inner: 64, outputs: 77 },
            Sizes { inputs: 130, inner: 15, outputs: 16 },
            Sizes { inputs: 64, inner: 96, outputs: 160 },
        ],
        COUNTS,
        5e-3,
    );
}

#[test]
fn long_sums() {
    // Longer than what is summed in one go, and a whole chunk of rows.
    check_all(
        &[Sizes { inputs: 1537, inner: 40, outputs: 33 }, Sizes { inputs: 2100, inner: 30, outputs: 10 }],
        &[&[1, 1, 1], &[1, 30], &[511, 1]],
        // The bound of a sum grows with its length, and the second sum adds up the bounds of the first ones.
        0.2,
    );
}

#[test]
fn many_sequences() {
    // Decode steps of more rows than a register block holds, for each size of decode program.
    let sizes = Sizes { inputs: 70, inner: 40, outputs: 33 };
    let targets = targets::runnable();
    for (target, dtype) in [(3, DType::BF16), (4, DType::F32), (2, DType::BF16)] {
        let target = targets[target % targets.len()].clone();
        let counts: [&[usize]; 5] = [&[1], &[1; 13], &[1; 16], &[1; 25], &[1; 40]];
        run(sizes, Numerics::new(dtype), target, MANY, &counts).assert(dtype, sizes.inputs, 5e-3);
    }
}

#[test]
fn tiles() {
    let Some(target) = targets::tiles() else { return };
    let odd = [
        Sizes { inputs: 1, inner: 1, outputs: 1 },
        Sizes { inputs: 31, inner: 33, outputs: 50 },
        Sizes { inputs: 97, inner: 64, outputs: 77 },
        Sizes { inputs: 64, inner: 96, outputs: 160 },
    ];
    let long = [Sizes { inputs: 1537, inner: 40, outputs: 33 }, Sizes { inputs: 20, inner: 1600, outputs: 70 }];
    let before = count_products();
    for sizes in odd {
        let sharpness = run(sizes, NUMERICS[1], target.clone(), LIMITS, COUNTS);
        sharpness.assert(DType::BF16, sizes.inputs, 5e-3);
    }
    for sizes in long {
        let sharpness = run(sizes, NUMERICS[1], target.clone(), MANY, &[&[1; 5], &[1; 40], &[270, 1]]);
        sharpness.assert(DType::BF16, sizes.inputs, 0.2);
    }
    assert!(unit() == Unit::Hardware || count_products() > before + 1000, "no tiles were used");
}

fn check_on_device(all: &[Sizes], counts: &[&[usize]], max_looseness: f64) {
    for (&sizes, numerics) in all.iter().flat_map(|sizes| NUMERICS.map(|numerics| (sizes, numerics))) {
        let started = std::time::Instant::now();
        let sharpness = run(sizes, numerics, targets::device(), MANY, counts);
        println!("{sizes:?} {numerics:?} {sharpness:?} {:?}", started.elapsed());
        sharpness.assert(numerics.matrix, sizes.inputs, max_looseness);
    }
}

#[test]
fn odd_sizes_on_device() {
    check_on_device(
        &[
            Sizes { inputs: 1, inner: 1, outputs: 1 },
            Sizes { inputs: 31, inner: 33, outputs: 50 },
            Sizes { inputs: 97, inner: 64, outputs: 77 },
            Sizes { inputs: 130, inner: 15, outputs: 16 },
            Sizes { inputs: 64, inner: 96, outputs: 160 },
        ],
        &[&[1], &[1, 1], &[1; 5], &[1; 25], &[7], &[23], &[5, 42], &[1, 97, 2], &[193]],
        5e-3,
    );
}

#[test]
fn long_sums_on_device() {
    let sizes = Sizes { inputs: 1537, inner: 40, outputs: 33 };
    check_on_device(
        &[sizes, Sizes { inputs: 1536, inner: 64, ..sizes }],
        &[&[1], &[1, 1, 1], &[1, 30], &[160, 1]],
        0.2,
    );
}
