//! Runs steps: picks the tightest program that fits, prepares its inputs, checks what comes out.

mod inputs;
mod pool;

pub use inputs::StepInputs;
pub use pool::{default_kv_blocks, default_kv_blocks_within};

use crate::device::cuda::CudaModel;
use crate::device::host::{HostModel, HostOptions, WeightPlace, cpu};
use crate::device::{Chosen, Device, DeviceChoice, DeviceError, Preparation, Span, Trace};
use crate::sampler::{Finds, Found, argmax};
use inputs::PoolShape;
use llmc_artifact::Artifact;
use llmc_ir::dim::Bindings;
use llmc_ir::plan::{Goal, KV_BLOCK_POSITIONS, Plan, Program, Work};
use std::sync::Arc;
use thiserror::Error;

/// One step: new tokens of some sequences, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The sequences that take part.
    pub sequences: Vec<StepSequence>,
}

/// A sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// The new tokens. Never empty.
    pub tokens: Vec<u32>,
    /// Position of the first of them. What is before is in the KV cache already.
    pub start_position: u32,
    /// The pool's block for each [`KV_BLOCK_POSITIONS`] positions, the new ones included. More
    /// entries than that are ignored.
    pub block_table: Vec<u32>,
    /// Which logits are wanted.
    pub sample: SampleRows,
}

/// Of which new tokens the logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleRows {
    /// Of none: more of the prompt is to come.
    None,
    /// Of the last one.
    Last,
    /// Of all of them: evaluation.
    All,
}

impl SampleRows {
    /// Number of rows of logits for a sequence with so many new tokens.
    pub fn count(self, tokens: usize) -> usize {
        match self {
            SampleRows::None => 0,
            SampleRows::Last => tokens.min(1),
            SampleRows::All => tokens,
        }
    }
}

/// The result of a step: `f32[rows, vocab]`, rows in the order of the step's sequences and tokens.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    vocab: usize,
}

impl<'a> Logits<'a> {
    /// The logits of row `index`, one per token of the vocabulary.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.vocab..][..self.vocab]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab
    }
}

/// A step as its threads saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTrace {
    /// The program that ran, an index into the plan's.
    pub program: usize,
    /// What each thread did, in order.
    pub threads: Vec<Vec<Span>>,
    /// How often they called the system, which they do only to wait long or to wake who does.
    pub system_calls: u32,
}

impl StepTrace {
    /// From the step's start to its end.
    pub fn seconds(&self) -> f64 {
        self.threads.iter().flatten().map(|span| span.end).fold(0.0, f64::max)
    }
}

/// How to set up an executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Where steps run.
    pub device: DeviceChoice,
    /// Threads that run a step on the CPU; `None`: one per CPU that the process may use.
    pub threads: Option<usize>,
    /// Blocks in the KV pool; `None`: as [`default_kv_blocks`] says, or on a GPU as fit into its free memory.
    pub kv_blocks: Option<usize>,
    /// Where to keep the weights for the CPU.
    pub weights: WeightPlace,
}

/// The most threads of a step: more than machines have CPUs, and few enough for the system to start.
pub const MAX_THREADS: usize = 1024;

