//! The interpreter on intervals: for every element the values that compiled code can legitimately produce.
//!
//! Compiled code computes in f32 and rounds to bf16 where the types say. What that leaves open, and what an interval
//! must therefore hold, is:
//!
//! * Sums and dots: the order of additions, and whether a multiply-add rounds once or twice. Any order of n terms stays
//!   within `n u / (1 - n u)` times the sum of the terms' magnitudes, `u = 2^-24` (Higham, "Accuracy and Stability of
//!   Numerical Algorithms", 2002, section 4.2).
//! * Products in block floating point: whether code takes them at all, and which power of two a block has where its elements are
//!   not known.
//! * Elementary functions: the errors in [`error`].
//! * In attention on matrix units, positions' weights are bf16, or sums of two ([`error::PositionWeights`]).
//! * Nothing else. Adding, multiplying, dividing, comparing and moving elements is exact to the last bit, so an interval
//!   that was one point stays one. (Rounding the f32 result of such an operation on bf16 operands to bf16 is the same as
//!   rounding once, since 24 >= 2 * 8 + 2; Figueroa, "When is double rounding innocuous?", 1995.)
//!
//! Rounding is monotone, so the image of an interval under it is spanned by its rounded ends: an element whose interval
//! lies between two neighbouring ties to bf16 becomes one point again, and only one that holds a tie may come out as
//! either neighbour. This is why chains of bf16 operations do not drown in their own bounds.
//!
//! Intervals are computed in f64, whose own rounding is negligible (`FUZZ`).

pub mod error;
mod graph;
pub mod noise;
mod ops;

use graph::Environment;
use llmc_ir::dtype::DType;
use llmc_ir::eval::{KvCache, StepInputs, Tensor};
use llmc_ir::module::{Argument, LOGITS, Module};
use std::collections::BTreeMap;

/// What intervals are widened by, relative to the magnitudes that went into them, for being computed in f64.
const FUZZ: f64 = 1e-12;

/// An interval per element.
#[derive(Clone, Debug, PartialEq)]
pub struct Enclosure {
    /// Element type.
    pub dtype: DType,
    /// Size of each axis.
    pub sizes: Vec<usize>,
    /// The smallest values, row-major.
    pub low: Vec<f64>,
    /// The largest values.
    pub high: Vec<f64>,
}

/// The KV cache of one layer: ends of intervals.
#[derive(Clone, Debug, Default)]
pub struct EnclosedCache {
    /// The smallest keys and values.
    pub low: KvCache,
    /// The largest ones.
    pub high: KvCache,
}

/// The KV caches of all layers; kept from step to step.
pub type State = BTreeMap<usize, EnclosedCache>;

/// A value of the interpreter.
#[derive(Clone, Debug)]
pub(crate) enum Enclosed {
    Tensor(Enclosure),
    Kv(EnclosedCache),
}

impl Enclosure {
    /// One point per element.
    pub fn exact(tensor: &Tensor) -> Enclosure {
        let data = tensor.data().to_vec();
        Enclosure { dtype: tensor.dtype(), sizes: tensor.sizes().to_vec(), low: data.clone(), high: data }
    }

    /// Whether every interval is one point.
    pub fn is_exact(&self) -> bool {
        self.low == self.high
    }

    /// The elements that are outside of their intervals, NaN included: position, value, interval.
    pub fn violations(&self, values: &[f64]) -> Vec<(usize, f64, f64, f64)> {
        assert_eq!(values.len(), self.low.len(), "as many values as intervals");
        let ends = self.low.iter().zip(&self.high);
        let all = values.iter().zip(ends).enumerate().map(|(at, (&value, (&low, &high)))| (at, value, low, high));
        all.filter(|&(_, value, low, high)| !(low <= value && value <= high)).collect()
    }

    /// The mean width of the intervals, relative to the mean magnitude of the values: how much the comparison can miss.
    pub fn looseness(&self) -> f64 {
        let width: f64 = self.low.iter().zip(&self.high).map(|(low, high)| high - low).sum();
        let magnitude: f64 = self.low.iter().zip(&self.high).map(|(low, high)| low.abs().max(high.abs())).sum();
        if width == 0.0 { 0.0 } else { width / magnitude }
    }
}

/// Runs a step of a module: what its logits and the caches behind it can be. `attention_weights` is what
/// attention multiplies values with.
///
/// # Errors
/// What the interpreter says about operations, and what intervals cannot do, such as a division by one that holds 0.
pub fn enclose_module(
    module: &Module,
    weights: &BTreeMap<String, Tensor>,
    state: &mut State,
    step: &StepInputs,
    attention_weights: error::PositionWeights,
) -> Result<Enclosure, String> {
    let mut values: BTreeMap<&str, Enclosed> = BTreeMap::new();
    for call in &module.calls {
        let function = module.function(&call.function).ok_or_else(|| format!("no function @{}", call.function))?;
        let mut args = Vec::new();
        for argument in &call.arguments {
            args.push(match argument {
                Argument::Kv(layer) => Enclosed::Kv(state.remove(layer).unwrap_or_default()),
                Argument::Value(name) => values[name.as_str()].clone(),
            });
        }
        let weights = |name: &str| weights.get(&Module::weight_key(&call.scope, name)).cloned();
        let environment = Environment { step, weights: &weights, mode: error::Mode::Elementwise, attention_weights };
        let (results, caches) = graph::run_function(function, args, &environment)?;
        values.extend(call.results.iter().map(String::as_str).zip(results));
        for (argument, cache) in call.arguments.iter().zip(caches) {
            if let (Argument::Kv(layer), Some(cache)) = (argument, cache) {
                state.insert(*layer, cache);
            }
        }
    }
    match values.remove(LOGITS) {
        Some(Enclosed::Tensor(logits)) => Ok(logits),
        _ => Err("no call made the logits".into()),
    }
}
