//! Operands to register slots: constants and addresses become slots with contents, names are looked up and their widths
//! checked.

use super::builder::{Builder, Found};
use super::operand::Operand;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{R32, R64, RP, Register, Target};
use crate::module::Fill;

/// Where the shared memory begins that the system keeps for itself: there is none, so nothing may lie there.
const RESERVED: u32 = u32::MAX - 1023;

impl Builder<'_> {
    fn literal(&self, operand: &Operand, ty: Type) -> Result<Option<u64>, PtxError> {
        let bits = ty.bits();
        let floating = matches!(ty, Type::F32 | Type::F64);
        let value = match *operand {
            Operand::Integer(value) if !floating => value,
            Operand::Single(value) if bits == 32 => u64::from(value),
            Operand::Single(value) if ty == Type::F64 => f64::from(f32::from_bits(value)).to_bits(),
            Operand::Double(value) if ty == Type::F32 => u64::from((f64::from_bits(value) as f32).to_bits()),
            Operand::Double(value) if bits == 64 => value,
            Operand::Integer(_) | Operand::Single(_) | Operand::Double(_) => {
                return self.error(format!("{operand} is no operand of a {bits}-bit type such as this"));
            }
            _ => return Ok(None),
        };
        Ok(Some(if bits == 64 { value } else { value & ((1 << bits) - 1) }))
    }

    /// A source of at most 32 bits.
    pub fn source32(&mut self, operand: &Operand, ty: Type) -> Result<R32, PtxError> {
        if let Some(value) = self.literal(operand, ty)? {
            return self.constant32(value as u32);
        }
        match *operand {
            Operand::Component(name, component) => self.special(&format!("{name}.{component}")),
            Operand::Name(name) => match self.register(name)? {
                Some(Found::Narrow(register, bits)) if bits == ty.bits() => Ok(register),
                Some(found) => self.mismatch(name, found, ty),
                None => self.named32(name, 0),
            },
            Operand::Offset(name, offset) => self.named32(name, offset),
            _ => self.error(format!("expected a register or constant of {} bits, found {operand}", ty.bits())),
        }
    }

    fn named32(&mut self, name: &str, offset: i64) -> Result<R32, PtxError> {
        if name.starts_with('%') {
            return self.special(name);
        }
        match self.variable(name, offset)? {
            Some(fill) => self.fill32(fill, name),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    fn special(&mut self, name: &str) -> Result<R32, PtxError> {
        match super::special::special(name) {
            Some(special) => self.fill32(Fill::Special(special), name),
            None if name.starts_with("%reserved_smem_offset_") => self.constant32(RESERVED),
            None => self.error(format!("`{name}` is neither declared nor a special register that the emulator has")),
        }
    }

    /// A 64-bit source.
    pub fn source64(&mut self, operand: &Operand, ty: Type) -> Result<R64, PtxError> {
        if let Some(value) = self.literal(operand, ty)? {
            return self.constant64(value);
        }
        let (name, offset) = match *operand {
            Operand::Name(name) => (name, 0),
            Operand::Offset(name, offset) => (name, offset),
            _ => return self.error(format!("expected a register or constant of 64 bits, found {operand}")),
        };
        match self.register(name)? {
            Some(Found::Wide(register)) => return Ok(register),
            Some(found) => return self.mismatch(name, found, ty),
            None => {}
        }
        match self.variable(name, offset)? {
            Some(fill) => self.fill64(fill, name),
            None if self.functions.contains_key(name) => {
                self.error(format!("the address of the function `{name}` is not implemented"))
            }
            None if super::special::is_clock(name) => self.constant64(0),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    /// A source of the width of `ty`.
    pub fn source(&mut self, operand: &Operand, ty: Type) -> Result<Register, PtxError> {
        match ty.bits() {
            64 => self.source64(operand, ty).map(Register::Wide),
            _ => self.source32(operand, ty).map(Register::Narrow),
        }
    }

    /// A source that may be wider than `ty`, as `st` and `cvt` allow.
    pub fn loose_source(&mut self, operand: &Operand, ty: Type) -> Result<Register, PtxError> {
        if let Operand::Name(name) = *operand
            && let Some(found) = self.register(name)?
        {
            return self.at_least(name, found, ty).map(|target| target.register);
        }
        self.source(operand, ty)
    }

    fn at_least(&self, name: &str, found: Found, ty: Type) -> Result<Target, PtxError> {
        match found {
            Found::Narrow(register, bits) if bits >= ty.bits() => {
                Ok(Target { register: Register::Narrow(register), bits })
            }
            Found::Wide(register) => Ok(Target { register: Register::Wide(register), bits: 64 }),
            _ => self.mismatch(name, found, ty),
        }
    }

    /// A destination that may be wider than `ty`, as `ld` and `cvt` allow; `_` is none.
    pub fn loose_destination(&mut self, operand: &Operand, ty: Type) -> Result<Option<Target>, PtxError> {
        match *operand {
            Operand::Name("_") => Ok(None),
            Operand::Name(name) => {
                let found = self.declared(name)?;
                self.at_least(name, found, ty).map(Some)
            }
            _ => self.error(format!("expected a register to write to, found {operand}")),
        }
    }

    pub fn destination32(&mut self, operand: &Operand, ty: Type) -> Result<R32, PtxError> {
        let Operand::Name(name) = *operand else {
            return self.error(format!("expected a register to write to, found {operand}"));
        };
        match self.declared(name)? {
            Found::Narrow(register, bits) if bits == ty.bits() => Ok(register),
            found => self.mismatch(name, found, ty),
        }
    }

    pub fn destination64(&mut self, operand: &Operand, ty: Type) -> Result<R64, PtxError> {
        let Operand::Name(name) = *operand else {
            return self.error(format!("expected a register to write to, found {operand}"));
        };
        match self.declared(name)? {
            Found::Wide(register) => Ok(register),
            found => self.mismatch(name, found, ty),
        }
    }

    pub fn destination(&mut self, operand: &Operand, ty: Type) -> Result<Register, PtxError> {
        match ty.bits() {
            64 => self.destination64(operand, ty).map(Register::Wide),
            _ => self.destination32(operand, ty).map(Register::Narrow),
        }
    }

    /// A predicate register.
    pub fn predicate(&mut self, operand: &Operand) -> Result<RP, PtxError> {
        match *operand {
            Operand::Integer(number) => self.constant_predicate(number),
            Operand::Name(name) => match self.declared(name)? {
                Found::Predicate(register) => Ok(register),
                found => self.mismatch(name, found, Type::Predicate),
            },
            _ => self.error(format!("expected a predicate, found {operand}")),
        }
    }

    fn mismatch<T>(&self, name: &str, found: Found, ty: Type) -> Result<T, PtxError> {
        let bits = match found {
            Found::Predicate(_) => "a predicate".to_string(),
            Found::Narrow(_, bits) => format!("{bits} bits"),
            Found::Wide(_) => "64 bits".to_string(),
        };
        let wanted = if ty == Type::Predicate { "a predicate".to_string() } else { format!("{} bits", ty.bits()) };
        self.error(format!("`{name}` has {bits}, the instruction wants {wanted}"))
    }
}
