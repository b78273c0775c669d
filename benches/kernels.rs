//! Single kernels at SmolLM2's shapes, compiled for this machine and run as a step on all its threads.
//!
//! A step here is a model with little but the kernel in it. Weights differ from call to call and take as many bytes as a
//! whole model's, so that they come from where a model's come from.
//!
//! ```text
//! cargo bench --bench kernels [-- FILTER]
//! ```

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use llmc_artifact::{
    Artifact, ArtifactWriter, Entry, FORMAT_VERSION, GenerationDefaults, HostCode, Manifest, code_tensor_name,
};
use llmc_codegen::compile_host;
use llmc_codegen::host::HostTarget;
use llmc_ir::builder::{Bias, FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Argument, Call, LOGITS, Module};
use llmc_ir::op::{AttendMethod, Attention, Op};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, KvLayout, ModelFacts, StepInput};
use llmc_ir::shape::Type;
use llmc_passes::pass::{Context, State};
use llmc_passes::pipeline::{Options, run_pipeline};
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorOptions, SampleRows, Step, StepSequence};
use std::collections::BTreeMap;
use std::sync::Arc;

/// SmolLM2-135M.
const HIDDEN: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD: usize = 64;
/// Size of the vocabulary where logits do not matter.
const VOCAB: usize = 32;
const CONTEXT: usize = 2048;

/// Bytes of weights of a step of products: more than the caches of a core hold.
const WEIGHT_BYTES: usize = 256 << 20;

fn main() {
    divan::main();
}

/// A product's name, columns and length.
const PRODUCTS: [(&str, usize, usize); 4] =
    [("qkv", 960, 576), ("o", 576, 576), ("gate+up", 3072, 576), ("down", 576, 1536)];

/// Products with as many weights as fill [`WEIGHT_BYTES`], each added to the results of those before.
#[divan::bench(args = cases(&[1, 16, 512]), sample_count = 10)]
fn dot(bencher: Bencher<'_, '_>, case: &str) {
    let (name, rows) = case.split_once(" x ").expect("as `cases` writes it");
    let rows: usize = rows.parse().expect("a number");
    let (_, n, k) = PRODUCTS.into_iter().find(|(known, ..)| *known == name).expect("one of them");
    let calls = if rows > 64 { 8 } else { WEIGHT_BYTES / (2 * n * k) };
    let module = Steps { calls, inputs: vec![k], state: n, cached: false }.module(|b, inputs, state, _| {
        let product = b.linear(inputs[0], "w", (k, n), Bias::Absent);
        let state = b.convert(state, DType::F32);
        let sum = b.plus(state, product);
        b.to_matrix_type(sum)
    });
    let mut executor = executor(&module);
    let step = step(1, rows, 0);
    bencher
        .counter(ItemsCount::new(2 * rows * n * k * calls))
        .counter(BytesCount::new(2 * n * k * calls))
        .bench_local(|| executor.run(&step).map(|logits| logits.rows()).expect("the step fits"));
}

fn cases(rows: &[usize]) -> Vec<String> {
    PRODUCTS.iter().flat_map(|(name, ..)| rows.iter().map(move |rows| format!("{name} x {rows}"))).collect()
}

/// One token of each of so many sequences, behind 1024 others.
#[divan::bench(args = [1, 16], sample_count = 10)]
fn attend_at_depth_1024(bencher: Bencher<'_, '_>, sequences: usize) {
    const DEPTH: usize = 1024;
    const LAYERS: usize = 30;
    let kv = KV_HEADS * HEAD;
    let module =
        Steps { calls: LAYERS, inputs: vec![kv], state: HIDDEN, cached: true }.module(|b, inputs, state, cache| {
            let cache = b.kv_write(cache.expect("asked for"), inputs[0], inputs[0]);
            let method = AttendMethod::Whole;
            let attention = Attention { heads: HEADS, kv_heads: KV_HEADS, scale: 0.125.into(), window: None, method };
            b.attend(state, cache, attention)
        });
    let mut executor = executor(&module);
    for sequence in 0..sequences {
        for start in (0..DEPTH).step_by(512) {
            let step = Step { sequences: vec![part(sequence, start, 512)] };
            executor.run(&step).expect("the step fits");
        }
    }
    let step = step(sequences, 1, DEPTH);
    bencher
        .counter(BytesCount::new(LAYERS * sequences * (DEPTH + 1) * 4 * kv))
        .bench_local(|| executor.run(&step).map(|logits| logits.rows()).expect("the step fits"));
}

