//! The text form of the IR: what prints parses, and prints to the same bytes again.
//!
//! ```text
//! module @LlamaForCausalLM
//!
//! func @layer(%update: f32[tokens, 64], %kv: kv<2 x 16, bf16>) -> (f32[tokens, 64]) {
//!   %0 = weight "norm.weight"           : f32[64]      // the type says what the operation leaves open
//!   %1 = reshape %0                     : f32[1, 64]
//!   %2 = broadcast %1                   : f32[tokens, 64]
//!   %3 = mul %update, %2                : f32[tokens, 64]
//!   return %3
//! }
//!
//! step {
//!   %update = call @embed()
//!   %update = call @layer(%update, kv 0) in "model.layers.0."
//!   %logits = call @head(%update)
//! }
//! ```
//!
//! Specialised modules follow a line `program @decode {tokens <= 16, ...}`, or `program @decode on gpu {...}` where a GPU
//! runs it. After fusion the first line is
//! `fused module @Name` and functions hold regions, whose inputs come first and whose outputs are known outside
//! as `%region#0`, `%region#1`, ...:
//!
//! ```text
//! region @norm: rows {
//!   %in0 = %update                      : f32[tokens, 64]
//!   %in1 = weight "norm.weight"         : f32[64]
//!   %0 = reshape %in1                   : f32[1, 64]
//!   ...
//!   yield %2
//! }
//! ```
//!
//! Nodes are numbered in print order, which is [`Graph::topological`](crate::graph::Graph::topological).

mod lex;
mod parse;
mod parse_function;
mod parse_op;
mod print;
#[cfg(test)]
mod tests;

pub use parse::{ParseError, parse};
pub(crate) use print::{NodeNames, input_types, is_name, source_text, source_type};
pub use print::{function_text, print_fused, print_fused_module, print_module, print_specialized};

use crate::module::{Module, SpecializedModule};
use crate::region::FusedProgram;

/// Everything that has a text form.
#[derive(Clone, Debug)]
pub enum Document {
    /// A module.
    Module(Module),
    /// Programs before fusion; at least one.
    Specialized(Vec<SpecializedModule>),
    /// Programs after fusion; at least one.
    Fused(Vec<FusedProgram>),
}

/// The text form of `document`.
pub fn print(document: &Document) -> String {
    match document {
        Document::Module(module) => print_module(module),
        Document::Specialized(programs) => print_specialized(programs),
        Document::Fused(programs) => print_fused(programs),
    }
}
