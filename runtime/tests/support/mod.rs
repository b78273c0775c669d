//! Toy artifacts: compiled from C, with results that a test can predict.
#![allow(dead_code, reason = "each test binary uses a part")]

use llmc_artifact::{Artifact, ArtifactWriter, Entry, GenerationDefaults, HostCode, Manifest, code_tensor_name};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Processor;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, KvLayout, ModelFacts, PackedWeight, Plan, Program, WeightLayout, Work};
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorOptions, SampleRows, Step, StepSequence};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// Size of the toy's vocabulary. The last id's logit tells which program ran.
pub const VOCAB: usize = 101;
/// A token that turns all later logits of its sequence into NaN.
pub const POISON: u32 = 99;
/// Positions of a sequence.
pub const CONTEXT: usize = 256;
/// Sequences in a step.
pub const BATCH: usize = 6;
/// Tokens in a prefill step.
pub const CHUNK: usize = 40;
/// Rows of logits in a prefill step.
pub const SAMPLES: usize = 20;
/// Blocks of one sequence.
pub const BLOCKS: usize = CONTEXT / KV_BLOCK_POSITIONS;
/// The last logit of a row that the decode program computed.
pub const DECODE: f32 = -1.0;
/// The last logit of a row that the prefill program computed.
pub const PREFILL: f32 = -2.0;

/// The token that the toy says after `context`.
pub fn next_token(context: &[u32]) -> u32 {
    context.iter().fold(7u32, |hash, &token| hash.wrapping_mul(31).wrapping_add(token)) % (VOCAB as u32 - 3)
}

/// What follows `prompt`.
pub fn continuation(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..count {
        all.push(next_token(&all));
    }
    all.split_off(prompt.len())
}

/// A prompt of ordinary tokens.
pub fn prompt(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|i| (i * 7 + seed * 13 + 1) % 90).collect()
}

/// An executor for the toy with the whole pool that its batch needs.
pub fn executor(threads: usize) -> Executor {
    executor_with_blocks(threads, BATCH * BLOCKS)
}

/// The same with another pool.
pub fn executor_with_blocks(threads: usize, kv_blocks: usize) -> Executor {
    let directory = tempfile::tempdir().unwrap();
    let artifact = Arc::new(artifact(directory.path(), &["sse2"], shared_object()));
    Executor::new(
        artifact,
        ExecutorOptions {
            device: DeviceChoice::Host,
            threads: Some(threads),
            kv_blocks: Some(kv_blocks),
            ..ExecutorOptions::default()
        },
    )
    .unwrap()
}

/// A prefill step of two sequences, and decode steps that go on from there.
pub fn steps_of_two_sequences() -> (Step, Vec<Step>) {
    let tokens = prompt(60, 1);
    let part = |range: Range<usize>, first_block: usize| StepSequence {
        tokens: tokens[range.clone()].to_vec(),
        start_position: range.start as u32,
        block_table: (first_block as u32..).take(BLOCKS).collect(),
        sample: SampleRows::Last,
    };
    let step = |range: Range<usize>| Step { sequences: vec![part(range.clone(), 0), part(range, BLOCKS)] };
    (step(0..20), (20..60).map(|position| step(position..position + 1)).collect())
}

/// Writes and opens an artifact in `directory` whose code needs the given CPU features.
pub fn artifact(directory: &Path, features: &[&str], code: &[u8]) -> Artifact {
    let path = directory.join("toy.llmc");
    write(&path, features, code);
    Artifact::open(&path).unwrap()
}

/// Writes such an artifact.
pub fn write(path: &Path, features: &[&str], code: &[u8]) {
    let manifest = manifest(features);
    let bias: Vec<u8> = (0..VOCAB).flat_map(|v| (v as f32 / 1000.0).to_le_bytes()).collect();
    let entries =
        vec![Entry::weight(0, &manifest.plan.weights[0]), Entry::raw(manifest.targets[0].tensor.clone(), code.len())];
    let mut writer = ArtifactWriter::create(path, entries, manifest).unwrap();
    writer.write_entry(&bias).unwrap();
    writer.write_entry(code).unwrap();
    writer.finish().unwrap();
}

/// The toy's code, compiled once per test binary.
pub fn shared_object() -> &'static [u8] {
    static CODE: OnceLock<Vec<u8>> = OnceLock::new();
    CODE.get_or_init(|| {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/toy.c");
        let directory = tempfile::tempdir().unwrap();
        let object = directory.path().join("toy.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-O1", "-fPIC", "-nostdlib", "-o"]).arg(&object).arg(source);
        assert!(compiler.status().unwrap().success());
        std::fs::read(object).unwrap()
    })
}

fn manifest(features: &[&str]) -> Manifest {
    let program = |name: &str, tokens, samples, one_token_per_sequence| Program {
        name: name.to_owned(),
        processor: Processor::Cpu,
        bounds: Bounds {
            max: Bindings { tokens, samples, sequences: BATCH, context: CONTEXT },
            one_token_per_sequence,
        },
        arena_bytes: 4 * CHUNK as u64,
        functions: Vec::new(),
        calls: Vec::new(),
        work: Work::default(),
        search: None,
    };
    Manifest {
        format_version: 0,
        compiler_version: "0.1.0".to_owned(),
        plan: Plan {
            model: ModelFacts {
                architecture: "ToyForCausalLM".to_owned(),
                dtype: DType::F32,
                vocab: VOCAB,
                hidden: 1,
                layers: 1,
                max_context: CONTEXT,
                max_batch: BATCH,
                parameters: VOCAB as u64,
            },
            kv: KvLayout { layers: 1, heads: 1, head_dim: 32, dtype: DType::F32 },
            weights: vec![PackedWeight {
                name: "bias".to_owned(),
                dtype: DType::F32,
                shape: vec![VOCAB],
                layout: WeightLayout::RowMajor,
                bytes: 4 * VOCAB as u64,
            }],
            programs: vec![program("decode", BATCH, BATCH, true), program("prefill", CHUNK, SAMPLES, false)],
        },
        targets: vec![HostCode {
            name: "toy".to_owned(),
            cpu_features: features.iter().map(|&feature| feature.to_owned()).collect(),
            tensor: code_tensor_name("toy"),
            scratch_bytes: 100,
        }],
        cuda: Vec::new(),
        tokenizer: None,
        generation: GenerationDefaults::default(),
        tensors: BTreeMap::new(),
    }
}