/// RMS norms of rows, each of the result of the one before.
#[divan::bench(args = [1, 16, 512], sample_count = 10)]
fn rms_norm(bencher: Bencher<'_, '_>, rows: usize) {
    const CALLS: usize = 60;
    let module = Steps { calls: CALLS, inputs: vec![], state: HIDDEN, cached: false }.module(|b, _, state, _| {
        let wide = b.convert(state, DType::F32);
        let normed = b.rms_norm(wide, "norm", 1e-5);
        b.to_matrix_type(normed)
    });
    let mut executor = executor(&module);
    let step = step(1, rows, 0);
    bencher
        .counter(ItemsCount::new(CALLS * rows * HIDDEN))
        .bench_local(|| executor.run(&step).map(|logits| logits.rows()).expect("the step fits"));
}

/// A step of so many calls of one function, each with weights of its own.
struct Steps {
    calls: usize,
    /// Widths of rows that every call gets as they are.
    inputs: Vec<usize>,
    /// Width of the rows that a call hands to the next one.
    state: usize,
    /// Whether each call has a cache.
    cached: bool,
}

impl Steps {
    fn module(&self, body: impl FnOnce(&mut FunctionBuilder, &[NodeId], NodeId, Option<NodeId>) -> NodeId) -> Module {
        let numerics = Numerics::new(DType::BF16);
        let rows = |width: usize| Type::tensor(DType::BF16, &[Dim::from(Symbol::Tokens), width.into()]);
        let names: Vec<String> = (0..self.inputs.len()).map(|index| format!("input{index}")).collect();
        let mut b = FunctionBuilder::new("embed", numerics);
        let ids = b.step(StepInput::TokenIds);
        let mut looked_up = Vec::new();
        for (name, &width) in
            names.iter().map(String::as_str).chain(["state"]).zip(self.inputs.iter().chain([&self.state]))
        {
            let table = b.matrix(name, VOCAB, width);
            let rows = b.embedding(table, ids);
            looked_up.push(b.to_matrix_type(rows));
        }
        let embed = b.finish(&looked_up).expect("well-typed");

        let mut b = FunctionBuilder::new("call", numerics);
        let inputs: Vec<NodeId> =
            names.iter().zip(&self.inputs).map(|(name, &width)| b.param(name, rows(width))).collect();
        let state = b.param("state", rows(self.state));
        let cache = self.cached.then(|| b.kv_param("kv", KV_HEADS, HEAD));
        let result = body(&mut b, &inputs, state, cache);
        let function = b.finish(&[result]).expect("well-typed");

        let mut b = FunctionBuilder::new("head", numerics);
        let x = b.param("state", rows(self.state));
        let wanted = b.step(StepInput::SampleRows);
        let x = b.add(Op::Gather, &[x, wanted]);
        let logits = b.linear(x, "logits", (self.state, VOCAB), Bias::Absent);
        let head = b.finish(&[logits]).expect("well-typed");

        let values: Vec<String> = names.into_iter().chain(["state".to_owned()]).collect();
        let mut calls = vec![Call {
            function: "embed".into(),
            scope: String::new(),
            arguments: Vec::new(),
            results: values.clone(),
        }];
        for index in 0..self.calls {
            let cache = self.cached.then_some(Argument::Kv(index));
            calls.push(Call {
                function: "call".into(),
                scope: format!("{index}."),
                arguments: values.iter().cloned().map(Argument::Value).chain(cache).collect(),
                results: vec!["state".into()],
            });
        }
        calls.push(Call {
            function: "head".into(),
            scope: String::new(),
            arguments: vec![Argument::Value("state".into())],
            results: vec![LOGITS.into()],
        });
        Module { name: "Kernels".into(), functions: vec![embed, function, head], calls }
    }
}

