//! Matrix products with their epilogues: sizes that are no multiple of anything, sums that are cut, every number of
//! rows that fills register blocks differently.

use llmc_amx_emulator::{Unit, count_products, unit};
use llmc_codegen::tuning::Tuning;
use llmc_differential::case::{Build, Case, Limits, Target};
use llmc_differential::cases::products::{Sizes, case};
use llmc_differential::check::{Bounds, Sharpness, check};
use llmc_differential::compiled::Compiled;
use llmc_differential::pool::Pool;
use llmc_differential::targets;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvState, Mode, StepInputs, Tensor, eval_module};
use llmc_ir::module::SpecializedModule;
use llmc_ir::op::DotMethod;
use llmc_ir::testing::{Random, head_module};
use llmc_passes::fuse::Epilogues;
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { max_context: 1100, max_batch: 7, prefill_chunk: 512 };
const MANY: Limits = Limits { max_batch: 40, ..LIMITS };

fn run(sizes: Sizes, numerics: Numerics, target: Target, limits: Limits, counts: &[&[usize]]) -> Sharpness {
    run_by(None, (sizes, numerics), target, limits, counts)
}

/// The same with products that are taken in a way of all that there are.
fn run_by(
    method: Option<DotMethod>,
    (sizes, numerics): (Sizes, Numerics),
    target: Target,
    limits: Limits,
    counts: &[&[usize]],
) -> Sharpness {
    let (mut case, steps) = case(sizes, numerics, target, limits, counts);
    case.build.method = method;
    check(&case, &steps, Bounds::Rigorous)
        .unwrap_or_else(|failure| panic!("{sizes:?} in {numerics:?} for {}: {failure}", case.build.target.name()))
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
fn weights_in_parts() {
    // CPUs of few registers take a sum in parts, several and a shorter one behind them, unless few rows meet compressed weights,
    // as those of the first and third size are.
    let [few, many]: [Vec<usize>; 2] = [(1..=13).chain([40]).collect(), vec![1, 3, 5, 40]];
    let all = [(540, 33, &few), (545, 34, &few), (1537, 36, &many), (1537, 37, &many)];
    let has_few = |target: &Target| matches!(target.name(), "x86-64" | "x86-64-v3");
    for (turn, target) in targets::runnable().into_iter().filter(has_few).enumerate() {
        for (number, (inputs, outputs, rows)) in all.into_iter().enumerate() {
            let sizes = Sizes { inputs, inner: 40, outputs };
            let decode: Vec<Vec<usize>> = rows.iter().map(|&rows| vec![1; rows]).collect();
            let counts: Vec<&[usize]> = decode.iter().map(Vec::as_slice).chain([&[190, 1][..]]).collect();
            let numerics = NUMERICS[1 + (number / 2 + turn) % 2];
            run(sizes, numerics, target.clone(), MANY, &counts).assert(numerics.matrix, sizes.inputs, 0.2);
        }
    }
}

#[test]
fn every_number_of_rows() {
    // A register block of its own for each, and several blocks for the last ones.
    let sizes = Sizes { inputs: 40, inner: 35, outputs: 33 };
    let decode: Vec<Vec<usize>> = (1..=28).map(|rows| vec![1; rows]).collect();
    let prefill: Vec<Vec<usize>> = (23..=28).chain([40]).map(|rows| vec![rows]).collect();
    let counts: Vec<&[usize]> = decode.iter().chain(&prefill).map(Vec::as_slice).collect();
    let by_vectors = |target: &Target| matches!(target, Target::Host(_)) && !target.rounds_weights();
    for target in targets::runnable().into_iter().filter(by_vectors).chain(targets::pairs()) {
        for numerics in NUMERICS {
            run(sizes, numerics, target.clone(), MANY, &counts).assert(numerics.matrix, sizes.inputs, 5e-3);
        }
    }
}

#[test]
fn every_number_of_rows_of_large_panels() {
    // Panels that do not stay in the first-level cache: up to 24 rows read them once, tile by tile.
    let sizes = Sizes { inputs: 170, inner: 35, outputs: 33 };
    let decode: Vec<Vec<usize>> = (1..=28).map(|rows| vec![1; rows]).collect();
    let counts: Vec<&[usize]> = decode.iter().map(Vec::as_slice).chain([&[40][..], &[193]]).collect();
    let has_many = |target: &Target| target.name() == "x86-64-v4";
    for target in targets::runnable().into_iter().filter(has_many).chain(targets::pairs()) {
        for numerics in [NUMERICS[1], NUMERICS[2]] {
            run(sizes, numerics, target.clone(), MANY, &counts).assert(numerics.matrix, sizes.inputs, 5e-3);
        }
    }
}

/// Sizes for what multiplies bf16.
const ODD: [Sizes; 4] = [
    Sizes { inputs: 1, inner: 1, outputs: 1 },
    Sizes { inputs: 31, inner: 33, outputs: 50 },
    Sizes { inputs: 97, inner: 64, outputs: 77 },
    Sizes { inputs: 64, inner: 96, outputs: 160 },
];
const LONG: [Sizes; 2] =
    [Sizes { inputs: 1537, inner: 40, outputs: 33 }, Sizes { inputs: 20, inner: 1600, outputs: 70 }];

#[test]
fn pairs() {
    let Some(target) = targets::pairs() else { return };
    for sizes in ODD {
        let sharpness = run(sizes, NUMERICS[1], target.clone(), LIMITS, COUNTS);
        sharpness.assert(DType::BF16, sizes.inputs, 5e-3);
    }
    for sizes in LONG {
        let sharpness = run(sizes, NUMERICS[1], target.clone(), MANY, &[&[1; 5], &[1; 20], &[1; 40], &[270, 1]]);
        sharpness.assert(DType::BF16, sizes.inputs, 0.2);
    }
}

#[test]
fn blocks() {
    // Each number of rows that fills a register block, some blocks of rows, and sums with whole blocks of 64, without any, with half a
    // one at the end of a part or of all.
    let decode: Vec<Vec<usize>> = (1..=13).chain([40]).map(|rows| vec![1; rows]).collect();
    let counts: Vec<&[usize]> =
        decode.iter().map(Vec::as_slice).chain([&[7][..], &[1, 11], &[5, 42], &[1, 97, 2], &[193]]).collect();
    let sizes = |inputs, inner, outputs| Sizes { inputs, inner, outputs };
    let short = [sizes(1, 1, 1), sizes(31, 33, 50), sizes(97, 64, 77), sizes(64, 96, 160), sizes(300, 130, 20)];
    for (number, target) in targets::runnable().into_iter().filter(Target::has_blocks).enumerate() {
        let run = |sizes: Sizes, counts: &[&[usize]], max_looseness: f64| {
            let sharpness = run_by(Some(DotMethod::BlockFloat), (sizes, NUMERICS[1]), target.clone(), MANY, counts);
            println!("{sizes:?} for {}: {sharpness:?}", target.name());
            // Rounding rows and weights to blocks adds a sixteenth of what rounding them to bf16 would; the worst of some runs with few
            // elements has somewhat more.
            sharpness.assert_below(1.15, max_looseness);
        };
        // Levels differ in little, so each takes every other size.
        for sizes in short.into_iter().skip(number % 2).step_by(2) {
            run(sizes, &counts, 3e-2);
        }
        for sizes in LONG.into_iter().chain([sizes(3100, 36, 20)]) {
            run(sizes, &[&[1; 5], &[1; 40], &[270, 1]], 0.2);
        }
    }
}

/// Rows with infinities and what is no number give no number, and the rows beside them what they should; so do rows at both ends of
/// what numbers there are.
#[test]
fn extremes_in_blocks() {
    const K: usize = 130;
    let extremes = [
        vec![],
        vec![(0, f64::INFINITY)],
        vec![(K - 1, f64::NEG_INFINITY)],
        vec![(70, f64::NAN), (3, f64::INFINITY)],
        vec![(5, 2e38), (90, -2e38)],
    ];
    let numerics = Numerics::new(DType::BF16);
    let mut random = Random::new(3);
    let mut rows: Vec<Vec<f64>> = extremes.iter().map(|_| (0..K).map(|_| random.unit()).collect()).collect();
    for (row, extremes) in rows.iter_mut().zip(&extremes) {
        extremes.iter().for_each(|&(at, value)| row[at] = value);
    }
    rows.push((0..K).map(|_| 1e-39 * random.unit()).collect());
    rows.push(vec![0.0; K]);
    let count = rows.len();
    let tensor = |rows: usize, data: Vec<f64>| {
        let data = data.into_iter().map(|value| DType::BF16.round(value)).collect();
        Tensor::new(DType::BF16, vec![rows, K], data).expect("as many numbers as elements")
    };
    let head = (0..40 * K).map(|_| 0.1 * random.unit()).collect();
    let weights = [("rows", tensor(count, rows.concat())), ("head.weight", tensor(40, head))];
    let weights: BTreeMap<String, Tensor> = weights.map(|(name, weight)| (name.to_owned(), weight)).into();
    let tokens: Vec<i32> = (0..count as i32).chain((0..count as i32).rev()).collect();
    let mut step = StepInputs::batch(&[(0, 0, &tokens)]);
    step.sample_rows = (0..tokens.len() as i32).collect();
    for target in targets::runnable().into_iter().filter(Target::has_blocks) {
        let Target::Host(host) = &target else { panic!("only CPUs have blocks") };
        let method = Some(DotMethod::BlockFloat);
        let build = Build { target: target.clone(), without: vec![], epilogues: Epilogues::Separate, method };
        let module = head_module(numerics, count, 40, K);
        let case = Case { module, weights: weights.clone(), limits: LIMITS, build };
        let programs = case.programs().unwrap();
        let compiled = Compiled::new(&case, case.plan(&programs).unwrap(), host).unwrap();
        let takes =
            |program: &SpecializedModule| !program.bounds.one_token_per_sequence && program.bounds.max.tokens >= 14;
        let program = programs.iter().position(takes).expect("a program takes prompts");
        let mut pool = Pool::new(compiled.plan.kv, 2, 7);
        let batch = pool.batch(&step);
        let logits = compiled.run(program, &batch, &mut pool, 2).unwrap();
        let of_weights = |name: &str| weights.get(name).cloned();
        let module = &programs[program].module;
        let expected = eval_module(module, &of_weights, &mut KvState::default(), &step, Mode::AsTyped).unwrap();
        for ((row, found), expected) in tokens.iter().zip(logits.chunks(40)).zip(expected.data().chunks(40)) {
            match row {
                1..=3 => assert!(found.iter().all(|x| x.is_nan()), "row {row}: {found:?}"),
                _ => {
                    let scale = expected.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
                    let is_near =
                        |(&found, &expected): (&f32, &f64)| (f64::from(found) - expected).abs() <= 1e-6 * scale;
                    assert!(found.iter().zip(expected).all(is_near), "row {row}: {found:?} {expected:?}");
                }
            }
        }
    }
}

#[test]
fn tiles() {
    let Some(target) = targets::tiles() else { return };
    let before = count_products();
    for sizes in ODD {
        let sharpness = run(sizes, NUMERICS[1], target.clone(), LIMITS, COUNTS);
        sharpness.assert(DType::BF16, sizes.inputs, 5e-3);
    }
    for target in [target.clone(), cut_smaller(target)] {
        for sizes in LONG {
            let sharpness = run(sizes, NUMERICS[1], target.clone(), MANY, &[&[1; 5], &[1; 40], &[270, 1]]);
            sharpness.assert(DType::BF16, sizes.inputs, 0.2);
        }
    }
    assert!(unit() == Unit::Hardware || count_products() > before + 1000, "no tiles were used");
}

/// The same with small blocks and many cuts in tiles.
fn cut_smaller(target: Target) -> Target {
    let Target::Host(mut target) = target else { panic!("tiles are a CPU's") };
    target.tuning = Tuning {
        tile_block_rows: 96,
        tile_longest_sum: 32,
        tile_sum_part: 96,
        tile_cut_columns: 64,
        ..Tuning::default()
    };
    Target::Host(target)
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
