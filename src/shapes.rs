//! A model's shapes alone: what the passes would make of it, from its config.json and without its weights.

use crate::compile::{Request, batch_invariant, instruments, pass_context};
use crate::error::CompileError;
use crate::explain::forms::forms;
use crate::explain::kept::Kept;
use crate::explain::report::Report;
use crate::explain::{Watched, text};
use crate::model::Definition;
use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::module::Module;
use llmc_models::config::ModelConfig;
use llmc_passes::eqsat::rule::Invariance;
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::PipelineError;
use std::fmt;
use std::path::Path;

/// A model that is known by its configuration only.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// What it is called in reports: its file's name.
    pub name: String,
    /// What config.json says.
    pub config: ModelConfig,
    /// The element types that it would be compiled to.
    pub numerics: Numerics,
    /// The definition, built for the configuration.
    pub module: Module,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
}

/// What the passes made of the shapes.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// They stopped after a phase, as asked; this is the state as text.
    Stopped(String),
    /// All of them ran.
    Planned(Box<Study>),
}

/// What there is to say when all passes ran.
#[derive(Clone, Debug)]
pub struct Study {
    /// As of an artifact, but for what only an artifact has.
    pub report: Report,
    /// The run that it is about.
    watched: Watched,
}

impl Shapes {
    /// Reads a config.json, or the one in a directory.
    ///
    /// # Errors
    /// If it is missing, no configuration, or not understood.
    pub fn load(path: &Path, dtype: DType) -> Result<Shapes, CompileError> {
        let parsed = if path.is_dir() { ModelConfig::load(path)? } else { ModelConfig::read(path)? };
        // The checkpoint would be stored as it is where that is a narrower form of the same values.
        let stored = match (dtype, parsed.config.dtype) {
            (DType::F32, Some(DType::BF16)) => DType::BF16,
            _ => dtype,
        };
        let numerics = Numerics { stored, ..Numerics::new(dtype) };
        let module = llmc_models::build(&parsed.config, numerics)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Shapes { name, config: parsed.config, numerics, module, warnings: parsed.warnings })
    }

    /// Runs the passes. Targets of the request are of no interest: no code is made.
    ///
    /// # Errors
    /// If a limit is not one that the model allows, batch-invariant logits are asked of a GPU, or a pass fails.
    pub fn study(&self, request: &Request) -> Result<Outcome, CompileError> {
        let definition = Definition { config: &self.config, numerics: self.numerics, module: &self.module };
        let request = &match request.passes.invariance {
            Invariance::Program => request.clone(),
            Invariance::Batch => batch_invariant(request)?,
        };
        let context = pass_context(&definition, request)?;
        let watched = Watched::run(self.module.clone(), &context, &request.passes, instruments(request))?;
        let stopped = request.passes.stop_after.is_some_and(|phase| phase != Phase::Compiled);
        if let (true, Some(last)) = (stopped, watched.last()) {
            return Ok(Outcome::Stopped(last.text()));
        }
        let kept = Kept::of(&context, &request.passes);
        let mut report = watched
            .report(self.name.clone(), &context, &kept, &[])
            .map_err(|error| PipelineError::Pass { pass: "eqsat", message: error.to_string() })?;
        let note = "no weights were read, so none is compressed; no code was made, no artifact was written";
        report.notes.insert(0, note.to_owned());
        Ok(Outcome::Planned(Box::new(Study { report, watched })))
    }
}

impl Study {
    /// The report for a terminal, and behind it the form that each program got of each function, priced line by line.
    ///
    /// # Errors
    /// Never: text grows.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let text = text::text(&self.report)?;
        match self.watched.around_saturation() {
            Some(around) => Ok(format!("{text}\nFORMS\n{}", forms(around, &self.report.machines)?)),
            None => Ok(text),
        }
    }
}
