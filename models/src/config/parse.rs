//! The fields of each architecture and their defaults, which are those of transformers. Sizes, and what every published
//! file has although transformers has a default for it, must be there: a file without it is damaged.

use super::fields::{Fields, shown};
use super::{ModelConfig, Parsed, rope};
use crate::architecture::Architecture;
use llmc_ir::dtype::DType;
use serde_json::{Map, Value};

/// No decoder comes near these sizes; they keep products of two within 64 bits and typing errors out of the packer.
mod limits {
    pub const VOCAB: usize = 1 << 24;
    pub const WIDTH: usize = 1 << 20;
    pub const LAYERS: usize = 1 << 12;
    pub const HEADS: usize = 1 << 12;
    pub const HEAD_DIM: usize = 1 << 12;
    pub const POSITIONS: usize = 1 << 30;
}

/// Fields that do not change what a trained model computes.
const IGNORED: &[&str] = &[
    "_attn_implementation",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "chunk_size_feed_forward",
    "embd_pdrop",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "max_length",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "task_specific_params",
    "tokenizer_class",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// What config.json says, or every problem with it.
pub fn parse(object: &Map<String, Value>) -> Result<Parsed, Vec<String>> {
    let fields = Fields::new(object, "");
    let Some(architecture) = architecture(&fields) else { return Err(fields.into_problems()) };
    let config = config(architecture, &fields);
    reject_effects(architecture, &fields);
    let unread = fields.unread(IGNORED);
    let problems = fields.into_problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let warn = |name| format!("config.json: unknown field `{name}` is ignored; the model may compute something else");
    Ok(Parsed { config, warnings: unread.into_iter().map(warn).collect() })
}

fn architecture(fields: &Fields<'_>) -> Option<Architecture> {
    let known = || Architecture::ALL.map(Architecture::name).join(", ");
    let Some(value) = fields.value("architectures") else {
        fields.missing("architectures");
        return None;
    };
    let Some(name) = value.as_array().and_then(|names| names.first()).and_then(Value::as_str) else {
        fields.problem("architectures", format_args!("must be a list with a name, found {}", shown(value)));
        return None;
    };
    let Some(architecture) = Architecture::ALL.into_iter().find(|known| known.name() == name) else {
        let message = format!("= {} is not supported; the known architectures are {}", shown(&name.into()), known());
        fields.problem("architectures", message);
        return None;
    };
    let expected = architecture.model_type();
    if let Some(found) = fields.text("model_type")
        && found != expected
    {
        fields.problem("model_type", format_args!("= `{found}` contradicts {name}, expected `{expected}`"));
    }
    Some(architecture)
}

fn config(architecture: Architecture, fields: &Fields<'_>) -> ModelConfig {
    let hidden = fields.required_size("hidden_size", limits::WIDTH);
    let heads = fields.required_size("num_attention_heads", limits::HEADS);
    let layers = fields.required_size("num_hidden_layers", limits::LAYERS);
    let kv_heads = match fields.raw("num_key_value_heads") {
        None if architecture == Architecture::Mistral => 8,
        None if architecture == Architecture::Qwen2 => 32,
        _ => fields.size("num_key_value_heads", limits::HEADS).unwrap_or(heads),
    };
    let config = ModelConfig {
        architecture,
        vocab: fields.required_size("vocab_size", limits::VOCAB),
        hidden,
        intermediate: fields.required_size("intermediate_size", limits::WIDTH),
        heads,
        kv_heads,
        head_dim: fields.size("head_dim", limits::HEAD_DIM).unwrap_or(hidden / heads),
        norm_epsilon: fields.required_positive("rms_norm_eps"),
        rope: rope::parse(fields),
        max_positions: fields.required_size("max_position_embeddings", limits::POSITIONS),
        tied_embeddings: fields.boolean("tie_word_embeddings").unwrap_or(false),
        attention_bias: architecture == Architecture::Llama && fields.boolean("attention_bias").unwrap_or(false),
        mlp_bias: architecture == Architecture::Llama && fields.boolean("mlp_bias").unwrap_or(false),
        windows: windows(architecture, layers, fields),
        dtype: dtype(fields),
        bos: fields.token("bos_token_id"),
        eos: fields.tokens("eos_token_id"),
    };
    check_heads(&config, fields);
    config
}

/// Relations between sizes; only looked at where the sizes themselves are there.
fn check_heads(config: &ModelConfig, fields: &Fields<'_>) {
    let ModelConfig { hidden, heads, kv_heads, head_dim, .. } = *config;
    if fields.value("num_attention_heads").is_none() || fields.value("hidden_size").is_none() {
        return;
    }
    if !heads.is_multiple_of(kv_heads) {
        let found = if fields.value("num_key_value_heads").is_some() { "" } else { " (the default, as it is missing)" };
        let message = format!("= {kv_heads}{found} must divide num_attention_heads = {heads}");
        fields.problem("num_key_value_heads", message);
    }
    if fields.value("head_dim").is_none() && !hidden.is_multiple_of(heads) {
        let message =
            format!("= {hidden} must be a multiple of num_attention_heads = {heads} where head_dim is missing");
        fields.problem("hidden_size", message);
    } else if !head_dim.is_multiple_of(2) || head_dim == 0 {
        fields.problem("head_dim", format_args!("= {head_dim} must be even: rotary embeddings rotate pairs"));
    }
    if config.norm_epsilon >= 1.0 && fields.value("rms_norm_eps").is_some() {
        fields.problem("rms_norm_eps", format_args!("= {} must be below 1", config.norm_epsilon));
    }
}

/// The sliding window of each layer.
fn windows(architecture: Architecture, layers: usize, fields: &Fields<'_>) -> Vec<Option<usize>> {
    let window = match (architecture, fields.raw("sliding_window")) {
        (Architecture::Mistral | Architecture::Qwen2, None) => Some(4096),
        _ => fields.size("sliding_window", limits::POSITIONS),
    };
    let by_rule: Vec<Option<usize>> = match architecture {
        Architecture::Llama => {
            if let Some(window) = window {
                fields.problem("sliding_window", format_args!("= {window} is not supported for {architecture}"));
            }
            vec![None; layers]
        }
        Architecture::Mistral => vec![window; layers],
        Architecture::Qwen2 => {
            let sliding = fields.boolean("use_sliding_window").unwrap_or(false);
            let first = match fields.value("max_window_layers").map(|value| (value, value.as_u64())) {
                None => 28,
                Some((_, Some(first))) => usize::try_from(first).unwrap_or(usize::MAX),
                Some((value, None)) => {
                    let message = format!("must be a whole number from 0, found {}", shown(value));
                    fields.problem("max_window_layers", message);
                    layers
                }
            };
            (0..layers).map(|layer| window.filter(|_| sliding && layer >= first)).collect()
        }
    };
    let Some(types) = fields.value("layer_types") else { return by_rule };
    let Some(types) = types.as_array().filter(|types| types.len() == layers) else {
        fields.problem("layer_types", format_args!("must list {layers} layers, found {}", shown(types)));
        return by_rule;
    };
    let usable = match architecture {
        Architecture::Qwen2 => window.filter(|_| fields.boolean("use_sliding_window") == Some(true)),
        Architecture::Llama | Architecture::Mistral => window,
    };
    let mut windows = Vec::with_capacity(layers);
    for (layer, kind) in types.iter().enumerate() {
        windows.push(match kind.as_str() {
            Some("full_attention") => None,
            Some("sliding_attention") if usable.is_some() => usable,
            Some("sliding_attention") => {
                fields.problem("layer_types", format_args!("[{layer}] is sliding_attention, but no window is in use"));
                None
            }
            _ => {
                let message =
                    format!("[{layer}] = {} is not supported; full_attention and sliding_attention are", shown(kind));
                fields.problem("layer_types", message);
                None
            }
        });
    }
    if architecture == Architecture::Mistral && windows != by_rule {
        fields.problem("layer_types", "contradicts sliding_window, which holds for all layers of this architecture");
    }
    windows
}

fn dtype(fields: &Fields<'_>) -> Option<DType> {
    let (modern, classic) = (fields.text("dtype"), fields.text("torch_dtype"));
    let (name, text) = modern.map(|text| ("dtype", text)).or(classic.map(|text| ("torch_dtype", text)))?;
    match text {
        "float32" => Some(DType::F32),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        "auto" => None,
        other => {
            let message =
                format!("= `{other}` is not supported; convert the checkpoint to bfloat16, float16 or float32");
            fields.problem(name, message);
            None
        }
    }
}

/// Fields that change what a model computes, with the values that we compute the same as.
fn reject_effects(architecture: Architecture, fields: &Fields<'_>) {
    let no = || Value::from(false);
    fields.only_without_effect("hidden_act", &["silu".into(), "swish".into()]);
    fields.only_without_effect("pretraining_tp", &[1.into()]);
    fields.only_without_effect("partial_rotary_factor", &[1.0.into()]);
    for name in
        ["add_cross_attention", "is_encoder_decoder", "qk_layernorm", "rope_interleaved", "use_mrope", "use_qk_norm"]
    {
        fields.only_without_effect(name, &[no()]);
    }
    if architecture != Architecture::Llama {
        fields.only_without_effect("attention_bias", &[no()]);
        fields.only_without_effect("mlp_bias", &[no()]);
    }
    if architecture != Architecture::Qwen2 {
        fields.only_without_effect("use_sliding_window", &[no()]);
    }
    if let Some(quantization) = fields.value("quantization_config") {
        let method = quantization.get("quant_method").map_or_else(|| shown(quantization), shown);
        fields.problem(
            "quantization_config",
            format_args!("({method}) is not supported; use the unquantised checkpoint"),
        );
    }
}
