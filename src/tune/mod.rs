//! `llmc compile --tune`: sizes that kernels are cut to, chosen by measurements on this machine.
//!
//! Code is made with each candidate, and steps of all of them are timed in turn, round by round, so that a slow moment of the
//! machine hits all alike. The defaults run twice: what lies between these two is noise, and nothing that gains less is taken.

mod steps;

use crate::error::CompileError;
use llmc_codegen::host::HostTarget;
use llmc_codegen::tuning::{SIZES, Tuning};
use llmc_codegen::{HostCode, compile_host};
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Plan, Program};
use llmc_ir::region::PlannedModel;
use llmc_limits::{Hardware, available, median};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use steps::{Memory, Sizes, Steps};

/// Rounds of measurements at least and at most, and the time after which no other one begins.
const ROUNDS: [usize; 2] = [5, 25];
const TIME: Duration = Duration::from_secs(20);

/// Noise from which on the machine counts as busy.
const BUSY: f64 = 0.1;

/// What is never taken for a gain, however quiet the machine is.
const LEAST_GAIN: f64 = 0.02;

/// Bytes of weights of a step of few tokens, which reads them from memory.
const STREAMED_BYTES: u64 = 256 << 20;

/// Layers of a step of many tokens, which computes.
const PREFILL_LAYERS: usize = 2;

/// Sizes for a target, and how they were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// The CPU level, as `--target` knows it.
    pub target: String,
    /// What its kernels are cut to.
    pub tuning: Tuning,
    /// The CPU that was measured, as it calls itself.
    pub cpu: String,
    /// Threads of the steps.
    pub threads: usize,
    /// What was timed: program, sequences, tokens of each, and positions before them.
    pub steps: Vec<TimedStep>,
    /// The least gain that was taken for one.
    pub noise: f64,
    /// What was tried.
    pub trials: Vec<Trial>,
}

/// A step that was timed, with the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimedStep {
    /// The program.
    pub program: String,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Positions before them.
    pub depth: usize,
    /// The median, with the defaults.
    pub seconds: f64,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The sizes.
    pub tuning: Tuning,
    /// The median over rounds of its time over that of the defaults, for each of the steps.
    pub ratios: Vec<f64>,
}

impl Trial {
    /// The geometric mean of its ratios.
    fn ratio(&self) -> f64 {
        (self.ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / self.ratios.len().max(1) as f64).exp()
    }

    /// Whether it gains on the whole, and loses nowhere, more than noise.
    fn wins(&self, noise: f64) -> bool {
        self.ratio() < 1.0 - noise && self.ratios.iter().all(|&ratio| ratio < 1.0 + noise)
    }
}

impl Tuned {
    /// Whether these can be the sizes of a target's kernels.
    ///
    /// # Errors
    /// What is wrong with them.
    fn check(&self) -> Result<(), String> {
        self.tuning.check().map_err(|error| format!("the tuning for {}: {error}", self.target))
    }

    /// Whether something else had the machine, so that only large gains would have shown.
    pub fn is_disturbed(&self) -> bool {
        self.noise > BUSY
    }

    /// That in words, on one line.
    pub fn describe(&self) -> String {
        let changed = SIZES.iter().filter_map(|size| {
            let (value, default) = ((size.get)(&self.tuning), (size.get)(&Tuning::default()));
            (value != default).then(|| format!("{} {value} instead of {default}", size.name))
        });
        let changed: Vec<String> = changed.collect();
        let best = self.trials.iter().find(|trial| trial.tuning == self.tuning);
        let found = match best {
            _ if changed.is_empty() => "the defaults: nothing was faster".to_owned(),
            Some(best) => format!("{}: {:.1} % faster", changed.join(", "), 100.0 * (1.0 / best.ratio() - 1.0)),
            None => format!("{}: not measured", changed.join(", ")),
        };
        format!(
            "{found}, of {} candidates for {}, with noise of {:.1} %, on {} threads of {}",
            self.trials.len(),
            self.target,
            100.0 * self.noise,
            self.threads,
            self.cpu
        )
    }
}

/// Where the sizes come from that kernels are cut to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tunings {
    /// The defaults, for every target.
    #[default]
    Defaults,
    /// From measurements.
    Measured,
    /// What earlier measurements chose; the defaults for targets that are not among them.
    Given(Vec<Tuned>),
}

