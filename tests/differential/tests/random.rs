//! Random functions, compiled for every target that this CPU can run, with one optional pass left out at a time.

use llmc_differential::case::{Build, Case, Limits, Target, random_weight};
use llmc_differential::check::{Bounds, Failure, Tokens, check};
use llmc_differential::{targets, wrap};
use llmc_ir::dtype::DType;
use llmc_ir::testing::{Config, Kind, Random, TEST_VOCAB, random_function};
use llmc_passes::fuse::Epilogues;
use llmc_passes::pass::Necessity;
use llmc_passes::pipeline::pipeline;

const LIMITS: Limits = Limits { max_context: 96, max_batch: 4, prefill_chunk: 64 };

/// How wide the intervals of most functions are at most: a wrong operation shows far beyond. (Some functions cancel,
/// `x - x`, and then nothing is left but bounds.)
const TYPICAL_LOOSENESS: f64 = 1e-3;

/// A random function as a case; targets, omitted passes and epilogues take turns from seed to seed.
fn case(seed: u64, config: &Config, target: Option<&Target>) -> Option<Case> {
    let random = random_function(seed, config);
    let module = wrap::wrap(&random)?;
    let mut weights = random.weights.clone();
    let mut source = Random::new(seed);
    for (name, ty) in wrap::tables(&random) {
        weights.insert(name, random_weight(&mut source, &ty, 1.0));
    }
    let targets = targets::runnable();
    let optional: Vec<_> = pipeline().into_iter().filter(|pass| pass.necessity == Necessity::Optional).collect();
    let mut without = Vec::new();
    // Every other seed runs the whole pipeline.
    if seed.is_multiple_of(2) {
        without.push(source.choose(&optional).name.to_owned());
    }
    if source.below(4) == 0 {
        without.push("compress".to_owned());
    }
    let epilogues = if source.below(4) == 0 { Epilogues::Separate } else { Epilogues::Fused };
    let target = target.cloned().unwrap_or_else(|| targets[(seed % targets.len() as u64) as usize].clone());
    Some(Case { module, weights, limits: LIMITS, build: Build { target, without, epilogues, method: None } })
}

/// A ragged prefill, a decode step, a mixed step with a newcomer, a decode step of some.
fn steps(seed: u64) -> Vec<Tokens> {
    let mut random = Random::new(seed ^ 0xA5A5);
    let mut tokens = |count: usize| (0..count).map(|_| random.below(TEST_VOCAB) as i32).collect::<Vec<i32>>();
    let long = 20 + (seed % 30) as usize;
    vec![
        vec![(4, tokens(long)), (1, tokens(1)), (9, tokens(5))],
        vec![(9, tokens(1)), (4, tokens(1)), (1, tokens(1))],
        vec![(4, tokens(13)), (1, tokens(1)), (7, tokens(31))],
        vec![(7, tokens(1)), (4, tokens(1))],
    ]
}

/// `target` `None`: CPU levels take turns.
fn check_seeds(seeds: std::ops::Range<u64>, config: &Config, target: Option<&Target>) {
    let (mut looseness, mut refused, mut attends) = (Vec::new(), 0, 0);
    for seed in seeds.clone() {
        let Some(case) = case(seed, config, target) else { continue };
        attends += usize::from(llmc_ir::text::print_module(&case.module).contains("= attend"));
        match check(&case, &steps(seed), Bounds::Rigorous) {
            Ok(sharpness) => looseness.push(sharpness.looseness),
            Err(Failure::Refused(message)) => {
                refused += 1;
                println!("seed {seed}: {message}");
            }
            Err(failure) => panic!("seed {seed}: {failure}\n{:#?}\n{}", case.build, smallest(seed, config, target)),
        }
    }
    looseness.sort_by(f64::total_cmp);
    let (checked, median) = (looseness.len(), looseness[looseness.len() / 2]);
    println!("{checked} checked ({attends} with attention), {refused} refused, half of them looser than {median}");
    assert!(median < TYPICAL_LOOSENESS, "the comparison is too loose to find anything: {median}");
    assert!(refused * 20 <= checked, "{refused} of {} functions were refused", checked + refused);
}

/// The text of the smallest function of that seed that fails too.
fn smallest(seed: u64, config: &Config, target: Option<&Target>) -> String {
    for operations in 1..=config.operations {
        let config = Config { operations, ..config.clone() };
        let Some(case) = case(seed, &config, target) else { continue };
        let failure = check(&case, &steps(seed), Bounds::Rigorous).err();
        if let Some(failure @ (Failure::Codegen(_) | Failure::Wrong(_))) = failure {
            let text = llmc_ir::text::print_module(&case.module);
            return format!("with {operations} operations: {failure}\n{text}");
        }
    }
    String::new()
}

#[test]
#[ignore = "minutes of seeds, for after changes to passes or code generation"]
fn many_seeds() {
    for (number, config) in configs().iter().enumerate() {
        let start = 1000 * (number as u64 + 1);
        check_seeds(start..start + 200, config, None);
    }
}

fn configs() -> [Config; 4] {
    // Attention comes once at most; if it comes early, more of the rest depends on it.
    let mut modellike = Config::modellike();
    modellike.kinds.extend([Kind::Attend; 4]);
    [
        Config { dtypes: vec![DType::F32], ..Config::rowwise() },
        Config { max_size: 40, ..Config::rowwise() },
        Config { dtypes: vec![DType::F32], max_size: 130, ..modellike.clone() },
        Config { max_size: 70, ..modellike },
    ]
}

/// Shapes whose rows are anywhere: for most there is no kernel. What the passes accept must compile and be right.
#[test]
fn what_is_accepted_is_right() {
    let config = Config { dtypes: vec![DType::F32, DType::BF16], operations: 6, ..Config::everything() };
    let mut accepted = 0;
    for seed in 400..440 {
        let Some(case) = case(seed, &config, None) else { continue };
        match check(&case, &steps(seed), Bounds::Rigorous) {
            Ok(_) => accepted += 1,
            Err(Failure::Refused(message)) => {
                assert!(message.contains("kernel") || message.contains("it must"), "{message}")
            }
            Err(failure) => panic!("seed {seed}: {failure}\n{}", smallest(seed, &config, None)),
        }
    }
    println!("{accepted} accepted");
    assert!(accepted >= 5, "hardly anything was compiled");
}

#[test]
fn rows_in_f32() {
    check_seeds(0..12, &configs()[0], None);
}

#[test]
fn rows_in_mixed_types() {
    check_seeds(100..112, &configs()[1], None);
}

#[test]
fn models_in_f32() {
    check_seeds(200..210, &configs()[2], None);
}

#[test]
fn models_in_mixed_types() {
    check_seeds(300..310, &configs()[3], None);
}

#[test]
fn rows_on_device() {
    check_seeds(500..508, &configs()[0], Some(&targets::device()));
    check_seeds(508..514, &configs()[1], Some(&targets::device()));
}

#[test]
fn models_on_device() {
    check_seeds(600..606, &configs()[2], Some(&targets::device()));
    check_seeds(606..612, &configs()[3], Some(&targets::device()));
}
