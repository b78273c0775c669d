//! Which tokens of which sequences the next step computes. Pure: no I/O, no device, no clock.
//!
//! Batching is continuous: a sequence joins and leaves between any two steps. A step first takes the next
//! token of every sequence that is generating, so that none of them ever waits; what room is left
//! goes to prompts, in chunks, oldest first. A sequence is admitted when blocks for all its tokens are
//! available. If the pool runs full later, the youngest sequence gives its blocks back and is
//! computed again when there is room; the oldest always proceeds, so all of them finish.

use crate::executor::{SampleRows, Step, StepSequence};
use crate::kv::{BlockTable, KvCache};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan};
use std::collections::VecDeque;
use std::fmt;

/// Names a sequence. Numbers go up in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It generated one of its stop tokens.
    Stop,
    /// It generated as many tokens as were asked for.
    Length,
    /// It fills the context.
    Context,
    /// Its owner gave it up.
    Cancelled,
}

/// Whether a full block is shared with later sequences that begin the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefixReuse {
    /// Prompts skip what an earlier sequence has computed.
    #[default]
    Enabled,
    /// Every token is computed: for measurements.
    Disabled,
}

/// What steps and sequences may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most tokens in a step. At least `sequences`.
    pub step_tokens: usize,
    /// The most sequences that run at once.
    pub sequences: usize,
    /// The most positions of a sequence, no more than the pool holds.
    pub context: usize,
    /// Whether prefixes are shared.
    pub prefix_reuse: PrefixReuse,
}

impl Limits {
    /// What the plan's largest program for mixed steps allows, with a pool of so many blocks.
    pub fn new(plan: &Plan, kv_blocks: usize, prefix_reuse: PrefixReuse) -> Limits {
        let context = plan.model.max_context;
        let mixed = plan.programs.iter().map(|program| &program.bounds);
        let mixed = mixed.filter(|bounds| !bounds.one_token_per_sequence && bounds.max.context >= context);
        let largest = mixed.map(|bounds| bounds.max).max_by_key(|max| max.tokens);
        let (tokens, sequences) =
            largest.map_or((1, 1), |max| (max.tokens, max.sequences.min(max.samples).min(max.tokens)));
        Limits {
            step_tokens: tokens,
            sequences: sequences.min(plan.model.max_batch).max(1),
            context: context.min(kv_blocks * KV_BLOCK_POSITIONS),
            prefix_reuse,
        }
    }
}

/// A step together with whose sequences it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledStep {
    /// What to run.
    pub step: Step,
    /// The sequence behind each of the step's.
    pub ids: Vec<SequenceId>,
    /// Tokens of prompts (or of sequences being computed again), the others being decoded.
    pub prefill_tokens: usize,
}

impl ScheduledStep {
    /// The sequences whose next token is to be sampled, in the order of the logits' rows.
    pub fn sampled(&self) -> impl Iterator<Item = SequenceId> {
        let parts = self.ids.iter().zip(&self.step.sequences);
        parts.filter(|(_, part)| part.sample != SampleRows::None).map(|(&id, _)| id)
    }
}

/// A token that a sequence has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Whose.
    pub id: SequenceId,
    /// Which.
    pub token: u32,
    /// Set if the sequence ended with it.
    pub finished: Option<FinishReason>,
}

/// All sequences that are not finished.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    /// Oldest first; all of them are younger than those running.
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Running>,
    next_id: u64,
    reused_tokens: u64,
    preemptions: u64,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    /// The prompt and what was generated.
    tokens: Vec<u32>,
    /// Length of the prompt.
    prompt: usize,
    /// How many tokens may still be generated. At least 1.
    remaining: usize,
    stop_ids: Vec<u32>,
}

#[derive(Debug)]
struct Running {
    sequence: Sequence,
    table: BlockTable,
    /// Tokens whose keys and values are in the blocks. Less than all.
    computed: usize,
}

impl Running {
    fn pending(&self) -> usize {
        self.sequence.tokens.len() - self.computed
    }
}

impl Scheduler {
    /// A scheduler without sequences.
    pub fn new(limits: Limits) -> Scheduler {
        Scheduler {
            limits,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            reused_tokens: 0,
            preemptions: 0,
        }
    }

