//! Attention alone, of every kind: sizes, groups, windows, contexts, numbers of sequences.

use llmc_differential::case::{Limits, Target};
use llmc_differential::cases::attention::{Kind, case};
use llmc_differential::check::{Bounds, Sharpness, check};
use llmc_differential::targets;
use llmc_ir::dtype::DType;

const LIMITS: Limits = Limits { max_context: 600, max_batch: 5, prefill_chunk: 512 };
const MANY: Limits = Limits { max_context: 300, max_batch: 20, prefill_chunk: 512 };

fn run(kind: Kind, dtype: DType, target: Target, limits: Limits, lengths: &[&[(u64, usize)]]) -> Sharpness {
    let (case, steps) = case(kind, dtype, target, limits, lengths);
    let name = case.build.target.name();
    check(&case, &steps, Bounds::Rigorous).unwrap_or_else(|failure| panic!("{kind:?} in {dtype} for {name}: {failure}"))
}

fn assert_sharp(kind: Kind, dtype: DType, rounds_weights: bool, sharpness: Sharpness) {
    if rounds_weights && dtype == DType::BF16 {
        // Positions' weights are rounded once more than the interpreter does.
        sharpness.assert_below(1.4, 0.1);
    } else {
        // What is exponentiated is as wrong as the scores are large, and bounds of sums grow with their length.
        let longer = (kind.head_dim as f64 / 128.0).max(1.0);
        sharpness.assert(dtype, kind.head_dim, 1.5e-3 * kind.scores * longer);
    }
}

/// Every kind in both types, the targets taking turns so that each kind meets every other one.
fn check_all(kinds: &[Kind], lengths: &[&[(u64, usize)]]) {
    for (number, &kind) in kinds.iter().enumerate() {
        for (turn, dtype) in [DType::F32, DType::BF16].into_iter().enumerate() {
            let targets = targets::runnable();
            let target = targets[(number + 2 * turn) % targets.len()].clone();
            let rounds = target.rounds_weights();
            let sharpness = run(kind, dtype, target, LIMITS, lengths);
            println!("{kind:?} {dtype} {sharpness:?}");
            assert_sharp(kind, dtype, rounds, sharpness);
        }
    }
}

/// New tokens by sequence: one-token sequences beside longer ones, then a decode step, then a mixed step.
const SHORT: &[&[(u64, usize)]] = &[&[(0, 1), (1, 37), (2, 2)], &[(0, 1), (1, 1), (2, 1)], &[(2, 30), (3, 5), (0, 1)]];

#[test]
fn head_sizes() {
    check_all(
        &[Kind::full(2, 1, 64), Kind::full(2, 2, 80), Kind::full(1, 1, 128), Kind::full(3, 3, 10), Kind::full(2, 1, 1)],
        SHORT,
    );
}

#[test]
fn groups() {
    check_all(
        &[Kind::full(3, 1, 16), Kind::full(4, 1, 24), Kind::full(10, 2, 8), Kind::full(6, 1, 32), Kind::full(7, 1, 6)],
        SHORT,
    );
}

#[test]
fn windows() {
    let kind = Kind::full(4, 2, 20);
    check_all(&[kind.sliding(1), kind.sliding(2), kind.sliding(31), kind.sliding(33), kind.sliding(1000)], SHORT);
}

#[test]
fn large_scores() {
    // Nearly all weight is on one position, wherever it is, and most of the others underflow.
    let kind = Kind { scores: 60.0, ..Kind::full(3, 1, 32) };
    let lengths: &[&[(u64, usize)]] = &[&[(0, 300), (1, 3)], &[(0, 1), (1, 1)]];
    check_all(&[kind, kind.sliding(140)], lengths);
}

#[test]
fn long_contexts() {
    // Several blocks, chunks and splits; the last steps are at depth.
    let lengths: &[&[(u64, usize)]] = &[
        &[(0, 411), (1, 1), (2, 100)],
        &[(0, 1), (1, 1), (2, 1)],
        &[(1, 510)],
        &[(0, 150), (2, 29), (3, 129)],
        &[(1, 1), (3, 1), (0, 1), (2, 1)],
    ];
    check_all(&[Kind::full(2, 1, 16), Kind::full(3, 3, 40).sliding(200)], lengths);
    check_all(&[Kind::full(5, 1, 8).sliding(130)], lengths);
}

#[test]
fn many_sequences() {
    // Contexts of 1 to 286 positions side by side, so that threads get shares of very different kinds.
    let prompts: Vec<(u64, usize)> = (0..20).map(|id| (id, 1 + (id as usize * 15) % 26)).collect();
    let long: Vec<(u64, usize)> = (0..3).map(|id| (id, 260)).collect();
    let each: Vec<(u64, usize)> = (0..20).rev().map(|id| (id, 1)).collect();
    let lengths: [&[(u64, usize)]; 4] = [&prompts, &long[..1], &long[1..2], &each];
    let targets = targets::runnable();
    for (target, dtype) in [(4, DType::BF16), (2, DType::F32)] {
        let target = targets[target % targets.len()].clone();
        let (kind, rounds) = (Kind::full(6, 2, 16), target.rounds_weights());
        assert_sharp(kind, dtype, rounds, run(kind, dtype, target, MANY, &lengths));
    }
}

