//! Logic, shifts, bit fields and byte permutation.

use super::builder::Builder;
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{
    Clamp, CountOp, Direction, IntegerOp, Logic, Narrow, Operation, PermuteMode, ShiftOp, Sign, UnaryOp,
};

const WORD: Type = Type::Bits(32);

pub(super) fn unary(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let op = match statement.modifiers.root {
        "neg" => UnaryOp::Neg,
        "abs" => UnaryOp::Abs,
        "not" => UnaryOp::Not,
        "cnot" => UnaryOp::LogicalNot,
        _ => UnaryOp::Reverse,
    };
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    if ty == Type::Predicate && op == UnaryOp::Not {
        return Ok(Operation::PredicateNot {
            d: builder.predicate(&operands[0])?,
            a: builder.predicate(&operands[1])?,
        });
    }
    if ty.bits() == 64 {
        let a = builder.source64(&operands[1], ty)?;
        return Ok(Operation::Unary64 { op, d: builder.destination64(&operands[0], ty)?, a });
    }
    let a = builder.source32(&operands[1], ty)?;
    Ok(Operation::Unary32 { op, ty: narrow(ty, builder)?, d: builder.destination32(&operands[0], ty)?, a })
}

fn narrow(ty: Type, builder: &Builder) -> Result<Narrow, PtxError> {
    match ty.narrow() {
        Some(narrow) => Ok(narrow),
        None => builder.error(format!("bit operations on {ty} are not implemented")),
    }
}

pub(super) fn count(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let shift_amount = statement.modifiers.flag("shiftamt");
    let ty = statement.modifiers.ty()?;
    let op = match (statement.modifiers.root, ty.sign(), shift_amount) {
        ("popc", ..) => CountOp::Ones,
        ("clz", ..) => CountOp::LeadingZeros,
        (_, Sign::Unsigned, false) => CountOp::FindUnsigned,
        (_, Sign::Signed, false) => CountOp::FindSigned,
        (_, Sign::Unsigned, true) => CountOp::FindUnsignedShift,
        (_, Sign::Signed, true) => CountOp::FindSignedShift,
    };
    let operands = &statement.operands;
    let d = builder.destination32(&operands[0], WORD)?;
    if ty.bits() == 64 {
        return Ok(Operation::Count64 { op, d, a: builder.source64(&operands[1], ty)? });
    }
    let a = builder.source32(&operands[1], ty)?;
    Ok(Operation::Unary32 { op: UnaryOp::Count(op), ty: Narrow::U32, d, a })
}

pub(super) fn logic(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let (op, logic) = match statement.modifiers.root {
        "and" => (IntegerOp::And, Logic::And),
        "or" => (IntegerOp::Or, Logic::Or),
        _ => (IntegerOp::Xor, Logic::Xor),
    };
    if ty == Type::Predicate {
        let (a, b) = (builder.predicate(&operands[1])?, builder.predicate(&operands[2])?);
        return Ok(Operation::PredicateLogic { op: logic, d: builder.predicate(&operands[0])?, a, b });
    }
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        let d = builder.destination64(&operands[0], ty)?;
        return Ok(Operation::Integer64 { op, sign: Sign::Unsigned, d, a, b });
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    Ok(Operation::Integer32 { op, ty: narrow(ty, builder)?, d: builder.destination32(&operands[0], ty)?, a, b })
}

pub(super) fn shift(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    let ty = statement.modifiers.ty()?;
    let op = match (statement.modifiers.root, ty.sign()) {
        ("shl", _) => ShiftOp::Left,
        (_, Sign::Unsigned) => ShiftOp::RightUnsigned,
        (_, Sign::Signed) => ShiftOp::RightSigned,
    };
    let operands = &statement.operands;
    let b = builder.source32(&operands[2], WORD)?;
    if ty.bits() == 64 {
        let a = builder.source64(&operands[1], ty)?;
        return Ok(Operation::Shift64 { op, d: builder.destination64(&operands[0], ty)?, a, b });
    }
    let a = builder.source32(&operands[1], ty)?;
    Ok(Operation::Shift32 { op, ty: narrow(ty, builder)?, d: builder.destination32(&operands[0], ty)?, a, b })
}

pub(super) fn funnel(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let direction = statement.modifiers.require(&[("l", Direction::Left), ("r", Direction::Right)])?;
    let clamp = statement.modifiers.require(&[("wrap", Clamp::Wrap), ("clamp", Clamp::Clamp)])?;
    statement.modifiers.ty()?;
    let [d, a, b, c] = words(statement, builder)?;
    Ok(Operation::FunnelShift { direction, clamp, d, a, b, c })
}

/// A destination and three sources of 32 bits.
fn words(statement: &Statement, builder: &mut Builder) -> Result<[crate::instruction::R32; 4], PtxError> {
    let operands = &statement.operands;
    let a = builder.source32(&operands[1], WORD)?;
    let (b, c) = (builder.source32(&operands[2], WORD)?, builder.source32(&operands[3], WORD)?);
    Ok([builder.destination32(&operands[0], WORD)?, a, b, c])
}

pub(super) fn extract(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let ty = statement.modifiers.ty()?;
    if ty.bits() == 32 {
        let [d, a, position, length] = words(statement, builder)?;
        return Ok(Operation::Extract32 { sign: ty.sign(), d, a, position, length });
    }
    let operands = &statement.operands;
    let (position, length) = (builder.source32(&operands[2], WORD)?, builder.source32(&operands[3], WORD)?);
    let a = builder.source64(&operands[1], ty)?;
    Ok(Operation::Extract64 { sign: ty.sign(), d: builder.destination64(&operands[0], ty)?, a, position, length })
}

pub(super) fn insert(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(5)?;
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let (position, length) = (builder.source32(&operands[3], WORD)?, builder.source32(&operands[4], WORD)?);
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        return Ok(Operation::Insert64 { d: builder.destination64(&operands[0], ty)?, a, b, position, length });
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    Ok(Operation::Insert32 { d: builder.destination32(&operands[0], ty)?, a, b, position, length })
}

pub(super) fn permute(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    statement.modifiers.ty()?;
    let mode = statement
        .modifiers
        .choose(&[
            ("f4e", PermuteMode::Forward4),
            ("b4e", PermuteMode::Backward4),
            ("rc8", PermuteMode::Replicate8),
            ("ecl", PermuteMode::EdgeLeft),
            ("ecr", PermuteMode::EdgeRight),
            ("rc16", PermuteMode::Replicate16),
        ])
        .unwrap_or(PermuteMode::General);
    let [d, a, b, c] = words(statement, builder)?;
    Ok(Operation::Permute { mode, d, a, b, c })
}

pub(super) fn lop3(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(5)?;
    statement.modifiers.ty()?;
    let [d, a, b, c] = words(statement, builder)?;
    match statement.operands[4] {
        Operand::Integer(table @ 0..=255) => Ok(Operation::Lop3 { table: table as u8, d, a, b, c }),
        _ => builder.error("`lop3` takes a table of 8 bits as its last operand"),
    }
}
