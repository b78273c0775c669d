//! A block's sixteen barriers.
//!
//! Stricter than hardware in two points: a barrier over the whole block has to be the same instruction in all of its warps, and a
//! warp that has exited does not stand in for one that arrives. Both let a block go on after a defect, and neither occurs in
//! structured code.

use super::block::Block;
use super::warp::{Defect, Mask, State, Warp, lanes};
use crate::error::FaultKind;
use crate::instruction::{Barrier, BarrierAction, Negation, R32, RP};

/// Barriers per block.
const COUNT: usize = 16;

/// A value that a waiting warp receives when its barrier completes.
#[derive(Debug, Clone, Copy)]
enum Result32 {
    Nothing,
    Count(R32),
    All(RP),
    Any(RP),
}

#[derive(Debug, Clone)]
struct Waiting {
    warp: u32,
    line: u32,
    result: Result32,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    arrived: u32,
    /// Warps that have to arrive, fixed by the first one.
    expected: u32,
    waiting: Vec<Waiting>,
    /// Line of the first arrival, if it was for the whole block.
    line: Option<u32>,
    /// What the arrived warps know of each other's times.
    knowledge: Vec<u32>,
    /// Threads whose predicate holds, and threads that brought one.
    held: u32,
    asked: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Barriers {
    slots: Vec<Slot>,
    warps: u32,
    /// Barriers that are complete and whose warps are still to be released.
    complete: Vec<usize>,
}

impl Barriers {
    pub fn new(warps: u32) -> Self {
        Barriers { slots: vec![Slot::default(); COUNT], warps, complete: Vec::new() }
    }

    /// For the next block.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.complete.clear();
    }

    /// Where warps wait, in words.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        for (id, slot) in self.slots.iter().enumerate() {
            for waiting in &slot.waiting {
                parts.push(format!("warp {} waits at barrier {id} (PTX line {})", waiting.warp, waiting.line));
            }
        }
        parts.join(", ")
    }

    /// A waiting warp and its line, for the place of a fault.
    pub fn first_waiting(&self) -> Option<(u32, u32)> {
        self.slots.iter().flat_map(|slot| &slot.waiting).map(|waiting| (waiting.warp, waiting.line)).next()
    }
}

/// The value of an operand that has to be the same in all lanes.
fn uniform(warp: &Warp, block: &Block, register: R32, mask: Mask) -> Result<u32, Defect> {
    warp.demand32(register, mask, block.kernel)?;
    let values = warp.get32(register);
    let first = values[mask.trailing_zeros() as usize & 31];
    match lanes(mask).find(|&lane| values[lane] != first) {
        None => Ok(first),
        Some(lane) => {
            let reason = "a barrier's number and thread count have to be the same in all lanes".to_string();
            Err(Defect::lane(lane as u32, FaultKind::Operand(reason)))
        }
    }
}

/// Executes a barrier instruction: the warp waits or goes on.
pub(super) fn arrive(
    warp: &mut Warp,
    block: &mut Block,
    barrier: &Barrier,
    mask: Mask,
    line: u32,
) -> Result<(), Defect> {
    if mask != warp.lanes {
        let detail = format!(
            "lanes {mask:#010x} of the warp's {:#010x} are here, lanes {:#010x} are elsewhere and lanes {:#010x} have exited",
            warp.lanes,
            warp.live & !mask,
            warp.lanes & !warp.live
        );
        return Err(Defect::warp(FaultKind::DivergentBarrier { detail }));
    }
    let id = uniform(warp, block, barrier.id, mask)? as usize;
    let expected = match barrier.threads {
        None => block.barriers.warps,
        Some(register) => match uniform(warp, block, register, mask)? {
            threads if threads == 0 || threads % 32 != 0 || threads > 32 * block.barriers.warps => {
                let reason = format!("a barrier of {threads} threads in a block of {} warps", block.barriers.warps);
                return Err(Defect::warp(FaultKind::Operand(reason)));
            }
            threads => threads / 32,
        },
    };
    if id >= COUNT {
        return Err(Defect::warp(FaultKind::Operand(format!("barrier {id} of {COUNT}"))));
    }
    let (p, negation, result) = match barrier.action {
        BarrierAction::Wait | BarrierAction::Arrive => (None, Negation::Plain, Result32::Nothing),
        BarrierAction::Count { d, p, negation } => (Some(p), negation, Result32::Count(d)),
        BarrierAction::All { d, p, negation } => (Some(p), negation, Result32::All(d)),
        BarrierAction::Any { d, p, negation } => (Some(p), negation, Result32::Any(d)),
    };
    let slot = &mut block.barriers.slots[id];
    if let Some(p) = p {
        warp.demand_predicate(p, mask, block.kernel)?;
        let value = warp.get_predicate(p);
        let value = if negation == Negation::Negated { !value } else { value };
        slot.held += (value & mask).count_ones();
        slot.asked += mask.count_ones();
    }
    if slot.arrived == 0 {
        slot.expected = expected;
        slot.line = barrier.threads.is_none().then_some(line);
        slot.knowledge = vec![0; block.barriers.warps as usize];
    } else if slot.expected != expected || barrier.threads.is_none() && slot.line != Some(line) {
        let first = slot.waiting.first().map_or(0, |waiting| waiting.line);
        let detail = format!("barrier {id} is awaited here and at PTX line {first} at once");
        return Err(Defect::warp(FaultKind::DivergentBarrier { detail }));
    }
    slot.arrived += 1;
    for (all, own) in slot.knowledge.iter_mut().zip(block.shared.knowledge(warp.index)) {
        *all = (*all).max(*own);
    }
    block.shared.tick(warp.index);
    if barrier.action != BarrierAction::Arrive {
        warp.state = State::AtBarrier;
        slot.waiting.push(Waiting { warp: warp.index, line, result });
    }
    if slot.arrived == slot.expected {
        block.barriers.complete.push(id);
    }
    Ok(())
}

/// Lets the warps of complete barriers go on.
pub(super) fn release(warps: &mut [Warp], block: &mut Block) {
    for id in std::mem::take(&mut block.barriers.complete) {
        let slot = std::mem::take(&mut block.barriers.slots[id]);
        block.counters.barriers += 1;
        for waiting in &slot.waiting {
            block.shared.learn(waiting.warp, &slot.knowledge);
            let warp = &mut warps[waiting.warp as usize];
            warp.state = State::Running;
            let mask = warp.lanes;
            let truth = |held: bool| if held { Mask::MAX } else { 0 };
            match waiting.result {
                Result32::Nothing => {}
                Result32::Count(d) => warp.set32(d, &[slot.held; 32], mask, Mask::MAX),
                Result32::All(d) => warp.set_predicate(d, truth(slot.held == slot.asked), mask, Mask::MAX),
                Result32::Any(d) => warp.set_predicate(d, truth(slot.held > 0), mask, Mask::MAX),
            }
        }
    }
}
