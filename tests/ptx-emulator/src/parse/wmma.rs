//! `wmma.load`, `wmma.mma` and `wmma.store`.

use super::access::{SPACES, address};
use super::builder::Builder;
use super::matrix::{WORD, registers};
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{Accumulator, AddressSpace, Fragment, MmaElement, Operation, Order, Wmma, WmmaAccess};

/// m, n and k.
type Shape = [usize; 3];

const SHAPES: [(&str, Shape); 4] =
    [("m16n16k16", [16, 16, 16]), ("m32n8k16", [32, 8, 16]), ("m8n32k16", [8, 32, 16]), ("m16n16k8", [16, 16, 8])];

const ORDERS: [(&str, Order); 2] = [("row", Order::RowMajor), ("col", Order::ColumnMajor)];

/// Which matrix of `d = a b + c`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matrix {
    A,
    B,
    Sum,
}

pub(super) fn wmma(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let modifiers = &mut statement.modifiers;
    let load = modifiers.flag("load");
    let store = modifiers.flag("store");
    if !load && !store {
        modifiers.require(&[("mma", ())])?;
        return multiply(statement, builder);
    }
    for word in ["sync", "aligned"] {
        modifiers.require(&[(word, ())])?;
    }
    let which = match load {
        true => modifiers.require(&[("a", Matrix::A), ("b", Matrix::B), ("c", Matrix::Sum)])?,
        false => modifiers.require(&[("d", Matrix::Sum)])?,
    };
    let order = modifiers.require(&ORDERS)?;
    let shape = modifiers.require(&SHAPES)?;
    let space = modifiers.choose(&SPACES).unwrap_or(AddressSpace::Generic);
    let ty = modifiers.ty()?;
    statement.expect_between(2, 3)?;
    let operands = &statement.operands;
    let (list, place) = if load { (&operands[0], &operands[1]) } else { (&operands[1], &operands[0]) };
    let access = WmmaAccess {
        address: address(place, space, builder)?,
        fragment: fragment(list, which, shape, ty, builder, load)?,
        order,
        stride: operands.get(2).map(|operand| builder.source32(operand, WORD)).transpose()?,
    };
    if matches!(space, AddressSpace::Shared | AddressSpace::Generic) {
        builder.shared_grain = builder.shared_grain.min(u64::from(access.fragment.bits / 8));
    }
    Ok(if load { Operation::WmmaLoad(Box::new(access)) } else { Operation::WmmaStore(Box::new(access)) })
}

/// The registers of a matrix, which are written if `target`.
fn fragment(
    list: &Operand,
    which: Matrix,
    [m, n, k]: Shape,
    ty: Type,
    builder: &mut Builder,
    target: bool,
) -> Result<Fragment, PtxError> {
    let (rows, columns) = match which {
        Matrix::A => (m, k),
        Matrix::B => (k, n),
        Matrix::Sum => (m, n),
    };
    let fits = match (which, ty) {
        (Matrix::Sum, Type::F32 | Type::Signed(32)) => true,
        (Matrix::Sum, Type::F16) => k == 16,
        (_, Type::F16 | Type::Bf16 | Type::Signed(8) | Type::Unsigned(8)) => which != Matrix::Sum && k == 16,
        (_, Type::Tf32) => which != Matrix::Sum && k == 8,
        _ => false,
    };
    if !fits {
        return builder.error(format!("a matrix of {rows} x {columns} elements of type {ty} is not implemented"));
    }
    let bits = ty.bits();
    // Factors of half precision fill 8 registers whatever their number.
    let count = match (which, ty) {
        (Matrix::A | Matrix::B, Type::F16) => 8,
        _ => rows * columns * bits as usize / 32 / 32,
    };
    let registers = registers(list, count, builder, |builder, operand| match (target, operand) {
        (true, operand) => builder.destination32(operand, WORD),
        (false, Operand::Single(_) | Operand::Double(_)) => builder.source32(operand, Type::F32),
        (false, operand) => builder.source32(operand, WORD),
    })?;
    Ok(Fragment { rows, columns, bits, registers })
}

fn multiply(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let modifiers = &mut statement.modifiers;
    for word in ["sync", "aligned"] {
        modifiers.require(&[(word, ())])?;
    }
    // How the factors lay in memory no longer matters.
    modifiers.require(&ORDERS)?;
    modifiers.require(&ORDERS)?;
    let shape = modifiers.require(&SHAPES)?;
    let saturated = modifiers.flag("satfinite");
    let d = modifiers.ty()?;
    // Factors of half precision are not named.
    let (a, b, c) = match (modifiers.ty()?, modifiers.optional_type(), modifiers.optional_type()) {
        (a, Some(b), Some(c)) => (a, b, c),
        (c, None, None) => (Type::F16, Type::F16, c),
        _ => return builder.error("the types of d, a, b and c or of d and c are expected"),
    };
    let sum = |ty| match ty {
        Type::F16 => Some(Accumulator::F16),
        Type::F32 => Some(Accumulator::F32),
        Type::Signed(32) if saturated => Some(Accumulator::S32Saturated),
        Type::Signed(32) => Some(Accumulator::S32),
        _ => None,
    };
    let element = match a {
        Type::F16 => Some(MmaElement::F16),
        Type::Bf16 => Some(MmaElement::Bf16),
        Type::Tf32 => Some(MmaElement::Tf32),
        Type::Signed(8) | Type::Unsigned(8) => Some(MmaElement::Integer(a.sign())),
        _ => None,
    };
    let (Some(result), Some(sum), Some(element)) = (sum(d), sum(c), element) else {
        return builder.error(format!("a product of {a} and {b} added to {c} into {d} is not implemented"));
    };
    let integers = [matches!(element, MmaElement::Integer(_)), c == Type::Signed(32), d == Type::Signed(32)];
    let halves = [c, d].contains(&Type::F16) && a != Type::F16;
    if a != b || integers != [integers[0]; 3] || halves {
        return builder.error(format!("a product of {a} and {b} added to {c} into {d} does not exist"));
    }
    let operands = &statement.operands;
    Ok(Operation::Wmma(Box::new(Wmma {
        element,
        sum,
        result,
        a: fragment(&operands[1], Matrix::A, shape, a, builder, false)?,
        b: fragment(&operands[2], Matrix::B, shape, b, builder, false)?,
        c: fragment(&operands[3], Matrix::Sum, shape, c, builder, false)?,
        d: fragment(&operands[0], Matrix::Sum, shape, d, builder, true)?,
    })))
}
