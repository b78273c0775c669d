//! Empty so far.
pub mod checkpoint;
