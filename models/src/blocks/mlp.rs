//! The gated feed-forward block (Shazeer, "GLU variants improve transformer", 2020).

use llmc_ir::builder::{Bias, FunctionBuilder};
use llmc_ir::graph::NodeId;

/// `down(silu(gate(x)) * up(x))` for `x[tokens, hidden]`.
pub fn gated_mlp(b: &mut FunctionBuilder, x: NodeId, (hidden, inner): (usize, usize), bias: Bias) -> NodeId {
    let x = b.to_matrix_type(x);
    let gate = b.linear(x, "gate_proj", (hidden, inner), bias);
    let up = b.linear(x, "up_proj", (hidden, inner), bias);
    let gate = b.silu(gate);
    let product = b.times(gate, up);
    let product = b.to_matrix_type(product);
    b.linear(product, "down_proj", (inner, hidden), bias)
}
