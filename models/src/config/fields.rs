//! A JSON object read field by field: every mistake is kept, and so is what nobody asked for.

use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The fields of one JSON object.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// What comes before a field's name in messages, such as `rope_scaling.`.
    prefix: String,
    log: RefCell<Log>,
}

/// What reading has shown so far.
#[derive(Debug, Default)]
struct Log {
    missing: Vec<String>,
    problems: Vec<String>,
    seen: BTreeSet<String>,
}

impl<'a> Fields<'a> {
    /// Nothing is read yet.
    pub fn new(object: &'a Map<String, Value>, prefix: &str) -> Fields<'a> {
        Fields { object, prefix: prefix.to_owned(), log: RefCell::default() }
    }

    /// The value, and the field counts as read; `null` is as good as absent.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.raw(name).filter(|value| !value.is_null())
    }

    /// The value, `null` included, and the field counts as read.
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.log.borrow_mut().seen.insert(name.to_owned());
        self.object.get(name)
    }

    /// Notes what is wrong with a field.
    pub fn problem(&self, name: &str, message: impl std::fmt::Display) {
        self.log.borrow_mut().problems.push(format!("{}{name} {message}", self.prefix));
    }

    /// Notes that a field is missing.
    pub fn missing(&self, name: &str) {
        self.log.borrow_mut().missing.push(format!("{}{name}", self.prefix));
    }

    /// A size from 1 to `limit`; absent is fine.
    pub fn size(&self, name: &str, limit: usize) -> Option<usize> {
        let value = self.value(name)?;
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if (1..=limit).contains(&size) => Some(size),
            _ => {
                self.problem(name, format_args!("must be a whole number from 1 to {limit}, found {}", shown(value)));
                None
            }
        }
    }

    /// A size that must be there. Without it the result is 1, which is never looked at: there is a problem.
    pub fn required_size(&self, name: &str, limit: usize) -> usize {
        if self.value(name).is_none() {
            self.missing(name);
        }
        self.size(name, limit).unwrap_or(1)
    }

    /// A number above zero that must be there; 1 if it is not.
    pub fn required_positive(&self, name: &str) -> f64 {
        if self.value(name).is_none() {
            self.missing(name);
        }
        self.positive(name).unwrap_or(1.0)
    }

    /// A number above zero; absent is fine.
    pub fn positive(&self, name: &str) -> Option<f64> {
        let value = self.value(name)?;
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Some(number),
            _ => {
                self.problem(name, format_args!("must be a number above 0, found {}", shown(value)));
                None
            }
        }
    }

    /// `true` or `false`; absent is fine.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        if value.as_bool().is_none() {
            self.problem(name, format_args!("must be true or false, found {}", shown(value)));
        }
        value.as_bool()
    }

    /// A text; absent is fine.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let value = self.value(name)?;
        if value.as_str().is_none() {
            self.problem(name, format_args!("must be a text, found {}", shown(value)));
        }
        value.as_str()
    }

    /// An object; absent is fine.
    pub fn object(&self, name: &str) -> Option<&'a Map<String, Value>> {
        let value = self.value(name)?;
        if value.as_object().is_none() {
            self.problem(name, format_args!("must be an object, found {}", shown(value)));
        }
        value.as_object()
    }

    /// A token id; absent is fine.
    pub fn token(&self, name: &str) -> Option<u32> {
        let value = self.value(name)?;
        let token = token(value);
        if token.is_none() {
            self.problem(name, format_args!("must be a token id, found {}", shown(value)));
        }
        token
    }

    /// One token id or a list of them; absent is an empty list.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let tokens = match value {
            Value::Array(items) => items.iter().map(token).collect(),
            one => token(one).map(|token| vec![token]),
        };
        tokens.unwrap_or_else(|| {
            self.problem(name, format_args!("must be a token id or a list of them, found {}", shown(value)));
            Vec::new()
        })
    }

    /// Notes a problem for each field that is there with another value than those in `without_effect`; for fields
    /// that change what a model computes in a way that is not implemented.
    pub fn only_without_effect(&self, name: &str, without_effect: &[Value]) {
        let Some(value) = self.value(name) else { return };
        let same = |allowed: &Value| allowed == value || (allowed.is_number() && allowed.as_f64() == value.as_f64());
        if !without_effect.iter().any(same) {
            let allowed: Vec<_> = without_effect.iter().map(shown).chain(["null".to_owned()]).collect();
            self.problem(name, format_args!("= {} is not supported; only {} is", shown(value), allowed.join(" or ")));
        }
    }

    /// Fields that nobody has read and that are not in `ignored`.
    pub fn unread(&self, ignored: &[&str]) -> Vec<String> {
        let log = self.log.borrow();
        let unread = self.object.keys().filter(|name| !log.seen.contains(*name) && !ignored.contains(&name.as_str()));
        unread.map(|name| format!("{}{name}", self.prefix)).collect()
    }

    /// Takes over what was found wrong with a part of this object.
    pub fn absorb(&self, part: Fields<'_>) {
        let (mut log, part) = (self.log.borrow_mut(), part.log.into_inner());
        log.missing.extend(part.missing);
        log.problems.extend(part.problems);
    }

    /// Everything that was found wrong: missing fields in one entry, then the rest.
    pub fn into_problems(self) -> Vec<String> {
        let Log { missing, problems, .. } = self.log.into_inner();
        let missing = (!missing.is_empty()).then(|| format!("missing {}", missing.join(", ")));
        missing.into_iter().chain(problems).collect()
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|token| u32::try_from(token).ok()).filter(|&token| token <= i32::MAX as u32)
}

/// A value as messages show it: JSON, shortened.
pub fn shown(value: &Value) -> String {
    const LIMIT: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LIMIT { text } else { text.chars().take(LIMIT).chain("...".chars()).collect() }
}
