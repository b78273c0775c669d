//! Everything that must hold of a compiled case.

use crate::case::{Case, Target};
use crate::compiled::Compiled;
use crate::device::{Device, Padding};
use crate::enclosure::error::PositionWeights;
use crate::enclosure::{State, enclose_module, noise};
use crate::pool::{Batch, Pool};
use crate::trial::{Trial, inside};
use llmc_codegen::error::CodegenError;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvState, Mode, StepInputs, Tensor, eval_module};
use llmc_ir::module::{Module, SpecializedModule};
use llmc_ir::op::Op;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan};
use llmc_ir::region::PlannedModel;
use std::collections::BTreeMap;

/// Numbers of threads that every step runs on; the results must be the same bits.
const THREADS: [usize; 4] = [1, 2, 3, 5];
/// How much too large the grids of a device's steps are; the results must be the same bits.
const PADDINGS: [Padding; 2] =
    [Padding { tokens: 0, sequences: 0, samples: 0 }, Padding { tokens: 37, sequences: 3, samples: 2 }];

/// New tokens of some sequences, by their ids.
pub type Tokens = Vec<(u64, Vec<i32>)>;

/// How sharp a check was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sharpness {
    /// The largest mean width of a step's intervals, relative to their magnitude.
    pub looseness: f64,
    /// The distance of compiled results from unrounded ones, relative to that of the interpreter's results: the largest
    /// of any run. Compiled code rounds in the same places, so this is near 1 unless it loses something.
    pub error_ratio: f64,
}

impl Sharpness {
    /// That the check could have found something, and that compiled code loses no more than rounding does.
    ///
    /// The interpreter rounds a sum once, f32 code rounds every term of it, which takes it away from the true value like
    /// a random walk: by the root of the sum's length. In bf16 the rounding that both do alike outweighs all else.
    ///
    /// # Panics
    /// If one of them is not so.
    pub fn assert(&self, dtype: DType, longest_sum: usize, max_looseness: f64) {
        let max_ratio = if dtype == DType::BF16 { 1.1 } else { 4.0 + (longest_sum as f64).sqrt() / 2.0 };
        self.assert_below(max_ratio, max_looseness);
    }

    /// The same where code rounds more often than the interpreter: attention on AMX rounds positions' weights to bf16.
    ///
    /// # Panics
    /// If one of them is larger.
    pub fn assert_below(&self, max_ratio: f64, max_looseness: f64) {
        assert!(self.looseness < max_looseness, "the bounds are too loose: {self:?}");
        assert!(self.error_ratio < max_ratio, "results are less exact than they should be: {self:?}");
    }
}

/// Why a case failed.
#[derive(Debug)]
pub enum Failure {
    /// A pass refuses the module.
    Refused(String),
    /// Code generation refuses what the passes accepted.
    Codegen(CodegenError),
    /// Compiled code does something else than the interpreter.
    Wrong(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(message) => write!(f, "the passes refuse it: {message}"),
            Failure::Codegen(error) => write!(f, "the code generator refuses it: {error}"),
            Failure::Wrong(message) => write!(f, "wrong result: {message}"),
        }
    }
}

/// What values are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// Intervals that no correctly rounding code can leave ([`crate::enclosure`]).
    Rigorous,
    /// The interpreter's values, give or take so many times the typical distance between them and unrounded ones: for
    /// modules so deep that intervals, which assume the worst of every rounding, no longer say anything.
    Noise(f64),
}

/// Compiles a case and runs steps, each on every program that takes it. Of each run:
///
/// * logits and what is in the KV cache are within bounds, and so is what the interpreter computes;
/// * any number of threads, or any larger grid of a device, gives the same bits;
/// * a sequence gets the same bits alone as in company;
/// * nothing is written around the buffers, nor in the KV cache beside the new rows; what was not written before is
///   NaN, so that reading it shows.
///
/// # Errors
/// See [`Failure`].
pub fn check(case: &Case, steps: &[Tokens], bounds: Bounds) -> Result<Sharpness, Failure> {
    let programs = case.programs().map_err(Failure::Refused)?;
    let planned = case.plan(&programs).map_err(Failure::Refused)?;
    let compiled = compile(case, planned).map_err(Failure::Codegen)?;
    let (sharpness, _) = run(case, &programs, &*compiled, steps, bounds).map_err(Failure::Wrong)?;
    Ok(sharpness)
}

