//! Packaging: everything that was made of a model goes into one file.

use crate::census::Census;
use crate::error::CompileError;
use crate::model::Model;
use crate::weights::write_weights;
use llmc_artifact::{
    ArtifactWriter, CudaCode, Entry, FORMAT_VERSION, HostCode, Manifest, PASSES, TOKENIZER, VOCABULARY,
    code_tensor_name, ir_tensor_name,
};
use llmc_codegen::GpuModule;
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::HostTarget;
use llmc_ir::module::Function;
use llmc_ir::plan::Plan;
use std::collections::BTreeMap;
use std::path::Path;

/// The parts of an artifact.
pub struct Package<'a> {
    /// Weights, tokenizer and defaults.
    pub model: &'a Model,
    /// Memory layout and programs.
    pub plan: Plan,
    /// What is known of compressed weights.
    pub census: Census,
    /// How the weights that the checkpoint lacks are computed.
    pub recipes: BTreeMap<String, Function>,
    /// Code by CPU level, the most demanding first.
    pub codes: Vec<(&'a HostTarget, llmc_codegen::HostCode)>,
    /// Code by GPU architecture.
    pub gpu_codes: Vec<(&'a GpuTarget, GpuModule)>,
    /// The IR as text: what the passes started from, and each program.
    pub ir: Vec<(String, String)>,
    /// What the passes were told, as JSON.
    pub passes: String,
}

impl Package<'_> {
    /// Writes the artifact and returns its size. `progress` hears the bytes of weights written and in all; its error
    /// ends the writing.
    ///
    /// # Errors
    /// If a weight is not finite or cannot be read, or the disk refuses. The file at `path` is then as it was before.
    pub fn write(
        self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
    ) -> Result<u64, CompileError> {
        let weights = self.plan.weights.clone();
        // What is read at every start comes first, the weights last.
        let mut small: Vec<(String, &[u8])> = Vec::new();
        small.extend(self.codes.iter().map(|(target, code)| (code_tensor_name(&target.name), &code.shared_object[..])));
        small.extend(self.gpu_codes.iter().map(|(target, code)| (code_tensor_name(&target.name), code.ptx.as_bytes())));
        if let Some(tokenizer) = &self.model.tokenizer {
            small.push((TOKENIZER.to_owned(), &tokenizer.json));
            small.extend(tokenizer.vocabulary.iter().map(|bytes| (VOCABULARY.to_owned(), &bytes[..])));
        }
        small.extend(self.ir.iter().map(|(program, text)| (ir_tensor_name(program), text.as_bytes())));
        small.push((PASSES.to_owned(), self.passes.as_bytes()));
        let mut entries: Vec<Entry> = small.iter().map(|(name, bytes)| Entry::raw(name, bytes.len())).collect();
        entries.extend(weights.iter().enumerate().map(|(index, weight)| Entry::weight(index, weight)));
        let targets = self.codes.iter().map(|(target, code)| HostCode {
            name: target.name.clone(),
            cpu_features: target.cpu_features.clone(),
            tensor: code_tensor_name(&target.name),
            scratch_bytes: code.scratch_bytes,
        });
        let cuda = self.gpu_codes.iter().map(|(target, code)| CudaCode {
            name: target.name.clone(),
            compute_capability: target.capability,
            tensor: code_tensor_name(&target.name),
            code: code.code.clone(),
        });
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            compiler_version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: self.plan,
            targets: targets.collect(),
            cuda: cuda.collect(),
            tokenizer: self.model.tokenizer.as_ref().map(|tokenizer| tokenizer.facts.clone()),
            generation: self.model.generation.clone(),
            tensors: BTreeMap::new(),
        };
        let mut writer = ArtifactWriter::create(path, entries, manifest)?;
        for (_, bytes) in &small {
            writer.write_entry(bytes)?;
        }
        let total = weights.iter().map(|weight| weight.bytes).sum();
        let mut done = 0;
        write_weights(&mut writer, self.model, (&self.recipes, &self.census), &weights, &mut |bytes| {
            done += bytes;
            progress(done, total)
        })?;
        Ok(writer.finish()?)
    }
}
