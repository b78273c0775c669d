//! llmc-ir: what a model is. Everything else in the project builds on this crate, and it builds on none of it.
//!
//! A [`module::Module`] is a list of functions and the calls that make up a step. All layers of one kind are one
//! function, called once per layer under another scope of weight names, so nothing here grows with depth. A function is
//! a [`graph::Graph`] of [`op::Op`]s whose types ([`shape::Type`]) are inferred as nodes are added. Sizes that only a
//! step knows are symbols: `bf16[tokens, 576]`. As text ([`text`]), a layer begins like this:
//!
//! ```text
//! func @layer(%x: f32[tokens, 64], %kv: kv<2 x 16, bf16>) -> (f32[tokens, 64]) {
//!   %0 = mul %x, %x                                          : f32[tokens, 64]
//!   %1 = reduce %0 {op = sum, axis = 1}                      : f32[tokens, 1]
//! ```
//!
//! To read it all, follow a model from its definition to memory:
//!
//! | module | idea |
//! |---|---|
//! | [`builder`] | the language that models are written in: `linear`, `rms_norm`, `rope` emit operations |
//! | [`op`] | the operations, few on purpose |
//! | [`dtype`], [`dim`], [`shape`] | element types; symbols and bounds; types of values |
//! | [`infer`] | the type of a node from its operation and operands |
//! | [`graph`] | nodes and edges, behind a small interface |
//! | [`module`] | functions, calls, specialised modules |
//! | [`region`] | after fusion: what is computed together in one kernel |
//! | [`plan`] | after planning: launches over memory, as data; all that the runtime knows of a model |
//! | [`abi`] | how compiled code is called |
//!
//! and what says whether it is right:
//!
//! | module | idea |
//! |---|---|
//! | [`text`] | every phase before the plan prints, parses, and prints to the same bytes again |
//! | [`verify`] | all violations of a module's rules, each with what was expected |
//! | [`decompose`] | the meaning of the operations that have a name of their own |
//! | [`eval`] | the reference interpreter, which every later phase is compared with |
//! | [`machine`] | a machine's limits, for prices |
//!
//! To add an operation: a variant in [`op`], its type in [`infer`], its value in [`eval`], its name in [`text`]. The
//! compiler's exhaustive matches list the rest.

pub mod abi;
pub mod block_float;
pub mod builder;
pub mod decompose;
pub mod dim;
pub mod dtype;
pub mod eval;
pub mod gpu;
pub mod graph;
pub mod infer;
pub mod machine;
pub mod module;
pub mod op;
pub mod plan;
pub mod region;
pub mod shape;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod verify;
