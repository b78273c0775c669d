//! Whole models: the tiny ones of each architecture, and some of odd sizes.
//!
//! A dozen products behind each other make intervals too wide to mean much, so what counts here beside the equality of
//! bits is how far the logits are from unrounded ones, compared with the interpreter's.

use llmc_differential::case::{Case, Target};
use llmc_differential::cases::model::{Sizes, case};
use llmc_differential::cases::steps;
use llmc_differential::check::{Bounds, check};
use llmc_differential::targets;
use llmc_ir::dtype::DType;
use llmc_ir::op::DotMethod;
use llmc_models::architecture::Architecture;

/// CPU levels in turns.
fn hosts(turn: usize) -> Target {
    let targets = targets::runnable();
    targets[turn % targets.len()].clone()
}

/// Types of matrices.
const BOTH: [DType; 2] = [DType::F32, DType::BF16];

/// Runs each of the sizes on every step.
fn check_all(all: &[Sizes], dtypes: &[DType], target: fn(usize) -> Target, lengths: &[&[(u64, usize)]]) {
    for (number, sizes) in all.iter().enumerate() {
        for (turn, &dtype) in dtypes.iter().enumerate() {
            check_one(&case(sizes, dtype, target(number + 2 * turn)), (sizes, dtype), lengths);
        }
    }
}

/// Runs a case of such sizes on every step.
fn check_one(case: &Case, (sizes, dtype): (&Sizes, DType), lengths: &[&[(u64, usize)]]) {
    let target = case.build.target.name();
    let started = std::time::Instant::now();
    // The largest of thousands of normally distributed numbers is four times the typical one, and those here
    // come from sums of different sizes.
    let typical = if dtype == DType::BF16 { 2.0 } else { 2.0 + (sizes.hidden as f64).sqrt() / 2.0 };
    let sharpness = check(case, &steps(3, sizes.vocab, lengths), Bounds::Noise(8.0 * typical))
        .unwrap_or_else(|failure| panic!("{sizes:?} in {dtype} for {target}: {failure}"));
    println!("{sizes:?} {dtype} {target} {sharpness:?} {:?}", started.elapsed());
    let max_looseness = if dtype == DType::BF16 { 0.2 } else { 1e-4 };
    match (case.build.target.rounds_weights(), dtype) {
        (true, DType::BF16) => sharpness.assert_below(1.25, max_looseness),
        _ => sharpness.assert(dtype, sizes.hidden, max_looseness),
    }
}

const SHORT: &[&[(u64, usize)]] = &[&[(0, 1), (1, 37), (2, 2)], &[(0, 1), (1, 1), (2, 1)], &[(2, 30), (3, 5), (0, 1)]];

fn tiny_sizes() -> Vec<Sizes> {
    let tiny = |architecture: Architecture| {
        let config = architecture.tiny();
        Sizes {
            architecture,
            heads: (config.heads, config.kv_heads, config.head_dim),
            window: config.windows[0],
            hidden: config.hidden,
            intermediate: config.intermediate,
            vocab: config.vocab,
            layers: config.windows.len(),
        }
    };
    Architecture::ALL.map(tiny).to_vec()
}

#[test]
fn tiny_models() {
    check_all(&tiny_sizes(), &BOTH, hosts, SHORT);
}

#[test]
fn models_by_tiles() {
    // In f32 nothing is taken by tiles.
    if targets::tiles().is_some() {
        let tiles = |_| targets::tiles().expect("it was there");
        check_all(&tiny_sizes(), &[DType::BF16], tiles, SHORT);
        check_all(&odd_sizes(), &[DType::BF16], tiles, SHORT);
    }
}

#[test]
fn models_in_blocks() {
    let targets: Vec<Target> = targets::runnable().into_iter().filter(Target::has_blocks).collect();
    for (sizes, target) in tiny_sizes().into_iter().chain(some_odd_sizes()).zip(targets.iter().cycle()) {
        let mut case = case(&sizes, DType::BF16, target.clone());
        case.build.method = Some(DotMethod::BlockFloat);
        check_one(&case, (&sizes, DType::BF16), SHORT);
    }
}

#[test]
fn tiny_models_on_device() {
    check_all(&tiny_sizes(), &BOTH, |_| targets::device(), SHORT);
}

fn odd_sizes() -> Vec<Sizes> {
    let sizes = |architecture, heads, hidden, intermediate, vocab| Sizes {
        architecture,
        heads,
        window: None,
        hidden,
        intermediate,
        vocab,
        layers: 2,
    };
    vec![
        sizes(Architecture::Llama, (3, 1, 64), 33, 50, 70),
        sizes(Architecture::Qwen2, (7, 1, 6), 47, 31, 33),
        sizes(Architecture::Llama, (2, 2, 80), 100, 17, 129),
        // Halves of 17, so that some vectors begin at odd elements of a key.
        sizes(Architecture::Llama, (2, 2, 34), 40, 24, 50),
        Sizes { window: Some(5), ..sizes(Architecture::Mistral, (5, 5, 10), 64, 96, 65) },
        sizes(Architecture::Qwen2, (20, 1, 20), 41, 60, 67),
        Sizes { window: Some(36), ..sizes(Architecture::Mistral, (3, 1, 256), 50, 33, 66) },
    ]
}

/// One of each architecture: what is odd in f32 is odd in bf16 as well, which has more ways to go wrong.
fn some_odd_sizes() -> Vec<Sizes> {
    let mut seen = Vec::new();
    let is_new = |sizes: &Sizes| {
        let is_new = !seen.contains(&sizes.architecture);
        seen.push(sizes.architecture);
        is_new
    };
    odd_sizes().into_iter().filter(is_new).collect()
}

#[test]
fn odd_models() {
    check_all(&odd_sizes(), &[DType::BF16], hosts, SHORT);
    check_all(&some_odd_sizes(), &[DType::F32], hosts, SHORT);
}

#[test]
fn odd_models_on_device() {
    check_all(&odd_sizes(), &[DType::BF16], |_| targets::device(), SHORT);
    check_all(&some_odd_sizes(), &[DType::F32], |_| targets::device(), SHORT);
}
