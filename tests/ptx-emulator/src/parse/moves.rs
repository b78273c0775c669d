//! Moves, selections, comparisons and conversions between address spaces.

use super::builder::Builder;
use super::operand::Operand;
use super::statement::Statement;
use super::types::Type;
use crate::error::{PtxError, Space};
use crate::instruction::{
    Compare, Comparison, IntegerOp, Logic, Negation, Operation, Pack, R32, RP, Set, SetPredicate, Sign, Unpack,
};
use crate::memory::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW};

pub(super) fn mov(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let ty = statement.modifiers.ty()?;
    let (to, from) = (&statement.operands[0], &statement.operands[1]);
    match (to, from) {
        (Operand::Vector(parts), _) => {
            let part = part_type(parts.len(), ty, builder)?;
            let parts: Result<_, _> = parts
                .iter()
                .map(|part_operand| match part_operand {
                    Operand::Name("_") => Ok(None),
                    other => builder.destination32(other, part).map(Some),
                })
                .collect();
            let a = builder.source(from, ty)?;
            Ok(Operation::Unpack(Box::new(Unpack { parts: parts?, a, part_bits: part.bits() })))
        }
        (_, Operand::Vector(parts)) => {
            let part = part_type(parts.len(), ty, builder)?;
            let parts: Result<Box<[R32]>, _> = parts.iter().map(|operand| builder.source32(operand, part)).collect();
            Ok(Operation::Pack(Box::new(Pack {
                d: builder.destination(to, ty)?,
                parts: parts?,
                part_bits: part.bits(),
            })))
        }
        _ if ty == Type::Predicate => {
            let d = builder.predicate(to)?;
            Ok(Operation::MovePredicate { d, a: builder.predicate(from)? })
        }
        _ if ty.bits() == 64 => {
            Ok(Operation::Move64 { d: builder.destination64(to, ty)?, a: builder.source64(from, ty)? })
        }
        _ => Ok(Operation::Move32 { d: builder.destination32(to, ty)?, a: builder.source32(from, ty)? }),
    }
}

fn part_type(parts: usize, ty: Type, builder: &Builder) -> Result<Type, PtxError> {
    match (ty.bits(), parts) {
        (bits @ (16 | 32 | 64), 2) => Ok(Type::Bits(bits / 2)),
        (bits @ (32 | 64), 4) => Ok(Type::Bits(bits / 4)),
        (bits, parts) => builder.error(format!("`mov` between {bits} bits and a vector of {parts} is not implemented")),
    }
}

pub(super) fn selp(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(4)?;
    let ty = statement.modifiers.ty()?;
    let operands = &statement.operands;
    let p = builder.predicate(&operands[3])?;
    if ty.bits() == 64 {
        let (a, b) = (builder.source64(&operands[1], ty)?, builder.source64(&operands[2], ty)?);
        return Ok(Operation::Select64 { d: builder.destination64(&operands[0], ty)?, a, b, p });
    }
    let (a, b) = (builder.source32(&operands[1], ty)?, builder.source32(&operands[2], ty)?);
    Ok(Operation::Select32 { d: builder.destination32(&operands[0], ty)?, a, b, p })
}

const COMPARISONS: [(&str, Compare); 18] = [
    ("eq", Compare::Equal),
    ("ne", Compare::NotEqual),
    ("lt", Compare::Less),
    ("le", Compare::LessEqual),
    ("gt", Compare::Greater),
    ("ge", Compare::GreaterEqual),
    ("lo", Compare::Less),
    ("ls", Compare::LessEqual),
    ("hi", Compare::Greater),
    ("hs", Compare::GreaterEqual),
    ("equ", Compare::EqualUnordered),
    ("neu", Compare::NotEqualUnordered),
    ("ltu", Compare::LessUnordered),
    ("leu", Compare::LessEqualUnordered),
    ("gtu", Compare::GreaterUnordered),
    ("geu", Compare::GreaterEqualUnordered),
    ("num", Compare::BothNumbers),
    ("nan", Compare::EitherNan),
];

fn comparison(statement: &mut Statement, builder: &mut Builder, ty: Type) -> Result<Comparison, PtxError> {
    let subnormals = statement.modifiers.subnormals();
    let (a, b) = (&statement.operands[1], &statement.operands[2]);
    Ok(match ty {
        Type::F32 => Comparison::Float32 { subnormals, a: builder.source32(a, ty)?, b: builder.source32(b, ty)? },
        Type::F64 => Comparison::Float64 { a: builder.source64(a, ty)?, b: builder.source64(b, ty)? },
        Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => {
            let (format, _) = ty.half().expect("a 16-bit float");
            let (a, b) = (builder.source32(a, ty)?, builder.source32(b, ty)?);
            Comparison::Half { format, subnormals, shift: 0, a, b }
        }
        _ if ty.bits() == 64 => {
            Comparison::Integer64 { sign: ty.sign(), a: builder.source64(a, ty)?, b: builder.source64(b, ty)? }
        }
        _ => match ty.narrow() {
            Some(narrow) => {
                Comparison::Integer32 { ty: narrow, a: builder.source32(a, ty)?, b: builder.source32(b, ty)? }
            }
            None => return builder.error(format!("a comparison of {ty} is not implemented")),
        },
    })
}

