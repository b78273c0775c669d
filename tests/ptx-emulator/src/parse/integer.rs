//! Integer arithmetic.

use super::builder::Builder;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{
    Accumulate, CarryMultiply, CarryOp, CarryOut, Dot, Half, IntegerOp, Narrow, Operation, Saturate, Sign, Video,
    VideoOp,
};

pub(super) fn binary(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    let modifiers = &mut statement.modifiers;
    if modifiers.flag("cc") {
        let op = if modifiers.root == "add" { CarryOp::Add } else { CarryOp::Sub };
        return with_carry(statement, builder, op, CarryOut::Write);
    }
    let saturated = modifiers.flag("sat");
    let relu = matches!(modifiers.root, "min" | "max") && modifiers.flag("relu");
    let op = match modifiers.root {
        "add" if saturated => IntegerOp::AddSaturated,
        "sub" if saturated => IntegerOp::SubSaturated,
        "add" => IntegerOp::Add,
        "sub" => IntegerOp::Sub,
        "div" => IntegerOp::Div,
        "rem" => IntegerOp::Rem,
        "min" if relu => IntegerOp::MinRelu,
        "max" if relu => IntegerOp::MaxRelu,
        "min" => IntegerOp::Min,
        "max" => IntegerOp::Max,
        "mul24" => {
            modifiers.require(&[("lo", ())])?;
            IntegerOp::Mul24
        }
        _ => match modifiers.require(&[
            ("lo", IntegerOp::MulLow),
            ("hi", IntegerOp::MulHigh),
            ("wide", IntegerOp::MulWide16),
        ])? {
            IntegerOp::MulWide16 => return multiply_wide(statement, builder),
            op => op,
        },
    };
    let ty = modifiers.ty()?;
    let operands = &statement.operands;
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        return Ok(Operation::Integer64 { op, sign: ty.sign(), d: builder.destination64(&operands[0], ty)?, a, b });
    }
    if let Type::Pair(sign) = ty {
        if !matches!(op, IntegerOp::Add | IntegerOp::Min | IntegerOp::Max | IntegerOp::MinRelu | IntegerOp::MaxRelu)
            || relu && sign == Sign::Unsigned
        {
            return modifiers.error(format!("`{}` of {ty} does not exist", modifiers.root));
        }
        let ty16 = if sign == Sign::Signed { Narrow::S16 } else { Narrow::U16 };
        let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
        return Ok(Operation::IntegerPair { op, ty: ty16, d: builder.destination32(&operands[0], ty)?, a, b });
    }
    let narrow = narrow(ty, builder)?;
    if (saturated || relu) && narrow != Narrow::S32 {
        return builder.error("`.sat` and `.relu` are for .s32 only");
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    Ok(Operation::Integer32 { op, ty: narrow, d: builder.destination32(&operands[0], ty)?, a, b })
}

fn narrow(ty: Type, builder: &Builder) -> Result<Narrow, PtxError> {
    match ty.narrow() {
        Some(narrow) => Ok(narrow),
        None => builder.error(format!("integer arithmetic on {ty} is not implemented")),
    }
}

fn multiply_wide(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    if ty.bits() == 16 {
        let d = builder.destination32(&operands[0], Type::Bits(32))?;
        return Ok(Operation::Integer32 { op: IntegerOp::MulWide16, ty: narrow(ty, builder)?, d, a, b });
    }
    let d = builder.destination64(&operands[0], Type::Bits(64))?;
    Ok(Operation::MultiplyWide { sign: ty.sign(), d, a, b })
}

pub(super) fn mad(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let half = statement.modifiers.require(&[("lo", Half::Low), ("hi", Half::High), ("wide", Half::Wide16)])?;
    let out = if statement.modifiers.flag("cc") { CarryOut::Write } else { CarryOut::Keep };
    let ty = statement.modifiers.ty()?;
    let op = if statement.modifiers.root == "madc" { CarryOp::AddWithCarry } else { CarryOp::Add };
    if out == CarryOut::Write || op == CarryOp::AddWithCarry {
        if half == Half::Wide16 || ty.bits() < 32 {
            return builder.error(format!("`mad` with carry of {ty} does not exist"));
        }
        let operands = &statement.operands;
        let (a, b) = (builder.source(&operands[1], ty)?, builder.source(&operands[2], ty)?);
        return Ok(Operation::CarryMultiply(Box::new(CarryMultiply {
            half,
            sign: ty.sign(),
            op,
            out,
            flag: builder.carry_flag()?,
            d: builder.destination(&operands[0], ty)?,
            factors: [a, b],
            c: builder.source(&operands[3], ty)?,
            bits: ty.bits(),
        })));
    }
    let operands = &statement.operands;
    if ty.bits() == 64 && half != Half::Wide16 {
        let a = builder.source64(&operands[1], ty)?;
        let (b, c) = (builder.source64(&operands[2], ty)?, builder.source64(&operands[3], ty)?);
        let d = builder.destination64(&operands[0], ty)?;
        return Ok(Operation::MultiplyAdd64 { high: half, sign: ty.sign(), d, a, b, c });
    }
    let narrow = narrow(ty, builder)?;
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    let result = match half {
        Half::Wide16 if ty.bits() == 32 => {
            let c = builder.source64(&operands[3], Type::Bits(64))?;
            let d = builder.destination64(&operands[0], Type::Bits(64))?;
            return Ok(Operation::MultiplyAddWide { sign: ty.sign(), d, a, b, c });
        }
        Half::Wide16 => Type::Bits(32),
        _ => ty,
    };
    let c = builder.source32(&operands[3], result)?;
    Ok(Operation::MultiplyAdd32 { high: half, ty: narrow, d: builder.destination32(&operands[0], result)?, a, b, c })
}

