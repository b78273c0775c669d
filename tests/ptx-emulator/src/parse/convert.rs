//! `cvt` in its scalar and packing forms.

use super::builder::Builder;
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{Convert, ConvertPack, Format, Operation, PackSource, Rounding, Saturate};

const ROUNDINGS: [(&str, (Rounding, bool)); 9] = [
    ("rn", (Rounding::NearestEven, false)),
    ("rna", (Rounding::NearestAway, false)),
    ("rz", (Rounding::TowardZero, false)),
    ("rm", (Rounding::Down, false)),
    ("rp", (Rounding::Up, false)),
    ("rni", (Rounding::NearestEven, true)),
    ("rzi", (Rounding::TowardZero, true)),
    ("rmi", (Rounding::Down, true)),
    ("rpi", (Rounding::Up, true)),
];

pub(super) fn cvt(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let modifiers = &mut statement.modifiers;
    let rounding = modifiers.choose(&ROUNDINGS);
    let subnormals = modifiers.subnormals();
    let saturate = modifiers
        .choose(&[("sat", Saturate::Unit), ("satfinite", Saturate::Finite), ("relu", Saturate::Relu)])
        .unwrap_or(Saturate::No);
    let (to, from) = (modifiers.ty()?, modifiers.ty()?);
    if matches!(to, Type::F16x2 | Type::Bf16x2 | Type::E4m3x2 | Type::E5m2x2) {
        return pack(statement, builder, (to, from, rounding, saturate));
    }
    statement.expect(2)?;
    let (Some(to_format), Some(from_format)) = (to.format(), from.format()) else {
        return builder.error(format!("`cvt` from {from} to {to} is not implemented"));
    };
    let to_integer = matches!(to_format, Format::Integer(..));
    let from_integer = matches!(from_format, Format::Integer(..));
    let (rounding, integral) = match rounding {
        Some((rounding, integral)) => (rounding, integral),
        None if to_integer || from_integer || narrowing(from_format, to_format) => {
            if to_integer != from_integer || !to_integer {
                return builder.error(format!("`cvt` from {from} to {to} needs a rounding"));
            }
            (Rounding::NearestEven, false)
        }
        None => (Rounding::NearestEven, false),
    };
    // A tf32 lives in a .b32 register.
    let d = builder.loose_destination(&statement.operands[0], to)?;
    let Some(d) = d else { return builder.error("`cvt` has to write a register") };
    let a = builder.loose_source(&statement.operands[1], from)?;
    Ok(Operation::Convert(Box::new(Convert {
        to: to_format,
        from: from_format,
        rounding,
        integral: integral && !to_integer,
        subnormals,
        saturate,
        d,
        a,
    })))
}

/// Whether values of `from` exist that `to` does not have.
fn narrowing(from: Format, to: Format) -> bool {
    let rank = |format| match format {
        Format::F64 => 3,
        Format::F32 => 2,
        Format::Integer(..) => 0,
        Format::F16 | Format::Bf16 | Format::Tf32 | Format::E4m3 | Format::E5m2 => 1,
    };
    from != to && rank(from) >= rank(to)
}

type Signature = (Type, Type, Option<(Rounding, bool)>, Saturate);

/// `cvt.rn.bf16x2.f32 d, a, b` with `a` in the upper half, and the forms from and to two 8-bit floats.
fn pack(statement: &mut Statement, builder: &mut Builder, signature: Signature) -> Result<Operation, PtxError> {
    let (to, from, rounding, saturate) = signature;
    let Some((rounding, false)) = rounding else {
        return builder.error(format!("`cvt` to {to} needs `.rn` or `.rz`"));
    };
    let (to_format, Some(from_format)) = (to.format().expect("a float"), from.format()) else {
        return builder.error(format!("`cvt` from {from} to {to} is not implemented"));
    };
    // Conversions to 8-bit floats always clamp.
    let saturate = if matches!(to_format, Format::E4m3 | Format::E5m2) { Saturate::Finite } else { saturate };
    let d = builder.destination32(&statement.operands[0], to)?;
    let whole = |builder: &mut Builder, operand: &Operand| -> Result<PackSource, PtxError> {
        Ok(PackSource { register: builder.source32(operand, from)?, shift: 0 })
    };
    let (high, low) = match from {
        Type::F32 => {
            statement.expect(3)?;
            (whole(builder, &statement.operands[1])?, whole(builder, &statement.operands[2])?)
        }
        Type::F16x2 | Type::Bf16x2 | Type::E4m3x2 | Type::E5m2x2 => {
            statement.expect(2)?;
            let low = whole(builder, &statement.operands[1])?;
            (PackSource { shift: from.bits() / 2, ..low }, low)
        }
        _ => return builder.error(format!("`cvt` from {from} to {to} is not implemented")),
    };
    Ok(Operation::ConvertPack(Box::new(ConvertPack {
        to: to_format,
        from: from_format,
        rounding,
        saturate,
        d,
        high,
        low,
    })))
}
