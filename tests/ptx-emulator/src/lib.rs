//! A GPU in software: runs PTX, checks every access, and counts what a launch costs. For tests only.
//!
//! The tour, from text to counts:
//!
//! 1. [`Module::parse`] turns text into kernels: `lexer` makes tokens, `parse` resolves names and checks types, `instruction` holds the
//!    typed result, and `flow` finds where diverged lanes meet again. What the emulator does not know is an error with its line.
//! 2. [`Memory`] is the device's memory: allocations with a mark (`shadow`) on every byte that was written.
//! 3. [`launch()`] runs a kernel over a grid. Inside `exec`, `step` issues a warp's instructions; `warp` holds its registers, 32 lanes each;
//!    `shared` is the block's shared memory with its race detector; `barrier` lets warps wait for each other; the other files hold one
//!    family of instructions each, with the arithmetic of formats in `numeric` and of roundings in `exact`.
//! 4. A defect ends the launch with a [`Fault`] that names kernel, line, block, warp and lane; a launch that ends well returns its
//!    [`Counters`].
//! 5. [`mutate`] plants defects in PTX, to see whether whoever checks kernels finds them.
//!
//! Blocks run one after the other and warps in turns, so every run of a launch is the same. What only timing could show on hardware is
//! found by other means: races by vector clocks, missing waits by letting `cp.async` land at the wait and not before.

mod counters;
mod error;
mod exact;
mod exec;
mod flow;
mod instruction;
mod launch;
mod lexer;
mod memory;
mod module;
pub mod mutate;
mod numeric;
mod parse;
mod shadow;

pub use counters::{Counters, Traffic, Wavefronts};
pub use error::{Fault, FaultKind, LaunchError, PtxError, Space};
pub use launch::{Argument, BlockOrder, LaunchConfig, launch};
pub use memory::{Memory, MemoryError};
pub use module::{Kernel, Module};
