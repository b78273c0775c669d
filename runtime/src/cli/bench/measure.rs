//! Timed steps on the executor itself: no scheduler, no sampler, no reuse of earlier work.

use super::Test;
use llmc_console::CliError;
use llmrt::executor::{Executor, SampleRows, Step, StepSequence, StepTrace};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::time::Instant;

/// Decode steps that warm up a test: enough to touch all weights and settle the clock's frequency.
const WARM_UP_STEPS: usize = 8;

/// Times that a step is recorded; the first ones warm up.
const TRACED_STEPS: usize = 9;

/// An executor with its own blocks for each sequence.
pub struct Bench {
    executor: Executor,
    sequences: Vec<Sequence>,
}

struct Sequence {
    /// Its random tokens, by position.
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    /// The cache holds `tokens[..filled]`.
    filled: usize,
}

impl Bench {
    /// For so many sequences of so many cache blocks. The tokens are random but always the same.
    pub fn new(executor: Executor, sequences: usize, blocks: usize) -> Self {
        let vocab = executor.plan().model.vocab as u64;
        let mut random = Pcg64Mcg::seed_from_u64(0);
        let positions = blocks * llmc_ir::plan::KV_BLOCK_POSITIONS;
        let sequence = |index: usize| Sequence {
            tokens: (0..positions).map(|_| (random.next_u64() % vocab) as u32).collect(),
            blocks: (index * blocks..(index + 1) * blocks).map(|block| block as u32).collect(),
            filled: 0,
        };
        Bench { executor, sequences: (0..sequences).map(sequence).collect() }
    }

    /// What runs the steps.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Runs a test once, decode shortened, without measuring.
    pub fn warm_up(&mut self, test: Test) -> Result<(), CliError> {
        let test = match test {
            Test::Decode { tokens, depth, batch } => Test::Decode { tokens: tokens.min(WARM_UP_STEPS), depth, batch },
            prefill => prefill,
        };
        self.rate(test).map(|_| ())
    }

    /// Runs a test and returns its tokens per second. What comes before the measured part is read
    /// beforehand.
    pub fn rate(&mut self, test: Test) -> Result<f64, CliError> {
        let started = match test {
            Test::Prefill { tokens } => {
                let filled = std::mem::take(&mut self.sequences[0].filled);
                let started = Instant::now();
                self.fill(0, tokens)?;
                self.sequences[0].filled = filled.max(tokens);
                started
            }
            Test::Decode { tokens, depth, batch } => {
                for index in 0..batch {
                    self.fill(index, depth)?;
                }
                let started = Instant::now();
                for position in depth..depth + tokens {
                    self.decode(batch, position)?;
                }
                started
            }
        };
        Ok(test.counted() as f64 / started.elapsed().as_secs_f64())
    }

    /// Records the last step of a test: of several repetitions the one that took the middle time. Contexts of its
    /// sequences come with it. `None`: the device cannot tell.
    pub fn trace(&mut self, test: Test) -> Result<Option<(StepTrace, Vec<usize>)>, CliError> {
        let (batch, range) = match test {
            Test::Prefill { tokens } => {
                (1, (tokens - 1) / self.executor.max_step_tokens() * self.executor.max_step_tokens()..tokens)
            }
            Test::Decode { tokens, depth, batch } => (batch, depth + tokens - 1..depth + tokens),
        };
        for index in 0..batch {
            self.fill(index, range.start)?;
        }
        let parts = self.sequences[..batch].iter().map(|sequence| sequence.part(range.clone(), SampleRows::Last));
        let step = Step { sequences: parts.collect() };
        let mut traces = Vec::new();
        for _ in 0..TRACED_STEPS {
            match self.executor.trace(&step).map_err(CliError::failure)? {
                Some(trace) => traces.push(trace),
                None => return Ok(None),
            }
        }
        traces.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        let contexts = vec![range.end; batch];
        Ok(Some((traces.swap_remove(TRACED_STEPS / 2), contexts)))
    }

    /// Makes the cache hold at least the first `depth` tokens of a sequence.
    fn fill(&mut self, index: usize, depth: usize) -> Result<(), CliError> {
        let chunk = self.executor.max_step_tokens();
        while self.sequences[index].filled < depth {
            let sequence = &mut self.sequences[index];
            let start = sequence.filled;
            let end = (start + chunk).min(depth);
            sequence.filled = end;
            let sample = if end == depth { SampleRows::Last } else { SampleRows::None };
            let part = sequence.part(start..end, sample);
            self.executor.compute(&Step { sequences: vec![part] }).map_err(CliError::failure)?;
        }
        Ok(())
    }

    /// A greedy step of the first `batch` sequences. The tokens are those that `fill` would
    /// write, so that what is in the cache stays true.
    fn decode(&mut self, batch: usize, position: usize) -> Result<(), CliError> {
        let parts = self.sequences[..batch].iter_mut().map(|sequence| {
            sequence.filled = sequence.filled.max(position + 1);
            sequence.part(position..position + 1, SampleRows::Last)
        });
        let step = Step { sequences: parts.collect() };
        self.executor.likeliest(&step).map_err(CliError::failure)?;
        Ok(())
    }
}

impl Sequence {
    fn part(&self, range: std::ops::Range<usize>, sample: SampleRows) -> StepSequence {
        StepSequence {
            tokens: self.tokens[range.clone()].to_vec(),
            start_position: range.start as u32,
            block_table: self.blocks.clone(),
            sample,
        }
    }
}