/// The targets with their sizes, and how those were found that are not the defaults.
///
/// # Errors
/// If this CPU cannot run code for a target that is to be measured, or no target is one that there are sizes for.
pub fn tuned_targets(
    planned: &PlannedModel,
    targets: &[HostTarget],
    tunings: &Tunings,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
) -> Result<(Vec<HostTarget>, Vec<Tuned>), CompileError> {
    let found: Vec<Tuned> = match tunings {
        Tunings::Defaults => Vec::new(),
        Tunings::Measured => {
            targets.iter().map(|target| tune(planned, target, progress)).collect::<Result<_, CompileError>>()?
        }
        Tunings::Given(given) => {
            let is_target = |tuned: &&Tuned| targets.iter().any(|target| target.name == tuned.target);
            given.iter().filter(is_target).cloned().collect()
        }
    };
    if found.is_empty() && *tunings != Tunings::Defaults {
        let names = targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(CompileError::Limit(format!(
            "none of the targets ({names}) is a CPU that there are measured sizes for"
        )));
    }
    found.iter().try_for_each(Tuned::check).map_err(CompileError::Limit)?;
    let tuned = targets.iter().map(|target| {
        let found = found.iter().find(|tuned| tuned.target == target.name);
        HostTarget { tuning: found.map_or(target.tuning, |tuned| tuned.tuning), ..target.clone() }
    });
    Ok((tuned.collect(), found))
}

/// Measures which sizes suit a target on this machine. `progress` hears rounds done and in all; its error ends it.
///
/// # Errors
/// If this CPU cannot run code for the target, no code can be made, or it does not load.
fn tune(
    planned: &PlannedModel,
    target: &HostTarget,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
) -> Result<Tuned, CompileError> {
    check_runnable(target)?;
    let hardware = Hardware::here();
    let (sample, sizes) = sample(planned);
    let mut bench = Bench { sample: &sample, sizes: &sizes, target, threads: hardware.threads };
    let (baseline, noise, mut trials) = bench.trials(&Tuning::candidates(target), progress)?;
    // The best value of each size.
    let mut together = Tuning::default();
    let mut winners = 0;
    for size in &SIZES {
        let of_size = trials.iter().filter(|trial| (size.get)(&trial.tuning) != (size.get)(&Tuning::default()));
        let best = of_size.filter(|trial| trial.wins(noise)).min_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        if let Some(best) = best {
            together = together.with(size, (size.get)(&best.tuning));
            winners += 1;
        }
    }
    if winners > 1 {
        let (_, _, combined) = bench.trials(&[together], progress)?;
        trials.extend(combined);
    }
    let best = trials.iter().filter(|trial| trial.wins(noise)).min_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let tuning = best.map_or_else(Tuning::default, |best| best.tuning);
    let steps = sample.plan.programs.iter().zip(&sizes).zip(baseline).map(|((program, sizes), seconds)| TimedStep {
        program: program.name.clone(),
        sequences: sizes.sequences,
        tokens: sizes.tokens,
        depth: sizes.depth,
        seconds,
    });
    let steps = steps.collect();
    Ok(Tuned {
        target: target.name.clone(),
        tuning,
        cpu: hardware.cpu,
        threads: hardware.threads,
        steps,
        noise,
        trials,
    })
}

/// Refuses a target whose code this CPU cannot run.
fn check_runnable(target: &HostTarget) -> Result<(), CompileError> {
    let native = HostTarget::named("native")?;
    let missing: Vec<&str> =
        target.cpu_features.iter().map(String::as_str).filter(|feature| !native.has(feature)).collect();
    if !missing.is_empty() {
        return Err(CompileError::Limit(format!(
            "--tune measures code where it runs, but for {} this CPU lacks {}; leave out the target or --tune",
            target.name,
            missing.join(", ")
        )));
    }
    // Asks the system for the registers of a matrix unit, too.
    let (_, skipped) = available(&|feature| target.has(feature));
    match skipped.into_iter().find(|reason| target.has("amx-tile") && reason.starts_with("AMX")) {
        Some(reason) => Err(CompileError::Limit(format!("--tune cannot run code for {}: {reason}", target.name))),
        None => Ok(()),
    }
}

/// A part of the model that takes little time: the programs for one sequence, for some, and for a prompt, with as many
/// layers as show what they come up against; and a step of each.
fn sample(planned: &PlannedModel) -> (PlannedModel, Vec<Sizes>) {
    let all: Vec<usize> = (0..planned.plan.programs.len())
        .filter(|&index| planned.plan.programs[index].processor == Processor::Cpu)
        .collect();
    let decodes = |index: &&usize| planned.plan.programs[**index].bounds.one_token_per_sequence;
    let mut chosen: Vec<usize> = all.iter().find(decodes).into_iter().copied().collect();
    chosen.extend(all.iter().rfind(decodes).copied());
    chosen.extend(all.iter().rfind(|index| !decodes(index)).copied());
    chosen.dedup();
    let programs = chosen.iter().map(|&index| shorten(&planned.plan, &planned.plan.programs[index]));
    let plan = Plan { programs: programs.collect(), ..planned.plan.clone() };
    let sizes = plan.programs.iter().map(|program| {
        let max = &program.bounds.max;
        match program.bounds.one_token_per_sequence {
            true => Sizes { sequences: max.sequences.min(16), tokens: 1, depth: (max.context - 1).min(512) },
            false => Sizes { sequences: 1, tokens: max.tokens.min(max.context).min(512), depth: 0 },
        }
    });
    let sizes = sizes.collect();
    let kernels = chosen.iter().map(|&index| planned.kernels[index].clone()).collect();
    (PlannedModel { plan, kernels, recipes: planned.recipes.clone() }, sizes)
}

