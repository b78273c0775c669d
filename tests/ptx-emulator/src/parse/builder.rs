//! A kernel under construction: scopes of declared registers, slots handed out at first use, and the resolution of operands.

use std::collections::HashMap;

use super::call::Frame;
use super::operand::Operand;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{Code, R32, R64, RP, Register, Target};
use crate::module::{Fill, Parameter, Slots};

/// A variable that a kernel can name.
#[derive(Debug, Clone)]
pub(super) struct Symbol {
    pub place: Place,
    pub align: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Global or constant memory.
    Module,
    Shared,
    /// `.extern .shared`: its length comes with the launch.
    DynamicShared,
    Local,
}

/// A register's class.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Predicate(RP),
    Narrow(R32, u32),
    Wide(R64),
}

/// `.reg` declarations of one `{}` block: by name, or by prefix with the number of registers.
#[derive(Default)]
pub(super) struct Scope {
    pub single: HashMap<String, Type>,
    pub families: HashMap<String, (Type, u64)>,
    found: HashMap<String, Found>,
}

pub(super) struct Builder<'m> {
    pub line: u32,
    pub module_symbols: &'m HashMap<String, Symbol>,
    /// Where each device function's text starts.
    pub functions: &'m HashMap<String, usize>,
    /// The function that is being parsed, and the names of those that call it.
    pub frame: Frame,
    pub callers: Vec<String>,
    pub calls: usize,
    pub symbols: HashMap<String, Symbol>,
    pub parameters: Vec<Parameter>,
    pub scopes: Vec<Scope>,
    pub slots: Slots,
    pub code: Vec<Code>,
    pub kinds: Vec<String>,
    pub labels: HashMap<String, u32>,
    /// Lists of labels for `brx.idx`, by name.
    pub targets: HashMap<String, Vec<String>>,
    /// Branches whose labels are still to be resolved: index into the code, label and line.
    pub branches: Vec<(usize, String, u32)>,
    pub shared_bytes: u64,
    pub shared_grain: u64,
    pub local_bytes: u64,
    placed: HashMap<String, u64>,
    fills32: HashMap<Fill, R32>,
    fills64: HashMap<Fill, R64>,
    constant_predicates: [Option<RP>; 2],
    carry: Option<RP>,
}

