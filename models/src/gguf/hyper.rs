//! The hyperparameters of a model as GGUF metadata states them.

use super::error::{Problem, malformed, unsupported};
use super::metadata::{Metadata, required};
use super::reader::Gguf;
use super::rope::{self, RopeScaling};

/// The architectures that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Llama and what ships under its name: Mistral, SmolLM, ...
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
}

impl Architecture {
    /// The prefix of its metadata keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
        }
    }
}

/// Sizes and constants of a model.
#[derive(Debug)]
pub(super) struct Hyper {
    pub(super) architecture: Architecture,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    pub(super) rms_epsilon: f64,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: Option<RopeScaling>,
    pub(super) sliding_window: Option<usize>,
}

/// Keys after the architecture's prefix that are understood; any other one might change the computation.
const KNOWN_KEYS: [&str; 22] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "vocab_size",
];

/// Reads and cross-checks the hyperparameters.
pub(super) fn read(gguf: &Gguf<'_>) -> Result<Hyper, Problem> {
    let metadata = &gguf.metadata;
    let architecture = architecture(metadata)?;
    let prefix = architecture.name();
    let key = |suffix: &str| format!("{prefix}.{suffix}");
    for name in metadata.keys() {
        if let Some(suffix) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'))
            && !KNOWN_KEYS.contains(&suffix)
        {
            return unsupported(
                format!("its metadata key {name} is not known and may change the model's results"),
                "use a file of a plain Llama, Mistral or Qwen2 model",
            );
        }
    }
    let optional = |suffix: &str| metadata.unsigned(&key(suffix));
    let size = |suffix: &str| match required(optional(suffix)?, &key(suffix))? {
        0 => malformed(format!("the metadata key {} is zero", key(suffix))),
        size => Ok(size),
    };
    if optional("expert_count")?.unwrap_or(0) > 0 {
        return unsupported("it is a mixture-of-experts model", "use a dense model");
    }
    if metadata.boolean(&key("attention.causal"))? == Some(false) {
        return unsupported("its attention is not causal", "use a decoder model");
    }
    let sliding_window = optional("attention.sliding_window")?.filter(|&window| window > 0);
    if sliding_window.is_some() && architecture != Architecture::Llama {
        return unsupported("it has a sliding window", "only llama files (that is, Mistral models) may have one");
    }
    let hidden = size("embedding_length")?;
    let heads = size("attention.head_count")?;
    let kv_heads = match optional("attention.head_count_kv")? {
        Some(0) | None => heads,
        Some(count) => count,
    };
    let head_dim = match optional("attention.key_length")? {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return malformed(format!("{heads} heads do not divide the hidden size {hidden}")),
    };
    if !heads.is_multiple_of(kv_heads) {
        return malformed(format!("{kv_heads} key-value heads do not divide {heads} heads"));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return malformed(format!("the head size should be even, but is {head_dim}"));
    }
    for suffix in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = optional(suffix)?.filter(|&other| other != head_dim) {
            return unsupported(
                format!("{} is {other}, but the head size is {head_dim}", key(suffix)),
                "use a model that rotates whole heads and has keys and values of one size",
            );
        }
    }
    let rope_theta = metadata.number(&key("rope.freq_base"))?.unwrap_or(rope::DEFAULT_THETA);
    Ok(Hyper {
        architecture,
        layers: size("block_count")?,
        hidden,
        intermediate: size("feed_forward_length")?,
        heads,
        kv_heads,
        head_dim,
        context: size("context_length")?,
        rms_epsilon: required(
            metadata.number(&key("attention.layer_norm_rms_epsilon"))?,
            &key("attention.layer_norm_rms_epsilon"),
        )?,
        rope_theta,
        rope_scaling: rope::scaling(gguf, prefix, head_dim, rope_theta)?,
        sliding_window,
    })
}

fn architecture(metadata: &Metadata<'_>) -> Result<Architecture, Problem> {
    if metadata.unsigned("split.count")?.unwrap_or(1) > 1 {
        return unsupported("it is one part of several", "join the parts with `llama-gguf-split --merge` first");
    }
    let name = required(metadata.text("general.architecture")?, "general.architecture")?;
    match [Architecture::Llama, Architecture::Qwen2].into_iter().find(|known| known.name() == name) {
        Some(architecture) => Ok(architecture),
        None => unsupported(format!("its architecture is {name}"), "the architectures llama and qwen2 can be imported"),
    }
}