/// Why a model cannot be set up or a step cannot run.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The device refuses.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The pool is too small for the model.
    #[error(
        "the KV cache has room for {blocks} blocks of {KV_BLOCK_POSITIONS} positions, one sequence of {max_context} \
         positions needs {needed} ({needed_bytes} bytes): give it more with --kv-memory, free memory, or compile with a \
         smaller --max-context"
    )]
    PoolTooSmall {
        /// Blocks in the pool.
        blocks: usize,
        /// Blocks for one sequence.
        needed: usize,
        /// The same in bytes.
        needed_bytes: u64,
        /// Positions of one sequence.
        max_context: usize,
    },
    /// No thread was asked for, or more than could ever help.
    #[error("{threads} threads cannot run a step: ask for 1 to {MAX_THREADS}")]
    Threads {
        /// How many were asked for.
        threads: usize,
    },
    /// No program takes so much at once.
    #[error(
        "a step of {tokens} tokens and {samples} logits rows in {sequences} sequences fits none of the compiled \
         programs ({programs}): split it"
    )]
    TooLarge {
        /// Its tokens.
        tokens: usize,
        /// Its rows of logits.
        samples: usize,
        /// Its sequences.
        sequences: usize,
        /// What the programs take.
        programs: String,
    },
    /// The step contradicts itself or the model.
    #[error("sequence {sequence} of the step is invalid: {detail}")]
    Invalid {
        /// Index into [`Step::sequences`].
        sequence: usize,
        /// What was found and what was expected.
        detail: String,
    },
    /// The model produced infinities or NaN.
    #[error(
        "sequence {sequence} of the step got a logit that is {value}: the checkpoint's weights are damaged or its \
         activations exceed the range of the compiled element type"
    )]
    NonFinite {
        /// Index into [`Step::sequences`].
        sequence: usize,
        /// The first such logit.
        value: f32,
    },
}

/// A model that runs steps. Its KV pool's contents belong to whoever hands out the blocks.
pub struct Executor {
    artifact: Arc<Artifact>,
    device: Box<dyn Device>,
    /// What the last step was laid out as, and the program that takes it.
    inputs: StepInputs,
    program: usize,
}

impl Executor {
    /// Loads the artifact's code and reserves memory.
    ///
    /// # Errors
    /// If the device or its memory does not suffice.
    pub fn new(artifact: Arc<Artifact>, options: ExecutorOptions) -> Result<Executor, ExecutorError> {
        Executor::with_progress(artifact, options, &mut |_| {})
    }

