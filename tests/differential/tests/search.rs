//! The largest logits found without looking at all: what all logits say, for rows and weights that make it hard.
//!
//! [`Compiled::run`] compares every entry point of a program with its logits; here are heads large enough for several runs of
//! panels, ties, columns too many to be noted, and rows whose bounds say nothing.

use llmc_codegen::host::HostTarget;
use llmc_differential::case::{Build, Case, Limits, Target};
use llmc_differential::compiled::Compiled;
use llmc_differential::pool::Pool;
use llmc_differential::targets;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{StepInputs, Tensor};
use llmc_ir::plan::WeightLayout;
use llmc_ir::testing::{Random, head_module, tied_head_module};
use llmc_passes::fuse::Epilogues;
use std::collections::BTreeMap;

/// Kinds of rows that sequences have, by token.
const KINDS: usize = 12;

/// A row of a kind: usual ones, some with few large elements as trained models have, and hard ones.
fn row(random: &mut Random, kind: usize, k: usize) -> Vec<f64> {
    let mut row: Vec<f64> = (0..k).map(|_| random.unit()).collect();
    match kind {
        3 => row.fill(0.0),
        4 => row.iter_mut().for_each(|x| *x *= 1e-20),
        5 => row.iter_mut().for_each(|x| *x *= 1e-39),
        6 => row[k / 2] = f64::NAN,
        7 => row[k - 1] = f64::INFINITY,
        8 => row.iter_mut().for_each(|x| *x *= 1e30),
        9 => row.iter_mut().for_each(|x| *x *= 3e38),
        10 => row[0] = 40.0,
        _ => row.iter_mut().step_by(7).for_each(|x| *x *= 20.0),
    }
    row
}

/// What weights are like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weights {
    /// As in trained models: most are small.
    Usual,
    /// Of so few exponents that they are compressed, but for some that are written out. They are the table of rows as well.
    Compressed,
    /// Each column is there twice, or three times.
    Repeated,
    /// Columns that hardly differ.
    Alike,
    /// Columns of very different sizes, some of them zero.
    Uneven,
    /// All weights are as large, so that rounding them loses nothing, and only what rows lose counts.
    Signs,
    /// Rounding makes the largest column look like less than another, in one way alone.
    Hostile(Loss),
}

/// What rounding loses, which bounds have a part each for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// Parts of weights that meet large elements of a row.
    AtLarge,
    /// Parts of weights that meet others.
    AtOthers,
    /// Parts of a row's elements.
    OfRow,
}

/// The column that hostile weights hide, and the one before which they do.
const HIDDEN: [usize; 2] = [555, 5];

/// Length of rows that hostile weights are for.
const HOSTILE_K: usize = 48;

/// A row, and the columns that [`HIDDEN`] names. Steps of weights are 1/128. Those of rows are four times the mean size of their
/// elements over 127, so that nothing is lost but what is said.
fn hostile(loss: Loss) -> [Vec<f64>; 3] {
    let each = |of: &dyn Fn(usize) -> f64| (0..HOSTILE_K).map(of).collect::<Vec<f64>>();
    // Half a step more than an even number, which is what it is rounded to.
    let even = |at: usize| (at * 22 % 60) as f64 - 20.0;
    let of_steps = |half: &dyn Fn(usize) -> bool, more: (usize, f64)| {
        let hidden = each(&|at| if at == 0 { 127.0 } else { even(at) + if half(at) { 0.5 } else { 0.0 } } / 128.0);
        let seeming =
            each(&|at| if at == 0 { 127.0 } else { even(at) + if at == more.0 { more.1 } else { 0.0 } } / 128.0);
        [hidden, seeming]
    };
    match loss {
        Loss::AtLarge => {
            let [hidden, seeming] = of_steps(&|at| at == 7, (9, 26.0));
            [each(&|at| if at == 7 { 80.0 } else { 1.0 }), hidden, seeming]
        }
        Loss::AtOthers => {
            let [hidden, seeming] = of_steps(&|at| at % 4 == 1, (1, 5.0));
            [each(&|at| if at % 4 == 1 { 1.0 } else { 0.0 }), hidden, seeming]
        }
        Loss::OfRow => {
            let is_rounded_down = |at: usize| at < HOSTILE_K / 2;
            let of_halves = |one: f64, other: f64| each(&|at| if is_rounded_down(at) { one } else { other });
            // 20.42 steps, and 43.08.
            [of_halves(1.0, 135.0 / 64.0), of_halves(127.0 / 128.0, 0.0), of_halves(0.0, 239.0 / 512.0)]
        }
    }
}

