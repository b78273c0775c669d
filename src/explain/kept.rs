//! What an artifact keeps of its making: enough to run the passes again, and nothing that differs between two runs.

use super::ExplainError;
use crate::tune::Tuned;
use llmc_artifact::{Artifact, IMPORTED, PASSES, ir_tensor_name};
use llmc_ir::machine::{Machine, Machines};
use llmc_ir::module::Module;
use llmc_ir::text::{Document, parse};
use llmc_passes::eqsat::rule::{Invariance, Numerics};
use llmc_passes::pass::Context;
use llmc_passes::pipeline::Options;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the passes were told, beside the model's facts, which the plan has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The most tokens in one step of the prefill program.
    pub prefill_chunk: usize,
    /// What forms were priced for.
    pub machines: Machines,
    /// Passes that were left out.
    pub without: Vec<String>,
    /// The loosest class of rewrite rules that was allowed.
    pub numerics: String,
    /// Across which steps logits have the same bits.
    pub invariance: String,
    /// The passes that ran instead of the pipeline, if it was not the pipeline.
    pub only: Option<Vec<String>>,
    /// How many products with rounded weights code takes in the time of one in f32, if there is such code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded_rate: Option<f64>,
    /// How many quarters of each weight are flagged if it is compressed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flagged: BTreeMap<String, u64>,
    /// Sizes of kernels that are not the defaults, and how they were found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuning: Vec<Tuned>,
}

impl Kept {
    /// Of a compilation.
    pub fn of(context: &Context, options: &Options) -> Kept {
        Kept {
            prefill_chunk: context.prefill_chunk,
            machines: context.machines.clone(),
            without: options.without.clone(),
            numerics: options.numerics.name().to_owned(),
            invariance: options.invariance.name().to_owned(),
            only: options.only.clone(),
            rounded_rate: context.rounded_rate,
            flagged: context.flagged.clone(),
            tuning: Vec::new(),
        }
    }

    /// The JSON that goes into the artifact.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and finite numbers have a JSON form")
    }

    /// Reads what an artifact kept, and the module that its passes started from.
    ///
    /// # Errors
    /// If the artifact keeps none of it, or it does not parse.
    pub fn read(artifact: &Artifact) -> Result<(Kept, Module), ExplainError> {
        let text = tensor(artifact, PASSES)?;
        let kept: Kept = serde_json::from_str(text).map_err(|error| damaged(PASSES, error))?;
        let checked =
            |machine: &Machine| Machine::parse(&serde_json::to_string(machine).map_err(|error| error.to_string())?);
        let machines = kept.machines.iter().map(checked).collect::<Result<Vec<_>, _>>().and_then(Machines::new);
        machines.map_err(|error| damaged(PASSES, error))?;
        kept.numerics.parse::<Numerics>().map_err(|error| damaged(PASSES, error))?;
        kept.invariance.parse::<Invariance>().map_err(|error| damaged(PASSES, error))?;
        let name = ir_tensor_name(IMPORTED);
        match parse(tensor(artifact, &name)?).map_err(|error| damaged(&name, error))? {
            Document::Module(module) => Ok((kept, module)),
            Document::Specialized(_) | Document::Fused(_) => Err(damaged(&name, "it is no module before the passes")),
        }
    }

    /// As the pipeline takes it.
    pub fn options(&self) -> Options {
        let numerics = self.numerics.parse().unwrap_or_default();
        let invariance = self.invariance.parse().unwrap_or_default();
        Options { without: self.without.clone(), stop_after: None, only: self.only.clone(), numerics, invariance }
    }

    /// Whether a sequence's logits have the same bits in every step of any program.
    pub fn is_batch_invariant(&self) -> bool {
        self.invariance == Invariance::Batch.name()
    }
}

fn tensor<'a>(artifact: &'a Artifact, name: &str) -> Result<&'a str, ExplainError> {
    if artifact.tensor(name).is_none() {
        return Err(ExplainError::NothingKept { path: artifact.path().to_owned(), tensor: name.to_owned() });
    }
    let bytes = artifact.checked_tensor(name)?;
    std::str::from_utf8(bytes).map_err(|error| damaged(name, error))
}

fn damaged(tensor: &str, detail: impl std::fmt::Display) -> ExplainError {
    ExplainError::Damaged { tensor: tensor.to_owned(), detail: detail.to_string() }
}