/// `addc` and `subc`, with `.cc` where a further one follows.
pub(super) fn carry(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    let op = if statement.modifiers.root == "addc" { CarryOp::AddWithCarry } else { CarryOp::SubWithBorrow };
    let out = if statement.modifiers.flag("cc") { CarryOut::Write } else { CarryOut::Keep };
    with_carry(statement, builder, op, out)
}

fn with_carry(
    statement: &mut Statement,
    builder: &mut Builder,
    op: CarryOp,
    out: CarryOut,
) -> Result<Operation, PtxError> {
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let flag = builder.carry_flag()?;
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        return Ok(Operation::Carry64 { op, d: builder.destination64(&operands[0], ty)?, a, b, flag, out });
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    Ok(Operation::Carry32 { op, d: builder.destination32(&operands[0], ty)?, a, b, flag, out })
}

pub(super) fn sad(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let ty = statement.modifiers.ty()?;
    if ty.bits() != 32 {
        return builder.error("`sad` is implemented for 32 bits only");
    }
    let operands = &statement.operands;
    let a = builder.source32(&operands[1], ty)?;
    let (b, c) = (builder.source32(&operands[2], ty)?, builder.source32(&operands[3], ty)?);
    Ok(Operation::AbsoluteDifference { sign: ty.sign(), d: builder.destination32(&operands[0], ty)?, a, b, c })
}

/// The operation and the number of elements in a SIMD video instruction's name.
pub(super) fn video_name(root: &str) -> Option<(VideoOp, u32)> {
    let count = match root.strip_prefix('v')?.chars().last()? {
        '2' => 2,
        '4' => 4,
        _ => return None,
    };
    let op = match &root[1..root.len() - 1] {
        "add" => VideoOp::Add,
        "sub" => VideoOp::Sub,
        "avrg" => VideoOp::Average,
        "absdiff" => VideoOp::AbsoluteDifference,
        "min" => VideoOp::Min,
        "max" => VideoOp::Max,
        _ => return None,
    };
    Some((op, count))
}

/// `vadd4.u32.u32.u32 d, a, b, c` and its like, without selections and masks.
pub(super) fn video(
    statement: &mut Statement,
    builder: &mut Builder,
    (op, count): (VideoOp, u32),
) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let modifiers = &mut statement.modifiers;
    let saturate = if modifiers.flag("sat") { Saturate::Finite } else { Saturate::No };
    let accumulate = if modifiers.flag("add") { Accumulate::Yes } else { Accumulate::No };
    let [result, a_type, b_type] = [modifiers.ty()?, modifiers.ty()?, modifiers.ty()?];
    let word = Type::Bits(32);
    let operands = &statement.operands;
    let abc = [&operands[1], &operands[2], &operands[3]].map(|operand| builder.source32(operand, word));
    let [a, b, c] = abc;
    Ok(Operation::Video(Box::new(Video {
        op,
        bits: 32 / count,
        signs: [a_type.sign(), b_type.sign()],
        result: result.sign(),
        saturate,
        accumulate,
        d: builder.destination32(&operands[0], word)?,
        abc: [a?, b?, c?],
    })))
}

pub(super) fn dot(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let kind = match statement.modifiers.root {
        "dp4a" => Dot::Four,
        _ => statement.modifiers.require(&[("lo", Dot::TwoLow), ("hi", Dot::TwoHigh)])?,
    };
    let (a_type, b_type) = (statement.modifiers.ty()?, statement.modifiers.ty()?);
    let word = Type::Bits(32);
    let operands = &statement.operands;
    let a = builder.source32(&operands[1], word)?;
    let (b, c) = (builder.source32(&operands[2], word)?, builder.source32(&operands[3], word)?);
    let (a_sign, b_sign): (Sign, Sign) = (a_type.sign(), b_type.sign());
    Ok(Operation::DotProduct { kind, a_sign, b_sign, d: builder.destination32(&operands[0], word)?, a, b, c })
}
