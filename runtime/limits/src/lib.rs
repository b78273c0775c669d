//! llmc-limits: what this machine can do at most, measured by loops of a few instructions.
//!
//! `llmc calibrate` describes the machine to the cost model with it, `llmrt bench` puts a floor under what it measures.
//!
//! | file | idea |
//! |---|---|
//! | `kernels` | the loops, by what they need of the CPU |
//! | `team` | threads that start together, and meet |
//! | `buffer`, `hardware` | memory to read, and what the system says of the machine |

mod buffer;
mod hardware;
mod kernels;
mod team;

pub use buffer::{buffer, shares};
pub use hardware::Hardware;
pub use kernels::{Kernel, Limit, Line, available};
pub use team::{Meeting, together};
