//! Instruments: what looks at the state between passes, and the report of a run.
//!
//! | file | idea |
//! |---|---|
//! | `report` | time and size of everything that ran; times add up to the wall clock |
//! | `verify` | names the pass that broke the state |
//! | `dump`   | one text file per pass |

mod dump;
mod report;
mod verify;

use crate::pass::{Pass, State};
use std::fmt;

pub use dump::Dump;
pub use report::{PassReport, Report, Statistics, Stopwatch};
pub use verify::Verify;

/// Something that looks at the state between passes. It cannot change the result, only stop the run.
pub trait Instrument {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Called before the first pass and after each one. An error stops the pipeline.
    fn observe(&mut self, moment: Moment<'_>, state: &State) -> Result<(), String>;
}

/// When an instrument is called.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// Before the first pass.
    Start,
    /// After a pass.
    After {
        /// Position in the run, from 1.
        number: usize,
        /// The pass.
        pass: &'a Pass,
    },
}

impl fmt::Display for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Start => f.write_str("before the first pass"),
            Moment::After { pass, .. } => write!(f, "after pass `{}`", pass.name),
        }
    }
}
