//! Instructions that lanes or warps execute together: shuffles, votes, reductions and barriers.

use super::builder::Builder;
use super::moves::negatable;
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{
    Barrier, BarrierAction, FloatOp, Magnitude, MatchKind, Operation, ReduceOp, Register, Shuffle, ShuffleMode, Sign,
    Target, Vote, VoteKind,
};

const WORD: Type = Type::Bits(32);

pub(super) fn shuffle(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(5)?;
    statement.modifiers.require(&[("sync", ())])?;
    let mode = statement.modifiers.require(&[
        ("up", ShuffleMode::Up),
        ("down", ShuffleMode::Down),
        ("bfly", ShuffleMode::Butterfly),
        ("idx", ShuffleMode::Index),
    ])?;
    statement.modifiers.require(&[("b32", ())])?;
    let operands = &statement.operands;
    let (d, p) = match &operands[0] {
        Operand::Pair(d, p) => (builder.destination32(d, WORD)?, Some(builder.predicate(p)?)),
        other => (builder.destination32(other, WORD)?, None),
    };
    let a = builder.source32(&operands[1], WORD)?;
    let b = builder.source32(&operands[2], WORD)?;
    let c = builder.source32(&operands[3], WORD)?;
    let members = builder.source32(&operands[4], WORD)?;
    Ok(Operation::Shuffle(Box::new(Shuffle { mode, d, p, a, b, c, members })))
}

pub(super) fn vote(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    statement.modifiers.require(&[("sync", ())])?;
    let mode = statement.modifiers.require(&[("all", 0), ("any", 1), ("uni", 2), ("ballot", 3)])?;
    statement.modifiers.ty()?;
    let operands = &statement.operands;
    let kind = match mode {
        0 => VoteKind::All(builder.predicate(&operands[0])?),
        1 => VoteKind::Any(builder.predicate(&operands[0])?),
        2 => VoteKind::Uniform(builder.predicate(&operands[0])?),
        _ => VoteKind::Ballot(builder.destination32(&operands[0], WORD)?),
    };
    let (a, negation) = negatable(&operands[1], builder)?;
    let members = builder.source32(&operands[2], WORD)?;
    Ok(Operation::Vote(Box::new(Vote { kind, a, negation, members })))
}

pub(super) fn matching(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    statement.modifiers.require(&[("sync", ())])?;
    let kind = statement.modifiers.require(&[("any", MatchKind::Any), ("all", MatchKind::All)])?;
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let (d, p) = match &operands[0] {
        Operand::Pair(d, p) => (builder.destination32(d, WORD)?, Some(builder.predicate(p)?)),
        other => (builder.destination32(other, WORD)?, None),
    };
    let a = builder.source(&operands[1], ty)?;
    Ok(Operation::Match { kind, d, p, a, members: builder.source32(&operands[2], WORD)? })
}

pub(super) fn redux(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    statement.modifiers.require(&[("sync", ())])?;
    let word = statement.modifiers.require(&[("add", 0), ("min", 1), ("max", 2), ("and", 3), ("or", 4), ("xor", 5)])?;
    let absolute = statement.modifiers.flag("abs");
    let nan = statement.modifiers.flag("NaN");
    let ty = statement.modifiers.ty()?;
    if ty == Type::F32 {
        let op = match (word, nan) {
            (1, false) => FloatOp::Min,
            (1, true) => FloatOp::MinNan,
            (2, false) => FloatOp::Max,
            (2, true) => FloatOp::MaxNan,
            _ => return builder.error("`redux` of .f32 is for `.min` and `.max` only"),
        };
        let op = ReduceOp::Float(op, if absolute { Magnitude::Absolute } else { Magnitude::Signed });
        return reduce(statement, builder, op, ty);
    }
    if absolute || nan || !matches!(ty, Type::Unsigned(32) | Type::Signed(32) | Type::Bits(32)) {
        return builder.error(format!("`redux` of {ty} is not implemented"));
    }
    let op = match (word, ty.sign()) {
        (0, _) => ReduceOp::Add,
        (1, Sign::Unsigned) => ReduceOp::MinUnsigned,
        (1, Sign::Signed) => ReduceOp::MinSigned,
        (2, Sign::Unsigned) => ReduceOp::MaxUnsigned,
        (2, Sign::Signed) => ReduceOp::MaxSigned,
        (3, _) => ReduceOp::And,
        (4, _) => ReduceOp::Or,
        _ => ReduceOp::Xor,
    };
    reduce(statement, builder, op, ty)
}