/// The program with fewer calls of functions that it calls many times.
fn shorten(plan: &Plan, program: &Program) -> Program {
    let most = match program.bounds.one_token_per_sequence {
        true => {
            let bytes: u64 = plan.weights.iter().map(|weight| weight.bytes).sum();
            (program.calls.len() as u64 * STREAMED_BYTES).div_ceil(bytes.max(1)) as usize
        }
        false => PREFILL_LAYERS,
    };
    let mut calls = Vec::new();
    for run in program.calls.chunk_by(|a, b| a.function == b.function) {
        calls.extend_from_slice(&run[..run.len().min(most.max(PREFILL_LAYERS))]);
    }
    Program { calls, ..program.clone() }
}

/// What is measured with.
struct Bench<'a> {
    sample: &'a PlannedModel,
    /// A step of each of its programs.
    sizes: &'a [Sizes],
    target: &'a HostTarget,
    threads: usize,
}

impl Bench<'_> {
    /// Times candidates beside the defaults. Returns the seconds of each step with the defaults, the noise, and a trial of
    /// each candidate whose code is another.
    fn trials(
        &mut self,
        candidates: &[Tuning],
        progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
    ) -> Result<(Vec<f64>, f64, Vec<Trial>), CompileError> {
        progress(0, ROUNDS[1] as u64)?;
        let tunings: Vec<Tuning> = [Tuning::default()].into_iter().chain(candidates.iter().copied()).collect();
        let codes = tunings.par_iter().with_max_len(1).map(|&tuning| {
            let target = HostTarget { tuning, ..self.target.clone() };
            compile_host(self.sample, &target)
        });
        let codes = codes.collect::<Vec<_>>().into_iter().collect::<Result<Vec<HostCode>, _>>()?;
        let differs = |index: &usize| *index == 0 || codes[*index].shared_object != codes[0].shared_object;
        let others: Vec<usize> = (0..codes.len()).filter(differs).collect();
        let programs = &self.sample.plan.programs;
        let load = |&index: &usize| Steps::load(&codes[index], programs).map_err(CompileError::Measurement);
        // The defaults a second time at the end.
        let steps = others.iter().chain([&0]).map(load).collect::<Result<Vec<Steps>, _>>()?;
        let scratch = codes.iter().map(|code| code.scratch_bytes).max().unwrap_or(0);
        let mut memory = Memory::new(&self.sample.plan, self.sizes, scratch, self.threads);
        let seconds = self.measure(&steps, &mut memory, progress)?;
        let ratios = |of: usize| {
            let program = |program: usize| {
                let rounds = seconds[of][program].iter().zip(&seconds[0][program]);
                rounded(median(&rounds.map(|(own, default)| own / default).collect::<Vec<_>>()), 4)
            };
            (0..programs.len()).map(program).collect::<Vec<f64>>()
        };
        let between_defaults = ratios(steps.len() - 1).into_iter().map(|ratio| (ratio - 1.0).abs());
        let noise = between_defaults.fold(LEAST_GAIN, |noise, difference| noise.max(rounded(2.0 * difference, 4)));
        let trials = others
            .iter()
            .enumerate()
            .skip(1)
            .map(|(place, &index)| Trial { tuning: tunings[index], ratios: ratios(place) });
        let baseline = seconds[0].iter().map(|rounds| rounded(median(rounds), 9)).collect();
        Ok((baseline, noise, trials.collect()))
    }

    /// The seconds of every round, by code and program.
    fn measure(
        &self,
        steps: &[Steps],
        memory: &mut Memory,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
    ) -> Result<Vec<Vec<Vec<f64>>>, CompileError> {
        let [least, most] = ROUNDS;
        let mut seconds = vec![vec![Vec::new(); self.sizes.len()]; steps.len()];
        let started = Instant::now();
        for round in 0..=most {
            progress(round as u64, most as u64)?;
            if round > least && started.elapsed() > TIME {
                break;
            }
            for (program, &sizes) in self.sizes.iter().enumerate() {
                for (steps, seconds) in steps.iter().zip(&mut seconds) {
                    // SAFETY: the memory was made for these sizes, which the program's bounds allow, and the CPU has what the
                    // target needs.
                    let taken = unsafe { steps.seconds(program, sizes, memory) };
                    // The first round warms up.
                    if round > 0 {
                        seconds[program].push(taken.max(1e-9));
                    }
                }
            }
        }
        Ok(seconds)
    }
}

/// With so many digits behind the point: what was measured has no more, and short numbers are read as they were written.
fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_wins_by_more_than_noise_and_loses_nowhere() {
        let wins = |ratios: [f64; 2]| Trial { tuning: Tuning::default(), ratios: ratios.to_vec() }.wins(0.04);
        assert!(wins([0.9, 1.0]));
        assert!(wins([0.85, 1.03]));
        assert!(!wins([0.99, 0.98]), "that is noise");
        assert!(!wins([0.7, 1.1]), "a loss elsewhere");
    }
}
