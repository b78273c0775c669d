//! What is read, what is refused, and what the messages say.

use super::*;
use serde_json::{Value, json};

const ARCHITECTURES: [&str; 5] = ["llama", "llama_rope_llama3", "llama_tied", "mistral", "qwen2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

/// The classic form of a small Llama, with fields replaced (or removed, if null is given as `json!("remove")`).
fn llama_with(changes: Value) -> Result<Parsed, String> {
    with("llama", changes)
}

fn with(name: &str, changes: Value) -> Result<Parsed, String> {
    let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut object: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value.as_str() {
            Some("remove") => _ = object.remove(key),
            _ => _ = object.insert(key.clone(), value.clone()),
        }
    }
    let text = serde_json::to_string(&object).unwrap();
    ModelConfig::parse(&text, Path::new("config.json")).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(changes: Value, expected: &[&str]) {
    let error = llama_with(changes).expect_err("must be refused");
    for part in expected {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn both_forms_are_the_same_model() {
    for name in ARCHITECTURES {
        let classic = ModelConfig::load(&fixture(name)).unwrap();
        let path = fixture(name).join("config.transformers5.json");
        let modern = ModelConfig::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        assert_eq!(classic, modern, "{name}");
        assert_eq!(classic.warnings, [""; 0], "{name}");
    }
}

#[test]
fn defaults_are_those_of_transformers() {
    let remove = |names: &[&str]| Value::Object(names.iter().map(|n| ((*n).to_owned(), json!("remove"))).collect());
    let config = llama_with(remove(&["num_key_value_heads", "rope_theta", "torch_dtype"])).unwrap().config;
    assert_eq!((config.kv_heads, config.head_dim), (4, 16));
    assert_eq!((config.rope.theta, config.dtype), (10000.0, None));

    assert_eq!(with("mistral", remove(&["sliding_window"])).unwrap().config.windows, [Some(4096); 3]);
    assert_eq!(with("mistral", json!({"sliding_window": null})).unwrap().config.windows, [None; 3]);
    let error = with("mistral", remove(&["num_key_value_heads"])).unwrap_err();
    assert!(error.contains("num_key_value_heads = 8 (the default, as it is missing) must divide"), "{error}");
}

#[test]
fn the_upper_layers_of_qwen2_slide_where_asked_to() {
    let windows = |changes| with("qwen2", changes).map(|parsed| parsed.config.windows);
    assert_eq!(windows(json!({})).unwrap(), [None; 3]);
    assert_eq!(windows(json!({"use_sliding_window": true})).unwrap(), [None, None, Some(32)]);
    let types =
        json!({"use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention", "full_attention"]});
    assert_eq!(windows(types).unwrap(), [Some(32), None, None]);
    let types = json!(["sliding_attention", "full_attention", "full_attention"]);
    assert!(windows(json!({"layer_types": types})).unwrap_err().contains("no window is in use"));
    assert!(windows(json!({"layer_types": ["full_attention"]})).unwrap_err().contains("must list 3 layers"));
    assert!(windows(json!({"layer_types": ["linear", "full_attention", "full_attention"]})).is_err());
}

#[test]
fn rope_scalings_are_read_in_all_spellings() {
    let scaling = |changes| llama_with(changes).map(|parsed| parsed.config.rope.scaling);
    let linear = RopeScaling::Linear { factor: 2.0 };
    assert_eq!(scaling(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})), Ok(linear));
    assert_eq!(
        scaling(json!({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4}})),
        Ok(linear)
    );
    assert_eq!(scaling(json!({"rope_scaling": {"rope_type": "default"}})), Ok(RopeScaling::None));
    assert!(matches!(with("llama_rope_llama3", json!({})).unwrap().config.rope.scaling, RopeScaling::Llama3 { .. }));
}

