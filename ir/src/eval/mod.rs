//! The reference interpreter: what every phase of compilation is compared with. Written to be obviously right
//! first and fast enough for tests second.
//!
//! Functions, regions and modules of every phase can be run; values are tensors of f64, rounded after each
//! operation where the mode says so. State (the KV cache) is a value: arguments go in as they were before the
//! step and come back as they are after it.

mod fused;
mod graph;
mod module;
mod ops;
mod step;
mod strided;
#[cfg(test)]
mod tests;
mod value;

pub use fused::{eval_fused_function, eval_fused_module, eval_region};
pub use module::{eval_function, eval_module};
pub use step::StepInputs;
pub use value::{KvCache, KvState, Tensor, Value};

/// How much the interpreter rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each operation's result is rounded to its element type; sums and dots accumulate in f64 and round once.
    /// The oracle for compiled code.
    AsTyped,
    /// Float types are ignored: everything stays f64. The oracle for rewrites.
    Wide,
}

/// Where the interpreter finds weights: by the name in the function, or by checkpoint key for a module.
pub type Weights<'a> = dyn Fn(&str) -> Option<Tensor> + 'a;

/// Why something cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct EvalError {
    /// The function, region or node (by its printed name) where evaluation stopped; several, outermost first.
    pub place: String,
    /// What was found, what was expected, and what to do.
    pub message: String,
}

impl EvalError {
    fn new(place: impl Into<String>, message: impl Into<String>) -> EvalError {
        EvalError { place: place.into(), message: message.into() }
    }

    fn within(self, outer: &str) -> EvalError {
        EvalError { place: format!("{outer}, {}", self.place), message: self.message }
    }
}
