//! Logits out of the executor, and how close two of them are.

use llmc_artifact::Artifact;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorOptions, SampleRows, Step, StepSequence};
use std::path::Path;
use std::sync::Arc;

/// An executor on the host with room for some full contexts.
pub fn executor(artifact: &Path, threads: usize) -> Executor {
    executor_on(artifact, DeviceChoice::Host, threads)
}

/// The same on any device.
pub fn executor_on(artifact: &Path, device: DeviceChoice, threads: usize) -> Executor {
    let artifact = Arc::new(Artifact::open(artifact).unwrap());
    let blocks = artifact.manifest().plan.model.max_context.div_ceil(KV_BLOCK_POSITIONS);
    let options = ExecutorOptions { device, threads: Some(threads), kv_blocks: Some(6 * blocks) };
    Executor::new(artifact, options).unwrap()
}

/// A part of a sequence whose blocks are `first_block` and those after it.
pub fn part(tokens: &[u32], start: usize, first_block: usize, sample: SampleRows) -> StepSequence {
    let blocks = (start + tokens.len()).div_ceil(KV_BLOCK_POSITIONS);
    StepSequence {
        tokens: tokens.to_vec(),
        start_position: start as u32,
        block_table: (first_block..first_block + blocks).map(|block| block as u32).collect(),
        sample,
    }
}

/// The logits after every token, when the tokens are fed in steps of the given sizes, the last one repeated as often as
/// needed.
pub fn logits(executor: &mut Executor, tokens: &[u32], steps: &[usize]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    let mut sizes = steps.iter().copied().chain(std::iter::repeat(*steps.last().unwrap()));
    while rows.len() < tokens.len() {
        let start = rows.len();
        let end = tokens.len().min(start + sizes.next().unwrap());
        let step = Step { sequences: vec![part(&tokens[start..end], start, 0, SampleRows::All)] };
        let logits = executor.run(&step).unwrap();
        rows.extend((0..logits.rows()).map(|row| logits.row(row).to_vec()));
    }
    rows
}

/// The Euclidean norm of the difference over that of `expected`.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(&a, b)| f64::from(a) - b)) / norm(&mut expected.iter().copied())
}

/// As double precision.
pub fn widen(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&logit| f64::from(logit)).collect()
}
