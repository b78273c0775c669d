//! Models whose sizes are those of real ones; code needs no weights.

use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::plan::ModelFacts;
use llmc_ir::region::PlannedModel;
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_passes::pass::{Context, State};
use llmc_passes::pipeline::{Options, run_pipeline};

/// Every model by its name, for a machine.
pub fn all(machine: &str) -> Vec<(&'static str, PlannedModel)> {
    let (d64, d128) = (sizes(2048, (32, 8, 64), 8192), sizes(4096, (32, 8, 128), 14336));
    let planned = |config, dtype| planned(config, dtype, Machine::named(machine).unwrap());
    let f32 = planned(d64.clone(), DType::F32);
    vec![("d64", planned(d64, DType::BF16)), ("d128", planned(d128, DType::BF16)), ("f32", f32)]
}

/// Sizes of a model of two layers.
pub fn sizes(hidden: usize, (heads, kv_heads, head_dim): (usize, usize, usize), intermediate: usize) -> ModelConfig {
    let windows = vec![None; 2];
    let tiny = Architecture::Llama.tiny();
    ModelConfig { hidden, heads, kv_heads, head_dim, intermediate, vocab: 32000, windows, ..tiny }
}

/// What the passes make of them.
pub fn planned(config: ModelConfig, dtype: DType, machine: Machine) -> PlannedModel {
    let numerics = Numerics::new(dtype);
    let module = llmc_models::build(&config, numerics).unwrap();
    let facts = ModelFacts {
        architecture: module.name.clone(),
        dtype,
        vocab: config.vocab,
        hidden: config.hidden,
        layers: config.windows.len(),
        max_context: 8192,
        max_batch: 64,
        parameters: 0,
    };
    let context = Context { prefill_chunk: 512, ..Context::new(facts, machine) };
    let (state, _) = run_pipeline(State::Module(module), &context, &Options::default(), &mut []).unwrap();
    let State::Planned(planned) = state else { panic!("expected a plan, found {}", state.kind()) };
    *planned
}