    /// The same, where `progress` hears what a GPU is busy with.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn with_progress(
        artifact: Arc<Artifact>,
        options: ExecutorOptions,
        progress: &mut dyn FnMut(Preparation),
    ) -> Result<Executor, ExecutorError> {
        let plan = &artifact.manifest().plan;
        let threads = options.threads.unwrap_or_else(cpu::default_threads);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(ExecutorError::Threads { threads });
        }
        let limited = |blocks: usize| check_pool(plan, blocks.min(pool::MAX_KV_BLOCKS));
        let device: Box<dyn Device> = match options.device.choose(&artifact)? {
            Chosen::Host => {
                let kv_blocks = limited(options.kv_blocks.unwrap_or_else(|| default_kv_blocks(plan)))?;
                let options = HostOptions { threads, kv_blocks, weights: options.weights };
                Box::new(HostModel::open(Arc::clone(&artifact), options).map_err(DeviceError::from)?)
            }
            Chosen::Cuda(facts) => {
                let kv_blocks = options.kv_blocks.map(limited).transpose()?;
                let model = CudaModel::open(Arc::clone(&artifact), &facts, kv_blocks, progress);
                Box::new(model.map_err(|error| DeviceError::of_gpu(error, &artifact))?)
            }
        };
        Ok(Executor { artifact, device, inputs: StepInputs::default(), program: 0 })
    }

    /// Runs a step: writes its tokens' keys and values into the step's blocks and returns the
    /// logits that were asked for.
    ///
    /// # Errors
    /// If no program takes the step, it is invalid, a logit is not finite, or the device was lost. Whatever the error,
    /// running the step again gives the same result. After [`ExecutorError::NonFinite`] the sequence's blocks must
    /// go through [`Executor::wipe_blocks`] before another sequence gets them.
    pub fn run(&mut self, step: &Step) -> Result<Logits<'_>, ExecutorError> {
        let program = self.prepare(step)?;
        self.logits(step, program)
    }

    /// Runs a step and returns the likeliest token of each row of logits: the first of the largest, as
    /// [`argmax`] finds it. A GPU keeps the logits, a CPU need not write them.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn likeliest(&mut self, step: &Step) -> Result<Vec<u32>, ExecutorError> {
        let program = self.prepare(step)?;
        if let Some(ids) = self.device.likeliest(program, &self.inputs)? {
            let ids: Option<Vec<u32>> = ids.iter().map(|&id| u32::try_from(id).ok()).collect();
            if let Some(ids) = ids {
                return Ok(ids);
            }
            // A logit is not finite. The same step again, with logits, says whose.
        }
        let logits = self.logits(step, program)?;
        Ok((0..logits.rows()).map(|row| argmax(logits.row(row))).collect())
    }

    /// Runs a step like [`Executor::run`] and returns what each thread did when; `None`: this device cannot tell.
    ///
    /// # Errors
    /// As [`Executor::run`], but nobody looks at the logits.
    pub fn trace(&mut self, step: &Step) -> Result<Option<StepTrace>, ExecutorError> {
        let program = self.prepare(step)?;
        let trace = self.device.trace(program, &self.inputs)?;
        Ok(trace.map(|Trace { threads, system_calls }| StepTrace { program, threads, system_calls }))
    }

    /// Runs a step and tells of each row of logits what is known of it, given what it will be scaled by: see
    /// [`Sampler::sample_found`](crate::sampler::Sampler::sample_found). Single rows can then be had from
    /// [`Executor::row`]. `None`, and nothing was run, if this device has no better way than to look at all logits.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn candidates(&mut self, step: &Step, scales: &[f32]) -> Result<Option<Vec<Found>>, ExecutorError> {
        let program = self.prepare(step)?;
        let Some(found) = self.device.candidates(program, &self.inputs, scales)? else { return Ok(None) };
        let found: Option<Vec<Found>> = found.into_iter().collect();
        if found.is_none() {
            // A logit is not finite. The same step again, with logits, says whose.
            self.logits(step, program)?;
        }
        Ok(found)
    }

    /// What [`Executor::candidates`] tells.
    pub fn finds(&self) -> Finds {
        self.device.finds()
    }

    /// A row of the last step's logits, for which a CPU may run it again.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn row(&mut self, row: usize) -> Result<&[f32], ExecutorError> {
        Ok(self.device.row(self.program, &self.inputs, row)?)
    }

    /// Runs a step for what it writes into its blocks alone: nobody looks at its logits.
    ///
    /// # Errors
    /// As [`Executor::run`], but for logits that are not finite.
    pub fn compute(&mut self, step: &Step) -> Result<(), ExecutorError> {
        let program = self.prepare(step)?;
        Ok(self.device.compute(program, &self.inputs)?)
    }

    /// Runs a program on the inputs that were laid out last, those of `step`.
    fn logits(&mut self, step: &Step, program: usize) -> Result<Logits<'_>, ExecutorError> {
        let values = self.device.run(program, &self.inputs)?;
        let logits = Logits { values, vocab: self.artifact.manifest().plan.model.vocab };
        check_finite(step, logits)?;
        Ok(logits)
    }

    /// Lays a step's inputs out and finds the program that takes it.
    fn prepare(&mut self, step: &Step) -> Result<usize, ExecutorError> {
        let plan = self.device.plan();
        let kv_blocks = self.device.kv_blocks();
        let shape = PoolShape { kv_blocks, vocab: plan.model.vocab, max_context: plan.model.max_context };
        let sizes = self.inputs.prepare(step, shape)?;
        let fitting = plan.programs.iter().position(|program| fits(program, &sizes));
        self.program = fitting.ok_or_else(|| ExecutorError::TooLarge {
            tokens: sizes.tokens,
            samples: sizes.samples,
            sequences: sizes.sequences,
            programs: describe(&plan.programs),
        })?;
        Ok(self.program)
    }

    /// Zeroes blocks that may hold infinities or NaN. A later sequence masks what it has not
    /// written, but a masked NaN is still NaN.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn wipe_blocks(&mut self, blocks: &[u32]) -> Result<(), ExecutorError> {
        Ok(self.device.wipe_blocks(blocks)?)
    }

    /// The program that runs a step of these sizes; `None`: none takes so much.
    pub fn program_for(&self, sizes: &Bindings) -> Option<&Program> {
        self.plan().programs.iter().find(|program| fits(program, sizes))
    }

    /// What a greedy step of these sizes cannot do without; `None`: no program takes so much.
    pub fn work_for(&self, sizes: &Bindings) -> Option<Work> {
        let program = self.plan().programs.iter().position(|program| fits(program, sizes))?;
        Some(self.plan().programs[program].work_for(self.greedy_goal(program, sizes.samples)))
    }

    /// What a greedy step of a program with so many rows of logits is run for.
    pub fn greedy_goal(&self, program: usize, rows: usize) -> Goal {
        self.device.greedy_goal(program, rows)
    }

    /// What runs: the artifact's plan with the device's programs.
    pub fn plan(&self) -> &Plan {
        self.device.plan()
    }

    /// The artifact that this runs.
    pub fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }

    /// The name of the code that runs, such as `x86-64-v4` or `cuda:sm_80`.
    pub fn target(&self) -> &str {
        self.device.target()
    }

    /// That and where it runs, for people.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Threads that run a step; `None` on a GPU.
    pub fn threads(&self) -> Option<usize> {
        self.device.threads()
    }

    /// Blocks in the KV pool.
    pub fn kv_blocks(&self) -> usize {
        self.device.kv_blocks()
    }

    /// The most tokens that a step may have: the largest program's.
    pub fn max_step_tokens(&self) -> usize {
        self.plan().programs.iter().map(|program| program.bounds.max.tokens).max().unwrap_or(0)
    }
}

