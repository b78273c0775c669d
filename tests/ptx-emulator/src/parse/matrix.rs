//! Matrix instructions: `ldmatrix`, `stmatrix` and `mma.sync`; `wmma` is next door.

use super::access::address;
use super::builder::Builder;
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{
    Accumulator, AddressSpace, LoadMatrix, Mma, MmaElement, Operation, R32, StoreMatrix, Transpose,
};

pub(super) const WORD: Type = Type::Bits(32);

pub(super) fn ldmatrix(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let (count, transpose) = matrices(statement)?;
    let address = address(&statement.operands[1], AddressSpace::Shared, builder)?;
    let targets =
        registers(&statement.operands[0], count, builder, |builder, operand| builder.destination32(operand, WORD))?;
    Ok(Operation::LoadMatrix(Box::new(LoadMatrix { address, transpose, targets })))
}

pub(super) fn stmatrix(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let (count, transpose) = matrices(statement)?;
    let address = address(&statement.operands[0], AddressSpace::Shared, builder)?;
    let sources =
        registers(&statement.operands[1], count, builder, |builder, operand| builder.source32(operand, WORD))?;
    Ok(Operation::StoreMatrix(Box::new(StoreMatrix { address, transpose, sources })))
}

fn matrices(statement: &mut Statement) -> Result<(usize, Transpose), PtxError> {
    statement.expect(2)?;
    let modifiers = &mut statement.modifiers;
    for word in ["sync", "aligned", "m8n8", "b16"] {
        modifiers.require(&[(word, ())])?;
    }
    modifiers.choose(&[("shared", ()), ("shared::cta", ())]);
    let transpose = if modifiers.flag("trans") { Transpose::Yes } else { Transpose::No };
    Ok((modifiers.require(&[("x1", 1), ("x2", 2), ("x4", 4)])?, transpose))
}

pub(super) fn registers<'m>(
    operand: &Operand,
    count: usize,
    builder: &mut Builder<'m>,
    resolve: impl Fn(&mut Builder<'m>, &Operand) -> Result<R32, PtxError>,
) -> Result<Box<[R32]>, PtxError> {
    let list = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.len() != count {
        return builder.error(format!("a vector of {count} registers is expected, found {}", list.len()));
    }
    list.iter().map(|operand| resolve(builder, operand)).collect()
}

pub(super) fn mma(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let modifiers = &mut statement.modifiers;
    for word in ["sync", "aligned", "row", "col"] {
        modifiers.require(&[(word, ())])?;
    }
    let k = modifiers.require(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)])?;
    let saturated = modifiers.flag("satfinite");
    let (d, a, b, c) = (modifiers.ty()?, modifiers.ty()?, modifiers.ty()?, modifiers.ty()?);
    let accumulator = match (d, c) {
        (Type::F32, Type::F32) => Accumulator::F32,
        (Type::F16, Type::F16) => Accumulator::F16,
        (Type::Signed(32), Type::Signed(32)) if saturated => Accumulator::S32Saturated,
        (Type::Signed(32), Type::Signed(32)) => Accumulator::S32,
        _ => return builder.error(format!("`mma` from {c} to {d} is not implemented")),
    };
    let element = |ty| match ty {
        Type::F16 => Some((MmaElement::F16, 16)),
        Type::Bf16 => Some((MmaElement::Bf16, 16)),
        Type::Tf32 => Some((MmaElement::Tf32, 32)),
        Type::E4m3 => Some((MmaElement::E4m3, 8)),
        Type::E5m2 => Some((MmaElement::E5m2, 8)),
        Type::Signed(8) | Type::Unsigned(8) => Some((MmaElement::Integer(ty.sign()), 8)),
        _ => None,
    };
    let (Some((a_element, bits)), Some((b_element, b_bits))) = (element(a), element(b)) else {
        return builder.error(format!("`mma` of {a} and {b} is not implemented"));
    };
    let integer = matches!(accumulator, Accumulator::S32 | Accumulator::S32Saturated);
    let shape_exists = match bits {
        16 => k == 8 || k == 16,
        32 => k == 4 || k == 8,
        _ => k == 16 || k == 32,
    };
    let integers = [a_element, b_element].map(|element| matches!(element, MmaElement::Integer(_)));
    let narrow = accumulator == Accumulator::F16 && a_element != MmaElement::F16 && bits != 8;
    if bits != b_bits || !shape_exists || integers != [integer; 2] || narrow || (bits > 8 && a != b) {
        return builder.error(format!("`mma.m16n8k{k}` of {a} and {b} into {d} does not exist"));
    }
    let accumulators = if accumulator == Accumulator::F16 { 2 } else { 4 };
    let accumulator_type = WORD;
    let operands = &statement.operands;
    let source = |builder: &mut Builder, operand: &Operand| builder.source32(operand, WORD);
    let a_registers = registers(&operands[1], (k * bits / 64) as usize, builder, source)?;
    let b_registers = registers(&operands[2], (k * bits / 128) as usize, builder, source)?;
    let c_registers = registers(&operands[3], accumulators, builder, |builder, operand| match operand {
        Operand::Single(_) | Operand::Double(_) => builder.source32(operand, Type::F32),
        other => builder.source32(other, accumulator_type),
    })?;
    let d_registers =
        registers(&operands[0], accumulators, builder, |builder, operand| builder.destination32(operand, WORD))?;
    Ok(Operation::Mma(Box::new(Mma {
        k,
        a_element,
        b_element,
        accumulator,
        d: d_registers,
        a: a_registers,
        b: b_registers,
        c: c_registers,
    })))
}
