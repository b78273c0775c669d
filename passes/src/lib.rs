//! llmc-passes: how a graph gets better, from what a definition wrote to a plan that code is generated from.
//!
//! [`pipeline::pipeline`] is the table of contents: every pass in order, with the phase ([`phase::Phase`]) that it
//! belongs to. A pass is a function from [`pass::State`] to [`pass::State`], and the state's variants are the forms that a
//! model takes:
//!
//! | state | phases | passes |
//! |---|---|---|
//! | one module | imported, canonical | [`canonicalize`]: fold, identities, cse, dce. [`hoist`]: once per step what layers repeat |
//! | a module per program | specialized, rewritten | [`specialize`]: programs from bounds. [`eqsat`]: the cheapest equal form of each |
//! | fused programs | fused | [`fuse`]: functions become regions, each one kernel. [`mod@prologue`]: rows computed where they are multiplied |
//! | a planned model | planned | [`mod@plan`]: weights get layouts ([`pack`]), values places ([`buffers`]), kernels an order. [`mod@compress`]: weights in fewer bytes. [`mod@search`]: the largest logits without all logits |
//!
//! Two ideas decide where a rewrite belongs. Where one side is always better it is a destructive pass of
//! [`canonicalize`]; where the winner depends on the program's bounds or the machine it is a rule of [`eqsat`], whose
//! extraction asks a roofline. And no pass knows a model: fusion looks at iteration spaces, not at patterns.
//!
//! [`instrument`]s look on between passes: one verifies, one dumps, and the report's times add up to the wall clock.
//!
//! To add a pass: a function `fn(State, &Context) -> Result<State, String>` in a file of its own and its line in
//! [`pipeline::pipeline`]. `--without`, `--passes`, dumps and reports then know it by name. If it is optional, leaving it
//! out must not change results beyond rounding.

pub mod buffers;
pub mod canonicalize;
pub mod compress;
pub mod eqsat;
pub mod fuse;
pub mod hoist;
pub mod instrument;
pub mod pack;
pub mod pass;
pub mod phase;
pub mod pipeline;
pub mod plan;
pub mod prologue;
pub mod rebuild;
pub mod region_cost;
pub mod search;
pub mod specialize;