/// Compiles a planned case for its target.
///
/// # Errors
/// If code generation fails.
pub fn compile(case: &Case, planned: PlannedModel) -> Result<Box<dyn Runs>, CodegenError> {
    Ok(match &case.build.target {
        Target::Host(target) => Box::new(Compiled::new(case, planned, target)?),
        Target::Device(target) => Box::new(Device::new(case, planned, target)?),
    })
}

/// Compiled code that can run steps in several ways that must not matter.
pub trait Runs {
    /// What it was compiled from.
    fn plan(&self) -> &Plan;
    /// What attention multiplies values with.
    fn attention_weights(&self) -> PositionWeights;
    /// How many ways there are.
    fn ways(&self) -> usize;
    /// Runs a step of a program in one of the ways; returns the logits.
    ///
    /// # Errors
    /// If something was touched that should not be.
    fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, way: usize) -> Result<Vec<f32>, String>;
}

impl Runs for Compiled {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn attention_weights(&self) -> PositionWeights {
        self.attention_weights
    }

    fn ways(&self) -> usize {
        THREADS.len()
    }

    fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, way: usize) -> Result<Vec<f32>, String> {
        Compiled::run(self, program, batch, pool, THREADS[way])
            .map_err(|error| format!("{} threads: {error}", THREADS[way]))
    }
}

impl Runs for Device {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn attention_weights(&self) -> PositionWeights {
        match self.plan.kv.dtype {
            DType::BF16 => PositionWeights::TwoBf16,
            _ => PositionWeights::F32,
        }
    }

    fn ways(&self) -> usize {
        PADDINGS.len()
    }

    fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, way: usize) -> Result<Vec<f32>, String> {
        Device::run(self, program, batch, pool, PADDINGS[way]).map_err(|error| format!("{:?}: {error}", PADDINGS[way]))
    }
}

