//! Instructions that access memory: loads, stores, atomics and asynchronous copies.

use super::builder::{Builder, Found};
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{
    Address, AddressSpace, Atomic, AtomicOp, CopyAsync, Extend, Load, Operation, Register, Sign, Store,
};

pub(super) const SPACES: [(&str, AddressSpace); 9] = [
    ("global", AddressSpace::Global),
    ("const", AddressSpace::Global),
    ("shared", AddressSpace::Shared),
    ("shared::cta", AddressSpace::Shared),
    ("local", AddressSpace::Local),
    ("param", AddressSpace::Parameter),
    ("param::entry", AddressSpace::Parameter),
    ("param::func", AddressSpace::Parameter),
    ("generic", AddressSpace::Generic),
];

/// Memory order, scope and cache words: blocks run one after the other here, so they change no value.
const ORDER: [&str; 18] = [
    "volatile", "weak", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "nc", "ca", "cg",
    "cs", "lu", "cv", "wb", "wt",
];

/// Resolves `[base + offset]`.
pub(super) fn address(operand: &Operand, space: AddressSpace, builder: &mut Builder) -> Result<Address, PtxError> {
    let Operand::Address(base, offset) = operand else {
        return builder.error(format!("expected an address in brackets, found {operand}"));
    };
    let (offset, mut space) = (*offset, space);
    let base = match **base {
        Operand::Integer(value) => Register::Wide(builder.constant64(value)?),
        Operand::Name(name) => match builder.register(name)? {
            Some(Found::Wide(register)) => Register::Wide(register),
            Some(Found::Narrow(register, 32)) if !matches!(space, AddressSpace::Global | AddressSpace::Generic) => {
                Register::Narrow(register)
            }
            Some(_) => return builder.error(format!("`{name}` has not the width of an address in this memory")),
            None => match builder.variable(name, 0)? {
                // A call's parameters are the caller's and the function's own memory.
                Some(fill) if space == AddressSpace::Parameter && builder.frame.variables.contains_key(name) => {
                    space = AddressSpace::Local;
                    Register::Wide(builder.fill64(fill, name)?)
                }
                Some(_) if builder.is_parameter(name) && space != AddressSpace::Parameter => {
                    return builder.error(format!("`{name}` is a parameter; only `ld.param` reads it"));
                }
                Some(fill) => Register::Wide(builder.fill64(fill, name)?),
                None => return builder.error(format!("`{name}` is not declared")),
            },
        },
        _ => return builder.error("an address is a register, a variable or a constant"),
    };
    Ok(Address { space, base, offset })
}

/// Notes the length of an access that may touch shared memory.
fn note_grain(builder: &mut Builder, space: AddressSpace, bytes: u32) {
    if matches!(space, AddressSpace::Shared | AddressSpace::Generic) {
        builder.shared_grain = builder.shared_grain.min(u64::from(bytes));
    }
}

/// The elements of a `.v2`/`.v4` operand, or the one operand.
fn elements<'o, 't>(operand: &'o Operand<'t>, count: usize, builder: &Builder) -> Result<&'o [Operand<'t>], PtxError> {
    let list = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.len() != count {
        return builder.error(format!("a vector of {count} is expected, found {}", list.len()));
    }
    Ok(list)
}

