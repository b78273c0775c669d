//! Random steps: several functions, each called for one layer or two, that pass values on, overwrite and swap them, with
//! caches that some calls write and read. What is between the kernels is at stake: places, lifetimes and barriers.

use llmc_differential::case::{Build, Case, Limits, Target, random_weight, weight_types};
use llmc_differential::check::{Bounds, Tokens, check};
use llmc_differential::targets;
use llmc_ir::dtype::DType;
use llmc_ir::testing::{Random, StepSizes, random_module};
use llmc_passes::fuse::Epilogues;

const LIMITS: Limits = Limits { max_context: 64, max_batch: 3, prefill_chunk: 40 };
const VOCAB: usize = 23;
/// The distance from unrounded values where attention rounds positions' weights, relative to the interpreter's.
const WEIGHT_ROUNDING: f64 = 1.4;

/// Groups that fill vectors and that do not.
const SIZES: [StepSizes; 4] = [
    StepSizes { groups: 4, group: 4, vocab: VOCAB },
    StepSizes { groups: 3, group: 6, vocab: VOCAB },
    StepSizes { groups: 2, group: 32, vocab: VOCAB },
    StepSizes { groups: 5, group: 18, vocab: VOCAB },
];

fn case(seed: u64, target: Option<Target>) -> Case {
    let module = random_module(seed, SIZES[(seed % 4) as usize]);
    let mut random = Random::new(seed);
    let types = weight_types(&module).into_iter();
    let weights = types.map(|(name, ty)| (name, random_weight(&mut random, &ty, 1.0))).collect();
    let targets = targets::runnable();
    let target = target.unwrap_or_else(|| targets[(seed % targets.len() as u64) as usize].clone());
    let epilogues = if seed.is_multiple_of(3) { Epilogues::Separate } else { Epilogues::Fused };
    let without = if seed % 5 == 4 { vec!["compress".to_owned()] } else { vec![] };
    Case { module, weights, limits: LIMITS, build: Build { target, without, epilogues, method: None } }
}

/// `target` `None`: CPU levels take turns.
fn check_seeds(seeds: std::ops::Range<u64>, target: Option<Target>) {
    for seed in seeds {
        let mut random = Random::new(seed);
        let mut tokens = |count: usize| (0..count).map(|_| random.below(VOCAB) as i32).collect::<Vec<i32>>();
        let steps: [Tokens; 3] = [
            vec![(0, tokens(2)), (1, tokens(33))],
            vec![(1, tokens(1)), (0, tokens(1))],
            vec![(0, tokens(1)), (2, tokens(1)), (1, tokens(5))],
        ];
        // Everything is rounded to bf16 again and again, and compiled code rounds alike.
        let case = case(seed, target.clone());
        // Attention that rounds weights takes it this much further from unrounded values at most.
        let further = if case.build.target.rounds_weights() { WEIGHT_ROUNDING } else { 1.0 };
        let sharpness = check(&case, &steps, Bounds::Noise(8.0 * further)).unwrap_or_else(|failure| {
            let text = llmc_ir::text::print_module(&case.module);
            panic!("seed {seed}, {}, {:?}: {failure}\n{text}", case.build.target.name(), case.build.epilogues)
        });
        println!("{seed} {sharpness:?}");
        match case.build.target.rounds_weights() {
            true => sharpness.assert_below(WEIGHT_ROUNDING, f64::INFINITY),
            false => sharpness.assert(DType::BF16, 0, f64::INFINITY),
        }
    }
}

#[test]
fn random_steps() {
    check_seeds(0..20, None);
}

#[test]
fn random_steps_by_tiles() {
    if let Some(target) = targets::tiles() {
        check_seeds(32..42, Some(target));
    }
}

#[test]
fn random_steps_on_device() {
    check_seeds(20..32, Some(targets::device()));
}

#[test]
#[ignore = "minutes of seeds, for after changes to passes or code generation"]
fn many_random_steps() {
    check_seeds(100..400, None);
}
