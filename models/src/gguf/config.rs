//! `config.json` and `generation_config.json`, from the hyperparameters, the tensors and the special tokens.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hyper::{Architecture, Hyper};
use super::layout::Layout;
use super::tokenizer::SpecialIds;

/// A JSON object with sorted keys.
pub(super) type Object = BTreeMap<&'static str, Value>;

/// The contents of `config.json`.
pub(super) fn config(hyper: &Hyper, layout: &Layout<'_>, ids: &SpecialIds) -> Object {
    let mut config = Object::from([
        ("attention_dropout", json!(0.0)),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(hyper.hidden)),
        ("intermediate_size", json!(hyper.intermediate)),
        ("max_position_embeddings", json!(hyper.context)),
        ("num_attention_heads", json!(hyper.heads)),
        ("num_hidden_layers", json!(hyper.layers)),
        ("num_key_value_heads", json!(hyper.kv_heads)),
        ("rms_norm_eps", json!(hyper.rms_epsilon)),
        ("rope_scaling", hyper.rope_scaling.as_ref().map_or(Value::Null, |scaling| scaling.to_json())),
        ("rope_theta", json!(hyper.rope_theta)),
        ("tie_word_embeddings", json!(layout.tied)),
        ("torch_dtype", json!("bfloat16")),
        ("use_cache", json!(true)),
        ("vocab_size", json!(layout.vocabulary)),
    ]);
    if hyper.heads.checked_mul(hyper.head_dim) != Some(hyper.hidden) {
        config.insert("head_dim", json!(hyper.head_dim));
    }
    let (class, model_type) = match (hyper.architecture, hyper.sliding_window) {
        (Architecture::Llama, None) => {
            config.insert("attention_bias", json!(layout.attention_bias));
            config.insert("mlp_bias", json!(layout.mlp_bias));
            ("LlamaForCausalLM", "llama")
        }
        (Architecture::Llama, Some(window)) => {
            config.insert("sliding_window", json!(window));
            ("MistralForCausalLM", "mistral")
        }
        (Architecture::Qwen2, _) => {
            config.insert("use_sliding_window", json!(false));
            ("Qwen2ForCausalLM", "qwen2")
        }
    };
    config.insert("architectures", json!([class]));
    config.insert("model_type", json!(model_type));
    insert_ids(&mut config, ids, json!(ids.eos.first()));
    config
}

/// The contents of `generation_config.json`: the end of a text is any of the end tokens.
pub(super) fn generation_config(ids: &SpecialIds) -> Object {
    let mut config = Object::new();
    let eos = if ids.eos.len() == 1 { json!(ids.eos[0]) } else { json!(ids.eos) };
    insert_ids(&mut config, ids, eos);
    config
}

fn insert_ids(config: &mut Object, ids: &SpecialIds, eos: Value) {
    let ids = [
        ("bos_token_id", json!(ids.bos)),
        ("eos_token_id", if ids.eos.is_empty() { Value::Null } else { eos }),
        ("pad_token_id", json!(ids.pad)),
    ];
    config.extend(ids.into_iter().filter(|(_, id)| !id.is_null()));
}
