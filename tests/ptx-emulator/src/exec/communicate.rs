//! Instructions by which the lanes of a warp talk to each other: shuffles, votes, matches, reductions.

use super::block::Block;
use super::float::single;
use super::warp::{Defect, Mask, Warp, lanes};
use crate::error::FaultKind;
use crate::instruction::{
    Magnitude, MatchKind, Negation, R32, RP, ReduceOp, Register, Shuffle, ShuffleMode, Vote, VoteKind,
};

/// The member mask, after the checks that all such instructions share: every executing lane names itself and the same mask, and
/// every named lane that has not exited executes the instruction too.
pub(super) fn members(warp: &Warp, block: &Block, register: R32, mask: Mask) -> Result<Mask, Defect> {
    warp.demand32(register, mask, block.kernel)?;
    let named = warp.get32(register)[mask.trailing_zeros() as usize & 31];
    for lane in lanes(mask) {
        let own = warp.get32(register)[lane];
        if own != named || own >> lane & 1 == 0 {
            let reason = format!("the member mask is {own:#010x} here and {named:#010x} in the first lane");
            return Err(Defect::lane(lane as u32, FaultKind::Operand(reason)));
        }
    }
    let needed = named & warp.live;
    if needed & !mask != 0 {
        return Err(Defect::warp(FaultKind::DivergentWarp { needed, missing: needed & !mask }));
    }
    Ok(named & mask)
}

/// `shfl.sync`: what a lane receives from a lane that does not execute the instruction counts as never written.
pub(super) fn shuffle(warp: &mut Warp, block: &Block, shuffle: &Shuffle, mask: Mask) -> Result<(), Defect> {
    members(warp, block, shuffle.members, mask)?;
    let (a, b, c) = (*warp.get32(shuffle.a), *warp.get32(shuffle.b), *warp.get32(shuffle.c));
    let control = warp.defined32(shuffle.b) & warp.defined32(shuffle.c);
    let sources = warp.defined32(shuffle.a) & mask;
    let (mut out, mut defined, mut in_range) = ([0; 32], 0, 0);
    for lane in 0..32u32 {
        let at = lane as usize;
        let (offset, clamp, segment) = (b[at] & 31, c[at] & 31, c[at] >> 8 & 31);
        let last = lane & segment | clamp & !segment;
        let first = lane & segment;
        // Offsets wrap around in more bits than a lane number has, so that they stay out of range.
        let (source, valid) = match shuffle.mode {
            ShuffleMode::Up => (lane.wrapping_sub(offset), lane as i32 - offset as i32 >= last as i32),
            ShuffleMode::Down => (lane + offset, lane + offset <= last),
            ShuffleMode::Butterfly => (lane ^ offset, lane ^ offset <= last),
            ShuffleMode::Index => {
                let source = first | offset & !segment;
                (source, source <= last)
            }
        };
        let source = if valid { source & 31 } else { lane };
        out[at] = a[source as usize];
        defined |= (sources >> source & 1) << lane;
        in_range |= u32::from(valid) << lane;
    }
    warp.set32(shuffle.d, &out, mask, defined & control);
    if let Some(p) = shuffle.p {
        warp.set_predicate(p, in_range, mask, control);
    }
    Ok(())
}

pub(super) fn vote(warp: &mut Warp, block: &Block, vote: &Vote, mask: Mask) -> Result<(), Defect> {
    let members = members(warp, block, vote.members, mask)?;
    warp.demand_predicate(vote.a, mask, block.kernel)?;
    let value = warp.get_predicate(vote.a);
    let ballot = members & if vote.negation == Negation::Negated { !value } else { value };
    let truth = |held: bool| if held { Mask::MAX } else { 0 };
    match vote.kind {
        VoteKind::All(d) => warp.set_predicate(d, truth(ballot == members), mask, Mask::MAX),
        VoteKind::Any(d) => warp.set_predicate(d, truth(ballot != 0), mask, Mask::MAX),
        VoteKind::Uniform(d) => {
            warp.set_predicate(d, truth(ballot == members || ballot == 0), mask, Mask::MAX);
        }
        VoteKind::Ballot(d) => warp.set32(d, &[ballot; 32], mask, Mask::MAX),
    }
    Ok(())
}

/// The operands of `match.sync`.
pub(super) struct Match {
    pub kind: MatchKind,
    pub d: R32,
    pub p: Option<RP>,
    pub a: Register,
    pub members: R32,
}

pub(super) fn matching(warp: &mut Warp, block: &Block, operands: &Match, mask: Mask) -> Result<(), Defect> {
    let members = members(warp, block, operands.members, mask)?;
    warp.demand(operands.a, mask, block.kernel)?;
    let values = warp.get(operands.a);
    let equal =
        |lane: usize| lanes(members).filter(|&other| values[other] == values[lane]).fold(0, |mask, at| mask | 1 << at);
    match operands.kind {
        MatchKind::Any => {
            let mut out = [0; 32];
            for lane in lanes(members) {
                out[lane] = equal(lane);
            }
            warp.set32(operands.d, &out, mask, Mask::MAX);
        }
        MatchKind::All => {
            let all = lanes(members).all(|lane| equal(lane) == members);
            warp.set32(operands.d, &[if all { members } else { 0 }; 32], mask, Mask::MAX);
            if let Some(p) = operands.p {
                warp.set_predicate(p, if all { Mask::MAX } else { 0 }, mask, Mask::MAX);
            }
        }
    }
    Ok(())
}

/// The operands of `redux.sync`.
pub(super) struct Reduce {
    pub op: ReduceOp,
    pub d: R32,
    pub a: R32,
    pub members: R32,
}

pub(super) fn reduce(warp: &mut Warp, block: &Block, operands: &Reduce, mask: Mask) -> Result<(), Defect> {
    let members = members(warp, block, operands.members, mask)?;
    warp.demand32(operands.a, mask, block.kernel)?;
    let mut values = *warp.get32(operands.a);
    if matches!(operands.op, ReduceOp::Float(_, Magnitude::Absolute)) {
        values.iter_mut().for_each(|value| *value &= 0x7fff_ffff);
    }
    let combine = |a: u32, b: u32| match operands.op {
        ReduceOp::Add => a.wrapping_add(b),
        ReduceOp::MinUnsigned => a.min(b),
        ReduceOp::MaxUnsigned => a.max(b),
        ReduceOp::MinSigned => (a as i32).min(b as i32) as u32,
        ReduceOp::MaxSigned => (a as i32).max(b as i32) as u32,
        ReduceOp::And => a & b,
        ReduceOp::Or => a | b,
        ReduceOp::Xor => a ^ b,
        ReduceOp::Float(op, _) => single(op, a, b),
    };
    let result = lanes(members).map(|lane| values[lane]).reduce(combine).unwrap_or(0);
    warp.set32(operands.d, &[result; 32], mask, Mask::MAX);
    Ok(())
}

/// `elect.sync`: the lowest member leads.
pub(super) fn elect(
    warp: &mut Warp,
    block: &Block,
    d: Option<R32>,
    p: RP,
    register: R32,
    mask: Mask,
) -> Result<(), Defect> {
    let leader = members(warp, block, register, mask)?.trailing_zeros();
    if let Some(d) = d {
        warp.set32(d, &[leader; 32], mask, Mask::MAX);
    }
    warp.set_predicate(p, 1u32.checked_shl(leader).unwrap_or(0), mask, Mask::MAX);
    Ok(())
}
