//! The scheduler against a model of the device's memory.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const B: usize = KV_BLOCK_POSITIONS;
const VOCAB: u32 = 97;

/// Runs steps on a memory that holds, per slot, the token computed there.
struct Simulation {
    kv: KvCache,
    scheduler: Scheduler,
    memory: Vec<Option<u32>>,
    /// All tokens of each sequence as its owner sees them.
    owners: BTreeMap<SequenceId, Vec<u32>>,
    finished: BTreeMap<SequenceId, FinishReason>,
    steps: usize,
    decoded_in_every_step: bool,
}

/// What a model would say after a context: depends on all of it.
fn next_token(context: &[u32]) -> u32 {
    context.iter().fold(7u32, |hash, &token| hash.wrapping_mul(31).wrapping_add(token)) % VOCAB
}

impl Simulation {
    fn new(limits: Limits, blocks: usize) -> Simulation {
        Simulation {
            kv: KvCache::new(blocks),
            scheduler: Scheduler::new(limits),
            memory: vec![None; blocks * B],
            owners: BTreeMap::new(),
            finished: BTreeMap::new(),
            steps: 0,
            decoded_in_every_step: true,
        }
    }

    fn submit(&mut self, prompt: Vec<u32>, max_tokens: usize, stop_ids: Vec<u32>) -> SequenceId {
        let id = self.scheduler.submit(prompt.clone(), max_tokens, stop_ids);
        self.owners.insert(id, prompt);
        id
    }

    /// One step; `None` when idle.
    fn step(&mut self) -> Option<ScheduledStep> {
        let generating: Vec<SequenceId> =
            self.scheduler.running.iter().filter(|running| running.pending() == 1).map(|r| r.sequence.id).collect();
        let preemptions = self.scheduler.preemptions();
        let scheduled = self.scheduler.next_step(&mut self.kv)?;
        if preemptions == self.scheduler.preemptions() {
            self.decoded_in_every_step &= generating.iter().all(|id| scheduled.ids.contains(id));
        }
        let limits = *self.scheduler.limits();
        let parts = &scheduled.step.sequences;
        assert!(parts.iter().map(|part| part.tokens.len()).sum::<usize>() <= limits.step_tokens);
        assert!(parts.len() <= limits.sequences);
        for part in parts {
            for (position, &token) in (part.start_position as usize..).zip(&part.tokens) {
                self.memory[part.block_table[position / B] as usize * B + position % B] = Some(token);
            }
        }
        let mut sampled = Vec::new();
        for (id, part) in scheduled.ids.iter().zip(parts) {
            let end = part.start_position as usize + part.tokens.len();
            assert!(end <= limits.context);
            let slot = |position: usize| part.block_table[position / B] as usize * B + position % B;
            let context: Vec<u32> = (0..end).map(|position| self.memory[slot(position)].unwrap()).collect();
            let owner = &self.owners[id];
            assert_eq!(context, owner[..end], "the cache does not hold the sequence");
            assert_eq!(part.sample == SampleRows::Last, end == owner.len());
            if part.sample == SampleRows::Last {
                sampled.push(next_token(&context));
            }
        }
        for committed in self.scheduler.commit(&scheduled, &sampled, &mut self.kv) {
            self.owners.get_mut(&committed.id).unwrap().push(committed.token);
            if let Some(reason) = committed.finished {
                assert_eq!(self.finished.insert(committed.id, reason), None);
            }
        }
        self.kv.check(self.scheduler.running.iter().map(|running| &running.table));
        self.steps += 1;
        Some(scheduled)
    }

    fn run(&mut self) {
        while self.step().is_some() {
            assert!(self.steps < 100_000, "sequences do not finish");
        }
        assert!(self.scheduler.is_idle());
        assert_eq!(self.kv.owned(), 0);
        assert!(self.decoded_in_every_step, "a generating sequence had to wait");
    }
}

fn limits(step_tokens: usize, sequences: usize, context: usize) -> Limits {
    Limits { step_tokens, sequences, context, prefix_reuse: PrefixReuse::Enabled }
}

fn prompt(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 5 + seed) % VOCAB).collect()
}

#[test]
fn prompts_come_in_chunks_between_decodes() {
    let mut simulation = Simulation::new(limits(16, 4, 200), 40);
    simulation.submit(prompt(10, 0), 20, vec![]);
    simulation.step();
    simulation.submit(prompt(40, 1), 2, vec![]);
    let lengths = |step: ScheduledStep| step.step.sequences.iter().map(|part| part.tokens.len()).collect::<Vec<_>>();
    assert_eq!(lengths(simulation.step().unwrap()), [1, 15]);
    assert_eq!(lengths(simulation.step().unwrap()), [1, 15]);
    assert_eq!(lengths(simulation.step().unwrap()), [1, 10]);
    assert_eq!(lengths(simulation.step().unwrap()), [1, 1]);
    assert_eq!(lengths(simulation.step().unwrap()), [1]);
    simulation.run();
}

