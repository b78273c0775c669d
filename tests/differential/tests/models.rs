//! Whole models: the tiny ones of each architecture, and some of odd sizes.
//!
//! A dozen products behind each other make intervals too wide to mean much, so what counts here beside the equality of
//! bits is how far the logits are from unrounded ones, compared with the interpreter's.

use llmc_differential::case::{Build, Case, Limits, Target, random_weight, weight_types};
use llmc_differential::check::{Bounds, Tokens, check};
use llmc_differential::targets;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::testing::Random;
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_passes::fuse::Epilogues;

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    architecture: Architecture,
    /// Query heads, key/value heads, elements per head.
    heads: (usize, usize, usize),
    window: Option<usize>,
    hidden: usize,
    intermediate: usize,
    vocab: usize,
    layers: usize,
}

fn case(sizes: &Sizes, dtype: DType, target: Target) -> Case {
    let (heads, kv_heads, head_dim) = sizes.heads;
    let config = ModelConfig {
        heads,
        kv_heads,
        head_dim,
        hidden: sizes.hidden,
        intermediate: sizes.intermediate,
        vocab: sizes.vocab,
        windows: vec![sizes.window; sizes.layers],
        ..sizes.architecture.tiny()
    };
    let module = llmc_models::build(&config, Numerics::new(dtype)).expect("the sizes are sound");
    let mut random = Random::new(head_dim as u64);
    let mut weights = std::collections::BTreeMap::new();
    for (name, ty) in weight_types(&module) {
        // Activations stay near 1, and attention has something to choose from.
        let columns = ty.shape.0.last().and_then(|dim| dim.as_fixed()).unwrap_or(1) as f64;
        let scale = match ty.shape.rank() {
            1 => 1.0,
            _ if name.contains("embed") => 2.0,
            _ if name.contains("q_proj") || name.contains("k_proj") => 3.0 / columns.sqrt(),
            _ => 1.7 / columns.sqrt(),
        };
        weights.insert(name, random_weight(&mut random, &ty, scale));
    }
    let limits = Limits { max_context: 600, max_batch: 5, prefill_chunk: 512 };
    Case { module, weights, limits, build: Build { target, without: vec![], epilogues: Epilogues::Fused } }
}

/// Lengths of new tokens per step and sequence; ids are positions in the lists.
fn steps(vocab: usize, lengths: &[&[(u64, usize)]]) -> Vec<Tokens> {
    let mut random = Random::new(3);
    let mut tokens = |count: usize| (0..count).map(|_| random.below(vocab) as i32).collect();
    lengths.iter().map(|step| step.iter().map(|&(id, count)| (id, tokens(count))).collect()).collect()
}

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
            let case = case(sizes, dtype, target(number + 2 * turn));
            let target = case.build.target.name();
            let started = std::time::Instant::now();
            // The largest of thousands of normally distributed numbers is four times the typical one, and those here
            // come from sums of different sizes.
            let typical = if dtype == DType::BF16 { 2.0 } else { 2.0 + (sizes.hidden as f64).sqrt() / 2.0 };
            let sharpness = check(&case, &steps(sizes.vocab, lengths), Bounds::Noise(8.0 * typical))
                .unwrap_or_else(|failure| panic!("{sizes:?} in {dtype} for {target}: {failure}"));
            println!("{sizes:?} {dtype} {target} {sharpness:?} {:?}", started.elapsed());
            let max_looseness = if dtype == DType::BF16 { 0.2 } else { 1e-4 };
            match (case.build.target.has_matrix_unit(), dtype) {
                (true, DType::BF16) => sharpness.assert_below(1.25, max_looseness),
                _ => sharpness.assert(dtype, sizes.hidden, max_looseness),
            }
        }
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
        Sizes { window: Some(5), ..sizes(Architecture::Mistral, (5, 5, 10), 64, 96, 65) },
    ]
}

#[test]
fn odd_models() {
    check_all(&odd_sizes(), &BOTH, hosts, SHORT);
}

#[test]
fn odd_models_on_device() {
    check_all(&odd_sizes(), &BOTH, |_| targets::device(), SHORT);
}
