//! What equality saturation makes of models: every function that it changes, saturated once, and its cheapest form for a
//! decode step, a batched one and a prompt, with the price of every line. The snapshots are meant to be read.

use llmc_ir::builder::Numerics;
use llmc_ir::dim::{Bindings, Bounds, Promise};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Function, Module};
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_models::weights::{Limits, facts};
use llmc_passes::eqsat::cost::Target;
use llmc_passes::eqsat::form::form_cost;
use llmc_passes::eqsat::rules::rules;
use llmc_passes::eqsat::saturate::saturate;
use llmc_passes::eqsat::{best_form, explain};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use std::fmt::Write;
use std::path::Path;

/// The steps that forms are shown for.
const STEPS: [(&str, Bindings, Promise); 3] = [
    ("decode 1", Bindings { tokens: 1, samples: 1, sequences: 1, context: 1024 }, Promise::OneTokenPerSequence),
    ("decode 64", Bindings { tokens: 64, samples: 64, sequences: 64, context: 1024 }, Promise::OneTokenPerSequence),
    ("prefill 2048", Bindings { tokens: 2048, samples: 1, sequences: 1, context: 2048 }, Promise::None),
];

fn canonical(config: &ModelConfig, layers: usize) -> Module {
    let config = ModelConfig { windows: config.windows[..layers].to_vec(), ..config.clone() };
    let numerics = Numerics::new(DType::BF16);
    let module = llmc_models::build(&config, numerics).unwrap();
    let facts = facts(&config, &module, numerics, Limits { max_context: 2048, max_batch: 64 });
    let context = Context::new(facts, Machine::named("host").unwrap());
    let options = Options { stop_after: Some(Phase::Canonical), ..Options::default() };
    match run_pipeline(State::Module(module), &context, &options, &mut []).unwrap().0 {
        State::Module(module) => module,
        other => panic!("canonical modules are modules, found {}", other.kind()),
    }
}

/// The report of a model on a machine.
fn report(config: &ModelConfig, machine: &str) -> String {
    let machine = Machine::named(machine).unwrap();
    let mut out = String::new();
    for original in canonical(config, config.windows.len()).functions {
        let saturated = saturate(&original, &rules()).unwrap();
        if saturated.statistics.fired.is_empty() {
            continue;
        }
        writeln!(out, "{}", explain::statistics(&original.name, &saturated.statistics)).unwrap();
        let mut forms: Vec<(String, Function)> = Vec::new();
        for (name, sizes, promise) in STEPS {
            let target = Target { machine: &machine, sizes, promise };
            let form = best_form(&saturated, &original, &target).unwrap();
            let [original_cost, cost] = [&original, &form].map(|function| form_cost(function, &target));
            let [before, after] = [original_cost, cost].map(|cost| cost.seconds);
            writeln!(out, "=== @{} for {name}: {:.2} us -> {:.2} us", original.name, 1e6 * before, 1e6 * after)
                .unwrap();
            if !cost.is_better_than(&original_cost) {
                writeln!(out, "stays as it was: the gain is less than the prices are exact\n").unwrap();
                continue;
            }
            let text = llmc_ir::text::function_text(&form);
            match forms.iter().find(|(_, known)| llmc_ir::text::function_text(known) == text) {
                Some((known, _)) => writeln!(out, "the same form as for {known}").unwrap(),
                None => writeln!(out, "{}", explain::priced(&form, &target).unwrap()).unwrap(),
            }
            forms.push((name.to_owned(), form));
        }
        writeln!(out).unwrap();
    }
    out
}

fn real(config: &str) -> ModelConfig {
    ModelConfig::parse(config, Path::new("config.json")).unwrap().config
}

fn smollm2() -> ModelConfig {
    real(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30, "vocab_size": 49152,
        "rms_norm_eps": 1e-5, "rope_theta": 100000, "max_position_embeddings": 8192, "tie_word_embeddings": true,
        "hidden_act": "silu"}"#,
    )
}

fn llama3_8b() -> ModelConfig {
    real(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
        "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000, "max_position_embeddings": 8192,
        "tie_word_embeddings": false, "hidden_act": "silu"}"#,
    )
}

#[test]
fn tiny_models_on_the_host() {
    for architecture in Architecture::ALL {
        insta::assert_snapshot!(format!("tiny_{}", architecture.model_type()), report(&architecture.tiny(), "host"));
    }
}

#[test]
fn smollm2_on_the_host() {
    insta::assert_snapshot!(report(&smollm2(), "host"));
}

#[test]
fn llama3_8b_on_an_a100() {
    insta::assert_snapshot!(report(&llama3_8b(), "a100"));
}

/// Layers are rolled, so what saturation does does not depend on how many there are.
#[test]
fn work_is_independent_of_depth() {
    let sizes = |layers: usize| {
        let functions = canonical(&llama3_8b(), layers).functions;
        functions.iter().map(|function| saturate(function, &rules()).unwrap().statistics).collect::<Vec<_>>()
    };
    assert_eq!(sizes(2), sizes(32));
}

/// A step of one sequence has one row; bounds of programs say so to the cost model.
#[test]
fn typical_steps_lie_within_bounds() {
    let max = Bindings { tokens: 16, samples: 16, sequences: 16, context: 512 };
    for one_token_per_sequence in [true, false] {
        let typical = llmc_passes::eqsat::cost::typical(&Bounds { max, one_token_per_sequence });
        let within = |symbol| typical.get(symbol) <= max.get(symbol) && typical.get(symbol) > 0;
        assert!(llmc_ir::dim::Symbol::ALL.into_iter().all(within), "{typical:?}");
    }
}
