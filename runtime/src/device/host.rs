//! The host CPU: a compiled model's code and memory, and the threads that run its steps.

mod barrier;
mod code;
pub mod cpu;
mod memory;
mod signal;
mod trace;
mod weights;
mod workers;

use super::{Device, DeviceError, Trace};
use crate::executor::StepInputs;
use crate::sampler::{self, Finds};
use code::Code;
use llmc_artifact::Artifact;
use llmc_ir::abi::{Found, Listed, StepArgs, StepFunction};
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Goal, Plan, Program};
pub use memory::give_back_freed;
use memory::{Memory, Pages};
use std::io;
use std::sync::Arc;
use thiserror::Error;
pub use weights::WeightPlace;
use weights::Weights;
use workers::Workers;

/// Alignment of each thread's working memory: a page, so that no two threads share a cache line or
/// a line that the hardware prefetches.
const SCRATCH_ALIGN: u64 = 4096;

/// Tokens that a thread's lists hold nearly always, if they are among the likeliest: see [`Listed::DEPTH`].
const MOST_OF_THREAD: usize = 40;

/// How to set a model up on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// Threads that run a step, the calling one included. At least 1.
    pub threads: usize,
    /// Blocks in the KV pool.
    pub kv_blocks: usize,
    /// Where to keep the weights.
    pub weights: WeightPlace,
}

/// Why a model cannot be set up on this machine.
#[derive(Debug, Error)]
pub enum HostError {
    /// No code in the artifact runs on this CPU.
    #[error(
        "no code in {path} runs on this CPU: {needs}. Recompile it with `llmc compile --target {suggestion}` \
         (or on this machine with `--target native`)"
    )]
    NoTarget {
        /// The artifact.
        path: String,
        /// Each target and what it lacks.
        needs: String,
        /// A target that this CPU can run.
        suggestion: &'static str,
    },
    /// The code does not load.
    #[error("cannot load the code for {target} from {path}: {detail}")]
    Code {
        /// The artifact.
        path: String,
        /// The target's name.
        target: String,
        /// Why.
        detail: String,
    },
    /// The operating system gives no memory.
    #[error("cannot reserve {bytes} bytes for {what}: {source}; free memory, or compile with a smaller --max-context")]
    Memory {
        /// What it is for.
        what: &'static str,
        /// How much was asked for.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// The weights cannot be read.
    #[error(
        "cannot read the weights of {path}: {source}; check the disk, or keep them in the file with --weights mapped"
    )]
    Weights {
        /// The artifact.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The operating system gives no threads.
    #[error("cannot start {threads} threads: {source}; ask for fewer with --threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why not.
        source: io::Error,
    },
}

/// A model ready to run on the host.
pub struct HostModel {
    target: String,
    programs: Vec<Entries>,
    weights: Weights,
    kv: Memory,
    kv_blocks: usize,
    kv_block_bytes: usize,
    arena: Memory,
    scratch: Memory,
    scratch_stride: u64,
    /// `f32[samples, vocab]`, or `Found` or `Listed` `[threads, samples]` behind a step for other goals.
    logits: Memory,
    /// Whether the last step wrote logits.
    has_logits: bool,
    likeliest: Vec<i32>,
    /// Rows that the logits have room for.
    rows: usize,
    vocab: usize,
    plan: Plan,
    workers: Workers,
    // Last, because the fields above point into them.
    _code: Code,
    _artifact: Arc<Artifact>,
}

// SAFETY: the pointers lead into memory that the model owns or shares read-only (the artifact's
// mapping and its code), none of which is bound to a thread.
unsafe impl Send for HostModel {}