fn weights(random: &mut Random, kind: Weights, columns: usize, k: usize) -> Vec<f64> {
    let base: Vec<f64> = (0..k).map(|_| random.unit()).collect();
    let mut all = Vec::with_capacity(columns * k);
    for column in 0..columns {
        let own: Vec<f64> = match kind {
            Weights::Repeated if column >= columns * 2 / 5 => {
                let from = column % (columns * 2 / 5);
                all[from * k..(from + 1) * k].to_vec()
            }
            Weights::Compressed => {
                (0..k).map(|_| if random.below(1500) == 0 { 1e-9 } else { 1.0 } * random.unit()).collect()
            }
            Weights::Usual | Weights::Repeated => (0..k).map(|_| random.unit().powi(3)).collect(),
            Weights::Alike => base.iter().map(|x| x * (1.0 + 1e-2 * random.unit())).collect(),
            Weights::Signs => (0..k).map(|_| *random.choose(&[-1.0, 1.0])).collect(),
            Weights::Hostile(_) => vec![0.0; k],
            Weights::Uneven => {
                let scale = [0.0, 1e-39, 1e-10, 1.0, 1.01, 1e5][column % 6];
                (0..k).map(|_| scale * random.unit()).collect()
            }
        };
        all.extend(own);
    }
    if let Weights::Hostile(loss) = kind {
        let [_, columns @ ..] = hostile(loss);
        for (column, at) in columns.into_iter().zip(HIDDEN) {
            all[at * k..(at + 1) * k].copy_from_slice(&column);
        }
    }
    all
}

fn tensor(dtype: DType, rows: usize, data: Vec<f64>) -> Tensor {
    let columns = data.len() / rows;
    let data = data.into_iter().map(|value| dtype.round(value)).collect();
    Tensor::new(dtype, vec![rows, columns], data).expect("as many numbers as elements")
}

/// Runs greedy steps of several sizes for a head.
fn check(target: &Target, dtype: DType, kind: Weights, columns: usize, k: usize) {
    let Target::Host(host) = target else { panic!("only CPUs search") };
    let numerics = Numerics::new(dtype);
    let mut random = Random::new((columns + k) as u64);
    let mut table: Vec<f64> = (0..KINDS).flat_map(|kind| row(&mut random, kind, k)).collect();
    let head = weights(&mut random, kind, columns, k);
    if let Weights::Hostile(loss) = kind {
        let [row, ..] = hostile(loss);
        table[(KINDS - 1) * k..].copy_from_slice(&row);
    }
    let head = tensor(dtype, columns, head);
    let (module, tensors) = match kind {
        Weights::Compressed => (tied_head_module(numerics, columns, k), vec![("rows", head)]),
        _ => {
            let tensors = vec![("rows", tensor(dtype, KINDS, table)), ("head.weight", head)];
            (head_module(numerics, KINDS, columns, k), tensors)
        }
    };
    let weights: BTreeMap<String, Tensor> = tensors.into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
    let limits = Limits { max_context: 64, max_batch: 30, prefill_chunk: 30 };
    let build =
        Build { target: target.clone(), without: vec!["dequant".into()], epilogues: Epilogues::Separate, method: None };
    let case = Case { module, weights, limits, build };
    let planned = case.plan(&case.usual_programs().unwrap()).unwrap();
    let is_compressed = planned.plan.weights.iter().any(|weight| weight.layout == WeightLayout::Compressed);
    assert!(is_compressed || kind != Weights::Compressed || !host.decompresses());
    let rounds = host.byte_products().is_some() && dtype == DType::BF16;
    let decodes = planned.plan.programs.iter().filter(|program| program.bounds.one_token_per_sequence);
    for program in decodes {
        let search = program.search.as_ref().unwrap_or_else(|| panic!("{} does not search", program.name));
        let rows = rounds.then_some(program.bounds.max.samples);
        assert_eq!(search.rounded.map(|rounded| rounded.rows), rows, "{}", program.name);
    }
    let compiled = Compiled::new(&case, planned, host).unwrap();
    // One block of registers, two, and three.
    for rows in [1, 3, 8, 12, 13, 16, 20, 30] {
        for first in (0..KINDS).step_by(rows) {
            let tokens: Vec<(u64, Vec<i32>)> =
                (0..rows).map(|index| (index as u64, vec![((first + index) % KINDS) as i32])).collect();
            let sequences: Vec<(u64, usize, &[i32])> = tokens.iter().map(|(id, ids)| (*id, 0, &ids[..])).collect();
            let step = StepInputs::batch(&sequences);
            let mut pool = Pool::new(compiled.plan.kv, rows + 1, 7);
            let batch = pool.batch(&step);
            for (index, program) in compiled.plan.programs.iter().enumerate() {
                if program.search.is_none() || program.bounds.max.tokens < rows {
                    continue;
                }
                for threads in [1, 2, 5] {
                    compiled.run(index, &batch, &mut pool, threads).unwrap_or_else(|error| {
                        let name = &program.name;
                        panic!("{} {dtype} {kind:?} {columns} x {k}, {name}, {rows} rows: {error}", host.name)
                    });
                }
            }
        }
    }
}

