//! The loop that turns requests into tokens: schedule, run, sample, commit.

use crate::executor::{Executor, ExecutorError};
use crate::kv::KvCache;
use crate::sampler::{Finds, Found, Sampler, SamplingError, SamplingParams, TokenLogprobs, logprobs};
pub use crate::scheduler::{FinishReason, PrefixReuse, SequenceId};
use crate::scheduler::{Limits, ScheduledStep, Scheduler};
use std::collections::BTreeMap;
use std::time::Instant;
use thiserror::Error;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The tokens to continue. At least one.
    pub prompt: Vec<u32>,
    /// The most tokens to generate. At least 1.
    pub max_tokens: usize,
    /// How to choose each.
    pub sampling: SamplingParams,
    /// Tokens that end the sequence.
    pub stop_ids: Vec<u32>,
    /// Whether they do.
    pub ignore_stop: StopPolicy,
    /// For how many of the likeliest tokens to report log-probabilities; 0: no log-probabilities
    /// at all.
    pub logprobs: usize,
}

/// What a stop token does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopPolicy {
    /// It ends the sequence.
    #[default]
    HonourStop,
    /// It is a token like any other.
    IgnoreStop,
}

/// How to set up an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Whether prompts share what earlier sequences have computed.
    pub prefix_reuse: PrefixReuse,
}

/// What happened to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It got a token. The stop token is reported too, before [`Event::Finished`].
    Token {
        /// Whose.
        sequence: SequenceId,
        /// Which.
        id: u32,
        /// If the request asked for them.
        logprob: Option<TokenLogprobs>,
    },
    /// It ended; nothing more comes of it.
    Finished {
        /// Which.
        sequence: SequenceId,
        /// Why.
        reason: FinishReason,
    },
}

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RequestError {
    /// There is nothing to continue.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, the model's context is {context}: shorten it")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The most positions that a sequence may have.
        context: usize,
    },
    /// The prompt holds what is no token.
    #[error("token id {token} is not in the vocabulary, whose ids are below {vocab}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// Nothing is to be generated.
    #[error("0 tokens are to be generated: ask for at least 1")]
    NoTokens,
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// One sequence went wrong. It is gone, without an event; the others go on with the next step.
    #[error("sequence {sequence} was given up: {source}")]
    Sequence {
        /// Which.
        sequence: SequenceId,
        /// What went wrong.
        source: ExecutorError,
    },
    /// No step can run.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

/// What the engine has done so far. A step's time, sampling included, is divided between prefill
/// and decode by their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Tokens of prompts that were computed.
    pub prefill_tokens: u64,
    /// Seconds spent on them.
    pub prefill_seconds: f64,
    /// Generated tokens that were fed back.
    pub decode_tokens: u64,
    /// Seconds spent on them.
    pub decode_seconds: f64,
    /// Tokens of prompts that were not computed because an earlier sequence had computed them.
    pub cached_prompt_tokens: u64,
    /// How often a sequence gave its memory to others and was computed again.
    pub preemptions: u64,
}

/// A model that serves many requests at once, step by step.
pub struct Engine {
    executor: Executor,
    kv: KvCache,
    scheduler: Scheduler,
    /// How to sample each unfinished sequence.
    sampling: BTreeMap<SequenceId, Sampling>,
    stats: EngineStats,
}

struct Sampling {
    sampler: Sampler,
    logprobs: usize,
}

impl Engine {
    /// An engine without requests.
    pub fn new(executor: Executor, options: EngineOptions) -> Engine {
        let limits = Limits::new(executor.plan(), executor.kv_blocks(), options.prefix_reuse);
        Engine {
            kv: KvCache::new(executor.kv_blocks()),
            scheduler: Scheduler::new(limits),
            sampling: BTreeMap::new(),
            stats: EngineStats::default(),
            executor,
        }
    }

