//! How a GGUF file stretches its rotary embedding, in the terms of `config.json`.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::error::{Problem, malformed, unsupported};
use super::metadata::required;
use super::quant::TensorType;
use super::reader::Gguf;

/// The base of the rotation frequencies where the file does not name one.
pub(super) const DEFAULT_THETA: f64 = 10_000.0;
/// The tensor in which a converter leaves the frequency divisors of Llama 3.1 and later.
pub(super) const FACTORS_TENSOR: &str = "rope_freqs.weight";

/// Stored divisors may differ this much, relatively, from the formula's: they were computed in single precision.
const FACTOR_TOLERANCE: f64 = 1e-4;
/// The band of wavelengths that Llama 3 blends: it has only ever been published with these two values.
const LOW_FREQUENCY_FACTOR: f64 = 1.0;
const HIGH_FREQUENCY_FACTOR: f64 = 4.0;
/// Factors and original contexts of the published models; tried after what the tensor itself suggests.
const PUBLISHED_FACTORS: [f64; 2] = [8.0, 32.0];
const PUBLISHED_CONTEXT: usize = 8192;

/// A context extension.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RopeScaling {
    /// All positions divided by a factor.
    Linear { factor: f64 },
    /// Frequencies blended by wavelength, with a softmax temperature.
    Yarn { factor: f64, original_context: usize },
    /// Frequencies blended by wavelength, as in Llama 3.1.
    Llama3 { factor: f64, original_context: usize },
}

impl RopeScaling {
    /// The value of `rope_scaling` in `config.json`.
    pub(super) fn to_json(&self) -> Value {
        match *self {
            RopeScaling::Linear { factor } => json!({ "factor": factor, "rope_type": "linear" }),
            RopeScaling::Yarn { factor, original_context } => json!({
                "factor": factor,
                "original_max_position_embeddings": original_context,
                "rope_type": "yarn",
            }),
            RopeScaling::Llama3 { factor, original_context } => json!({
                "factor": factor,
                "high_freq_factor": HIGH_FREQUENCY_FACTOR,
                "low_freq_factor": LOW_FREQUENCY_FACTOR,
                "original_max_position_embeddings": original_context,
                "rope_type": "llama3",
            }),
        }
    }
}

/// The scaling that metadata and tensors state, if any.
pub(super) fn scaling(
    gguf: &Gguf<'_>,
    prefix: &str,
    head_dim: usize,
    theta: f64,
) -> Result<Option<RopeScaling>, Problem> {
    if theta <= 1.0 {
        return malformed(format!("{prefix}.rope.freq_base should be greater than one, but is {theta}"));
    }
    let from_metadata = from_metadata(gguf, prefix)?;
    let Some(tensor) = gguf.tensors.iter().find(|tensor| tensor.name == FACTORS_TENSOR) else {
        return Ok(from_metadata);
    };
    if let Some(other) = from_metadata {
        return unsupported(
            format!("it has both {FACTORS_TENSOR} and the rope scaling {other:?}"),
            "use a file with one kind of rope scaling",
        );
    }
    if tensor.kind != TensorType::F32 || tensor.shape != [head_dim / 2] {
        return malformed(format!(
            "{FACTORS_TENSOR} should hold {} F32 values, but has type {} and shape {:?}",
            head_dim / 2,
            tensor.kind,
            tensor.shape
        ));
    }
    let mut factors = Vec::new();
    tensor.kind.dequantize(tensor.bytes, &mut factors);
    from_factors(&factors, theta)
}

