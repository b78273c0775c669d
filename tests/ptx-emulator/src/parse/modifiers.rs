//! The dotted words behind an instruction's name. Each must be asked for; what is left over is an error.

use super::types::Type;
use crate::error::PtxError;
use crate::instruction::{FloatMode, Rounding, Saturate, Subnormals};

pub(super) struct Modifiers<'t> {
    pub root: &'t str,
    pub line: u32,
    list: Vec<&'t str>,
}

impl<'t> Modifiers<'t> {
    pub fn new(root: &'t str, list: Vec<&'t str>, line: u32) -> Self {
        Modifiers { root, line, list }
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line, message))
    }

    /// Whether `name` is there; takes it.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.list.iter().position(|&word| word == name);
        if let Some(at) = found {
            self.list.remove(at);
        }
        found.is_some()
    }

    /// The value of the first of `choices` that is there; takes it.
    pub fn choose<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        let at = self.list.iter().position(|word| choices.iter().any(|(name, _)| name == word))?;
        let word = self.list.remove(at);
        choices.iter().find(|(name, _)| *name == word).map(|&(_, value)| value)
    }

    /// As `choose`, where one of the words has to be there.
    pub fn require<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T, PtxError> {
        match self.choose(choices) {
            Some(value) => Ok(value),
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("`.{name}`")).collect();
                self.error(format!("`{}` is implemented with one of {} only", self.root, names.join(", ")))
            }
        }
    }

    /// The first type that is named; takes it.
    pub fn ty(&mut self) -> Result<Type, PtxError> {
        match self.optional_type() {
            Some(ty) => Ok(ty),
            None => self.error(format!("`{}` without a type that the emulator knows", self.root)),
        }
    }

    /// The last type that is named, which stays.
    pub fn last_type(&self) -> Option<Type> {
        self.list.iter().rev().find_map(|word| Type::parse(word))
    }

    /// Takes all the words of `known` that are there.
    pub fn drop_known(&mut self, known: &[&str]) {
        self.list.retain(|word| !known.contains(word));
    }

    pub fn optional_type(&mut self) -> Option<Type> {
        let at = self.list.iter().position(|word| Type::parse(word).is_some())?;
        Type::parse(self.list.remove(at))
    }

    /// `.ftz`, `.sat` and the rounding of a float operation.
    pub fn float_mode(&mut self) -> FloatMode {
        FloatMode {
            rounding: self
                .choose(&[
                    ("rn", Rounding::NearestEven),
                    ("rz", Rounding::TowardZero),
                    ("rm", Rounding::Down),
                    ("rp", Rounding::Up),
                ])
                .unwrap_or(Rounding::NearestEven),
            subnormals: self.subnormals(),
            saturate: if self.flag("sat") { Saturate::Unit } else { Saturate::No },
        }
    }

    pub fn subnormals(&mut self) -> Subnormals {
        if self.flag("ftz") { Subnormals::Flush } else { Subnormals::Keep }
    }

    /// Takes every word that starts with one of the prefixes: hints that change no value.
    pub fn drop_hints(&mut self, prefixes: &[&str]) {
        self.list.retain(|word| !prefixes.iter().any(|prefix| word.starts_with(prefix)));
    }

    /// Checks that nothing is left over.
    pub fn finish(&self) -> Result<(), PtxError> {
        match self.list.first() {
            None => Ok(()),
            Some(word) => self.error(format!("the modifier `.{word}` is not implemented")),
        }
    }
}
