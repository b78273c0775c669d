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

/// The cheapest form, or the function's own where that costs hardly more. Either way nodes come in the order in which
/// results need them, which is the same however the function came into being.
fn best_form(saturated: &Saturated, function: &Function, target: &Target<'_>) -> Result<Function, String> {
    let cheapest = extract::extract(saturated, target)?;
    let as_it_is = saturate(function, &[])?;
    let own = extract::extract(&as_it_is, target)?;
    let mut form = match is_worthwhile(own.seconds(), cheapest.seconds()) {
        true => extract::function(saturated, &cheapest)?,
        false => extract::function(&as_it_is, &own)?,
    };
    sweep(&mut form)?;
    Ok(form)
}