/// 1 in the 16-bit formats.
const ONE_F16: u32 = 0x3c00;
const ONE_BF16: u32 = 0x3f80;

const LOGIC: [(&str, Logic); 3] = [("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)];

pub(super) fn setp(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect_between(3, 4)?;
    let compare = statement.modifiers.require(&COMPARISONS)?;
    let logic = statement.modifiers.choose(&LOGIC);
    let ty = statement.modifiers.ty()?;
    if matches!(ty, Type::F16x2 | Type::Bf16x2) {
        return builder.error(format!("`setp` of {ty} is not implemented"));
    }
    let comparison = comparison(statement, builder, ty)?;
    let (d, complement) = match &statement.operands[0] {
        Operand::Pair(d, complement) => (optional(d, builder)?, optional(complement, builder)?),
        other => (optional(other, builder)?, None),
    };
    let combine = match (logic, statement.operands.get(3)) {
        (Some(logic), Some(operand)) => {
            let (p, negation) = negatable(operand, builder)?;
            Some((logic, p, negation))
        }
        (None, None) => None,
        _ => {
            return builder.error("`setp` combines with a fourth operand and `.and`, `.or` or `.xor`, or with neither");
        }
    };
    Ok(Operation::SetPredicate(Box::new(SetPredicate { compare, comparison, d, complement, combine })))
}

fn optional(operand: &Operand, builder: &mut Builder) -> Result<Option<RP>, PtxError> {
    match operand {
        Operand::Name("_") => Ok(None),
        other => builder.predicate(other).map(Some),
    }
}

/// A predicate source, possibly with a `!` in front.
pub(super) fn negatable(operand: &Operand, builder: &mut Builder) -> Result<(RP, Negation), PtxError> {
    match operand {
        Operand::Not(inner) => Ok((builder.predicate(inner)?, Negation::Negated)),
        other => Ok((builder.predicate(other)?, Negation::Plain)),
    }
}

pub(super) fn set(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(3)?;
    let compare = statement.modifiers.require(&COMPARISONS)?;
    let to = statement.modifiers.ty()?;
    let ty = statement.modifiers.ty()?;
    let truth = match to {
        Type::F32 => 1f32.to_bits(),
        Type::Unsigned(32) | Type::Signed(32) => u32::MAX,
        Type::Unsigned(16) | Type::Signed(16) => 0xffff,
        Type::F16 | Type::F16x2 => ONE_F16,
        Type::Bf16 | Type::Bf16x2 => ONE_BF16,
        _ => return builder.error(format!("`set` into {to} is not implemented")),
    };
    let comparison = comparison(statement, builder, ty)?;
    let upper = match comparison {
        Comparison::Half { format, subnormals, a, b, .. } if matches!(ty, Type::F16x2 | Type::Bf16x2) => {
            Some(Comparison::Half { format, subnormals, shift: 16, a, b })
        }
        _ => None,
    };
    let d = builder.destination32(&statement.operands[0], to)?;
    // Of packed elements, integers are all ones in each half.
    let truth = if upper.is_some() { truth & 0xffff } else { truth };
    Ok(Operation::Set(Box::new(Set { compare, comparison, upper, d, truth })))
}

pub(super) fn cvta(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let op = if statement.modifiers.flag("to") { IntegerOp::Sub } else { IntegerOp::Add };
    let window = statement.modifiers.require(&[
        ("global", 0),
        ("const", 0),
        ("shared", SHARED_WINDOW),
        ("shared::cta", SHARED_WINDOW),
        ("local", LOCAL_WINDOW),
        ("param", PARAMETER_WINDOW),
        ("param::entry", PARAMETER_WINDOW),
    ])?;
    let ty = statement.modifiers.ty()?;
    let a = builder.source64(&statement.operands[1], ty)?;
    let d = builder.destination64(&statement.operands[0], ty)?;
    if window == 0 {
        return Ok(Operation::Move64 { d, a });
    }
    Ok(Operation::Integer64 { op, sign: Sign::Unsigned, d, a, b: builder.constant64(window)? })
}

pub(super) fn isspacep(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(2)?;
    let space = statement.modifiers.require(&[
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
    ])?;
    let a = builder.source64(&statement.operands[1], Type::Unsigned(64))?;
    Ok(Operation::IsSpace { d: builder.predicate(&statement.operands[0])?, a, space })
}

/// A cache policy is an opaque number; what it says about the cache changes no value.
pub(super) fn createpolicy(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.modifiers.require(&[("fractional", ())])?;
    statement.modifiers.drop_hints(&["L2::"]);
    let ty = statement.modifiers.ty()?;
    statement.expect_between(1, 2)?;
    let d = builder.destination64(&statement.operands[0], ty)?;
    Ok(Operation::Move64 { d, a: builder.constant64(0)? })
}
