//! Rotary embeddings in config.json: `rope_theta` and `rope_scaling` (transformers 4), or both as
//! `rope_parameters` (transformers 5).

use super::fields::{Fields, shown};
use serde_json::{Map, Value};

/// How rotation angles follow from positions. The formulas are in [`crate::blocks::rope`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// What stretches them to longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear {
        /// Positions are divided by it.
        factor: f64,
    },
    /// Low frequencies by a factor, high ones not at all, with a ramp between (Llama 3.1).
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Wavelengths longer than `original_positions / low_frequency_factor` are stretched fully.
        low_frequency_factor: f64,
        /// Wavelengths shorter than `original_positions / high_frequency_factor` are not stretched.
        high_frequency_factor: f64,
        /// Positions that the model was first trained for.
        original_positions: f64,
    },
}

/// The default of every architecture that is known so far.
const DEFAULT_THETA: f64 = 10000.0;

/// Types that are known, as messages list them.
const KNOWN_TYPES: &str = "default, linear, llama3";

/// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`.
pub fn parse(fields: &Fields<'_>) -> RopeConfig {
    let outer_theta = fields.positive("rope_theta");
    let (parameters, scaling) = (fields.object("rope_parameters"), fields.object("rope_scaling"));
    let (name, object) = match (parameters, scaling) {
        (Some(parameters), Some(scaling)) if parameters != scaling => {
            fields.problem("rope_parameters", "and rope_scaling are both there and differ; keep one of them");
            ("rope_parameters", parameters)
        }
        (Some(parameters), _) => ("rope_parameters", parameters),
        (None, Some(scaling)) => ("rope_scaling", scaling),
        (None, None) => {
            return RopeConfig { theta: outer_theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::None };
        }
    };
    let part = Fields::new(object, &format!("{name}."));
    let inner_theta = part.positive("rope_theta");
    if let (Some(inner), Some(outer)) = (inner_theta, outer_theta)
        && inner != outer
    {
        part.problem("rope_theta", format_args!("= {inner} contradicts rope_theta = {outer}; keep one of them"));
    }
    let theta = inner_theta.or(outer_theta).unwrap_or(DEFAULT_THETA);
    let scaling = scaling_of(&part, object, fields);
    for unread in part.unread(&[]) {
        fields.problem(&unread, "is not understood for this rope type; remove it if it has no effect");
    }
    fields.absorb(part);
    RopeConfig { theta, scaling }
}

fn scaling_of(part: &Fields<'_>, object: &Map<String, Value>, outer: &Fields<'_>) -> RopeScaling {
    if !object.is_empty() && object.values().all(Value::is_object) {
        let kinds: Vec<_> = object.keys().inspect(|kind| _ = part.raw(kind)).map(String::as_str).collect();
        part.problem(
            kinds[0],
            format_args!("is an object: frequencies per layer type ({}) are not supported", kinds.join(", ")),
        );
        return RopeScaling::None;
    }
    let (modern, classic) = (part.text("rope_type"), part.text("type"));
    if let (Some(modern), Some(classic)) = (modern, classic)
        && modern != classic
    {
        part.problem("type", format_args!("= `{classic}` contradicts rope_type = `{modern}`; keep one of them"));
    }
    let required = |name: &str| {
        if part.value(name).is_none() {
            part.missing(name);
        }
        part.positive(name).unwrap_or(1.0)
    };
    part.only_without_effect("partial_rotary_factor", &[1.0.into()]);
    match modern.or(classic).unwrap_or("default") {
        "default" => {
            part.only_without_effect("factor", &[1.0.into()]);
            RopeScaling::None
        }
        "linear" => RopeScaling::Linear { factor: required("factor") },
        "llama3" => {
            let factor = required("factor");
            let (low, high) = (required("low_freq_factor"), required("high_freq_factor"));
            let mut original = part.positive("original_max_position_embeddings");
            original = original.or_else(|| outer.positive("original_max_position_embeddings"));
            if original.is_none() && part.value("original_max_position_embeddings").is_none() {
                part.missing("original_max_position_embeddings");
            }
            if part.value("low_freq_factor").is_some() && part.value("high_freq_factor").is_some() && low >= high {
                part.problem("high_freq_factor", format_args!("= {high} must be larger than low_freq_factor = {low}"));
            }
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_positions: original.unwrap_or(1.0),
            }
        }
        other => {
            let unknown = shown(&Value::from(other));
            part.problem("rope_type", format_args!("= {unknown} is not supported; the known types are {KNOWN_TYPES}"));
            for name in object.keys() {
                part.raw(name);
            }
            RopeScaling::None
        }
    }
}
