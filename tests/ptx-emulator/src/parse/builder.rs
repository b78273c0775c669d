//! A kernel under construction: scopes of declared registers, slots handed out at first use, and places of variables. How
//! operands become slots is in `resolve`.

use std::collections::HashMap;

use super::call::Frame;
use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{Branch, Code, Operation, R32, R64, RP};
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

/// What one `{}` block declares: registers by name, or by prefix with their number, labels, and lists of labels for `brx.idx`.
#[derive(Default)]
pub(super) struct Scope {
    pub labels: HashMap<String, u32>,
    pub targets: HashMap<String, Vec<String>>,
    /// How many branches were open when it began.
    first_branch: usize,
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
    pub symbols: HashMap<String, Symbol>,
    pub parameters: Vec<Parameter>,
    pub scopes: Vec<Scope>,
    pub slots: Slots,
    pub code: Vec<Code>,
    pub kinds: Vec<String>,
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
            symbols: HashMap::new(),
            parameters,
            scopes: vec![Scope::default()],
            slots: Slots::default(),
            code: Vec::new(),
            kinds: Vec::new(),
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

    /// Begins a `{}` block.
    pub fn open_scope(&mut self) {
        let first_branch = self.branches.len();
        self.scopes.push(Scope { first_branch, ..Scope::default() });
    }

    /// Ends the innermost block: its labels are for branches inside of it only.
    pub fn close_scope(&mut self) {
        if let Some(scope) = self.scopes.pop() {
            self.resolve(scope.first_branch, |label| scope.labels.get(label).copied());
        }
    }

    /// Gives the open branches from number `first` on their targets, as far as these are known.
    pub fn resolve(&mut self, first: usize, target: impl Fn(&str) -> Option<u32>) {
        for (at, label, line) in self.branches.split_off(first) {
            match target(&label) {
                Some(target) => self.code[at].operation = Operation::Branch(Branch { target, reconverge: 0 }),
                None => self.branches.push((at, label, line)),
            }
        }
    }

    /// Fails if a branch from number `first` on still has no target.
    pub fn all_resolved(&self, first: usize) -> Result<(), PtxError> {
        match self.branches.get(first) {
            Some((_, label, line)) => Err(PtxError::new(*line, format!("no label `{label}`"))),
            None => Ok(()),
        }
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

    pub fn declared(&mut self, name: &str) -> Result<Found, PtxError> {
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
    pub fn constant_predicate(&mut self, number: u64) -> Result<RP, PtxError> {
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