/// Every way to multiply: by vectors with and without rounded weights, by pairs, by tiles.
fn all_targets() -> Vec<Target> {
    let mut all = targets::runnable();
    if !all.iter().any(rounds) {
        println!("NOTE: this CPU multiplies no 8-bit numbers: rounded weights are not tested");
    }
    let vnni = |mut target: HostTarget| {
        target.name += " with VNNI";
        target.llvm_features = format!("{},+avx512vnni", target.llvm_features).trim_start_matches(',').to_owned();
        target.cpu_features.push("avx512vnni".into());
        target.cpu_features.sort();
        Target::Host(target)
    };
    if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") {
        all.push(vnni(HostTarget::named("x86-64-v4").unwrap()));
        if let Some(Target::Host(pairs)) = targets::pairs() {
            all.push(vnni(pairs));
        }
    } else {
        println!("NOTE: this CPU has no AVX512_VNNI: rounded weights are tested in pairs alone");
    }
    all
}

/// Whether code for a target multiplies rounded weights.
fn rounds(target: &Target) -> bool {
    matches!(target, Target::Host(host) if host.byte_products().is_some())
}

/// Those whose code does.
fn rounding_targets() -> Vec<Target> {
    all_targets().into_iter().filter(rounds).collect()
}

#[test]
fn usual_heads() {
    for target in all_targets() {
        check(&target, DType::BF16, Weights::Usual, 1500, 96);
        check(&target, DType::BF16, Weights::Usual, 33, 7);
        check(&target, DType::F32, Weights::Usual, 200, 40);
    }
}

/// Rows are looked up in the compressed head itself, and so are the columns that may be the largest.
#[test]
fn compressed_tables() {
    for target in all_targets() {
        check(&target, DType::BF16, Weights::Compressed, 701, 97);
    }
}

#[test]
fn the_first_of_equal_columns_wins() {
    for target in all_targets() {
        check(&target, DType::BF16, Weights::Repeated, 701, 33);
    }
}

#[test]
fn columns_that_hardly_differ_are_all_computed() {
    for target in all_targets() {
        check(&target, DType::BF16, Weights::Alike, 7000, 8);
    }
}

#[test]
fn of_columns_that_hardly_differ_the_noted_ones_are_computed() {
    for target in rounding_targets() {
        check(&target, DType::BF16, Weights::Alike, 600, 48);
    }
}

#[test]
fn a_column_that_rounding_hides_is_found() {
    for loss in [Loss::AtLarge, Loss::AtOthers, Loss::OfRow] {
        let [row, hidden, seeming] = hostile(loss);
        let product = |column: &[f64]| row.iter().zip(column).map(|(x, w)| x * w).sum::<f64>();
        assert!(product(&hidden) > product(&seeming) && product(&seeming) > 0.0, "{loss:?}");
        for target in rounding_targets() {
            check(&target, DType::BF16, Weights::Hostile(loss), 600, HOSTILE_K);
        }
    }
}

#[test]
fn what_rounding_rows_loses_counts() {
    for target in rounding_targets() {
        for k in [20, 33, 48, 77, 130] {
            check(&target, DType::BF16, Weights::Signs, 3000, k);
        }
    }
}

#[test]
fn columns_of_very_different_sizes() {
    for target in all_targets() {
        check(&target, DType::BF16, Weights::Uneven, 900, 64);
    }
}