#[test]
fn rope_mistakes_are_named() {
    refused(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), &["yarn", "default, linear, llama3"]);
    refused(json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}), &["dynamic"]);
    refused(json!({"rope_scaling": {"type": "linear"}}), &["missing rope_scaling.factor"]);
    refused(json!({"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2.0}}), &["contradicts"]);
    refused(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}}),
        &["missing rope_scaling.original_max_position_embeddings", "must be larger than low_freq_factor"],
    );
    refused(json!({"rope_parameters": {"rope_theta": 5e5}}), &["rope_parameters.rope_theta", "contradicts"]);
    let nested = json!({"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}});
    refused(json!({"rope_parameters": nested}), &["per layer type"]);
    refused(json!({"rope_theta": -1.0}), &["rope_theta must be a number above 0"]);
    refused(json!({"rope_scaling": {"type": "linear", "factor": 2.0, "spin": 1}}), &["spin is not understood"]);
}

#[test]
fn missing_fields_are_named_together() {
    refused(
        json!({"hidden_size": "remove", "vocab_size": "remove", "num_hidden_layers": null}),
        &["config.json: missing hidden_size, num_hidden_layers, vocab_size"],
    );
    refused(json!({"architectures": "remove"}), &["missing architectures"]);
    refused(
        json!({"rms_norm_eps": "remove", "max_position_embeddings": "remove"}),
        &["config.json: missing rms_norm_eps, max_position_embeddings"],
    );
}

#[test]
fn unknown_architectures_are_refused_by_name() {
    let known = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM";
    refused(json!({"architectures": ["GPT2LMHeadModel"]}), &["GPT2LMHeadModel", known]);
    refused(json!({"architectures": []}), &["architectures must be a list"]);
    refused(json!({"model_type": "qwen2"}), &["model_type = `qwen2` contradicts LlamaForCausalLM"]);
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    refused(json!({"hidden_act": "gelu"}), &["hidden_act = \"gelu\"", "silu"]);
    refused(json!({"quantization_config": {"quant_method": "gptq"}}), &["quantization_config", "gptq"]);
    refused(json!({"pretraining_tp": 2}), &["pretraining_tp = 2"]);
    refused(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor"]);
    refused(json!({"rope_interleaved": true}), &["rope_interleaved"]);
    refused(json!({"sliding_window": 128}), &["sliding_window = 128"]);
    refused(json!({"use_sliding_window": true}), &["use_sliding_window"]);
    refused(json!({"torch_dtype": "float8_e4m3fn"}), &["torch_dtype", "float8_e4m3fn"]);
    let error = with("mistral", json!({"attention_bias": true})).unwrap_err();
    assert!(error.contains("attention_bias = true is not supported"), "{error}");
    assert!(llama_with(json!({"partial_rotary_factor": 1, "pretraining_tp": 1})).is_ok());
}

#[test]
fn sizes_must_make_sense() {
    refused(json!({"hidden_size": 0, "vocab_size": -4}), &["hidden_size must be", "vocab_size must be", "found -4"]);
    refused(json!({"hidden_size": "64"}), &["hidden_size must be a whole number", "\"64\""]);
    refused(json!({"intermediate_size": 160.5}), &["intermediate_size"]);
    refused(
        json!({"num_hidden_layers": 1_000_000_000_000u64}),
        &["num_hidden_layers must be a whole number from 1 to 4096"],
    );
    refused(json!({"num_key_value_heads": 3}), &["num_key_value_heads = 3 must divide num_attention_heads = 4"]);
    refused(json!({"head_dim": 15}), &["head_dim = 15 must be even"]);
    refused(json!({"hidden_size": 66}), &["hidden_size = 66 must be a multiple"]);
    refused(json!({"rms_norm_eps": -1e-5}), &["rms_norm_eps"]);
    refused(json!({"tie_word_embeddings": "yes"}), &["tie_word_embeddings must be true or false"]);
    refused(json!({"eos_token_id": [1, -2]}), &["eos_token_id"]);
}

#[test]
fn unknown_fields_are_warnings() {
    let parsed = llama_with(json!({"embedding_twist": 3, "transformers_version": "4.40"})).unwrap();
    assert_eq!(parsed.warnings.len(), 1);
    assert!(parsed.warnings[0].contains("embedding_twist"));
}

#[test]
fn files_that_are_no_json_objects_are_refused() {
    let parse = |text| ModelConfig::parse(text, Path::new("config.json")).unwrap_err().to_string();
    for text in ["", "[]", "{\"a\": 1", "{\"a\": NaN}", "null"] {
        assert!(parse(text).starts_with("config.json is not a JSON object"), "{text}");
    }
    let error = ModelConfig::load(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/config.json"), "{error}");
}

#[test]
fn generation_settings() {
    let parse = |text| GenerationConfig::parse(text, Path::new("generation_config.json"));
    let text =
        r#"{"bos_token_id": 1, "eos_token_id": [2, 7], "temperature": 0.6, "top_k": 0, "do_sample": true, "x": 1}"#;
    let config = parse(text).unwrap();
    assert_eq!((config.bos, config.eos, config.top_k), (Some(1), vec![2, 7], None));
    assert_eq!((config.temperature, config.do_sample), (Some(0.6), Some(true)));
    assert_eq!(parse(r#"{"eos_token_id": 2}"#).unwrap().eos, [2]);
    assert!(parse(r#"{"temperature": "hot"}"#).unwrap_err().to_string().contains("temperature"));
    assert_eq!(GenerationConfig::load(Path::new("/nonexistent")).unwrap(), GenerationConfig::default());
}

#[test]
fn chat_templates_in_all_three_places() {
    let parse = |text: &str| TokenizerConfig::parse(text, Path::new("tokenizer_config.json"));
    let config =
        parse(r#"{"chat_template": "T", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#);
    let config = config.unwrap();
    assert_eq!(config.chat_template.as_deref(), Some("T"));
    assert_eq!((config.bos.as_deref(), config.eos.as_deref(), config.pad), (Some("<s>"), Some("</s>"), None));
    let named = r#"{"chat_template": [{"name": "tools", "template": "A"}, {"name": "default", "template": "B"}]}"#;
    assert_eq!(parse(named).unwrap().chat_template.as_deref(), Some("B"));
    let error = parse(r#"{"chat_template": [{"name": "tools", "template": "A"}]}"#).unwrap_err().to_string();
    assert!(error.contains("named `default`, found [tools]"), "{error}");
    assert!(parse(r#"{"bos_token": 5}"#).unwrap_err().to_string().contains("bos_token"));

    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokenizer_config.json"), r#"{"chat_template": "T"}"#).unwrap();
    std::fs::write(directory.path().join("chat_template.jinja"), "J").unwrap();
    assert_eq!(TokenizerConfig::load(directory.path()).unwrap().chat_template.as_deref(), Some("J"));
}
