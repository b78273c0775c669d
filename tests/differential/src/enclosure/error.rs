//! How far operations of compiled code may be from the correctly rounded result.

use llmc_ir::op::UnaryOp;

/// Half a unit in the last place of f32: the relative error of one rounding.
pub const UNIT: f64 = 5.960_464_477_539_063e-8;

/// The same of bf16.
pub const UNIT_BF16: f64 = 1.0 / 256.0;

/// The smallest normal f32: results below it may become zero.
pub const SMALLEST: f64 = 1.175_494_350_822_287_5e-38;

/// The error of a computed result relative to the true one, in [`UNIT`]s, apart from the final rounding; `None` where
/// the result is correctly rounded. The sweeps over elementary functions hold the code to the same numbers.
pub fn of_function(op: UnaryOp) -> Option<f64> {
    match op {
        UnaryOp::Negate | UnaryOp::Absolute | UnaryOp::Sqrt | UnaryOp::Reciprocal => None,
        // A correctly rounded root, and a division.
        UnaryOp::Rsqrt => Some(1.0),
        UnaryOp::Exp => Some(1.0),
        UnaryOp::Log => Some(3.0),
        // Computed in f64.
        UnaryOp::Sin | UnaryOp::Cos => Some(0.01),
        UnaryOp::Tanh => Some(4.0),
        UnaryOp::Sigmoid => Some(2.0),
    }
}

/// What attention multiplies values with: the weights of positions, as they are or rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionWeights {
    /// As they are.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// As sums of two bf16: the rounded weight, and what rounding lost, rounded.
    TwoBf16,
}

/// Where an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As a node of the module: each operation is an instruction or an elementary function.
    Elementwise,
    /// Inside of attention, whose kernel reaches the same result by other operations: scores are scaled for a base-2
    /// exponential, and weights and sums are relative to a running maximum and rescaled as it grows.
    Attention {
        /// Chunks that the context is taken in at most.
        rescalings: usize,
        /// What values are multiplied with.
        weights: PositionWeights,
    },
}

impl Mode {
    /// Further relative error of a multiplication, in [`UNIT`]s: the scale times log2(e) is rounded, the scores are
    /// multiplied by it, the maximum is subtracted.
    pub fn of_product(self) -> f64 {
        match self {
            Mode::Elementwise => 0.0,
            Mode::Attention { .. } => 4.0,
        }
    }

    /// Further relative error of an exponential, in [`UNIT`]s: each rescaling multiplies by an exponential.
    pub fn of_exponential(self) -> f64 {
        match self {
            Mode::Elementwise => 0.0,
            Mode::Attention { rescalings, weights } => {
                let rounding = match weights {
                    PositionWeights::F32 => 0.0,
                    PositionWeights::Bf16 => UNIT_BF16,
                    PositionWeights::TwoBf16 => UNIT_BF16 * UNIT_BF16,
                };
                8.0 * (rescalings + 1) as f64 + rounding / UNIT
            }
        }
    }
}
