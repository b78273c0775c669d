//! llmc-ir: what a model is.

pub mod abi;
pub mod builder;
pub mod decompose;
pub mod dim;
pub mod dtype;
pub mod eval;
pub mod graph;
pub mod infer;
pub mod machine;
pub mod module;
pub mod op;
pub mod plan;
pub mod region;
pub mod shape;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod verify;
