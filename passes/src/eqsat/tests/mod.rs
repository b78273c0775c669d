//! Tests of the rules, of extraction and of the pass.

mod exact;
mod extraction;
mod soundness;