fn from_metadata(gguf: &Gguf<'_>, prefix: &str) -> Result<Option<RopeScaling>, Problem> {
    let metadata = &gguf.metadata;
    let kind = metadata.text(&format!("{prefix}.rope.scaling.type"))?;
    let factor_key = format!("{prefix}.rope.scaling.factor");
    let factor = match metadata.number(&factor_key)? {
        Some(factor) => Some(factor),
        None => metadata.number(&format!("{prefix}.rope.scale_linear"))?,
    };
    if let Some(factor) = factor.filter(|&factor| factor < 1.0) {
        return malformed(format!("the rope scaling factor should be at least one, but is {factor}"));
    }
    match kind {
        Some("none") => Ok(None),
        // A factor without a type is linear, as in llama.cpp.
        None | Some("linear") => {
            Ok(factor.filter(|&factor| factor != 1.0).map(|factor| RopeScaling::Linear { factor }))
        }
        Some("yarn") => {
            let context_key = format!("{prefix}.rope.scaling.original_context_length");
            Ok(Some(RopeScaling::Yarn {
                factor: required(factor, &factor_key)?,
                original_context: required(metadata.unsigned(&context_key)?, &context_key)?,
            }))
        }
        Some(other) => unsupported(
            format!("its rope scaling is of type {other}"),
            "use a file with linear, yarn or llama3 scaling, or none",
        ),
    }
}

/// Finds the Llama 3 parameters that give these divisors.
fn from_factors(factors: &[f32], theta: f64) -> Result<Option<RopeScaling>, Problem> {
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(None);
    }
    // The slowest frequencies are divided by the whole factor.
    let largest = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let contexts = std::iter::once(PUBLISHED_CONTEXT).chain((8..=20).map(|exponent| 1 << exponent));
    for original_context in contexts {
        for factor in PUBLISHED_FACTORS.into_iter().chain([largest]) {
            let matches = factors.iter().enumerate().all(|(i, &stored)| {
                let exact = llama3_divisor(theta.powf(-(i as f64) / factors.len() as f64), factor, original_context);
                (f64::from(stored) - exact).abs() <= FACTOR_TOLERANCE * exact
            });
            if matches {
                return Ok(Some(RopeScaling::Llama3 { factor, original_context }));
            }
        }
    }
    unsupported(
        format!("{FACTORS_TENSOR} does not follow Llama 3's rule with low and high frequency factors of 1 and 4"),
        "get the model in its original Hugging Face form instead",
    )
}

/// By how much Llama 3 divides a frequency (radians per position): by 1 for short wavelengths, by `factor` for long ones,
/// and by a blend between. Source: `_compute_llama3_parameters` of transformers.
fn llama3_divisor(frequency: f64, factor: f64, original_context: usize) -> f64 {
    let wavelengths = original_context as f64 * frequency / TAU;
    if wavelengths > HIGH_FREQUENCY_FACTOR {
        1.0
    } else if wavelengths < LOW_FREQUENCY_FACTOR {
        factor
    } else {
        let blend = (wavelengths - LOW_FREQUENCY_FACTOR) / (HIGH_FREQUENCY_FACTOR - LOW_FREQUENCY_FACTOR);
        1.0 / ((1.0 - blend) / factor + blend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisors(theta: f64, factor: f64, context: usize) -> Vec<f32> {
        (0..64).map(|i| llama3_divisor(theta.powf(-f64::from(i) / 64.0), factor, context) as f32).collect()
    }

    #[test]
    fn the_published_parameters_are_found_again() {
        for (factor, original_context) in [(8.0, 8192), (32.0, 8192), (16.0, 4096)] {
            let found = from_factors(&divisors(500_000.0, factor, original_context), 500_000.0);
            assert_eq!(found.expect("they follow the rule"), Some(RopeScaling::Llama3 { factor, original_context }));
        }
        assert_eq!(from_factors(&[1.0; 64], 500_000.0).expect("nothing is scaled"), None);
    }

    #[test]
    fn other_divisors_are_refused() {
        let mut factors = divisors(500_000.0, 8.0, 8192);
        factors[30] *= 1.01;
        assert!(matches!(from_factors(&factors, 500_000.0), Err(Problem::Unsupported(..))));
        assert!(from_factors(&[f32::NAN; 64], 500_000.0).is_err());
    }
}
