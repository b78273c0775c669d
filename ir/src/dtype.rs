//! Element types of tensors.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The element type of a tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of a binary32 (8 exponent bits, 7 fraction bits).
    BF16,
    /// IEEE 754 binary16.
    F16,
    /// Two's complement 32-bit integer: token ids, positions, slots.
    I32,
    /// Result of a comparison; one byte in memory, 0 or 1.
    Bool,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 5] = [DType::F32, DType::BF16, DType::F16, DType::I32, DType::Bool];

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
            DType::Bool => 1,
        }
    }

    /// Whether values of this type are real numbers.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::F16)
    }

    /// The name used in the text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::Bool => "bool",
        }
    }

    /// Rounds a value to the nearest one that this type can hold (ties to even; I32 saturates;
    /// Bool is 1 for every value but 0).
    pub fn round(self, value: f64) -> f64 {
        match self {
            DType::F32 => f64::from(value as f32),
            DType::BF16 => f64::from(bf16::from_f32(round_to_odd_f32(value)).to_f32()),
            DType::F16 => f64::from(f16::from_f32(round_to_odd_f32(value)).to_f32()),
            DType::I32 => f64::from(value as i32),
            DType::Bool => f64::from(u8::from(value != 0.0)),
        }
    }
}

/// Converts to f32 such that a second rounding to a narrower type gives the same result as one
/// rounding from f64 would (round to odd; Boldo and Melquiond, "Emulation of FMA and correctly
/// rounded sums", 2008).
fn round_to_odd_f32(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let toward_larger_magnitude = value.abs() > back.abs();
    let bits = nearest.to_bits();
    f32::from_bits(if toward_larger_magnitude { bits + 1 } else { bits.wrapping_sub(1) })
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DType::ALL.into_iter().find(|d| d.name() == text).ok_or_else(|| {
            let known: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
            format!("unknown element type `{text}`, expected one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
        }
        assert!("f64".parse::<DType>().unwrap_err().contains("bf16"));
    }

    #[test]
    fn rounding_happens_once() {
        // Just above the tie between 1 and 1 + 2^-7: a first rounding to f32 would make it a tie.
        let above_tie = 1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -40);
        assert_eq!(DType::BF16.round(above_tie), 1.0 + f64::powi(2.0, -7));
        assert_eq!(DType::BF16.round(1.0 + f64::powi(2.0, -8)), 1.0);
        assert_eq!(DType::F16.round(65520.0), f64::INFINITY);
        assert_eq!(DType::I32.round(-3.7), -3.0);
        assert!(DType::F32.round(f64::NAN).is_nan());
    }
}