/// Runs steps of compiled code as [`check`] does; returns also what each was, so that it can be tried on other code.
///
/// # Errors
/// What is wrong with a result, and where.
pub fn run(
    case: &Case,
    programs: &[SpecializedModule],
    compiled: &dyn Runs,
    steps: &[Tokens],
    bounds: Bounds,
) -> Result<(Sharpness, Vec<Trial>), String> {
    let mut lengths: BTreeMap<u64, usize> = BTreeMap::new();
    let blocks: usize = {
        let mut totals: BTreeMap<u64, usize> = BTreeMap::new();
        steps.iter().flatten().for_each(|(id, tokens)| *totals.entry(*id).or_default() += tokens.len());
        totals.values().map(|length| length.div_ceil(KV_BLOCK_POSITIONS)).sum()
    };
    let mut pool = Pool::new(compiled.plan().kv, blocks + 1, 7);
    let mut state = State::new();
    let (mut typed_state, mut wide_state, mut own_state) = (KvState::default(), KvState::default(), KvState::default());
    let mut sharpness = Sharpness::default();
    let mut trials = Vec::new();
    let row_numbers = uses_row_numbers(&case.module);
    for (number, tokens) in steps.iter().enumerate() {
        let step = step(&mut lengths, tokens);
        let batch = pool.batch(&step);
        // How far rounding takes the module's own logits, before any pass.
        let typed = interpret(case, &case.module, &mut typed_state, &step, Mode::AsTyped)?;
        let wide = interpret(case, &case.module, &mut wide_state, &step, Mode::Wide)?;
        let mut after = None;
        for (index, program) in programs.iter().enumerate().filter(|(_, program)| takes(program, &step)) {
            let place = |error: String| format!("step {number} ({step:?}), program {}: {error}", program.name);
            let (mut written, mut own_written) = (state.clone(), own_state.clone());
            // Passes may have changed where is rounded, so the program is compared with its own meaning.
            let expected = match bounds {
                Bounds::Rigorous => {
                    let own = interpret(case, &program.module, &mut own_written, &step, Mode::AsTyped)?;
                    let expected = enclose_module(
                        &program.module,
                        &case.weights,
                        &mut written,
                        &step,
                        compiled.attention_weights(),
                    )
                    .map_err(place)?;
                    inside(&expected, &own).map_err(|error| place(format!("the interpreter itself: {error}")))?;
                    expected
                }
                Bounds::Noise(factor) => {
                    written = noise::caches(&typed_state, &wide_state, factor);
                    noise::around(&typed, &wide, compiled.plan().model.vocab, factor)
                }
            };
            sharpness.looseness = sharpness.looseness.max(expected.looseness());
            let trial = Trial {
                place: format!("step {number} ({step:?}), program {}", program.name),
                program: index,
                batch: batch.clone(),
                before: pool.clone(),
                expected,
                written: written.clone(),
                row_numbers,
            };
            let (logits, cache) = trial.check(compiled)?;
            let ratio = distance(&logits, &wide) / distance(&typed, &wide).max(f64::MIN_POSITIVE);
            sharpness.error_ratio = sharpness.error_ratio.max(ratio);
            after.get_or_insert((cache, written, own_written));
            trials.push(trial);
        }
        (pool, state, own_state) = after.ok_or_else(|| format!("no program takes step {number}"))?;
    }
    Ok((sharpness, trials))
}

/// A step from how long the sequences are already.
fn step(lengths: &mut BTreeMap<u64, usize>, tokens: &Tokens) -> StepInputs {
    let mut sequences = Vec::new();
    for (id, tokens) in tokens {
        let start = lengths.entry(*id).or_default();
        sequences.push((*id, *start, &tokens[..]));
        *start += tokens.len();
    }
    let mut step = StepInputs::batch(&sequences);
    step.sample_rows = sampled_rows(&step);
    step
}

/// Rows whose logits are wanted: mostly all, at times some in another order, or none.
fn sampled_rows(step: &StepInputs) -> Vec<i32> {
    let rows = 0..step.token_ids.len() as i32;
    match rows.len() % 8 {
        // Decode programs are promised all rows in order.
        _ if step.sequence_ids.len() == rows.len() => rows.collect(),
        3 => Vec::new(),
        1 | 5 => rows.rev().step_by(3).collect(),
        _ => rows.collect(),
    }
}

/// Whether the module counts rows, which no model does: then a sequence's values depend on those before it.
fn uses_row_numbers(module: &Module) -> bool {
    let counts = |op: &Op| matches!(op, Op::Iota { axis, shape } if shape.0[*axis].symbol.is_some());
    let graphs = module.functions.iter().map(|function| &function.graph);
    graphs.into_iter().any(|graph| graph.topological().into_iter().any(|node| counts(graph.op(node))))
}

fn interpret(
    case: &Case,
    module: &Module,
    state: &mut KvState,
    step: &StepInputs,
    mode: Mode,
) -> Result<Vec<f64>, String> {
    let weights = |name: &str| case.weights.get(name).cloned();
    eval_module(module, &weights, state, step, mode).map(Tensor::into_data).map_err(|error| error.to_string())
}

fn takes(program: &SpecializedModule, step: &StepInputs) -> bool {
    let (max, sizes) = (&program.bounds.max, step.bindings());
    let within = sizes.tokens <= max.tokens
        && sizes.samples <= max.samples
        && sizes.sequences <= max.sequences
        && sizes.context <= max.context;
    within && (!program.bounds.one_token_per_sequence || sizes.tokens == sizes.sequences)
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}