impl HostModel {
    /// Loads the best code that this CPU can run and reserves memory. Memory is taken from the
    /// system only as it is used.
    ///
    /// # Errors
    /// If the CPU lacks a feature, or the system gives no memory or threads.
    pub fn open(artifact: Arc<Artifact>, options: HostOptions) -> Result<HostModel, HostError> {
        let plan = artifact.manifest().plan.on(Processor::Cpu);
        let target = code::choose(&artifact)?;
        let code = Code::load(&artifact, target)?;
        let programs = plan.programs.iter().map(|program| Entries::of(&code, program));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        let threads = options.threads.max(1);
        let scratch_stride = target.scratch_bytes.max(1).next_multiple_of(SCRATCH_ALIGN);
        let arena_bytes = plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0);
        let samples = plan.programs.iter().map(|program| program.bounds.max.samples).max().unwrap_or(0);
        let vocab = plan.model.vocab;
        let reserve = |what: &'static str, count: usize, each: usize, pages| {
            let bytes = (count as u64).saturating_mul(each as u64);
            Memory::reserve(bytes, pages).map_err(|source| HostError::Memory { what, bytes, source })
        };
        Ok(HostModel {
            target: target.name.clone(),
            programs,
            weights: Weights::open(&artifact, options.weights, threads)?,
            kv: reserve("the KV cache", options.kv_blocks, plan.kv.block_bytes(), Pages::Huge)?,
            kv_blocks: options.kv_blocks,
            kv_block_bytes: plan.kv.block_bytes(),
            arena: reserve("activations", 1, arena_bytes as usize, Pages::Huge)?,
            scratch: reserve("working memory", threads, scratch_stride as usize, Pages::Small)?,
            scratch_stride,
            logits: reserve(
                "logits",
                samples,
                (vocab * size_of::<f32>()).max(threads * size_of::<Listed>()),
                Pages::Small,
            )?,
            has_logits: true,
            likeliest: Vec::with_capacity(samples),
            rows: samples,
            vocab,
            workers: Workers::start(threads).map_err(|source| HostError::Threads { threads, source })?,
            plan,
            _code: code,
            _artifact: artifact,
        })
    }
}

/// The entry points of a program.
struct Entries {
    logits: StepFunction,
    largest: Option<StepFunction>,
    /// And up to how many rows it is for.
    search: Option<(StepFunction, usize)>,
    candidates: Option<StepFunction>,
}

impl Entries {
    fn of(code: &Code, program: &Program) -> Result<Entries, HostError> {
        let other = |goal| program.search.as_ref().and_then(|_| code.entry(&program.entry_symbol(goal)).ok());
        let logits = code.entry(&program.entry_symbol(Goal::Logits))?;
        let rounded = program.search.as_ref().and_then(|search| search.rounded);
        let search = rounded.and_then(|rounded| Some((other(Goal::Search)?, rounded.rows)));
        Ok(Entries { logits, largest: other(Goal::Largest), search, candidates: other(Goal::Candidates) })
    }

    /// What finds the largest logits of so many rows.
    fn greedy(&self, rows: usize) -> (Goal, StepFunction) {
        match (self.search, self.largest) {
            (Some((function, most)), _) if rows <= most => (Goal::Search, function),
            (_, Some(function)) => (Goal::Largest, function),
            (_, None) => (Goal::Logits, self.logits),
        }
    }
}

impl HostModel {
    /// Runs a step by an entry point that writes `T[threads, samples]` in place of logits, and returns that.
    ///
    /// # Safety
    /// The entry point must do so, and any bits must be values of `T`, of which there must be room for as many.
    unsafe fn run_for<T>(&mut self, function: StepFunction, inputs: &StepInputs) -> &[T] {
        let mut args = self.step_args(inputs);
        self.has_logits = false;
        let count = self.workers.threads() * inputs.sample_rows.len();
        // SAFETY: as in `run`, and the caller vouches for what was written.
        unsafe {
            self.workers.run(function, &mut args);
            std::slice::from_raw_parts(self.logits.as_mut_ptr().cast::<T>(), count)
        }
    }

    /// A step's arguments, without the barrier.
    fn step_args(&mut self, inputs: &StepInputs) -> StepArgs {
        StepArgs {
            tokens: inputs.token_ids.len() as u64,
            sequences: inputs.sequence_starts.len() as u64 - 1,
            samples: inputs.sample_rows.len() as u64,
            block_table_stride: inputs.block_table_stride as u64,
            token_ids: inputs.token_ids.as_ptr(),
            positions: inputs.positions.as_ptr(),
            sample_rows: inputs.sample_rows.as_ptr(),
            slots: inputs.slots.as_ptr(),
            sequence_starts: inputs.sequence_starts.as_ptr(),
            block_tables: inputs.block_tables.as_ptr(),
            weights: self.weights.addresses.as_ptr(),
            kv: self.kv.as_mut_ptr(),
            arena: self.arena.as_mut_ptr(),
            scratch: self.scratch.as_mut_ptr(),
            scratch_stride: self.scratch_stride,
            logits: self.logits.as_mut_ptr().cast::<f32>(),
            barrier: barrier::meet,
            barrier_state: std::ptr::null(),
            trace: None,
            trace_state: std::ptr::null(),
        }
    }
}