#[test]
fn tiles() {
    targets::tiles().into_iter().for_each(|target| check_bf16(&target));
}

#[test]
fn pairs() {
    targets::pairs().into_iter().for_each(|target| check_bf16(&target));
}

/// What a target that multiplies bf16 may get wrong.
fn check_bf16(target: &Target) {
    let check = |kind: Kind, lengths: &[&[(u64, usize)]]| {
        let started = std::time::Instant::now();
        let sharpness = run(kind, DType::BF16, target.clone(), LIMITS, lengths);
        println!("{kind:?} {sharpness:?} {:?}", started.elapsed());
        assert_sharp(kind, DType::BF16, target.rounds_weights(), sharpness);
    };
    // Heads of one and several tiles, padded or not; groups that leave rows of a block empty, or need several blocks.
    let kinds =
        [Kind::full(2, 1, 64), Kind::full(3, 3, 10), Kind::full(7, 1, 40), Kind::full(34, 1, 8), Kind::full(1, 1, 1)];
    kinds.into_iter().for_each(|kind| check(kind, SHORT));
    // Decode steps by tiles, whole and split.
    check(Kind::full(6, 1, 128), SHORT);
    check(Kind::full(6, 1, 128), &[&[(0, 260), (1, 1)], &[(0, 1), (1, 1)]]);
    // Several chunks.
    let long: &[&[(u64, usize)]] = &[&[(0, 511), (1, 1)], &[(0, 60)], &[(0, 1), (1, 1)], &[(0, 20), (1, 140)]];
    check(Kind::full(2, 1, 16), long);
    check(Kind::full(2, 1, 16).sliding(130), long);
    check(Kind { scores: 60.0, ..Kind::full(3, 1, 32) }, long);
}

/// The same on the emulator.
fn check_on_device(kinds: &[Kind], lengths: &[&[(u64, usize)]]) {
    for (&kind, dtype) in kinds.iter().flat_map(|kind| [(kind, DType::F32), (kind, DType::BF16)]) {
        let started = std::time::Instant::now();
        let sharpness = run(kind, dtype, targets::device(), LIMITS, lengths);
        println!("{kind:?} {dtype} {sharpness:?} {:?}", started.elapsed());
        assert_sharp(kind, dtype, false, sharpness);
    }
}

#[test]
fn head_sizes_on_device() {
    check_on_device(&[Kind::full(2, 1, 64), Kind::full(2, 2, 80), Kind::full(1, 1, 128), Kind::full(3, 3, 10)], SHORT);
}

#[test]
fn large_heads_and_groups_on_device() {
    check_on_device(&[Kind::full(1, 1, 160), Kind::full(20, 1, 16)], SHORT);
    // Several chunks, of which some are hidden; two blocks for the query heads of one key.
    let lengths: &[&[(u64, usize)]] = &[&[(0, 100), (1, 1)], &[(1, 70)], &[(0, 1), (1, 1)]];
    for kind in [Kind::full(12, 1, 128), Kind::full(12, 1, 192), Kind::full(3, 1, 256).sliding(40)] {
        assert_sharp(kind, DType::BF16, false, run(kind, DType::BF16, targets::device(), LIMITS, lengths));
    }
}

#[test]
fn groups_and_windows_on_device() {
    let kind = Kind::full(4, 2, 20);
    let groups = [Kind::full(3, 1, 16), Kind::full(10, 2, 8), Kind::full(7, 1, 6), Kind::full(16, 1, 8)];
    check_on_device(&groups, SHORT);
    check_on_device(&[kind.sliding(1), kind.sliding(33), kind.sliding(1000)], SHORT);
}

#[test]
fn large_scores_on_device() {
    let kind = Kind { scores: 60.0, ..Kind::full(3, 1, 32) };
    let lengths: &[&[(u64, usize)]] = &[&[(0, 300), (1, 3)], &[(0, 1), (1, 1)]];
    check_on_device(&[kind, kind.sliding(140)], lengths);
}

#[test]
fn long_contexts_on_device() {
    let lengths: &[&[(u64, usize)]] =
        &[&[(0, 290), (1, 1)], &[(0, 1), (1, 1)], &[(1, 130)], &[(0, 150), (2, 29)], &[(1, 1), (0, 1), (2, 1)]];
    check_on_device(&[Kind::full(2, 1, 16), Kind::full(3, 3, 40).sliding(200)], lengths);
}
