//! llmc-ir: what a model is.

pub mod abi;
pub mod dim;
pub mod dtype;
pub mod plan;
pub mod shape;
