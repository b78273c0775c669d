//! The table of rewrite rules, a file per family.
//!
//! Rules hold only what the winner depends on phase, shape or machine for; what is always better is a pass of
//! [`crate::canonicalize`]. There is no general commutativity or associativity.

mod dequant;
mod merge;
mod prune;

use super::rule::Rule;

/// Every rule, by family.
pub fn rules() -> Vec<Rule> {
    [prune::rules(), merge::rules(), dequant::rules()].concat()
}