    /// Adds a sequence. Its prompt must have at least one and at most [`Limits::context`] tokens,
    /// and `max_tokens` be at least 1.
    pub fn submit(&mut self, prompt: Vec<u32>, max_tokens: usize, stop_ids: Vec<u32>) -> SequenceId {
        debug_assert!(!prompt.is_empty() && prompt.len() <= self.limits.context && max_tokens > 0);
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence { id, prompt: prompt.len(), tokens: prompt, remaining: max_tokens, stop_ids });
        id
    }

    /// Ends a sequence; its blocks stay reusable. `false`: there is no such sequence (any more).
    pub fn cancel(&mut self, id: SequenceId, kv: &mut KvCache) -> bool {
        match self.remove(id) {
            Some(table) => {
                table.into_iter().for_each(|table| kv.release(table));
                true
            }
            None => false,
        }
    }

    /// Ends a sequence whose values are not to be trusted. Returns the blocks to wipe.
    pub fn discard(&mut self, id: SequenceId, kv: &mut KvCache) -> Vec<u32> {
        self.remove(id).flatten().map_or_else(Vec::new, |table| kv.discard(table))
    }

    /// What to compute next; `None` if no sequence is left. Nothing counts as computed until
    /// [`Scheduler::commit`]: without it, the same tokens come again.
    pub fn next_step(&mut self, kv: &mut KvCache) -> Option<ScheduledStep> {
        if self.make_room(kv) == Preempted::Nobody {
            self.admit(kv);
        }
        let mut scheduled = ScheduledStep { step: Step::default(), ids: Vec::new(), prefill_tokens: 0 };
        let (decoding, filling): (Vec<&Running>, Vec<&Running>) =
            self.running.iter().partition(|running| running.pending() == 1);
        let mut room = self.limits.step_tokens;
        for running in decoding.into_iter().chain(filling) {
            let count = running.pending().min(room);
            if count == 0 {
                break;
            }
            room -= count;
            let range = running.computed..running.computed + count;
            if running.pending() > 1 || running.computed < running.sequence.prompt {
                scheduled.prefill_tokens += count;
            }
            scheduled.ids.push(running.sequence.id);
            scheduled.step.sequences.push(StepSequence {
                sample: if count == running.pending() { SampleRows::Last } else { SampleRows::None },
                tokens: running.sequence.tokens[range].to_vec(),
                start_position: running.computed as u32,
                block_table: running.table.blocks().to_vec(),
            });
        }
        (!scheduled.ids.is_empty()).then_some(scheduled)
    }

    /// Takes note that a step was computed. `tokens` are the next tokens of its
    /// [`ScheduledStep::sampled`] sequences.
    pub fn commit(&mut self, scheduled: &ScheduledStep, tokens: &[u32], kv: &mut KvCache) -> Vec<Committed> {
        let mut tokens = tokens.iter();
        let mut committed = Vec::with_capacity(tokens.len());
        for (&id, part) in scheduled.ids.iter().zip(&scheduled.step.sequences) {
            let token = if part.sample == SampleRows::None { None } else { tokens.next() };
            let Some(index) = self.running.iter().position(|running| running.sequence.id == id) else {
                continue;
            };
            let running = &mut self.running[index];
            running.computed += part.tokens.len();
            if self.limits.prefix_reuse == PrefixReuse::Enabled {
                kv.publish(&mut running.table, &running.sequence.tokens[..running.computed]);
            }
            let Some(&token) = token else { continue };
            let finished = running.sequence.append(token, self.limits.context);
            if finished.is_some() {
                kv.release(self.running.remove(index).table);
            }
            committed.push(Committed { id, token, finished });
        }
        committed
    }

    /// The prompt of a sequence and what it has generated.
    pub fn tokens(&self, id: SequenceId) -> Option<&[u32]> {
        let running = self.running.iter().map(|running| &running.sequence);
        let mut all = running.chain(&self.waiting);
        all.find(|sequence| sequence.id == id).map(|sequence| sequence.tokens.as_slice())
    }

    /// Whether no sequence is left.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Tokens that were not computed because an earlier sequence had computed them.
    pub fn reused_tokens(&self) -> u64 {
        self.reused_tokens
    }

    /// How often a sequence had to give its blocks back.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// What steps and sequences may be like.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Gets a block for each next token of those that generate, from the youngest if need be.
    fn make_room(&mut self, kv: &mut KvCache) -> Preempted {
        let mut preempted = Preempted::Nobody;
        let mut index = 0;
        while index < self.running.len() {
            let running = &mut self.running[index];
            let positions = running.computed + 1;
            match kv.grow(&mut running.table, positions) {
                Ok(()) => index += 1,
                Err(_) => {
                    // The youngest may be this one itself: then the loop ends here.
                    if let Some(youngest) = self.running.pop() {
                        kv.release(youngest.table);
                        self.waiting.push_front(youngest.sequence);
                    }
                    self.preemptions += 1;
                    preempted = Preempted::Somebody;
                }
            }
        }
        preempted
    }

    /// Lets waiting sequences in, in order, as far as a step has room for tokens of theirs and the
    /// pool for all they have, one block for each of the running ones kept aside.
    fn admit(&mut self, kv: &mut KvCache) {
        let pending: usize = self.running.iter().map(Running::pending).sum();
        let mut room = self.limits.step_tokens.saturating_sub(pending);
        while room > 0 && self.running.len() < self.limits.sequences {
            let Some(next) = self.waiting.front() else { return };
            let (shared, unowned) = kv.reusable(&next.tokens);
            let blocks = next.tokens.len().div_ceil(KV_BLOCK_POSITIONS) - shared + unowned;
            if blocks + self.running.len() > kv.available() && !self.running.is_empty() {
                return;
            }
            let mut table = kv.begin(&next.tokens);
            let computed = table.capacity();
            if kv.grow(&mut table, next.tokens.len()).is_err() {
                kv.release(table);
                return;
            }
            let Some(sequence) = self.waiting.pop_front() else { return };
            self.reused_tokens += computed as u64;
            let running = Running { sequence, table, computed };
            room = room.saturating_sub(running.pending());
            self.running.push(running);
        }
    }

    /// `None`: no such sequence. `Some(None)`: it was waiting.
    fn remove(&mut self, id: SequenceId) -> Option<Option<BlockTable>> {
        if let Some(index) = self.running.iter().position(|running| running.sequence.id == id) {
            return Some(Some(self.running.remove(index).table));
        }
        let index = self.waiting.iter().position(|sequence| sequence.id == id)?;
        self.waiting.remove(index);
        Some(None)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Preempted {
    Nobody,
    Somebody,
}

impl Sequence {
    /// Appends a generated token; says whether it was the last.
    fn append(&mut self, token: u32, context: usize) -> Option<FinishReason> {
        self.tokens.push(token);
        self.remaining -= 1;
        if self.stop_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.remaining == 0 {
            Some(FinishReason::Length)
        } else if self.tokens.len() > context {
            // The next step would put this token at position `context`, which there is not.
            Some(FinishReason::Context)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
