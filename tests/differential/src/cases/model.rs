//! Whole models of any size.

use crate::case::{Build, Case, Limits, Target, random_weight, weight_types};
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::testing::Random;
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_passes::fuse::Epilogues;

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// What kind of model.
    pub architecture: Architecture,
    /// Query heads, key/value heads, elements per head.
    pub heads: (usize, usize, usize),
    /// Positions that a token sees, where not all.
    pub window: Option<usize>,
    /// Columns of a row.
    pub hidden: usize,
    /// Columns between the products of a layer's second half.
    pub intermediate: usize,
    /// Tokens there are.
    pub vocab: usize,
    /// Layers.
    pub layers: usize,
}

/// A model with random weights.
///
/// # Panics
/// If the sizes are not sound.
pub fn case(sizes: &Sizes, dtype: DType, target: Target) -> Case {
    let (heads, kv_heads, head_dim) = sizes.heads;
    let config = ModelConfig {
        heads,
        kv_heads,
        head_dim,
        hidden: sizes.hidden,
        intermediate: sizes.intermediate,
        vocab: sizes.vocab,
        windows: vec![sizes.window; sizes.layers],
        ..sizes.architecture.tiny()
    };
    let module = llmc_models::build(&config, Numerics::new(dtype)).expect("the sizes are sound");
    let mut random = Random::new(head_dim as u64);
    let mut weights = std::collections::BTreeMap::new();
    for (name, ty) in weight_types(&module) {
        // Activations stay near 1, and attention has something to choose from.
        let columns = ty.shape.0.last().and_then(|dim| dim.as_fixed()).unwrap_or(1) as f64;
        let scale = match ty.shape.rank() {
            1 => 1.0,
            _ if name.contains("embed") => 2.0,
            _ if name.contains("q_proj") || name.contains("k_proj") => 3.0 / columns.sqrt(),
            _ => 1.7 / columns.sqrt(),
        };
        weights.insert(name, random_weight(&mut random, &ty, scale));
    }
    let limits = Limits { max_context: 600, max_batch: 5, prefill_chunk: 512 };
    Case {
        module,
        weights,
        limits,
        build: Build { target, without: vec![], epilogues: Epilogues::Fused, method: None },
    }
}
