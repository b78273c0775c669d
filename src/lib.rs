//! llmc: an ahead-of-time compiler for decoder language models.
//!
//! A compilation goes through these modules, and [`compile::compile`] is the whole of it:
//!
//! 1. [`model`]: a checkpoint's files become a [`model::Model`], checked ([`llmc_models`]);
//! 2. [`compile`]: its module goes through the pass pipeline ([`llmc_passes`]) and becomes native code for each target
//!    ([`llmc_codegen`]);
//! 3. [`package`]: code, packed weights, tokenizer and plan are streamed into one file ([`llmc_artifact`]).
//!
//! [`explain`] goes the way back: from an artifact to what the compiler did and why. [`shapes`] tells the same of a model
//! whose weights are not there.
//!
//! What is cheapest depends on the machine: [`mod@calibrate`] measures this one, and [`machine`] knows which one a name
//! means. Where no price decides, [`mod@tune`] times compiled steps.
//!
//! The binary's commands (`src/commands`) only turn arguments into calls of these, and results into text.

pub mod calibrate;
mod census;
pub mod compile;
pub mod error;
pub mod explain;
pub mod machine;
pub mod model;
pub mod package;
mod recipe;
pub mod shapes;
pub mod tune;
mod weights;
