//! Floating-point arithmetic in single, double and 16-bit precision.

use super::builder::Builder;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{FloatMode, FloatOp, FloatUnaryOp, HalfKind, Operation, Rounding, Saturate};

pub(super) fn is_float(statement: &Statement) -> bool {
    statement.modifiers.last_type().is_some_and(Type::is_float)
}

pub(super) fn binary(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    // `min` and `max` of singles may take three.
    let extreme = matches!(statement.modifiers.root, "min" | "max") && statement.operands.len() == 4;
    statement.expect(if extreme { 4 } else { 3 })?;
    let modifiers = &mut statement.modifiers;
    let nan = modifiers.flag("NaN");
    let op = match modifiers.root {
        "add" => FloatOp::Add,
        "sub" => FloatOp::Sub,
        "mul" => FloatOp::Mul,
        "div" => FloatOp::Div,
        "min" if nan => FloatOp::MinNan,
        "max" if nan => FloatOp::MaxNan,
        "min" => FloatOp::Min,
        "max" => FloatOp::Max,
        _ => FloatOp::CopySign,
    };
    if op == FloatOp::Div {
        // All divisions round correctly here, which is within what .approx and .full promise.
        modifiers.choose(&[("approx", ()), ("full", ())]);
    }
    let mode = modifiers.float_mode();
    let ty = modifiers.ty()?;
    let operands = &statement.operands;
    if let Some((format, packed)) = ty.half() {
        let kind = HalfKind { format, packed, subnormals: mode.subnormals, saturate: mode.saturate };
        only_nearest(mode, builder)?;
        let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
        return Ok(Operation::Half { op, kind, d: builder.destination32(&operands[0], ty)?, a, b });
    }
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        let d = builder.destination64(&operands[0], ty)?;
        return match ty {
            Type::F64 => Ok(Operation::Float64 { op, rounding: mode.rounding, d, a, b }),
            _ if matches!(op, FloatOp::Add | FloatOp::Sub | FloatOp::Mul) => {
                Ok(Operation::FloatPair { op, mode, d, a, b })
            }
            _ => builder.error(format!("`{}` of {ty} does not exist", statement.modifiers.root)),
        };
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    if extreme {
        let abc = [a, b, builder.source32(&operands[3], ty)?];
        return Ok(Operation::Extreme32 { op, mode, d: builder.destination32(&operands[0], ty)?, abc });
    }
    Ok(Operation::Float32 { op, mode, d: builder.destination32(&operands[0], ty)?, a, b })
}

pub(super) fn fma(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let mut mode = statement.modifiers.float_mode();
    if statement.modifiers.flag("relu") {
        mode.saturate = Saturate::Relu;
    }
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    if ty.bits() == 64 {
        let a = builder.source64(&operands[1], ty)?;
        let (b, c) = (builder.source64(&operands[2], ty)?, builder.source64(&operands[3], ty)?);
        let d = builder.destination64(&operands[0], ty)?;
        return Ok(match ty {
            Type::F64 => Operation::Fma64 { rounding: mode.rounding, d, a, b, c },
            _ => Operation::FmaPair { mode, d, abc: [a, b, c] },
        });
    }
    let a = builder.source32(&operands[1], ty)?;
    let (b, c) = (builder.source32(&operands[2], ty)?, builder.source32(&operands[3], ty)?);
    let d = builder.destination32(&operands[0], ty)?;
    if let Some((format, packed)) = ty.half() {
        let kind = HalfKind { format, packed, subnormals: mode.subnormals, saturate: mode.saturate };
        only_nearest(mode, builder)?;
        return Ok(Operation::HalfFma { kind, d, a, b, c });
    }
    Ok(Operation::Fma32 { mode, d, a, b, c })
}

pub(super) fn unary(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let modifiers = &mut statement.modifiers;
    let op = match modifiers.root {
        "neg" => FloatUnaryOp::Neg,
        "abs" => FloatUnaryOp::Abs,
        "sqrt" => FloatUnaryOp::Sqrt,
        "rsqrt" => FloatUnaryOp::ReciprocalSqrt,
        "rcp" => FloatUnaryOp::Reciprocal,
        "ex2" => FloatUnaryOp::Exp2,
        "lg2" => FloatUnaryOp::Log2,
        "sin" => FloatUnaryOp::Sin,
        "cos" => FloatUnaryOp::Cos,
        _ => FloatUnaryOp::Tanh,
    };
    modifiers.flag("approx");
    let mode = modifiers.float_mode();
    let ty = modifiers.ty()?;
    let operands = &statement.operands;
    if ty == Type::F64 {
        let (rounding, a) = (mode.rounding, builder.source64(&operands[1], ty)?);
        return Ok(Operation::FloatUnary64 { op, rounding, d: builder.destination64(&operands[0], ty)?, a });
    }
    let a = builder.source32(&operands[1], ty)?;
    let d = builder.destination32(&operands[0], ty)?;
    if let Some((format, packed)) = ty.half() {
        let kind = HalfKind { format, packed, subnormals: mode.subnormals, saturate: mode.saturate };
        only_nearest(mode, builder)?;
        return Ok(Operation::HalfUnary { op, kind, d, a });
    }
    Ok(Operation::FloatUnary32 { op, mode, d, a })
}

fn only_nearest(mode: FloatMode, builder: &Builder) -> Result<(), PtxError> {
    if mode.rounding == Rounding::NearestEven {
        return Ok(());
    }
    builder.error("arithmetic in 16 bits rounds with `.rn` only")
}