#[test]
fn the_reasons_to_finish() {
    let mut simulation = Simulation::new(limits(64, 4, 50), 20);
    let first = next_token(&prompt(10, 0));
    let stop = simulation.submit(prompt(10, 0), 5, vec![first]);
    let length = simulation.submit(prompt(10, 0), 5, vec![]);
    let context = simulation.submit(prompt(45, 0), 1000, vec![]);
    let full = simulation.submit(prompt(50, 0), 1000, vec![]);
    let cancelled = simulation.submit(prompt(10, 3), 5, vec![]);
    simulation.step();
    assert!(simulation.scheduler.cancel(cancelled, &mut simulation.kv));
    assert!(!simulation.scheduler.cancel(cancelled, &mut simulation.kv));
    simulation.run();
    assert_eq!(simulation.finished[&stop], FinishReason::Stop);
    assert_eq!(simulation.finished[&length], FinishReason::Length);
    assert_eq!(simulation.finished[&context], FinishReason::Context);
    assert_eq!(simulation.owners[&context].len(), 51, "the last token needs no position");
    assert_eq!((simulation.finished[&full], simulation.owners[&full].len()), (FinishReason::Context, 51));
    assert!(!simulation.finished.contains_key(&cancelled));
}

#[test]
fn a_second_turn_computes_only_what_is_new() {
    let mut simulation = Simulation::new(limits(64, 4, 500), 20);
    let id = simulation.submit(prompt(100, 0), 60, vec![]);
    simulation.run();
    let mut turn = simulation.owners[&id].clone();
    turn.extend(prompt(10, 4));
    simulation.submit(turn, 3, vec![]);
    // 159 positions were computed: four full blocks.
    assert_eq!(simulation.step().unwrap().step.sequences[0].start_position, 4 * B as u32);
    assert_eq!(simulation.scheduler.reused_tokens(), 4 * B as u64);
    simulation.run();
}

#[test]
fn without_reuse_everything_is_computed() {
    let mut simulation = Simulation::new(Limits { prefix_reuse: PrefixReuse::Disabled, ..limits(64, 4, 500) }, 20);
    for _ in 0..2 {
        simulation.submit(prompt(100, 0), 2, vec![]);
        assert_eq!(simulation.step().unwrap().step.sequences[0].start_position, 0);
        simulation.run();
    }
    assert_eq!(simulation.scheduler.reused_tokens(), 0);
}

#[test]
fn the_youngest_makes_room() {
    // Two sequences of up to 96 positions in four blocks.
    let mut simulation = Simulation::new(limits(64, 4, 96), 4);
    simulation.submit(prompt(20, 0), 70, vec![]);
    simulation.submit(prompt(20, 1), 70, vec![]);
    simulation.run();
    assert!(simulation.scheduler.preemptions() > 0);
    assert_eq!(simulation.finished.len(), 2);
    let first = simulation.finished.keys().next().unwrap();
    assert_eq!(simulation.owners[first].len(), 90);
}

proptest! {
    /// Whatever is submitted, cancelled and discarded, at whatever limits: everything else ends
    /// with exactly the tokens that it would have got alone, and no block stays owned.
    #[test]
    fn every_sequence_gets_what_it_would_get_alone(
        step_tokens in 4..70usize,
        sequences in 1..5usize,
        blocks in 4..14usize,
        reuse in prop_oneof![Just(PrefixReuse::Enabled), Just(PrefixReuse::Disabled)],
        requests in prop::collection::vec((1..128usize, 1..60usize, 0..3u32, 0..5usize, 0..20u32), 1..12),
    ) {
        let limits = Limits { prefix_reuse: reuse, ..limits(step_tokens, sequences.min(step_tokens), 128) };
        let mut simulation = Simulation::new(limits, blocks);
        let mut expected = BTreeMap::new();
        for (length, max_tokens, family, steps, fate) in requests {
            let prompt = prompt(length, family);
            let stop_ids = vec![3, 50];
            let id = simulation.submit(prompt.clone(), max_tokens, stop_ids.clone());
            for _ in 0..steps {
                simulation.step();
            }
            if fate == 0 {
                simulation.scheduler.cancel(id, &mut simulation.kv);
                continue;
            }
            if fate == 1 {
                for block in simulation.scheduler.discard(id, &mut simulation.kv) {
                    simulation.memory[block as usize * B..][..B].fill(None);
                }
                continue;
            }
            let mut alone = prompt;
            for _ in 0..max_tokens {
                alone.push(next_token(&alone));
                if stop_ids.contains(&alone[alone.len() - 1]) || alone.len() > 128 {
                    break;
                }
            }
            expected.insert(id, alone);
        }
        simulation.run();
        for (id, tokens) in expected {
            prop_assert!(simulation.finished.contains_key(&id));
            prop_assert_eq!(&simulation.owners[&id], &tokens);
        }
    }
}
