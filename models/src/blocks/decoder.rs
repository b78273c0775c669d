//! The frame of a decoder: embedding, a stack of layers, output head.

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
    /// The residual stream: `[tokens, hidden]`.
    pub x: NodeId,
    /// The layer's cache.
    pub kv: NodeId,
}

/// The whole model. Layers of one kind, which is to say with the same window, are one function. `layer` is what an
/// architecture defines: from a layer's inputs and its sliding window to the next layer's `x`.
///
/// # Errors
/// The first mistake of the definition under this configuration, with the function's name.
pub fn decoder(
    config: &ModelConfig,
    numerics: Numerics,
    layer: impl Fn(&mut FunctionBuilder, &ModelConfig, LayerInputs, Option<usize>) -> NodeId,
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

    let stream = || "x".to_owned();
    let call = |function: &str, scope: String, arguments: Vec<Argument>, result: String| Call {
        function: function.to_owned(),
        scope,
        arguments,
        results: vec![result],
    };
    let mut calls = vec![call("embed", String::new(), vec![], stream())];
    for (index, &window) in config.windows.iter().enumerate() {
        let arguments = vec![Argument::Value(stream()), Argument::Kv(index)];
        calls.push(call(kind_name(window), format!("model.layers.{index}."), arguments, stream()));
    }
    calls.push(call("head", String::new(), vec![Argument::Value(stream())], LOGITS.to_owned()));
    Ok(Module { name: config.architecture.name().to_owned(), functions, calls })
}

fn layer_function(
    name: &str,
    config: &ModelConfig,
    numerics: Numerics,
    body: impl FnOnce(&mut FunctionBuilder, LayerInputs) -> NodeId,
) -> Result<Function, String> {
    let mut b = FunctionBuilder::new(name, numerics);
    let x = b.rows_param("x", config.hidden);
    let kv = b.kv_param("kv", config.kv_heads, config.head_dim);
    let x = body(&mut b, LayerInputs { x, kv });
    b.finish(&[x])
}

/// Rows of the embedding table.
fn embed(config: &ModelConfig, numerics: Numerics) -> Result<Function, String> {
    let mut b = FunctionBuilder::new("embed", numerics);
    let table = embedding_table(&mut b, config);
    let tokens = b.step(StepInput::TokenIds);
    let x = b.embedding(table, tokens);
    b.finish(&[x])
}

/// Logits of the rows that are sampled: `f32[samples, vocab]`. That others need not be computed is for the compiler to
/// find.
fn head(config: &ModelConfig, numerics: Numerics) -> Result<Function, String> {
    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.rows_param("x", config.hidden);
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
