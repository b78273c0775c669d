//! A `libcuda.so` whose GPU is the PTX emulator: the same programs, the same calls, and no hardware. For tests only.
//!
//! It has the entry points of the CUDA driver that the `cudarc` crate calls in its `driver` module for contexts, memory,
//! streams, events, modules, launches and graphs. The tour:
//!
//! 1. `entry` holds the C functions. Each reads its arguments and calls the one `driver::Driver` of the process.
//! 2. `driver` is what a driver keeps: device memory, modules, streams, graphs, and the error that ends them all.
//! 3. `settings` says which device there is and what goes wrong on it, from the environment.
//! 4. `counts` adds up what kernels did, for a file that is written when the process ends.
//!
//! Work is done when it is handed over, not later; what goes wrong in it is reported by the calls after it, as on a GPU,
//! and on stderr in the emulator's words.
//!
//! It is never found by accident: its file has another name and becomes `libcuda.so` only in a directory that
//! `./x fake-gpu` or a test puts on the search path of one process.

#![allow(non_snake_case, reason = "the functions have the names of the driver's")]

mod counts;
mod driver;
mod entry;
mod settings;
mod status;
