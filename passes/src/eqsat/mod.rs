//! Equality saturation: what to compute is chosen per program, by price.
//!
//! Each function is saturated once ([`mod@saturate`]): its e-graph ([`language`], [`analysis`]) comes to hold every form
//! that the [`rules`] reach. Programs that share a function share the e-graph; for each, the cheapest form at its typical
//! sizes on the machine that it is for ([`cost`]) is extracted ([`mod@extract`]). [`explain`] prints what was chosen and why,
//! [`compare`] for several steps side by side.
//!
//! ```text
//! function of the specialised module ──saturate──▶ e-graph ──extract for decode──▶ function of decode
//!                                                      └─────extract for prefill─▶ function of prefill
//! ```

pub mod analysis;
pub mod compare;
pub mod cost;
pub mod explain;
pub mod extract;
pub mod form;
pub mod language;
pub mod rule;
pub mod rules;
pub mod saturate;
#[cfg(test)]
mod tests;

use crate::canonicalize::sweep;
use crate::pass::{Context, State};
use cost::Target;
use form::form_cost;
use llmc_ir::module::Function;
use llmc_ir::text::function_text;
use rule::Rule;
use saturate::{Saturated, Stop, saturate};

/// The pass: the cheapest form of every function, program by program.
pub fn eqsat(state: State, context: &Context) -> Result<State, String> {
    let State::Programs(mut programs) = state else {
        return Err(format!("it takes specialised modules, found {}; run `specialize` first", state.kind()));
    };
    let rules = rules::selected(&context.families, context.numerics, context.invariance, &context.machines);
    let mut known: Vec<(String, Saturated)> = Vec::new();
    for program in &mut programs {
        let target = Target::of(context.machines.of(program.processor)?, &program.bounds);
        for function in &mut program.module.functions {
            let saturated = saturated(&mut known, function, &rules, context)?;
            *function = best_form(saturated, function, &target)?;
        }
    }
    Ok(State::Programs(programs))
}

/// The e-graph of a function; equal functions of several programs share one, found by the function's text.
fn saturated<'k>(
    known: &'k mut Vec<(String, Saturated)>,
    function: &Function,
    rules: &[Rule],
    context: &Context,
) -> Result<&'k Saturated, String> {
    let text = function_text(function);
    let index = match known.iter().position(|(other, _)| *other == text) {
        Some(index) => index,
        None => {
            let saturated = saturate(function, rules)?;
            if saturated.statistics.stop != Stop::Saturated {
                context.notes.borrow_mut().push(format!(
                    "equality saturation of @{} {}: forms may be missing; with fewer families of rules (--without) it may end",
                    function.name, saturated.statistics.stop
                ));
            }
            known.push((text, saturated));
            known.len() - 1
        }
    };
    Ok(&known[index].1)
}

/// The cheapest form, or the function's own where that is hardly worse. Either way nodes come in the order in which
/// results need them, which is the same however the function came into being.
///
/// # Errors
/// If extraction fails, which a saturated function cannot cause.
pub fn best_form(saturated: &Saturated, function: &Function, target: &Target<'_>) -> Result<Function, String> {
    let own = saturate(function, &[])?;
    let mut own = extract::function(&own, &extract::extract(&own, target)?)?;
    let mut cheapest = extract::function(saturated, &extract::extract(saturated, target)?)?;
    sweep(&mut own)?;
    sweep(&mut cheapest)?;
    let better = form_cost(&cheapest, target).is_better_than(&form_cost(&own, target));
    Ok(if better { cheapest } else { own })
}
