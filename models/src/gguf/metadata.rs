//! The metadata of a GGUF file: named values, fetched by the type that the caller needs.

use std::collections::BTreeMap;

use super::error::{Problem, malformed};

/// One metadata value, borrowed from the file; integers of all widths are widened.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    /// Fixed-size elements, as they lie in the file.
    Numbers(Scalar, &'a [u8]),
    /// An array of arrays, which no key that is read here uses.
    Nested,
}

/// The fixed-size value types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl Scalar {
    /// Bytes of one value.
    pub(super) fn size(self) -> usize {
        match self {
            Scalar::U8 | Scalar::I8 | Scalar::Bool => 1,
            Scalar::U16 | Scalar::I16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }

    /// Decodes one value from exactly [`size`](Self::size) bytes.
    pub(super) fn decode<'a>(self, bytes: &[u8]) -> Result<Value<'a>, Problem> {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        // Sign extension: move the value's top bit to bit 63 and shift back arithmetically.
        let shift = 64 - 8 * self.size() as u32;
        let signed = ((bits << shift) as i64) >> shift;
        Ok(match self {
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => Value::Unsigned(bits),
            Scalar::I8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => Value::Signed(signed),
            Scalar::F32 => Value::F32(f32::from_bits(bits as u32)),
            Scalar::F64 => Value::F64(f64::from_bits(bits)),
            Scalar::Bool if bits <= 1 => Value::Bool(bits == 1),
            Scalar::Bool => return malformed(format!("a boolean has the value {bits}")),
        })
    }
}

/// All key-value pairs of a file.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a>(BTreeMap<&'a str, Value<'a>>);

impl<'a> Metadata<'a> {
    /// Adds a pair; a key that exists already is an error.
    pub(super) fn insert(&mut self, key: &'a str, value: Value<'a>) -> Result<(), Problem> {
        match self.0.insert(key, value) {
            Some(_) => malformed(format!("the metadata key {key} occurs twice")),
            None => Ok(()),
        }
    }

    /// All keys, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.0.keys().copied()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        self.get(key, "a string", |value| if let Value::Text(text) = value { Some(*text) } else { None })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&[&'a str]>, Problem> {
        self.get(key, "an array of strings", |value| {
            if let Value::Texts(texts) = value { Some(texts.as_slice()) } else { None }
        })
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Problem> {
        self.get(key, "a boolean", |value| if let Value::Bool(value) = value { Some(*value) } else { None })
    }

    pub(super) fn unsigned(&self, key: &str) -> Result<Option<usize>, Problem> {
        self.get(key, "a non-negative integer", |value| match *value {
            Value::Unsigned(value) => value.try_into().ok(),
            Value::Signed(value) => value.try_into().ok(),
            _ => None,
        })
    }

    /// A finite number. An f32 becomes the f64 with the same shortest decimal form, so that 1e-5 stays 1e-5.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Problem> {
        self.get(key, "a finite number", |value| {
            match *value {
                Value::F32(value) => value.to_string().parse().ok(),
                Value::F64(value) => Some(value),
                Value::Unsigned(value) => Some(value as f64),
                Value::Signed(value) => Some(value as f64),
                _ => None,
            }
            .filter(|value| value.is_finite())
        })
    }

    /// An array of f32.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, Problem> {
        self.get(key, "an array of f32", |value| match value {
            Value::Numbers(Scalar::F32, bytes) => {
                Some(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
            }
            _ => None,
        })
    }

    /// An array of 32-bit integers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, Problem> {
        self.get(key, "an array of 32-bit integers", |value| match value {
            Value::Numbers(Scalar::I32 | Scalar::U32, bytes) => {
                Some(bytes.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b)).collect())
            }
            _ => None,
        })
    }

    fn get<'s, T>(
        &'s self,
        key: &str,
        expected: &str,
        cast: impl FnOnce(&'s Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match cast(value) {
            Some(value) => Ok(Some(value)),
            None => malformed(format!("the metadata key {key} should be {expected}, but is {}", describe(value))),
        }
    }
}

/// Unwraps a value that has to be there.
pub(super) fn required<T>(value: Option<T>, key: &str) -> Result<T, Problem> {
    value.map_or_else(|| malformed(format!("the metadata key {key} is missing")), Ok)
}

fn describe(value: &Value<'_>) -> String {
    match value {
        Value::Unsigned(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Text(_) => "a string".to_string(),
        Value::Texts(texts) => format!("an array of {} strings", texts.len()),
        Value::Numbers(scalar, bytes) => {
            format!("an array of {} values of type {scalar:?}", bytes.len() / scalar.size())
        }
        Value::Nested => "an array of arrays".to_string(),
    }
}