    /// Accepts a request. Its tokens come from [`Engine::step`].
    ///
    /// # Errors
    /// If the prompt is empty, too long or not made of tokens, nothing is to be generated, or a
    /// sampling parameter is out of range.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, RequestError> {
        let vocab = self.executor.plan().model.vocab;
        let (tokens, context) = (request.prompt.len(), self.scheduler.limits().context);
        if tokens == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if tokens > context {
            return Err(RequestError::PromptTooLong { tokens, context });
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocab) {
            return Err(RequestError::UnknownToken { token, vocab });
        }
        if request.max_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        request.sampling.validate()?;
        let stop_ids = match request.ignore_stop {
            StopPolicy::HonourStop => request.stop_ids,
            StopPolicy::IgnoreStop => Vec::new(),
        };
        let sequence = self.scheduler.submit(request.prompt, request.max_tokens, stop_ids);
        let sampler = Sampler::new(&request.sampling);
        self.sampling.insert(sequence, Sampling { sampler, logprobs: request.logprobs });
        Ok(sequence)
    }

    /// Gives a sequence up: no step reports anything of it any more. Returns its last event, or
    /// `None` if it was finished already.
    pub fn cancel(&mut self, sequence: SequenceId) -> Option<Event> {
        let cancelled = self.scheduler.cancel(sequence, &mut self.kv);
        self.sampling.remove(&sequence);
        cancelled.then_some(Event::Finished { sequence, reason: FinishReason::Cancelled })
    }

    /// Computes one step and returns what happened, which is nothing if there is nothing to do.
    ///
    /// # Errors
    /// If a sequence went wrong (it is removed, and the next step goes on), or the executor failed: then all sequences are
    /// given up, and nothing is left to do.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        let start = Instant::now();
        let Some(scheduled) = self.scheduler.next_step(&mut self.kv) else {
            return Ok(Vec::new());
        };
        let (tokens, logprobs) = self.compute(&scheduled)?;
        let mut events = Vec::new();
        let committed = self.scheduler.commit(&scheduled, &tokens, &mut self.kv);
        for (committed, logprob) in committed.into_iter().zip(logprobs) {
            let sequence = committed.id;
            events.push(Event::Token { sequence, id: committed.token, logprob });
            if let Some(reason) = committed.finished {
                self.sampling.remove(&sequence);
                events.push(Event::Finished { sequence, reason });
            }
        }
        self.count(&scheduled, start);
        Ok(events)
    }

    /// Whether no sequence is left.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// What the engine has done so far.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            cached_prompt_tokens: self.scheduler.reused_tokens(),
            preemptions: self.scheduler.preemptions(),
            ..self.stats
        }
    }

    /// What runs the steps.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Runs a step and samples the next tokens, in the order of [`ScheduledStep::sampled`].
    fn compute(&mut self, scheduled: &ScheduledStep) -> Result<(Vec<u32>, Vec<Option<TokenLogprobs>>), EngineError> {
        match self.sample(scheduled) {
            Err(source @ ExecutorError::NonFinite { sequence, .. }) => {
                let sequence = scheduled.ids[sequence];
                match self.give_up(sequence) {
                    Ok(()) => Err(EngineError::Sequence { sequence, source }),
                    Err(source) => Err(self.give_up_all(source)),
                }
            }
            result => result.map_err(|source| self.give_up_all(source)),
        }
    }

    /// Ends all sequences after an error of the device: it would come again in each of their steps.
    fn give_up_all(&mut self, source: ExecutorError) -> EngineError {
        let sequences: Vec<SequenceId> = self.sampling.keys().copied().collect();
        for sequence in sequences {
            // A device that is lost clears nothing, and nothing of it is used again.
            let _ = self.give_up(sequence);
        }
        EngineError::Executor(source)
    }

    fn sample(&mut self, scheduled: &ScheduledStep) -> Result<(Vec<u32>, Vec<Option<TokenLogprobs>>), ExecutorError> {
        let is_argmax =
            |id| self.sampling.get(&id).is_none_or(|sampling| sampling.logprobs == 0 && sampling.sampler.is_argmax());
        if scheduled.sampled().all(is_argmax) {
            let tokens = self.executor.likeliest(&scheduled.step)?;
            let reported = vec![None; tokens.len()];
            return Ok((tokens, reported));
        }
        if let Some(found) = self.found(scheduled)? {
            return self.sample_found(scheduled, &found);
        }
        let logits = self.executor.run(&scheduled.step)?;
        let mut tokens = Vec::with_capacity(logits.rows());
        let mut reported = Vec::with_capacity(logits.rows());
        for (row, id) in scheduled.sampled().enumerate() {
            let history = self.scheduler.tokens(id).unwrap_or_default();
            let (token, top) = match self.sampling.get_mut(&id) {
                Some(sampling) => (sampling.sampler.sample(logits.row(row), history), sampling.logprobs),
                None => (0, 0),
            };
            tokens.push(token);
            reported.push((top > 0).then(|| logprobs(logits.row(row), token, top)));
        }
        Ok((tokens, reported))
    }

    /// Runs a step for what the device finds of its logits, if that may do for any sequence, or for all where single rows take
    /// another step.
    fn found(&mut self, scheduled: &ScheduledStep) -> Result<Option<Vec<Found>>, ExecutorError> {
        let samplings = || scheduled.sampled().filter_map(|id| self.sampling.get(&id));
        let finds = self.executor.finds();
        let may_do = |sampling: &Sampling| sampling.logprobs == 0 && sampling.sampler.may_do_with(finds);
        let may_do = match finds {
            Finds::Most => samplings().any(may_do),
            Finds::Some { .. } => samplings().all(may_do),
        };
        if !may_do {
            return Ok(None);
        }
        let scales: Vec<f32> = scheduled
            .sampled()
            .map(|id| self.sampling.get(&id).map_or(0.0, |sampling| sampling.sampler.scale()))
            .collect();
        self.executor.candidates(&scheduled.step, &scales)
    }

    /// Samples from what was found of each row, and from the row itself where that does not do.
    fn sample_found(
        &mut self,
        scheduled: &ScheduledStep,
        found: &[Found],
    ) -> Result<(Vec<u32>, Vec<Option<TokenLogprobs>>), ExecutorError> {
        let mut tokens = Vec::with_capacity(found.len());
        let mut reported = Vec::with_capacity(found.len());
        for (row, (id, found)) in scheduled.sampled().zip(found).enumerate() {
            let history = self.scheduler.tokens(id).unwrap_or_default();
            let Some(Sampling { sampler, logprobs: top }) = self.sampling.get_mut(&id) else {
                tokens.push(0);
                reported.push(None);
                continue;
            };
            let token = if *top == 0 { sampler.sample_found(found, history) } else { None };
            let (token, logprobs) = match token {
                Some(token) => (token, None),
                None => {
                    let logits = self.executor.row(row)?;
                    let token = sampler.sample(logits, history);
                    (token, (*top > 0).then(|| logprobs(logits, token, *top)))
                }
            };
            tokens.push(token);
            reported.push(logprobs);
        }
        Ok((tokens, reported))
    }

    /// Removes a sequence whose blocks may hold values that would spoil others.
    fn give_up(&mut self, sequence: SequenceId) -> Result<(), ExecutorError> {
        let blocks = self.scheduler.discard(sequence, &mut self.kv);
        self.sampling.remove(&sequence);
        self.executor.wipe_blocks(&blocks)
    }

    fn count(&mut self, scheduled: &ScheduledStep, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = scheduled.step.sequences.iter().map(|part| part.tokens.len()).sum();
        let prefill = scheduled.prefill_tokens;
        let share = prefill as f64 / tokens.max(1) as f64;
        self.stats.prefill_tokens += prefill as u64;
        self.stats.prefill_seconds += seconds * share;
        self.stats.decode_tokens += (tokens - prefill) as u64;
        self.stats.decode_seconds += seconds * (1.0 - share);
    }
}
