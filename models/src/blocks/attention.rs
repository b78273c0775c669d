//! Grouped-query attention (Ainslie et al., "GQA", 2023) with rotary embeddings on queries and keys.

use llmc_ir::builder::{Bias, FunctionBuilder, Rope};
use llmc_ir::graph::NodeId;
use llmc_ir::op;

/// Sizes and choices of one attention block.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Rotation of queries and keys.
    pub rope: Rope,
    /// Sliding window in positions.
    pub window: Option<usize>,
    /// Biases of queries, keys and values.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub output_bias: Bias,
}

/// What `x[tokens, hidden]` adds to the residual stream by looking at its sequence so far: scaled dot-product
/// attention (Vaswani et al., 2017) over the cache, which receives the keys and values of `x` first.
pub fn attention(b: &mut FunctionBuilder, x: NodeId, kv: NodeId, block: &Attention) -> NodeId {
    let Attention { hidden, heads, kv_heads, head_dim, ref rope, window, qkv_bias, output_bias } = *block;
    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let x = b.to_matrix_type(x);

    let q = b.linear(x, "q_proj", (hidden, q_width), qkv_bias);
    let k = b.linear(x, "k_proj", (hidden, kv_width), qkv_bias);
    let v = b.linear(x, "v_proj", (hidden, kv_width), qkv_bias);
    let q = b.rope(q, heads, rope);
    let k = b.rope(k, kv_heads, rope);

    let kv = b.kv_write(kv, k, v);
    let scale = (1.0 / (head_dim as f64).sqrt()).into();
    let context = b.attend(q, kv, op::Attention { heads, kv_heads, scale, window, method: op::AttendMethod::Whole });
    b.linear(context, "o_proj", (q_width, hidden), output_bias)
}
