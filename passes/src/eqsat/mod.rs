//! Equality saturation: what to compute is chosen per program, by price.
//!
//! Each function is saturated once ([`mod@saturate`]): its e-graph ([`language`], [`analysis`]) comes to hold every form
//! that the [`rules`] reach. Programs that share a function share the e-graph; for each, the cheapest form at its typical
//! sizes on the given machine ([`cost`]) is extracted ([`mod@extract`]). [`explain`] prints what was chosen and why.
//!
//! ```text
//! function of the specialised module ──saturate──▶ e-graph ──extract for decode──▶ function of decode
//!                                                      └─────extract for prefill─▶ function of prefill
//! ```

pub mod analysis;
pub mod cost;
pub mod explain;
pub mod extract;
pub mod language;
pub mod rule;
pub mod rules;
pub mod saturate;
#[cfg(test)]
mod tests;

use crate::canonicalize::sweep;
use crate::pass::{Context, State};
use cost::{Target, typical};
use llmc_ir::module::Function;
use llmc_ir::text::function_text;
use rule::Rule;
use saturate::{Saturated, saturate};

/// The part of a function's time that another form must save to be taken. Prices know bytes, operations and launches; what
/// they do not know (how work divides among threads, where pages lie, how streams of weights begin) is worth more than a
/// smaller gain.
pub const LEAST_GAIN: f64 = 0.01;

/// Whether a form that takes `after` seconds is worth taking over one that takes `before`.
pub fn is_worthwhile(before: f64, after: f64) -> bool {
    after < before * (1.0 - LEAST_GAIN)
}

/// The pass: the cheapest form of every function, program by program.
pub fn eqsat(state: State, context: &Context) -> Result<State, String> {
    let State::Programs(mut programs) = state else {
        return Err(format!("it takes specialised modules, found {}; run `specialize` first", state.kind()));
    };
    let mut rules = rules::rules();
    rules.retain(|rule| context.families.contains(&rule.family));
    let mut known: Vec<(String, Saturated)> = Vec::new();
    for program in &mut programs {
        let target = Target { machine: &context.machine, sizes: typical(&program.bounds) };
        for function in &mut program.module.functions {
            let saturated = saturated(&mut known, function, &rules)?;
            if let Some(cheaper) = cheaper(saturated, function, &target)? {
                *function = cheaper;
            }
        }
    }
    Ok(State::Programs(programs))
}

/// The e-graph of a function; equal functions of several programs share one, found by the function's text.
fn saturated<'k>(
    known: &'k mut Vec<(String, Saturated)>,
    function: &Function,
    rules: &[Rule],
) -> Result<&'k Saturated, String> {
    let text = function_text(function);
    let index = match known.iter().position(|(other, _)| *other == text) {
        Some(index) => index,
        None => {
            known.push((text, saturate(function, rules)?));
            known.len() - 1
        }
    };
    Ok(&known[index].1)
}

/// The cheapest form, unless the function as it is costs hardly more.
fn cheaper(saturated: &Saturated, function: &Function, target: &Target<'_>) -> Result<Option<Function>, String> {
    let choice = extract::extract(saturated, target)?;
    let before = saturate(function, &[])?;
    let unchanged = extract::extract(&before, target)?;
    if !is_worthwhile(unchanged.seconds(), choice.seconds()) {
        return Ok(None);
    }
    let mut cheaper = extract::function(saturated, &choice)?;
    sweep(&mut cheaper)?;
    Ok(Some(cheaper))
}
