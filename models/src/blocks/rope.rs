//! Rotation frequencies, computed in f32 step by step as the implementations do that models are trained with.

use crate::config::{RopeConfig, RopeScaling};
use llmc_ir::builder::Rope;
use std::f32::consts::PI;

/// The rotary embedding of heads of `head_dim` elements: pair `i` turns by `theta^(-2i/head_dim)` radians per
/// position (Su et al., "RoFormer", 2021, section 3.2.2), stretched as `config.scaling` says.
pub fn rope(config: &RopeConfig, head_dim: usize) -> Rope {
    let exponent = |pair: usize| (2 * pair) as f32 / head_dim as f32;
    let plain = (0..head_dim / 2).map(|pair| 1.0 / (config.theta.powf(f64::from(exponent(pair))) as f32));
    Rope { frequencies: plain.map(|frequency| stretched(frequency, &config.scaling)).collect(), factor: 1.0 }
}

/// One frequency under a scaling.
fn stretched(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::None => frequency,
        // Chen et al., "Extending context window of large language models via positional interpolation", 2023.
        RopeScaling::Linear { factor } => frequency / factor as f32,
        // The rule published with Llama 3.1 (Dubey et al., "The Llama 3 herd of models", 2024): wavelengths above
        // original/low are stretched by the factor, those below original/high are kept, with a linear ramp over
        // original/wavelength between.
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
            let (factor, original) = (factor as f32, original_positions as f32);
            let (low, high) = (low_frequency_factor as f32, high_frequency_factor as f32);
            let wavelength = 2.0 * PI / frequency;
            if wavelength > original / low {
                frequency / factor
            } else if wavelength < original / high {
                frequency
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_fall_from_one_by_equal_ratios() {
        let config = RopeConfig { theta: 10000.0, scaling: RopeScaling::None };
        let frequencies = rope(&config, 8).frequencies;
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{frequencies:?}");
        }
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_stretches_low_ones() {
        let plain = RopeConfig { theta: 500_000.0, scaling: RopeScaling::None };
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        };
        let (plain, scaled) = (rope(&plain, 128), rope(&RopeConfig { scaling, ..plain }, 128));
        let ratios: Vec<f32> = plain.frequencies.iter().zip(&scaled.frequencies).map(|(a, b)| a / b).collect();
        assert!(ratios[..28].iter().all(|&ratio| ratio == 1.0), "{ratios:?}");
        assert!(ratios[36..].iter().all(|&ratio| ratio == 8.0), "{ratios:?}");
        assert!(ratios.is_sorted(), "{ratios:?}");
    }

    #[test]
    fn linear_divides_all() {
        let config = RopeConfig { theta: 10000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        assert_eq!(rope(&config, 4).frequencies[0], 0.25);
    }
}
