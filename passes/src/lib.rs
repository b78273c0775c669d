//! llmc-passes: how a graph gets better.

pub mod buffers;
pub mod canonicalize;
pub mod eqsat;
pub mod fuse;
pub mod hoist;
pub mod instrument;
pub mod pack;
pub mod pass;
pub mod phase;
pub mod pipeline;
pub mod plan;
mod rebuild;
pub mod specialize;
