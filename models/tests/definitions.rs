//! The definitions as text: what the rest of the compiler receives for the tiny configuration of each architecture.

use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::text::{Document, print};
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_models::weights::expected_weights;

#[test]
fn every_architecture() {
    for architecture in Architecture::ALL {
        let module = llmc_models::build(&architecture.tiny(), Numerics::new(DType::BF16)).unwrap();
        insta::assert_snapshot!(architecture.model_type(), print(&Document::Module(module)));
    }
}

#[test]
fn depth_adds_calls_and_nothing_else() {
    let deep = ModelConfig { windows: vec![None; 100], ..Architecture::Llama.tiny() };
    let module = llmc_models::build(&deep, Numerics::new(DType::BF16)).unwrap();
    assert_eq!((module.functions.len(), module.calls.len()), (3, 102));
    let weights = expected_weights(&module);
    assert_eq!(weights.len(), 100 * 9 + 3);
    assert_eq!(weights["model.layers.99.mlp.down_proj.weight"].to_string(), "bf16[48, 80]");
}