/// The space, vector length and element type of `ld` and `st`.
fn shape(statement: &mut Statement) -> Result<(AddressSpace, usize, Type), PtxError> {
    let modifiers = &mut statement.modifiers;
    modifiers.drop_known(&ORDER);
    modifiers.drop_hints(&["L1::", "L2::"]);
    let space = modifiers.choose(&SPACES).unwrap_or(AddressSpace::Generic);
    let count = modifiers.choose(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let ty = modifiers.ty()?;
    modifiers.finish()?;
    in_memory(statement, ty)?;
    Ok((space, count, ty))
}

fn in_memory(statement: &Statement, ty: Type) -> Result<(), PtxError> {
    match ty {
        Type::Predicate => statement.modifiers.error("a predicate has no place in memory"),
        _ => Ok(()),
    }
}

pub(super) fn load(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect_between(2, 3)?;
    let (space, count, ty) = shape(statement)?;
    let address = address(&statement.operands[1], space, builder)?;
    let targets: Result<_, _> = elements(&statement.operands[0], count, builder)?
        .iter()
        .map(|operand| builder.loose_destination(operand, ty))
        .collect();
    let extend = if ty.sign() == Sign::Signed { Extend::Sign } else { Extend::Zero };
    let element = ty.bits() / 8;
    note_grain(builder, space, element * count as u32);
    Ok(Operation::Load(Box::new(Load { address, element, extend, targets: targets? })))
}

pub(super) fn store(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect_between(2, 3)?;
    let (space, count, ty) = shape(statement)?;
    let address = address(&statement.operands[0], space, builder)?;
    let sources: Result<_, _> = elements(&statement.operands[1], count, builder)?
        .iter()
        .map(|operand| builder.loose_source(operand, ty))
        .collect();
    let element = ty.bits() / 8;
    note_grain(builder, space, element * count as u32);
    Ok(Operation::Store(Box::new(Store { address, element, sources: sources? })))
}

pub(super) fn atomic(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let modifiers = &mut statement.modifiers;
    modifiers.drop_known(&["relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "noftz"]);
    modifiers.drop_hints(&["L2::"]);
    let space = modifiers.choose(&SPACES).unwrap_or(AddressSpace::Generic);
    let words = [
        ("and", 0),
        ("or", 1),
        ("xor", 2),
        ("exch", 3),
        ("cas", 4),
        ("add", 5),
        ("inc", 6),
        ("dec", 7),
        ("min", 8),
        ("max", 9),
    ];
    let word = modifiers.require(&words)?;
    let count = modifiers.choose(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let ty = modifiers.ty()?;
    if count > 1 && (space != AddressSpace::Global || !ty.is_float()) {
        return modifiers.error("atomic operations on vectors are for floats in global memory");
    }
    in_memory(statement, ty)?;
    if ty.is_float() && word != 5 {
        return statement.modifiers.error(format!("an atomic operation other than `.add` on {ty} is not implemented"));
    }
    let signed = ty.sign() == Sign::Signed;
    let op = match (word, ty) {
        (0, _) => AtomicOp::And,
        (1, _) => AtomicOp::Or,
        (2, _) => AtomicOp::Xor,
        (3, _) => AtomicOp::Exchange,
        (4, _) => AtomicOp::CompareAndSwap,
        (5, Type::F32) => AtomicOp::AddF32,
        (5, Type::F64) => AtomicOp::AddF64,
        (5, Type::F16) => AtomicOp::AddF16,
        (5, Type::F16x2) => AtomicOp::AddF16x2,
        (5, Type::Bf16) => AtomicOp::AddBf16,
        (5, Type::Bf16x2) => AtomicOp::AddBf16x2,
        (5, _) => AtomicOp::Add,
        (6, _) => AtomicOp::Increment,
        (7, _) => AtomicOp::Decrement,
        (8, _) if signed => AtomicOp::MinSigned,
        (8, _) => AtomicOp::MinUnsigned,
        (_, _) if signed => AtomicOp::MaxSigned,
        (_, _) => AtomicOp::MaxUnsigned,
    };
    let reduction = statement.modifiers.root == "red";
    let first = usize::from(!reduction);
    let swap = usize::from(op == AtomicOp::CompareAndSwap);
    statement.expect_between(first + 2 + swap, first + 3 + swap)?;
    let operands = &statement.operands;
    let address = address(&operands[first], space, builder)?;
    let bytes = ty.bits() / 8;
    let mut list = Vec::new();
    for (number, source) in elements(&operands[first + 1], count, builder)?.iter().enumerate() {
        let d = match reduction {
            true => None,
            false => builder.loose_destination(&elements(&operands[0], count, builder)?[number], ty)?,
        };
        list.push(Atomic {
            op,
            address: Address { offset: address.offset + number as i64 * i64::from(bytes), ..address },
            bytes,
            align: if number == 0 { bytes * count as u32 } else { bytes },
            d,
            b: builder.source(source, ty)?,
            c: if swap == 1 { Some(builder.source(&operands[first + 2], ty)?) } else { None },
        });
    }
    note_grain(builder, space, bytes);
    Ok(Operation::Atomic(list.into()))
}

pub(super) fn copy(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    let modifiers = &mut statement.modifiers;
    modifiers.require(&[("async", ())])?;
    if modifiers.flag("commit_group") {
        statement.expect(0)?;
        return Ok(Operation::CopyCommit);
    }
    if modifiers.flag("wait_all") {
        statement.expect(0)?;
        return Ok(Operation::CopyWaitAll);
    }
    if modifiers.flag("wait_group") {
        statement.expect(1)?;
        let Operand::Integer(pending) = statement.operands[0] else {
            return builder.error("`cp.async.wait_group` takes a constant");
        };
        return Ok(Operation::CopyWait { pending: pending as u32 });
    }
    modifiers.require(&[("ca", ()), ("cg", ())])?;
    modifiers.require(&[("shared", ()), ("shared::cta", ())])?;
    modifiers.require(&[("global", ())])?;
    let policy = usize::from(modifiers.flag("L2::cache_hint"));
    modifiers.drop_hints(&["L2::"]);
    statement.expect_between(3 + policy, 4 + policy)?;
    let operands = &statement.operands;
    let Operand::Integer(bytes @ (4 | 8 | 16)) = operands[2] else {
        return builder.error("`cp.async` copies 4, 8 or 16 bytes");
    };
    let destination = address(&operands[0], AddressSpace::Shared, builder)?;
    let source = address(&operands[1], AddressSpace::Global, builder)?;
    let source_bytes = match operands.len() - policy {
        4 => Some(builder.source32(&operands[3], Type::Unsigned(32))?),
        _ => None,
    };
    note_grain(builder, AddressSpace::Shared, bytes as u32);
    Ok(Operation::CopyAsync(Box::new(CopyAsync { destination, source, bytes: bytes as u32, source_bytes })))
}

/// Prefetches and cache priorities.
pub(super) fn hint(statement: &mut Statement) -> Result<Operation, PtxError> {
    statement.modifiers.drop_known(&["global", "local", "L1", "L2", "uniform"]);
    statement.modifiers.drop_hints(&["L2::"]);
    Ok(Operation::Nothing)
}
