//! What each family of rewrite rules is worth: per model, in bf16 and in f32, and per kind of step the predicted and the
//! measured time, with all rules, without each family and without equality saturation, in interleaved runs. Artifacts with the same code differ by up to
//! 8 % of a decode step (where their pages lie, probably), so smaller differences say nothing.
//!
//! ```text
//! cargo run --release --example ablation -- ROUNDS MODEL_DIRECTORY...
//! ```

use llmc::compile::{Outcome, Request, compile};
use llmc::machine::{self, MachineError};
use llmc::model::Model;
use llmc::tune::Tunings;
use llmc_artifact::Artifact;
use llmc_codegen::host::HostTarget;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use llmc_models::weights::{Limits, facts};
use llmc_passes::eqsat::form::step_seconds;
use llmc_passes::eqsat::rule::Family;
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use llmrt::executor::{Executor, ExecutorOptions, SampleRows, Step, StepSequence};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Limits that are enough for every kind of step.
const LIMITS: Limits = Limits { max_context: 2048, max_batch: 64 };

/// Positions before the tokens of a decode step.
const DEPTH: usize = 512;

/// Steps of a kind per round; the fastest counts, since others only add to it.
const REPETITIONS: usize = 3;

/// A kind of step: its program, sequences, and tokens of each.
const KINDS: [(&str, usize, usize); 5] =
    [("decode_1", 1, 1), ("decode_16", 16, 1), ("decode", 64, 1), ("prefill_64", 1, 64), ("prefill", 1, 512)];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: ablation ROUNDS MODEL_DIRECTORY...";
    let rounds: usize = arguments.next().ok_or(usage)?.parse().map_err(|_| usage)?;
    println!("| model | step | rules | predicted ms | measured ms | against all rules |");
    println!("| --- | --- | --- | ---: | ---: | ---: |");
    for directory in arguments {
        for dtype in [DType::BF16, DType::F32] {
            let directory = Path::new(&directory);
            let model = Model::load(directory, dtype)?;
            let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy();
            ablate(&format!("{name} {dtype}"), &model, rounds)?;
        }
    }
    Ok(())
}

/// Measures all variants of a model in turn and prints their lines.
fn ablate(title: &str, model: &Model, rounds: usize) -> Result<(), Box<dyn Error>> {
    let families = Family::ALL.map(Family::name);
    let variants: Vec<Vec<&str>> =
        [vec![]].into_iter().chain(families.iter().map(|family| vec![*family])).chain([vec!["eqsat"]]).collect();
    let scratch = tempfile::tempdir()?;
    let mut runs = Vec::new();
    for (number, without) in variants.iter().enumerate() {
        let path = scratch.path().join(format!("{number}.llmc"));
        runs.push((
            without,
            predicted(model, without)?,
            executor(model, without, &path)?,
            vec![Vec::new(); KINDS.len()],
        ));
    }
    for _ in 0..rounds {
        for (kind, &(_, sequences, tokens)) in KINDS.iter().enumerate() {
            for (_, _, executor, times) in &mut runs {
                times[kind].push(measure(executor, sequences, tokens)?);
            }
        }
    }
    for (kind, (name, sequences, tokens)) in KINDS.iter().enumerate() {
        let all = median(&runs[0].3[kind]);
        for (without, predicted, _, times) in &runs {
            let label = if without.is_empty() { "all".to_owned() } else { format!("without {}", without.join(", ")) };
            let time = median(&times[kind]);
            let predicted =
                predicted.iter().find(|(program, _)| program == name).map_or(f64::NAN, |(_, seconds)| *seconds);
            println!(
                "| {title} | {name}: {sequences} x {tokens} | {label} | {:.2} | {:.2} | {:+.1} % |",
                1e3 * predicted,
                1e3 * time,
                100.0 * (time / all - 1.0)
            );
        }
    }
    Ok(())
}

fn options(without: &[&str]) -> Options {
    Options { without: without.iter().map(ToString::to_string).collect(), ..Options::default() }
}

/// This machine, as it was measured if it was.
fn host() -> Result<Machine, MachineError> {
    machine::read("host", machine::config_directory().as_deref())
}

/// Seconds of a typical step of each program, by the cost model.
fn predicted(model: &Model, without: &[&str]) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let machine = host()?;
    let facts = facts(&model.config, &model.module, model.numerics, LIMITS);
    let options = Options { stop_after: Some(Phase::Rewritten), ..options(without) };
    let context = Context::new(facts, machine.clone());
    let (state, _) = run_pipeline(State::Module(model.module.clone()), &context, &options, &mut [])?;
    let State::Programs(programs) = state else { return Err("expected programs".into()) };
    Ok(programs.iter().map(|program| (program.name.clone(), step_seconds(program, &machine))).collect())
}

fn executor(model: &Model, without: &[&str], path: &Path) -> Result<Executor, Box<dyn Error>> {
    let request = Request {
        targets: vec![HostTarget::named("native")?],
        gpus: Vec::new(),
        max_context: Some(LIMITS.max_context),
        max_batch: LIMITS.max_batch,
        machines: host()?.into(),
        passes: options(without),
        tuning: Tunings::Defaults,
        dump: None,
    };
    match compile(model, &request, path, &mut |_| true)? {
        Outcome::Written(_) => {}
        Outcome::Stopped(..) => return Err("compilation stopped early".into()),
    }
    let blocks = LIMITS.max_batch * (DEPTH + 512).div_ceil(KV_BLOCK_POSITIONS);
    let options = ExecutorOptions { kv_blocks: Some(blocks), ..ExecutorOptions::default() };
    Ok(Executor::new(Arc::new(Artifact::open(path)?), options)?)
}

/// Seconds of a step of `sequences` sequences with `tokens` new tokens each.
fn measure(executor: &mut Executor, sequences: usize, tokens: usize) -> Result<f64, Box<dyn Error>> {
    let blocks = (DEPTH + tokens).div_ceil(KV_BLOCK_POSITIONS);
    let start = if tokens == 1 { DEPTH } else { 0 };
    let sequence = |number: usize| StepSequence {
        tokens: (0..tokens).map(|token| (token * 7 + number) as u32 % 1000).collect(),
        start_position: start as u32,
        block_table: (number * blocks..(number + 1) * blocks).map(|block| block as u32).collect(),
        sample: SampleRows::Last,
    };
    let step = Step { sequences: (0..sequences).map(sequence).collect() };
    let mut fastest = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        executor.run(&step)?;
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
