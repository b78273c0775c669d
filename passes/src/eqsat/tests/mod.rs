//! Tests of the rules, of extraction and of the pass.

mod extraction;
mod soundness;
