//! Packaging: everything that was made of a model goes into one file, the weights streamed through packing.

use crate::error::CompileError;
use crate::model::Model;
use crate::recipe::compute;
use llmc_artifact::{
    ArtifactWriter, CudaCode, Entry, FORMAT_VERSION, HostCode, Manifest, PASSES, TOKENIZER, VOCABULARY,
    code_tensor_name, ir_tensor_name,
};
use llmc_codegen::GpuModule;
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::HostTarget;
use llmc_codegen::pack::pack;
use llmc_ir::module::Function;
use llmc_ir::plan::{PackedWeight, Plan};
use llmc_models::checkpoint::check_finite;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The parts of an artifact.
pub struct Package<'a> {
    /// Weights, tokenizer and defaults.
    pub model: &'a Model,
    /// Memory layout and programs.
    pub plan: Plan,
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
        for weight in &weights {
            write_weight(&mut writer, self.model, &self.recipes, weight, &mut |bytes| {
                done += bytes;
                progress(done, total)
            })?;
        }
        Ok(writer.finish()?)
    }
}

/// Packs one weight, from the checkpoint or by its recipe, into the current entry.
fn write_weight(
    writer: &mut ArtifactWriter,
    model: &Model,
    recipes: &BTreeMap<String, Function>,
    weight: &PackedWeight,
    progress: &mut dyn FnMut(u64) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let write = |bytes: &[u8]| {
        writer.write(bytes)?;
        progress(bytes.len() as u64)
    };
    if let Some(recipe) = recipes.get(&weight.name) {
        let computed = compute(&weight.name, recipe, &model.checkpoint)?;
        check_range(weight, &computed)?;
        let read = |range: Range<usize>, values: &mut Vec<f32>| {
            values.clear();
            values.extend_from_slice(&computed[range]);
            Ok(())
        };
        pack::<CompileError>(weight, read, write)?;
    } else {
        let missing = || CompileError::Limit(format!("weight `{}` is not in the checkpoint", weight.name));
        let tensor = model.checkpoint.tensor(&weight.name).ok_or_else(missing)?;
        check_finite(&tensor)?;
        let read = |range, values: &mut Vec<f32>| {
            tensor.read_f32(range, values)?;
            check_range(weight, values)
        };
        pack::<CompileError>(weight, read, write)?;
        model.checkpoint.forget(&weight.name);
    }
    Ok(writer.end_entry()?)
}

/// Refuses values that are finite in the checkpoint but not in the type that they are packed in.
fn check_range(weight: &PackedWeight, values: &[f32]) -> Result<(), CompileError> {
    let overflows = |value: &&f32| !weight.dtype.round(f64::from(**value)).is_finite();
    // A NaN counts as the largest: nothing is larger.
    let larger =
        |largest: f32, value: &f32| if value.abs() > largest || value.is_nan() { value.abs() } else { largest };
    let largest = values.iter().fold(0f32, larger);
    if !overflows(&&largest) {
        return Ok(());
    }
    let value = values.iter().find(overflows).copied().unwrap_or(largest);
    Err(CompileError::Overflow { name: weight.name.clone(), value, dtype: weight.dtype.to_string() })
}
