//! Import of GGUF files: a quantised model becomes a Hugging Face directory that `llmc compile` takes.
//!
//! ```text
//! reader     the container: metadata and tensor table, distrusted
//! hyper      sizes and constants          rope    context extension
//! layout     which tensor becomes which   quant   what the bits mean
//! tokenizer  vocabulary and merges -> tokenizer.json
//! config     config.json, generation_config.json
//! weights    model.safetensors            output  all files appear at once
//! ```
//!
//! Weights are dequantised and rounded to bf16: the model is the quantised one, not the one that was quantised.

mod config;
mod error;
mod hyper;
mod layout;
mod metadata;
mod output;
mod quant;
mod reader;
mod rope;
mod tokenizer;
mod weights;

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

pub use error::GgufError;
use output::{Staged, WriteError, io_error};

/// What an import did.
#[derive(Clone, Debug)]
pub struct ImportSummary {
    /// The architecture that the file names: `llama` or `qwen2`.
    pub architecture: String,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of weights written.
    pub bytes: u64,
    /// The files written, in the order in which they appeared.
    pub files: Vec<PathBuf>,
    /// What the user should know: one sentence each, none if the conversion is exact.
    pub warnings: Vec<String>,
}

/// Progress is reported about every so many bytes.
const PROGRESS_BYTES: u64 = 1 << 22;

/// Converts a GGUF file into a directory with `model.safetensors` (bf16), `config.json`, `generation_config.json`,
/// `tokenizer.json` and `tokenizer_config.json`.
///
/// `progress` is called with the bytes of weights written so far and in total; `false` ends the import. Files get their
/// names only when all are complete, `config.json` last; before that, and on an error, nothing is seen of them. Memory:
/// the tokenizer and one row.
///
/// # Errors
/// Names the file, what is wrong or not supported, and what to do: see [`GgufError`].
pub fn import(
    gguf: &Path,
    outdir: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<ImportSummary, GgufError> {
    let io = |doing, source| io_error(gguf, doing, source);
    // Looked at before opening, because opening a pipe would wait for a writer.
    if !gguf.metadata().map_err(|e| io("find", e))?.is_file() {
        return Err(GgufError::Malformed { path: gguf.to_path_buf(), problem: "it is not a regular file".to_string() });
    }
    let file = File::open(gguf).map_err(|e| io("open", e))?;
    // SAFETY: the map is read-only and private, and nothing borrowed from it outlives this function. Another process that
    // shortens the file meanwhile could make reads raise SIGBUS; a model file is a finished download, so this is left to
    // the user, as in `checkpoint`.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| io("map", e))?;

    let problem = |problem: error::Problem| problem.in_file(gguf);
    let parsed = reader::parse(&map).map_err(problem)?;
    let hyper = hyper::read(&parsed).map_err(problem)?;
    let layout = layout::layout(&parsed, &hyper).map_err(problem)?;
    let tokenizer = tokenizer::build(&parsed.metadata, layout.vocabulary, hyper.context).map_err(problem)?;

    let total = weights::total_bytes(&layout.weights);
    let mut staged = Staged::create(gguf, outdir)?;
    staged.write("model.safetensors", |out| {
        out.write_all(&weights::header(&layout.weights))?;
        let (mut done, mut reported) = (0, 0);
        let mut report = |done| if progress(done, total) { Ok(()) } else { Err(WriteError::Interrupted) };
        report(0)?;
        for weight in &layout.weights {
            weights::write(weight, out, |bytes| {
                done += bytes;
                if done - reported >= PROGRESS_BYTES || done == total {
                    reported = done;
                    report(done)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    staged.write_compact_json("tokenizer.json", &tokenizer.tokenizer)?;
    staged.write_json("tokenizer_config.json", &tokenizer.config)?;
    staged.write_json("generation_config.json", &config::generation_config(&tokenizer.ids))?;
    staged.write_json("config.json", &config::config(&hyper, &layout, &tokenizer.ids))?;
    Ok(ImportSummary {
        architecture: hyper.architecture.name().to_string(),
        tensors: layout.weights.len(),
        bytes: total,
        files: staged.publish()?,
        warnings: layout.warnings.into_iter().chain(tokenizer.warnings).collect(),
    })
}