/// Returns the number of blocks if they hold one sequence at least.
fn check_pool(plan: &Plan, blocks: usize) -> Result<usize, ExecutorError> {
    let max_context = plan.model.max_context;
    let needed = max_context.div_ceil(KV_BLOCK_POSITIONS);
    if blocks >= needed {
        return Ok(blocks);
    }
    let needed_bytes = needed as u64 * plan.kv.block_bytes() as u64;
    Err(ExecutorError::PoolTooSmall { blocks, needed, needed_bytes, max_context })
}

/// Whether a program may run a step of these sizes. `tokens == sequences == samples` is what a
/// decode program was promised.
fn fits(program: &Program, sizes: &Bindings) -> bool {
    let max = &program.bounds.max;
    let within = sizes.tokens <= max.tokens
        && sizes.samples <= max.samples
        && sizes.sequences <= max.sequences
        && sizes.context <= max.context;
    let one_each = sizes.tokens == sizes.sequences && sizes.samples == sizes.sequences;
    within && (one_each || !program.bounds.one_token_per_sequence)
}

fn describe(programs: &[Program]) -> String {
    let describe = |program: &Program| {
        let max = &program.bounds.max;
        let per_sequence = if program.bounds.one_token_per_sequence { ", one token each" } else { "" };
        format!(
            "{}: {} tokens, {} rows, {} sequences of {} positions{per_sequence}",
            program.name, max.tokens, max.samples, max.sequences, max.context
        )
    };
    programs.iter().map(describe).collect::<Vec<_>>().join("; ")
}

fn check_finite(step: &Step, logits: Logits<'_>) -> Result<(), ExecutorError> {
    /// All exponent bits: infinity or NaN.
    const NOT_FINITE: u32 = 0x7f80_0000;
    let finite = |row: &[f32]| !row.iter().fold(false, |bad, x| bad | (x.to_bits() & NOT_FINITE == NOT_FINITE));
    let mut row = 0;
    for (index, sequence) in step.sequences.iter().enumerate() {
        for _ in 0..sequence.sample.count(sequence.tokens.len()) {
            if !finite(logits.row(row)) {
                let value = logits.row(row).iter().copied().find(|value| !value.is_finite()).unwrap_or(f32::NAN);
                return Err(ExecutorError::NonFinite { sequence: index, value });
            }
            row += 1;
        }
    }
    Ok(())
}
