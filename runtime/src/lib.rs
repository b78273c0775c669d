//! Empty so far.
pub mod sampler;
