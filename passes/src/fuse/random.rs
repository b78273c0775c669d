//! Random programs for tests.

use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::machine::Processor;
use llmc_ir::module::SpecializedModule;
use llmc_ir::plan::ModelFacts;
use llmc_ir::testing::{StepSizes, random_module};

pub(crate) const SIZES: StepSizes = StepSizes { groups: 4, group: 4, vocab: 24 };

pub(crate) fn facts() -> ModelFacts {
    ModelFacts { vocab: SIZES.vocab, ..super::sample::facts() }
}

/// A program whose functions and calls follow from `seed`: up to 8 tokens of 4 sequences.
pub(crate) fn program(seed: u64) -> SpecializedModule {
    let max = Bindings { tokens: 8, samples: 8, sequences: 4, context: 32 };
    let bounds = Bounds { max, one_token_per_sequence: false };
    SpecializedModule { name: "random".into(), processor: Processor::Cpu, bounds, module: random_module(seed, SIZES) }
}
