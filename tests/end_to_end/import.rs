//! What `llmc import` makes of a published GGUF file is the original model: its weights to the bit, its tokenizer, its
//! chat template.

use super::support::golden;
use super::support::models::smollm2;
use llmc_artifact::TokenizerFacts;
use llmc_models::architecture::Architecture;
use llmc_models::config::{GenerationConfig, ModelConfig, RopeScaling, TokenizerConfig};
use llmrt::chat::{ChatTemplate, GenerationPrompt, Message};
use llmrt::tokenizer::{AddSpecial, ShowSpecial, Tokenizer};
use std::process::Command;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&std::fs::read(smollm2().join("tokenizer.json")).unwrap()).unwrap()
}

#[test]
fn the_weights_are_the_reference_s_to_the_bit() {
    let sum = Command::new("sha256sum").arg(smollm2().join("model.safetensors")).output().unwrap();
    let expected = golden::file("smollm2.json")["model_safetensors_sha256"].as_str().unwrap().to_owned();
    assert_eq!(String::from_utf8_lossy(&sum.stdout).split_whitespace().next(), Some(expected.as_str()));
}

#[test]
fn the_configuration_is_the_original_s() {
    let parsed = ModelConfig::load(&smollm2()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let config = parsed.config;
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.vocab, config.hidden, config.intermediate), (49152, 576, 1536));
    assert_eq!((config.layers(), config.heads, config.kv_heads, config.head_dim), (30, 9, 3, 64));
    assert_eq!((config.norm_epsilon, config.rope.theta, config.rope.scaling), (1e-5, 1e5, RopeScaling::None));
    assert_eq!((config.max_positions, config.tied_embeddings, config.attention_bias), (8192, true, false));
    assert_eq!((config.bos, config.eos), (Some(1), vec![2]));
    let generation = GenerationConfig::load(&smollm2()).unwrap();
    assert_eq!((generation.bos, generation.eos), (Some(1), vec![2]));
    let names = TokenizerConfig::load(&smollm2()).unwrap();
    assert_eq!((names.bos.as_deref(), names.eos.as_deref()), (Some("<|im_start|>"), Some("<|im_end|>")));
    assert_eq!((names.pad.as_deref(), names.unk.as_deref()), (Some("<|im_end|>"), Some("<|endoftext|>")));
}

#[test]
fn the_tokenizer_behaves_as_the_original() {
    let tokenizer = tokenizer();
    let golden = golden::file("tokenizer-smollm2.json");
    let table = golden["strings"].as_array().unwrap();
    assert!(table.len() >= 250);
    for entry in table {
        let (text, decoded) = (entry[0].as_str().unwrap(), entry[2].as_str().unwrap());
        let ids = super::support::binaries::ids(&entry[1]);
        assert_eq!(tokenizer.encode(text, AddSpecial::AsConfigured).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, ShowSpecial::Show).unwrap(), decoded, "{text:?}");
        for special in [ShowSpecial::Show, ShowSpecial::Hide] {
            let mut stream = tokenizer.stream(special);
            let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            let streamed = pieces.concat() + &stream.finish().unwrap();
            assert_eq!(streamed, tokenizer.decode(&ids, special).unwrap(), "{text:?} in pieces {pieces:?}");
        }
    }
}

#[test]
fn the_chat_template_gives_the_original_s_prompts() {
    let tokenizer = tokenizer();
    let config = TokenizerConfig::load(&smollm2()).unwrap();
    let facts = TokenizerFacts {
        chat_template: config.chat_template,
        bos_token: config.bos,
        eos_token: config.eos,
        pad_token: config.pad,
        unk_token: config.unk,
    };
    let template = ChatTemplate::new(&facts).unwrap().unwrap();
    let golden = golden::file("tokenizer-smollm2.json");
    for chat in golden["chat"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let generation = match chat["add_generation_prompt"].as_bool().unwrap() {
            true => GenerationPrompt::Add,
            false => GenerationPrompt::Omit,
        };
        let text = template.render(&messages, generation).unwrap();
        let ids = super::support::binaries::ids(&chat["ids"]);
        assert_eq!(tokenizer.encode(&text, AddSpecial::Never).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids, ShowSpecial::Show).unwrap(), text);
    }
}
