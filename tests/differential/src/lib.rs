//! Compiled code beside the interpreter: the net under every kernel.
//!
//! A [`case::Case`] is a module with weights. [`check::check`] runs it through the real pass pipeline and code
//! generator, loads the shared object, and runs steps on real threads; PTX runs on the emulator.
//! The logits, and the KV cache, must lie in what
//! [`enclosure`] computes: for every element the interval of all values that correctly rounded code can produce,
//! whatever order it sums in. So a bound is never guessed: it follows from the operations, the lengths of the sums and
//! the documented errors of the elementary functions, and where no freedom is left the bits must match.
//!
//! | file | idea |
//! |---|---|
//! | `case`      | a module, its weights, and how it is compiled |
//! | `cases`     | those that several tests share |
//! | `wrap`      | a random function as a module |
//! | `check`     | everything that must hold of a compiled case |
//! | `trial`     | one step on one program, with what its results are compared with |
//! | `compiled`  | a compiled case in memory, run on threads |
//! | `device`    | a case compiled to PTX, run on the emulator |
//! | `pool`      | the KV cache in memory, by its documented layout |
//! | `guarded`   | memory that notices who reads or writes beyond it |
//! | `enclosure` | the interpreter on intervals |
//! | `targets`   | CPU levels that this machine can run |

pub mod case;
pub mod cases;
pub mod check;
pub mod compiled;
pub mod device;
pub mod enclosure;
pub mod guarded;
pub mod pool;
pub mod targets;
pub mod trial;
pub mod wrap;
