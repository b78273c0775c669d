//! The table of rewrite rules, a file per family.
//!
//! Rules hold only what the winner depends on phase, shape or machine for; what is always better is a pass of
//! [`crate::canonicalize`]. There is no general commutativity or associativity.

mod choose;
mod dequant;
mod example;
mod factor;
mod merge;
mod prune;
mod reassociate;

use super::rule::{Family, Invariance, Numerics, Rule};
use llmc_ir::machine::Machines;

/// Every rule, by family.
pub fn rules() -> Vec<Rule> {
    [prune::rules(), merge::rules(), factor::rules(), reassociate::rules(), dequant::rules(), choose::rules()].concat()
}

/// The rules of some families that are no looser with numbers than asked for. Where all programs are to agree bit by bit,
/// what changes a sum is left out: a program that took it would differ from one that did not. Only gemv stays beside gemm,
/// because vector instructions take both sums in the order of k. Ways to multiply that no machine has are left out as well.
pub fn selected(families: &[Family], loosest: Numerics, invariance: Invariance, machines: &Machines) -> Vec<Rule> {
    let agrees = |rule: &Rule| match invariance {
        Invariance::Program => true,
        Invariance::Batch => rule.numerics == Numerics::Exact || rule.name == choose::GEMV,
    };
    let has_blocks = machines.iter().any(|machine| machine.block_float.is_some());
    let is_there = |rule: &Rule| has_blocks || rule.name != choose::BLOCK_FLOAT;
    let wanted =
        |rule: &Rule| families.contains(&rule.family) && rule.numerics <= loosest && agrees(rule) && is_there(rule);
    rules().into_iter().filter(wanted).collect()
}
