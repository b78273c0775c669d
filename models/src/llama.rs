//! Llama (Touvron et al., 2023; Dubey et al., 2024): pre-norm decoder, grouped-query attention with rotary embeddings,
//! gated feed-forward.

use crate::architecture::Architecture;
use crate::blocks::attention::{Attention, attention};
use crate::blocks::decoder::{LayerInputs, decoder};
use crate::blocks::mlp::gated_mlp;
use crate::blocks::rope::rope;
use crate::config::{ModelConfig, RopeConfig, RopeScaling};
use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::module::Module;

/// The model.
pub fn module(config: &ModelConfig, numerics: Numerics) -> Result<Module, String> {
    decoder(config, numerics, |b, config, inputs, window| {
        let bias = |present: bool| if present { Bias::Present } else { Bias::Absent };
        let biases = Biases {
            qkv: bias(config.attention_bias),
            output: bias(config.attention_bias),
            mlp: bias(config.mlp_bias),
        };
        layer(b, config, inputs, window, biases)
    })
}

/// Where a layer has biases: the one thing in which descendants of Llama differ.
#[derive(Clone, Copy, Debug)]
pub struct Biases {
    /// On queries, keys and values.
    pub qkv: Bias,
    /// On the output of attention.
    pub output: Bias,
    /// On all projections of the feed-forward block.
    pub mlp: Bias,
}

/// `x += attention(norm(x)); x += mlp(norm(x))`.
pub fn layer(
    b: &mut FunctionBuilder,
    config: &ModelConfig,
    LayerInputs { x, kv }: LayerInputs,
    window: Option<usize>,
    biases: Biases,
) -> NodeId {
    let ModelConfig { hidden, intermediate, heads, kv_heads, head_dim, norm_epsilon, .. } = *config;
    let block = Attention {
        hidden,
        heads,
        kv_heads,
        head_dim,
        rope: rope(&config.rope, head_dim),
        window,
        qkv_bias: biases.qkv,
        output_bias: biases.output,
    };

    let normed = b.rms_norm(x, "input_layernorm", norm_epsilon);
    let attended = b.scope("self_attn", |b| attention(b, normed, kv, &block));
    let x = b.plus(x, attended);
    let normed = b.rms_norm(x, "post_attention_layernorm", norm_epsilon);
    let update = b.scope("mlp", |b| gated_mlp(b, normed, (hidden, intermediate), biases.mlp));
    b.plus(x, update)
}

/// Three layers, two query heads per key/value head, nothing a power of two that need not be.
pub fn tiny() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab: 96,
        hidden: 48,
        intermediate: 80,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_epsilon: 1e-5,
        rope: RopeConfig { theta: 10000.0, scaling: RopeScaling::None },
        max_positions: 256,
        tied_embeddings: false,
        attention_bias: false,
        mlp_bias: false,
        windows: vec![None; 3],
        dtype: Some(DType::BF16),
        bos: Some(1),
        eos: vec![2],
    }
}
