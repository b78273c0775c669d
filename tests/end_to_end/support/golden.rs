//! What an independent implementation computed in float32.

use super::binaries::ids;
use super::models::{fixtures, tiny};
use serde_json::Value;
use std::path::Path;

/// A prompt and its continuation.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What is fed.
    pub ids: Vec<u32>,
    /// The likeliest token again and again.
    pub greedy: Vec<u32>,
    /// How far each of them was ahead of the second, in logits.
    pub margins: Vec<f64>,
    /// What else the file says of it.
    pub json: Value,
}

/// The prompts of a tiny checkpoint; each has the `logits` at its end.
pub fn of_tiny(name: &str) -> Vec<Prompt> {
    let golden = read(&tiny(name).join("golden.json"));
    golden["prompts"].as_array().unwrap().iter().map(|prompt| Prompt::new(prompt, prompt)).collect()
}

/// A file of `tests/fixtures/golden`.
pub fn file(name: &str) -> Value {
    read(&fixtures().join("golden").join(name))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Prompt {
    /// From the object of a prompt and that of its results.
    pub fn new(prompt: &Value, results: &Value) -> Prompt {
        Prompt {
            ids: ids(&prompt["ids"]),
            greedy: ids(&results["greedy"]),
            margins: floats(&results["margins"]),
            json: results.clone(),
        }
    }
}

/// The numbers of a JSON array.
pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Checks generated tokens against the golden ones up to the first that differs, which is legitimate only where the
/// golden margin is not above `margin`: from there on the texts are different.
#[track_caller]
pub fn assert_continues(what: &str, found: &[u32], prompt: &Prompt, margin: f64) {
    assert_eq!(found.len(), prompt.greedy.len(), "{what}");
    let differs = found.iter().zip(&prompt.greedy).position(|(found, golden)| found != golden);
    if let Some(at) = differs {
        assert!(
            prompt.margins[at] <= margin,
            "{what}: token {at} is {}, not {}, although that is ahead by {}",
            found[at],
            prompt.greedy[at],
            prompt.margins[at]
        );
    }
}