impl<'m> Builder<'m> {
    pub fn new(
        module_symbols: &'m HashMap<String, Symbol>,
        functions: &'m HashMap<String, usize>,
        parameters: Vec<Parameter>,
    ) -> Self {
        Builder {
            line: 0,
            module_symbols,
            functions,
            frame: Frame::default(),
            callers: Vec::new(),
            calls: 0,
            symbols: HashMap::new(),
            parameters,
            scopes: vec![Scope::default()],
            slots: Slots::default(),
            code: Vec::new(),
            kinds: Vec::new(),
            labels: HashMap::new(),
            targets: HashMap::new(),
            branches: Vec::new(),
            shared_bytes: 0,
            shared_grain: 16,
            local_bytes: 0,
            placed: HashMap::new(),
            fills32: HashMap::new(),
            fills64: HashMap::new(),
            constant_predicates: [None; 2],
            carry: None,
        }
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line, message))
    }

    fn new32(&mut self, name: &str) -> Result<R32, PtxError> {
        let slot = slot(self.line, &mut self.slots.names32, name)?;
        Ok(R32(slot))
    }

    fn new64(&mut self, name: &str) -> Result<R64, PtxError> {
        let slot = slot(self.line, &mut self.slots.names64, name)?;
        Ok(R64(slot))
    }

    fn new_predicate(&mut self, name: &str) -> Result<RP, PtxError> {
        let slot = slot(self.line, &mut self.slots.names_predicate, name)?;
        Ok(RP(slot))
    }

    /// The register called `name`, if the innermost scopes declare one.
    pub fn register(&mut self, name: &str) -> Result<Option<Found>, PtxError> {
        let prefix = name.trim_end_matches(|character: char| character.is_ascii_digit());
        let number: Option<u64> = name[prefix.len()..].parse().ok();
        for at in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[at];
            if let Some(&found) = scope.found.get(name) {
                return Ok(Some(found));
            }
            let family = scope.families.get(prefix).filter(|(_, count)| number.is_some_and(|number| number < *count));
            let Some(ty) = scope.single.get(name).copied().or(family.map(|&(ty, _)| ty)) else { continue };
            let found = match ty.bits() {
                1 => Found::Predicate(self.new_predicate(name)?),
                64 => Found::Wide(self.new64(name)?),
                bits => Found::Narrow(self.new32(name)?, bits),
            };
            self.scopes[at].found.insert(name.to_string(), found);
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn declared(&mut self, name: &str) -> Result<Found, PtxError> {
        match self.register(name)? {
            Some(found) => Ok(found),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    /// A 32-bit slot that holds `fill` from the start.
    pub fn fill32(&mut self, fill: Fill, name: &str) -> Result<R32, PtxError> {
        if let Some(&register) = self.fills32.get(&fill) {
            return Ok(register);
        }
        let register = self.new32(name)?;
        self.slots.constants32.push((register.0, fill.clone()));
        self.fills32.insert(fill, register);
        Ok(register)
    }

    /// A 64-bit slot that holds `fill` from the start.
    pub fn fill64(&mut self, fill: Fill, name: &str) -> Result<R64, PtxError> {
        if let Some(&register) = self.fills64.get(&fill) {
            return Ok(register);
        }
        let register = self.new64(name)?;
        self.slots.constants64.push((register.0, fill.clone()));
        self.fills64.insert(fill, register);
        Ok(register)
    }

    pub fn constant32(&mut self, value: u32) -> Result<R32, PtxError> {
        self.fill32(Fill::Value(u64::from(value)), "a constant")
    }

    pub fn constant64(&mut self, value: u64) -> Result<R64, PtxError> {
        self.fill64(Fill::Value(value), "a constant")
    }

    /// A predicate that always or never holds: a number in a predicate's place, true unless zero.
    fn constant_predicate(&mut self, number: u64) -> Result<RP, PtxError> {
        let at = usize::from(number != 0);
        if let Some(register) = self.constant_predicates[at] {
            return Ok(register);
        }
        let register = self.new_predicate("a constant")?;
        self.slots.constants_predicate.push((register.0, number != 0));
        self.constant_predicates[at] = Some(register);
        Ok(register)
    }

    /// The carry flag of the extended-precision instructions.
    pub fn carry_flag(&mut self) -> Result<RP, PtxError> {
        if let Some(register) = self.carry {
            return Ok(register);
        }
        let register = self.new_predicate("CC.CF")?;
        self.carry = Some(register);
        Ok(register)
    }

    /// The address of the variable `name` plus `offset`, if there is such a variable or parameter.
    pub fn variable(&mut self, name: &str, offset: i64) -> Result<Option<Fill>, PtxError> {
        if let Some(&(at, _)) = self.frame.variables.get(name) {
            return Ok(Some(Fill::Value(at.wrapping_add_signed(offset))));
        }
        if let Some(parameter) = self.parameters.iter().find(|parameter| parameter.name == name) {
            return Ok(Some(Fill::Value(parameter.offset.wrapping_add_signed(offset))));
        }
        let Some(symbol) = self.symbols.get(name).or_else(|| self.module_symbols.get(name)).cloned() else {
            return Ok(None);
        };
        let total = match symbol.place {
            Place::Module if offset != 0 => return self.error(format!("`{name}`: an offset from a module variable")),
            Place::Module => return Ok(Some(Fill::Variable(name.to_string()))),
            Place::DynamicShared if offset != 0 => {
                return self.error(format!("`{name}`: an offset from dynamic shared memory outside of an address"));
            }
            Place::DynamicShared => return Ok(Some(Fill::DynamicShared)),
            Place::Shared => &mut self.shared_bytes,
            Place::Local => &mut self.local_bytes,
        };
        let at = *self.placed.entry(name.to_string()).or_insert_with(|| {
            let at = total.next_multiple_of(symbol.align);
            *total = at + symbol.bytes;
            at
        });
        Ok(Some(Fill::Value(at.wrapping_add_signed(offset))))
    }

    /// Whether `name` is a parameter of the kernel.
    pub fn is_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == name)
    }

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
                return self.error(format!("{operand:?} is no operand of a {bits}-bit type such as this"));
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
            _ => self.error(format!("expected a register or constant of {} bits, found {operand:?}", ty.bits())),
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
            _ => return self.error(format!("expected a register or constant of 64 bits, found {operand:?}")),
        };
        match self.register(name)? {
            Some(Found::Wide(register)) => return Ok(register),
            Some(found) => return self.mismatch(name, found, ty),
            None => {}
        }
        match self.variable(name, offset)? {
            Some(fill) => self.fill64(fill, name),
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
            _ => self.error(format!("expected a register to write to, found {operand:?}")),
        }
    }

    pub fn destination32(&mut self, operand: &Operand, ty: Type) -> Result<R32, PtxError> {
        let Operand::Name(name) = *operand else {
            return self.error(format!("expected a register to write to, found {operand:?}"));
        };
        match self.declared(name)? {
            Found::Narrow(register, bits) if bits == ty.bits() => Ok(register),
            found => self.mismatch(name, found, ty),
        }
    }

    pub fn destination64(&mut self, operand: &Operand, ty: Type) -> Result<R64, PtxError> {
        let Operand::Name(name) = *operand else {
            return self.error(format!("expected a register to write to, found {operand:?}"));
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
            _ => self.error(format!("expected a predicate, found {operand:?}")),
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

    /// The index under which executions of `kind` are counted.
    pub fn kind(&mut self, kind: String) -> u16 {
        let at = self.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        at as u16
    }
}

fn slot(line: u32, names: &mut Vec<String>, name: &str) -> Result<u16, PtxError> {
    let Ok(slot) = u16::try_from(names.len()) else {
        return Err(PtxError::new(line, "a kernel with more than 65536 registers and constants of one class"));
    };
    names.push(name.to_string());
    Ok(slot)
}
