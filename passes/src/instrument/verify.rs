//! Verification between passes: the first state that is not sound names the pass that broke it.

use super::{Instrument, Moment};
use crate::pass::State;
use crate::plan::check_plan;

/// Stops the run at the first state that breaks a rule of the IR or of plans, with every violation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verify;

impl Instrument for Verify {
    fn name(&self) -> &'static str {
        "verify"
    }

    fn observe(&mut self, _: Moment<'_>, state: &State) -> Result<(), String> {
        let problems = problems(state);
        match &problems[..] {
            [] => Ok(()),
            [one] => Err(one.clone()),
            several => Err(format!("{} problems:\n  {}", several.len(), several.join("\n  "))),
        }
    }
}

/// Every violation.
fn problems(state: &State) -> Vec<String> {
    match (state.document(), state) {
        (Some(document), _) => llmc_ir::verify::verify(&document).iter().map(ToString::to_string).collect(),
        (None, State::Planned(planned)) => check_plan(planned),
        (None, _) => Vec::new(),
    }
}
