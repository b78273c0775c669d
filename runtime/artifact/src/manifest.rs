//! The manifest: everything in an artifact that is not bulk data.

use crate::names::{TOKENIZER, code_tensor_name, weight_tensor_name};
use llmc_ir::dim::Bounds;
use llmc_ir::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the file's format, of the plan and of the calling convention together. It changes
/// whenever any of them changes its meaning.
pub const FORMAT_VERSION: u32 = 1;

/// What an artifact says of itself. Stored as JSON under `llmc.manifest` in `__metadata__`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer, which sets it.
    pub format_version: u32,
    /// Version of the compiler, for humans.
    pub compiler_version: String,
    /// Memory layout and programs.
    pub plan: Plan,
    /// Native code for the host, the most demanding CPU level first.
    pub targets: Vec<HostCode>,
    /// `None`: the checkpoint had no tokenizer.
    pub tokenizer: Option<TokenizerFacts>,
    /// What generation_config.json and config.json recommend.
    pub generation: GenerationDefaults,
    /// BLAKE3 (64 hexadecimal digits) of each tensor's bytes, filled in by the writer.
    pub tensors: BTreeMap<String, String>,
}

/// Native code for one CPU level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCode {
    /// Name of the level, such as `x86-64-v4` or `native:znver5`.
    pub name: String,
    /// CPU features that the code uses, under their names in /proc/cpuinfo or in LLVM.
    pub cpu_features: Vec<String>,
    /// Name of the tensor that holds the ELF shared object, see [`code_tensor_name`].
    pub tensor: String,
    /// Working memory that each thread needs ([`llmc_ir::abi::StepArgs::scratch`]).
    pub scratch_bytes: u64,
}

/// What a tokenizer needs besides its tokenizer.json (which is the tensor [`TOKENIZER`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerFacts {
    /// Jinja source that formats a conversation.
    pub chat_template: Option<String>,
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Text of the padding token.
    pub pad_token: Option<String>,
    /// Text of the unknown token.
    pub unk_token: Option<String>,
}

/// How the model's authors recommend to generate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// The token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a reply.
    pub eos_token_ids: Vec<u32>,
    /// Divisor of the logits.
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens may be chosen.
    pub top_k: Option<u32>,
    /// Probability mass of the likeliest tokens that may be chosen.
    pub top_p: Option<f32>,
    /// Least probability, relative to the likeliest token's, of a token that may be chosen.
    pub min_p: Option<f32>,
    /// Factor against tokens that have occurred.
    pub repetition_penalty: Option<f32>,
    /// Whether to sample at all (`false`: take the likeliest token).
    pub do_sample: Option<bool>,
}

impl Manifest {
    /// Checks that the tensors, given with their sizes, are those that the manifest speaks of and
    /// that the plan's references stay inside it.
    ///
    /// # Errors
    /// A sentence saying what is missing or does not fit.
    pub fn check_contents(&self, sizes: &BTreeMap<&str, u64>) -> Result<(), String> {
        for (index, weight) in self.plan.weights.iter().enumerate() {
            let name = weight_tensor_name(index, weight);
            match sizes.get(name.as_str()) {
                None => return Err(format!("the plan has weight {index} but there is no tensor `{name}`")),
                Some(&bytes) if bytes != weight.bytes => {
                    return Err(format!("tensor `{name}` has {bytes} bytes, the plan says {}", weight.bytes));
                }
                Some(_) => {}
            }
        }
        for target in &self.targets {
            if target.tensor != code_tensor_name(&target.name) || !sizes.contains_key(target.tensor.as_str()) {
                return Err(format!(
                    "code for {} should be the tensor `{}`, the manifest names `{}`, which {}",
                    target.name,
                    code_tensor_name(&target.name),
                    target.tensor,
                    if sizes.contains_key(target.tensor.as_str()) { "exists" } else { "does not exist" }
                ));
            }
        }
        if self.tokenizer.is_some() != sizes.contains_key(TOKENIZER) {
            return Err(format!("facts about the tokenizer and the tensor `{TOKENIZER}` must come together"));
        }
        check_plan(&self.plan)
    }
}

fn check_plan(plan: &Plan) -> Result<(), String> {
    let model = &plan.model;
    for (what, value) in [("vocab", model.vocab), ("max_context", model.max_context), ("max_batch", model.max_batch)] {
        if value == 0 {
            return Err(format!("the plan's {what} is 0"));
        }
    }
    let takes_any_step = |bounds: &Bounds| {
        let max = &bounds.max;
        let sizes = max.tokens.min(max.samples).min(max.sequences);
        !bounds.one_token_per_sequence && sizes > 0 && max.context >= model.max_context
    };
    if !plan.programs.iter().any(|program| takes_any_step(&program.bounds)) {
        return Err("the plan has no program that takes several tokens of a sequence and the whole context".to_owned());
    }
    for program in &plan.programs {
        for call in &program.calls {
            if call.function >= program.functions.len() {
                return Err(format!("program `{}` calls function {}, which it lacks", program.name, call.function));
            }
            if let Some(weight) = call.weights.iter().find(|&&weight| weight >= plan.weights.len()) {
                return Err(format!("program `{}` uses weight {weight}, which the plan lacks", program.name));
            }
        }
    }
    Ok(())
}
