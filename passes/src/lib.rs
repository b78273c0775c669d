//! llmc-passes: how a graph gets better.

pub mod canonicalize;
pub mod fuse;
pub mod hoist;
pub mod instrument;
pub mod pass;
pub mod phase;
pub mod pipeline;
mod rebuild;
pub mod specialize;
