//! The frame of a decoder: embedding, a stack of layers, output head.
//!
//! The residual stream travels between layers as two values, `residual` and the `update` that the last block wants
//! to add to it. So the addition and the norm behind it are in one function, wherever a layer begins.

use crate::config::ModelConfig;
use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::graph::NodeId;
use llmc_ir::module::{Argument, Call, Function, LOGITS, Module};
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;
use std::collections::BTreeSet;

/// What a layer works on.
#[derive(Clone, Copy, Debug)]
pub struct LayerInputs {
    /// What is still to be added to `residual`: `[tokens, hidden]`.
    pub update: NodeId,
    /// The residual stream: `[tokens, hidden]`.
    pub residual: NodeId,
    /// The layer's cache.
    pub kv: NodeId,
}

/// The whole model. Layers of one kind, which is to say with the same window, are one function. `layer` is what an
/// architecture defines: from a layer's inputs and its sliding window to the next layer's `update` and `residual`.
///
/// # Errors
/// The first mistake of the definition under this configuration, with the function's name.
pub fn decoder(
    config: &ModelConfig,
    numerics: Numerics,
    layer: impl Fn(&mut FunctionBuilder, &ModelConfig, LayerInputs, Option<usize>) -> (NodeId, NodeId),
) -> Result<Module, String> {
    let kinds: BTreeSet<Option<usize>> = config.windows.iter().copied().collect();
    if kinds.iter().flatten().count() > 1 {
        return Err(format!("all sliding layers must have the same window, found {:?}", config.windows));
    }
    let kind_name = |window: Option<usize>| match window {
        _ if kinds.len() == 1 => "layer",
        None => "layer.full",
        Some(_) => "layer.sliding",
    };
    let mut functions = vec![embed(config, numerics)?];
    for &window in &kinds {
        functions
            .push(layer_function(kind_name(window), config, numerics, |b, inputs| layer(b, config, inputs, window))?);
    }
    functions.push(head(config, numerics)?);

    let stream = || ["update", "residual"].map(str::to_owned);
    let values = || stream().map(Argument::Value);
    let call = |function: &str, scope: String, arguments: Vec<Argument>, results: Vec<String>| Call {
        function: function.to_owned(),
        scope,
        arguments,
        results,
    };
    let mut calls = vec![call("embed", String::new(), vec![], stream().into())];
    for (index, &window) in config.windows.iter().enumerate() {
        let arguments = values().into_iter().chain([Argument::Kv(index)]).collect();
        calls.push(call(kind_name(window), format!("model.layers.{index}."), arguments, stream().into()));
    }
    calls.push(call("head", String::new(), values().into(), vec![LOGITS.to_owned()]));
    Ok(Module { name: config.architecture.name().to_owned(), functions, calls })
}

fn layer_function(
    name: &str,
    config: &ModelConfig,
    numerics: Numerics,
    body: impl FnOnce(&mut FunctionBuilder, LayerInputs) -> (NodeId, NodeId),
) -> Result<Function, String> {
    let mut b = FunctionBuilder::new(name, numerics);
    let update = b.rows_param("update", config.hidden);
    let residual = b.rows_param("residual", config.hidden);
    let kv = b.kv_param("kv", config.kv_heads, config.head_dim);
    let (update, residual) = body(&mut b, LayerInputs { update, residual, kv });
    b.finish(&[update, residual])
}

/// Rows of the embedding table as the first update of a residual stream of zeros.
fn embed(config: &ModelConfig, numerics: Numerics) -> Result<Function, String> {
    let mut b = FunctionBuilder::new("embed", numerics);
    let table = embedding_table(&mut b, config);
    let tokens = b.step(StepInput::TokenIds);
    let update = b.embedding(table, tokens);
    let residual = b.constant_like(0.0, update);
    b.finish(&[update, residual])
}

/// Logits of the rows that are sampled: `f32[samples, vocab]`. That others need not be computed is for the compiler to
/// find.
fn head(config: &ModelConfig, numerics: Numerics) -> Result<Function, String> {
    let mut b = FunctionBuilder::new("head", numerics);
    let update = b.rows_param("update", config.hidden);
    let residual = b.rows_param("residual", config.hidden);
    let x = b.plus(residual, update);
    let x = b.rms_norm(x, "/model.norm", config.norm_epsilon);
    let x = b.to_matrix_type(x);
    let output = match config.tied_embeddings {
        true => embedding_table(&mut b, config),
        false => b.matrix("/lm_head.weight", config.vocab, config.hidden),
    };
    let logits = b.dot(x, output);
    let rows = b.step(StepInput::SampleRows);
    let logits = b.add(Op::Gather, &[logits, rows]);
    b.finish(&[logits])
}

fn embedding_table(b: &mut FunctionBuilder, config: &ModelConfig) -> NodeId {
    b.matrix("/model.embed_tokens.weight", config.vocab, config.hidden)
}