impl Device for HostModel {
    fn target(&self) -> &str {
        &self.target
    }

    fn describe(&self) -> String {
        format!("{}, {} threads", self.target, self.workers.threads())
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn threads(&self) -> Option<usize> {
        Some(self.workers.threads())
    }

    fn kv_blocks(&self) -> usize {
        self.kv_blocks
    }

    fn run(&mut self, program: usize, inputs: &StepInputs) -> Result<&[f32], DeviceError> {
        let mut args = self.step_args(inputs);
        // SAFETY: the code was compiled for this plan and checked against its hash. StepInputs are
        // validated when made (ids, positions, slots and blocks in range; sizes within the
        // program's bounds), the memory has the sizes that the plan asks for, and all of it lives
        // until `run` returns, after which no worker uses it.
        unsafe { self.workers.run(self.programs[program].logits, &mut args) };
        self.has_logits = true;
        let count = inputs.sample_rows.len() * self.vocab;
        // SAFETY: `logits` holds at least `count` floats (samples are within the program's bounds),
        // initialised by the system to zero and then by the step, and `&mut self` is borrowed.
        Ok(unsafe { std::slice::from_raw_parts(self.logits.as_mut_ptr().cast::<f32>(), count) })
    }

    fn trace(&mut self, program: usize, inputs: &StepInputs) -> Result<Option<Trace>, DeviceError> {
        let mut args = self.step_args(inputs);
        let (_, function) = self.programs[program].greedy(inputs.sample_rows.len());
        self.has_logits = false;
        // SAFETY: as in `run`.
        Ok(Some(unsafe { self.workers.run_traced(function, &mut args) }))
    }

    fn greedy_goal(&self, program: usize, rows: usize) -> Goal {
        self.programs[program].greedy(rows).0
    }

    fn likeliest(&mut self, program: usize, inputs: &StepInputs) -> Result<Option<&[i32]>, DeviceError> {
        let (Goal::Largest | Goal::Search, function) = self.programs[program].greedy(inputs.sample_rows.len()) else {
            return Ok(None);
        };
        let samples = inputs.sample_rows.len();
        let mut likeliest = std::mem::take(&mut self.likeliest);
        // SAFETY: the function writes such values.
        let found = unsafe { self.run_for::<Found>(function, inputs) };
        let of_row = |row: usize| found.iter().skip(row).step_by(samples.max(1)).copied();
        likeliest.clear();
        likeliest.extend((0..samples).map(|row| Found::token(of_row(row)).unwrap_or(-1)));
        self.likeliest = likeliest;
        Ok(Some(&self.likeliest))
    }

    fn finds(&self) -> Finds {
        Finds::Some { most: MOST_OF_THREAD * self.workers.threads() }
    }

    fn candidates(
        &mut self,
        program: usize,
        inputs: &StepInputs,
        _: &[f32],
    ) -> Result<Option<Vec<Option<sampler::Found>>>, DeviceError> {
        let Some(function) = self.programs[program].candidates else { return Ok(None) };
        let (rows, vocab) = (inputs.sample_rows.len(), self.vocab);
        // SAFETY: the function writes such values.
        let listed = unsafe { self.run_for::<Listed>(function, inputs) };
        let of_row = |row| sampler::Found::of_lists(listed.iter().skip(row).step_by(rows), vocab);
        Ok(Some((0..rows).map(of_row).collect()))
    }

    fn row(&mut self, program: usize, inputs: &StepInputs, row: usize) -> Result<&[f32], DeviceError> {
        if !self.has_logits {
            self.run(program, inputs)?;
        }
        // SAFETY: the logits have room for the rows of the largest step, all of them initialised by the system to zero and
        // then by steps, and `&mut self` is borrowed.
        let all = unsafe { std::slice::from_raw_parts(self.logits.as_mut_ptr().cast::<f32>(), self.rows * self.vocab) };
        Ok(&all[row * self.vocab..(row + 1) * self.vocab])
    }

    fn compute(&mut self, program: usize, inputs: &StepInputs) -> Result<(), DeviceError> {
        self.run(program, inputs).map(|_| ())
    }

    fn wipe_blocks(&mut self, blocks: &[u32]) -> Result<(), DeviceError> {
        for &block in blocks {
            self.kv.zero(block as usize * self.kv_block_bytes, self.kv_block_bytes);
        }
        Ok(())
    }
}
