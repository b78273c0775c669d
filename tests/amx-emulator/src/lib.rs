//! AMX in software: executes the tile instructions that this CPU lacks, where they trap. For tests only.
//!
//! A CPU without AMX raises SIGILL at a tile instruction. [`provide`] installs a handler that decodes the instruction
//! (`decode`), executes it on tiles that each thread has of its own (`tiles`, with the arithmetic in `products`), and
//! lets the program go on behind it (`signal`). What the manual says raises an exception ends the process with a sentence
//! about it. Any other illegal instruction stays what it is.
//!
//! On a CPU that has AMX nothing is emulated: [`provide`] asks the system for the tile registers and says so, and the same tests
//! test the hardware.

mod decode;
mod products;
mod signal;
mod tiles;

pub use decode::{Instruction, decode};
pub use signal::{Unit, count_products, provide, unit};
pub use tiles::Tiles;
