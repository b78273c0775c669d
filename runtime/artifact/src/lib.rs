//! llmc-artifact: the one file between `llmc` and `llmrt`.
//!
//! An artifact is a valid safetensors file, so any safetensors reader opens it. It holds
//!
//! - the manifest ([`manifest`]): the plan, what code there is for which CPU and GPU, tokenizer facts,
//!   defaults for generation and the hash of every tensor, as a string in `__metadata__`;
//! - the packed weights, [`names`]: `weights/0000/model.embed_tokens.weight`, ...;
//! - `tokenizer.json` and its `vocabulary`, if that could be taken out of it ([`vocabulary`]);
//! - code (`code/x86-64-v4`: an ELF shared object, `code/cuda:sm_80`: PTX text) and the programs' IR (`ir/decode`: text);
//! - what the passes started from (`ir/imported`) and were told (`passes.json`), so that they can be run again.
//!
//! Every tensor starts on a page, so that a mapping of the file serves as the weights' memory
//! ([`layout`] says how that is possible although safetensors allows no gaps).
//!
//! [`ArtifactWriter`] streams an artifact to disk and puts it in place atomically. [`Artifact`]
//! opens one: it checks the header and the code, which takes milliseconds whatever the size;
//! [`Artifact::verify`] checks every byte.

mod check;
pub mod error;
pub mod layout;
pub mod manifest;
pub mod names;
mod reader;
mod temporary;
mod verify;
pub mod vocabulary;
mod writer;

pub use error::ArtifactError;
pub use manifest::{CudaCode, FORMAT_VERSION, GenerationDefaults, HostCode, Manifest, TokenizerFacts};
pub use names::{IMPORTED, PASSES, TOKENIZER, VOCABULARY, code_tensor_name, ir_tensor_name, weight_tensor_name};
pub use reader::Artifact;
pub use safetensors::Dtype;
pub use temporary::{check_writable, write_file};
pub use verify::VerifySummary;
pub use vocabulary::Vocabulary;
pub use writer::{ArtifactWriter, Entry};
