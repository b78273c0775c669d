//! Empty so far.
pub mod chat;
pub mod sampler;
pub mod tokenizer;
