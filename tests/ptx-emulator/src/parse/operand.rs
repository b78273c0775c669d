//! Operands as they are written, before names are resolved.

use std::fmt;

use super::cursor::{Cursor, describe};
use crate::error::PtxError;
use crate::lexer::Token;

#[derive(Debug, Clone)]
pub(super) enum Operand<'t> {
    /// Register, variable or label.
    Name(&'t str),
    /// A special register's component, `%tid.x`.
    Component(&'t str, &'t str),
    Integer(u64),
    Single(u32),
    Double(u64),
    /// A variable's address plus a constant.
    Offset(&'t str, i64),
    /// `[base + offset]`
    Address(Box<Operand<'t>>, i64),
    Vector(Vec<Operand<'t>>),
    Not(Box<Operand<'t>>),
    /// `d|p`
    Pair(Box<Operand<'t>>, Box<Operand<'t>>),
}

/// As it was written.
impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Name(name) => f.write_str(name),
            Operand::Component(name, part) => write!(f, "{name}.{part}"),
            Operand::Integer(value) => write!(f, "{value}"),
            Operand::Single(bits) => write!(f, "0f{bits:08x}"),
            Operand::Double(bits) => write!(f, "0d{bits:016x}"),
            Operand::Offset(name, offset) => write!(f, "{name}{offset:+}"),
            Operand::Address(base, 0) => write!(f, "[{base}]"),
            Operand::Address(base, offset) => write!(f, "[{base}{offset:+}]"),
            Operand::Vector(parts) => {
                let parts: Vec<String> = parts.iter().map(Operand::to_string).collect();
                write!(f, "{{{}}}", parts.join(", "))
            }
            Operand::Not(inner) => write!(f, "!{inner}"),
            Operand::Pair(first, second) => write!(f, "{first}|{second}"),
        }
    }
}

/// Parses `a, b, c;` up to and including the semicolon.
pub(super) fn operands<'t>(cursor: &mut Cursor<'t>) -> Result<Vec<Operand<'t>>, PtxError> {
    let mut list = Vec::new();
    if cursor.take(b';') {
        return Ok(list);
    }
    loop {
        list.push(operand(cursor)?);
        if cursor.take(b';') {
            return Ok(list);
        }
        cursor.expect(b',')?;
    }
}

fn operand<'t>(cursor: &mut Cursor<'t>) -> Result<Operand<'t>, PtxError> {
    if cursor.take(b'!') {
        return Ok(Operand::Not(Box::new(simple(cursor)?)));
    }
    if cursor.take(b'{') {
        let mut parts = Vec::new();
        loop {
            parts.push(simple(cursor)?);
            if cursor.take(b'}') {
                return Ok(Operand::Vector(parts));
            }
            cursor.expect(b',')?;
        }
    }
    if cursor.take(b'[') {
        let base = simple(cursor)?;
        let (base, inner) = match base {
            Operand::Offset(name, offset) => (Operand::Name(name), offset),
            other => (other, 0),
        };
        cursor.expect(b']')?;
        return Ok(Operand::Address(Box::new(base), inner));
    }
    let first = simple(cursor)?;
    if cursor.take(b'|') {
        return Ok(Operand::Pair(Box::new(first), Box::new(simple(cursor)?)));
    }
    Ok(first)
}

fn simple<'t>(cursor: &mut Cursor<'t>) -> Result<Operand<'t>, PtxError> {
    match cursor.peek() {
        Some(Token::Name(name)) => {
            cursor.next();
            if let Some(Token::Dotted(component)) = cursor.peek() {
                cursor.next();
                return Ok(Operand::Component(name, component));
            }
            if cursor.take(b'+') {
                return Ok(Operand::Offset(name, cursor.integer()?));
            }
            if cursor.peek() == Some(Token::Symbol(b'-')) {
                return Ok(Operand::Offset(name, cursor.integer()?));
            }
            Ok(Operand::Name(name))
        }
        Some(Token::Integer(_)) => Ok(Operand::Integer(cursor.integer()? as u64)),
        Some(Token::Single(bits)) => {
            cursor.next();
            Ok(Operand::Single(bits))
        }
        Some(Token::Double(bits)) => {
            cursor.next();
            Ok(Operand::Double(bits))
        }
        Some(Token::Symbol(b'-')) => match cursor.peek_second() {
            Some(Token::Double(bits)) => {
                cursor.next();
                cursor.next();
                Ok(Operand::Double(bits ^ (1 << 63)))
            }
            _ => Ok(Operand::Integer(cursor.integer()? as u64)),
        },
        other => cursor.error(format!("expected an operand, found {}", describe(other))),
    }
}