fn reduce(statement: &Statement, builder: &mut Builder, op: ReduceOp, ty: Type) -> Result<Operation, PtxError> {
    let operands = &statement.operands;
    let (a, members) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], WORD)?);
    Ok(Operation::Reduce { op, d: builder.destination32(&operands[0], ty)?, a, members })
}

pub(super) fn elect(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    statement.modifiers.require(&[("sync", ())])?;
    let Operand::Pair(d, p) = &statement.operands[0] else {
        return builder.error("`elect` writes a register and a predicate, `d|p`");
    };
    let d = match builder.loose_destination(d, WORD)? {
        Some(Target { register: Register::Narrow(d), .. }) => Some(d),
        _ => None,
    };
    let p = builder.predicate(p)?;
    Ok(Operation::Elect { d, p, members: builder.source32(&statement.operands[1], WORD)? })
}

pub(super) fn activemask(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(1)?;
    let ty = statement.modifiers.ty()?;
    Ok(Operation::ActiveMask { d: builder.destination32(&statement.operands[0], ty)? })
}

pub(super) fn barrier(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let modifiers = &mut statement.modifiers;
    if modifiers.flag("warp") {
        modifiers.require(&[("sync", ())])?;
        statement.expect(1)?;
        return Ok(Operation::WarpBarrier { members: builder.source32(&statement.operands[0], WORD)? });
    }
    modifiers.drop_known(&["cta", "aligned"]);
    match modifiers.require(&[("sync", 0), ("arrive", 1), ("red", 2)])? {
        0 => {
            statement.expect_between(1, 2)?;
            let id = builder.source32(&statement.operands[0], WORD)?;
            let threads = statement.operands.get(1).map(|operand| builder.source32(operand, WORD)).transpose()?;
            Ok(Operation::Barrier(Box::new(Barrier { id, threads, action: BarrierAction::Wait })))
        }
        1 => {
            statement.expect(2)?;
            let id = builder.source32(&statement.operands[0], WORD)?;
            let threads = Some(builder.source32(&statement.operands[1], WORD)?);
            Ok(Operation::Barrier(Box::new(Barrier { id, threads, action: BarrierAction::Arrive })))
        }
        _ => reduction(statement, builder),
    }
}

/// `bar.red`: the barrier with a count or a conjunction over the threads' predicates.
fn reduction(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect_between(3, 4)?;
    let word = statement.modifiers.require(&[("popc", 0), ("and", 1), ("or", 2)])?;
    statement.modifiers.ty()?;
    let operands = &statement.operands;
    let id = builder.source32(&operands[1], WORD)?;
    let (last, threads) = match operands.len() {
        4 => (3, Some(builder.source32(&operands[2], WORD)?)),
        _ => (2, None),
    };
    let (p, negation) = negatable(&operands[last], builder)?;
    let action = match word {
        0 => BarrierAction::Count { d: builder.destination32(&operands[0], WORD)?, p, negation },
        1 => BarrierAction::All { d: builder.predicate(&operands[0])?, p, negation },
        _ => BarrierAction::Any { d: builder.predicate(&operands[0])?, p, negation },
    };
    Ok(Operation::Barrier(Box::new(Barrier { id, threads, action })))
}

/// Fences and scheduling hints: a warp's accesses take effect in order here, and blocks run one after the other.
pub(super) fn nothing(statement: &mut Statement) -> Result<Operation, PtxError> {
    statement.modifiers.drop_known(&[
        "cta",
        "gl",
        "sys",
        "sc",
        "acq_rel",
        "acquire",
        "release",
        "gpu",
        "cluster",
        "proxy",
        "alias",
        "async",
        "launch_dependents",
        "wait",
        "shared::cta",
        "global",
        "u32",
    ]);
    Ok(Operation::Nothing)
}
