//! llmc-limits: what this machine can do at most, measured by loops of a few instructions.
//!
//! `llmc calibrate` describes the machine to the cost model with it, `llmrt bench` puts a floor under what it measures.
//!
//! | file | idea |
//! |---|---|
//! | `kernels` | the loops, by what they need of the CPU |
//! | `team` | threads that start together, and meet |
//! | `median` | what counts of several measurements |
//! | `buffer`, `hardware`, `memory` | memory to read, and what the system says of the machine and of what is free |

mod buffer;
mod hardware;
mod kernels;
mod median;
mod memory;
mod team;

pub use buffer::{buffer, shares};
pub use hardware::Hardware;
pub use kernels::{Kernel, Limit, Line, TILES, available};
pub use median::median;
pub use memory::free_memory;
pub use team::{Meeting, together};
