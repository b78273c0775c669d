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

use super::rule::{Family, Numerics, Rule};

/// Every rule, by family.
pub fn rules() -> Vec<Rule> {
    [prune::rules(), merge::rules(), factor::rules(), reassociate::rules(), dequant::rules(), choose::rules()].concat()
}

/// The rules of some families that are no looser with numbers than asked for.
pub fn selected(families: &[Family], loosest: Numerics) -> Vec<Rule> {
    rules().into_iter().filter(|rule| families.contains(&rule.family) && rule.numerics <= loosest).collect()
}
