//! `llmc explain`: what the compiler did with a model, and why, reconstructed from the artifact alone.
//!
//! An artifact keeps the imported module and what the passes were told ([`kept`]). The passes take milliseconds and are
//! deterministic, so they simply run again, watched; the plan that comes out is compared with the artifact's.
//!
//! | file | idea |
//! |---|---|
//! | `report` | the data, without any presentation |
//! | `rerun` | the passes once more, and the report of them |
//! | `draw`, `origin` | functions as graphs, and where each node comes from |
//! | `saturation`, `forms` | e-graphs, rules that fired, chosen forms; the forms as text |
//! | `kernels`, `arena` | what launches cost on the machine, and where their values are |
//! | `gpu` | device kernels, grids, and estimated times |
//! | `text`, `page` | the report for a terminal and for a browser |

mod arena;
mod draw;
pub mod forms;
mod gpu;
pub mod kept;
mod kernels;
mod origin;
pub mod page;
pub mod report;
mod rerun;
mod saturation;
pub mod text;

pub use rerun::{Watched, explain, explain_for};

use llmc_artifact::ArtifactError;
use llmc_passes::pipeline::PipelineError;
use std::path::PathBuf;

/// Why an artifact cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A part of the artifact is not what was written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// It was made by a compiler that kept nothing to explain it by.
    #[error("{} has no tensor `{tensor}`: an older llmc made it; compile the model again", path.display())]
    NothingKept {
        /// The artifact.
        path: PathBuf,
        /// What is missing.
        tensor: String,
    },
    /// What was kept does not parse.
    #[error("the artifact's `{tensor}` is damaged: {detail}; compile the model again")]
    Damaged {
        /// Which part.
        tensor: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The passes do not run on what was kept.
    #[error("the passes cannot be run again: {0}; compile the model again with this llmc")]
    Pipeline(#[from] PipelineError),
    /// Saturation failed.
    #[error("equality saturation cannot be run again: {0}; compile the model again with this llmc")]
    Saturation(String),
    /// Something cannot be priced.
    #[error("the programs cannot be priced: {0}")]
    Machine(String),
    /// The code does not parse.
    #[error("the code of {target} cannot be read: {detail}; compile the model again")]
    Code {
        /// The target.
        target: String,
        /// What is wrong with it.
        detail: String,
    },
}