/// Compiles a module for this machine, with weights that are all alike, and makes it ready to run.
fn executor(module: &Module) -> Executor {
    let facts = ModelFacts {
        architecture: "Kernels".into(),
        dtype: DType::BF16,
        vocab: VOCAB,
        hidden: HIDDEN,
        layers: 1,
        max_context: CONTEXT,
        max_batch: 16,
        parameters: 0,
    };
    let context = Context::new(facts, Machine::named("host").expect("it comes with the compiler"));
    let state = State::Module(module.clone());
    let (state, _) = run_pipeline(state, &context, &Options::default(), &mut []).expect("the passes run");
    let State::Planned(mut planned) = state else { panic!("expected a plan, found {}", state.kind()) };
    if planned.plan.kv.layers == 0 {
        // An artifact has a cache, used or not.
        planned.plan.kv = KvLayout { layers: 1, heads: KV_HEADS, head_dim: HEAD, dtype: DType::BF16 };
    }
    let target = HostTarget::named("native").expect("it is known");
    let code = compile_host(&planned, &target).expect("there is code");
    let weights = planned.plan.weights.clone();
    let tensor = code_tensor_name(&target.name);
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        compiler_version: String::new(),
        plan: planned.plan,
        targets: vec![HostCode {
            name: target.name,
            cpu_features: target.cpu_features,
            tensor: tensor.clone(),
            scratch_bytes: code.scratch_bytes,
        }],
        cuda: Vec::new(),
        tokenizer: None,
        generation: GenerationDefaults::default(),
        tensors: BTreeMap::new(),
    };
    let mut entries = vec![Entry::raw(tensor, code.shared_object.len())];
    entries.extend(weights.iter().enumerate().map(|(index, weight)| Entry::weight(index, weight)));
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let path = directory.path().join("kernels.llmc");
    let mut writer = ArtifactWriter::create(&path, entries, manifest).expect("the file can be written");
    writer.write_entry(&code.shared_object).expect("the file can be written");
    for weight in &weights {
        // 2^-9 in bf16, whatever it is packed as: sums stay small.
        let bytes: Vec<u8> = [0x00, 0x3b].into_iter().cycle().take(weight.bytes as usize).collect();
        writer.write_entry(&bytes).expect("the file can be written");
    }
    writer.finish().expect("the file can be written");
    let artifact = Arc::new(Artifact::open(&path).expect("it was just written"));
    let blocks = 16 * CONTEXT.div_ceil(KV_BLOCK_POSITIONS);
    let options = ExecutorOptions {
        device: DeviceChoice::Host,
        threads: None,
        kv_blocks: Some(blocks),
        ..ExecutorOptions::default()
    };
    Executor::new(artifact, options).expect("this machine runs its own code")
}

/// So many new tokens of each sequence, from a position on.
fn step(sequences: usize, tokens: usize, start: usize) -> Step {
    Step { sequences: (0..sequences).map(|sequence| part(sequence, start, tokens)).collect() }
}

fn part(sequence: usize, start: usize, tokens: usize) -> StepSequence {
    let blocks = CONTEXT.div_ceil(KV_BLOCK_POSITIONS);
    StepSequence {
        tokens: (0..tokens).map(|token| (token % VOCAB) as u32).collect(),
        start_position: start as u32,
        block_table: (sequence * blocks..(sequence + 1) * blocks).map(|block| block as u32).collect(),
        sample: SampleRows::Last,
    }
}
