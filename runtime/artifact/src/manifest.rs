//! The manifest: everything in an artifact that is not bulk data.

use llmc_ir::gpu::GpuCode;
use llmc_ir::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the file's format, of the plan and of the calling convention together. It changes
/// whenever any of them changes its meaning.
pub const FORMAT_VERSION: u32 = 5;

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
    /// Code for NVIDIA GPUs, one per architecture.
    #[serde(default)]
    pub cuda: Vec<CudaCode>,
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
    /// Name of the tensor that holds the ELF shared object, see [`crate::code_tensor_name`].
    pub tensor: String,
    /// Working memory that each thread needs ([`llmc_ir::abi::StepArgs::scratch`]).
    pub scratch_bytes: u64,
}

/// PTX for one GPU architecture and those after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CudaCode {
    /// `cuda:sm_80` and so on.
    pub name: String,
    /// The least compute capability of a device that runs it: `10 * major + minor`.
    pub compute_capability: u32,
    /// Name of the tensor that holds the PTX text, see [`crate::code_tensor_name`].
    pub tensor: String,
    /// The grids that each of the plan's kernels becomes.
    pub code: GpuCode,
}

/// What a tokenizer needs besides its tokenizer.json (which is the tensor [`TOKENIZER`](crate::TOKENIZER)).
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
