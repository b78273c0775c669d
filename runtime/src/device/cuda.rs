//! An NVIDIA GPU: a compiled model's code and memory on it, and steps.
//!
//! Setting up goes through `driver` (is there one?), `code` (the driver compiles the PTX), `memory` and `upload` (weights
//! once, from the mapped file), and `launches` (what each program launches, with all addresses). A step is a copy of its
//! inputs (`step`), the replay of recorded launches (`graphs`) and a copy of the logits back, or of the likeliest tokens
//! alone (`likeliest`, `candidates`), all on one stream, then one wait.

mod candidates;
mod code;
mod driver;
mod error;
mod graphs;
mod kernel;
mod launches;
mod likeliest;
mod memory;
mod step;
mod upload;

pub use code::choose;
pub use driver::{DeviceFacts, devices};
pub use error::CudaError;

use super::{Device, DeviceError, Preparation, Trace};
use crate::executor::{StepInputs, default_kv_blocks_within};
use crate::sampler::{self, Finds, Found};
use candidates::Candidates;
use code::Code;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use driver::Gpu;
use error::words;
use graphs::Graphs;
use launches::{Kernel, Places};
use likeliest::Likeliest;
use llmc_artifact::{Artifact, CudaCode};
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Goal, KV_BLOCK_POSITIONS, Plan};
use memory::{DeviceMemory, Pinned};
use std::sync::Arc;
use step::{Layout, StepBuffer};

/// One over the part of the free memory that stays free when the KV pool takes what there is: the driver needs some for
/// code and recordings.
const SHARE_LEFT_FREE: u64 = 20;

/// A model ready to run on a GPU.
pub struct CudaModel {
    // Recordings hold kernels and addresses, so they are dropped first, and the code after everything that uses it.
    graphs: Graphs,
    programs: Vec<Vec<Kernel>>,
    step: StepBuffer,
    kv: DeviceMemory,
    kv_blocks: usize,
    logits: DeviceMemory,
    host_logits: Pinned,
    likeliest: Likeliest,
    candidates: Candidates,
    _weights: Vec<DeviceMemory>,
    _arena: DeviceMemory,
    _workspace: DeviceMemory,
    _code: Code,
    gpu: Gpu,
    target: String,
    plan: Plan,
}

impl CudaModel {
    /// Compiles the code, reserves memory and uploads the weights; `progress` hears of it. Without a number of blocks the KV pool is as large as a full batch needs, or as what is free allows.
    ///
    /// # Errors
    /// If the artifact has no code for the device, the driver does not compile it, or memory does not suffice.
    pub fn open(
        artifact: Arc<Artifact>,
        facts: &DeviceFacts,
        kv_blocks: Option<usize>,
        progress: &mut dyn FnMut(Preparation),
    ) -> Result<CudaModel, CudaError> {
        let code = choose(&artifact, facts)?;
        let gpu = Gpu::open(facts)?;
        let plan = artifact.manifest().plan.on(Processor::Gpu);
        let needs = Needs::new(&plan, code);
        let kv_blocks = needs.kv_blocks(&plan, &gpu, kv_blocks)?;
        let kv_bytes = kv_blocks as u64 * plan.kv.block_bytes() as u64;
        progress(Preparation::Code);
        let loaded = Code::load(&gpu, &artifact, code)?;
        let is_read = artifact.manifest().plan.weights.iter().map(|weight| weight.is_read_by(Processor::Gpu));
        let weights: Vec<&[u8]> =
            artifact.weights().zip(is_read).map(|(bytes, is_read)| if is_read { bytes } else { &[] }).collect();
        let weights = upload::upload(&gpu, &weights, progress)?;
        let reserve = |bytes, action| DeviceMemory::allocate(&gpu, bytes, action);
        let arena = reserve(needs.arena, "reserving memory for activations")?;
        let workspace = reserve(needs.workspace, "reserving memory for the kernels' workspace")?;
        let logits = reserve(needs.logits, "reserving memory for logits")?;
        let mut kv = reserve(kv_bytes, "reserving memory for the KV cache")?;
        // A kernel may read what no sequence has written as long as it then gives it no weight, so it must be finite.
        let zeroed = kv.zero(&gpu, 0, kv_bytes as usize).and_then(|()| gpu.stream.synchronize());
        zeroed.map_err(gpu.failed("clearing the KV cache"))?;
        let step = StepBuffer::allocate(&gpu, needs.layout)?;
        let places = Places {
            step: &step,
            workspace: workspace.address(),
            arena: arena.address(),
            kv: kv.address(),
            logits: logits.address(),
            weights: weights.iter().map(DeviceMemory::address).collect(),
        };
        Ok(CudaModel {
            graphs: Graphs::default(),
            programs: launches::resolve(&plan, &code.code, &loaded, &places),
            host_logits: Pinned::allocate(&gpu, needs.logits)?,
            likeliest: Likeliest::new(&gpu, needs.samples, plan.model.vocab)?,
            candidates: Candidates::new(&gpu, needs.samples, plan.model.vocab)?,
            step,
            kv,
            kv_blocks,
            logits,
            _weights: weights,
            _arena: arena,
            _workspace: workspace,
            _code: loaded,
            gpu,
            target: code.name.clone(),
            plan,
        })
    }

    /// Runs a step and copies what is wanted of it to the host.
    fn run_step(&mut self, program: usize, inputs: &StepInputs, wanted: Wanted<'_>) -> Result<(), CudaError> {
        self.try_step(program, inputs, wanted).map_err(|error| {
            let (device, program) = (self.gpu.facts.describe(), self.plan.programs[program].name.clone());
            let reason = words(error);
            match error.0 {
                CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::NoMemoryForStep { device, program, reason },
                _ => CudaError::Lost { device, program, reason },
            }
        })
    }

    fn try_step(&mut self, program: usize, inputs: &StepInputs, wanted: Wanted<'_>) -> Result<(), DriverError> {
        let gpu = &self.gpu;
        let plan = &self.plan;
        gpu.context.bind_to_thread()?;
        let (tokens, samples) = (inputs.token_ids.len(), inputs.sample_rows.len());
        let sizes =
            graphs::padded(tokens, inputs.sequence_starts.len() - 1, samples, &plan.programs[program].bounds.max);
        // SAFETY: every step ends with waiting for the stream, so the buffers on both sides are free now and will be
        // when this returns. What kernels read and write is as long as the plan says, since inputs are checked against
        // it, and lives as long as the recordings.
        let submitted = unsafe {
            self.step.send(gpu, inputs).and_then(|()| {
                self.graphs.run(gpu, program, sizes, &mut self.programs[program])?;
                match wanted {
                    Wanted::Nothing => Ok(()),
                    _ if samples == 0 => Ok(()),
                    Wanted::Logits => {
                        let bytes = samples * plan.model.vocab * size_of::<f32>();
                        self.logits.copy_to(gpu, 0, &mut self.host_logits.bytes_mut()[..bytes])
                    }
                    Wanted::Likeliest => self.likeliest.find(gpu, self.logits.address(), samples),
                    Wanted::Candidates(scales) => self.candidates.find(gpu, self.logits.address(), scales),
                }
            })
        };
        // Also after an error: what was submitted before it must not be under way when the buffers are used again.
        let finished = gpu.stream.synchronize();
        submitted.and(finished)
    }
}

/// What is copied to the host after a step.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Nothing,
    Logits,
    Likeliest,
    /// With a scale for each row.
    Candidates(&'a [f32]),
}

impl Device for CudaModel {
    fn target(&self) -> &str {
        &self.target
    }

    fn describe(&self) -> String {
        format!("{} on {}", self.target, self.gpu.facts.describe())
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn threads(&self) -> Option<usize> {
        None
    }

    fn kv_blocks(&self) -> usize {
        self.kv_blocks
    }

    fn run(&mut self, program: usize, inputs: &StepInputs) -> Result<&[f32], DeviceError> {
        self.run_step(program, inputs, Wanted::Logits)?;
        let values = inputs.sample_rows.len() * self.plan.model.vocab;
        Ok(memory::as_floats(&self.host_logits.bytes()[..values * size_of::<f32>()]))
    }

    fn likeliest(&mut self, program: usize, inputs: &StepInputs) -> Result<Option<&[i32]>, DeviceError> {
        self.run_step(program, inputs, Wanted::Likeliest)?;
        Ok(Some(self.likeliest.ids(inputs.sample_rows.len())))
    }

    fn greedy_goal(&self, _: usize, _: usize) -> Goal {
        Goal::Logits
    }

    fn trace(&mut self, _: usize, _: &StepInputs) -> Result<Option<Trace>, DeviceError> {
        Ok(None)
    }

    fn finds(&self) -> Finds {
        Finds::Most
    }

    fn candidates(
        &mut self,
        program: usize,
        inputs: &StepInputs,
        scales: &[f32],
    ) -> Result<Option<Vec<Option<Found>>>, DeviceError> {
        assert_eq!(scales.len(), inputs.sample_rows.len(), "a scale for each row");
        self.run_step(program, inputs, Wanted::Candidates(scales))?;
        let vocab = self.plan.model.vocab;
        let rows = self.candidates.results(scales.len()).chunks_exact(sampler::words(vocab)).zip(scales);
        Ok(Some(rows.map(|(words, &scale)| Found::of_parts(words, vocab, scale)).collect()))
    }

    fn row(&mut self, _: usize, _: &StepInputs, row: usize) -> Result<&[f32], DeviceError> {
        let failed = self.gpu.failed("copying logits from the GPU");
        let bytes = self.plan.model.vocab * size_of::<f32>();
        let range = row * bytes..(row + 1) * bytes;
        self.gpu.context.bind_to_thread().map_err(&failed)?;
        // SAFETY: the stream is waited for before this returns.
        let copied =
            unsafe { self.logits.copy_to(&self.gpu, range.start, &mut self.host_logits.bytes_mut()[range.clone()]) };
        copied.and(self.gpu.stream.synchronize()).map_err(&failed)?;
        Ok(memory::as_floats(&self.host_logits.bytes()[range]))
    }

    fn compute(&mut self, program: usize, inputs: &StepInputs) -> Result<(), DeviceError> {
        Ok(self.run_step(program, inputs, Wanted::Nothing)?)
    }

    fn wipe_blocks(&mut self, blocks: &[u32]) -> Result<(), DeviceError> {
        let each = self.plan.kv.block_bytes();
        let failed = self.gpu.failed("clearing blocks of the KV cache");
        self.gpu.context.bind_to_thread().map_err(&failed)?;
        for &block in blocks {
            self.kv.zero(&self.gpu, block as usize * each, each).map_err(&failed)?;
        }
        Ok(self.gpu.stream.synchronize().map_err(&failed)?)
    }
}

/// Bytes of device memory that a model needs, the KV pool left out.
struct Needs {
    weights: u64,
    arena: u64,
    workspace: u64,
    logits: u64,
    /// What is found of them.
    candidates: u64,
    /// Rows of logits.
    samples: usize,
    layout: Layout,
}

impl Needs {
    fn new(plan: &Plan, code: &CudaCode) -> Needs {
        let samples = plan.programs.iter().map(|program| program.bounds.max.samples).max().unwrap_or(0);
        Needs {
            weights: plan.weights.iter().filter(|it| it.is_read_by(Processor::Gpu)).map(|weight| weight.bytes).sum(),
            arena: plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0),
            workspace: code.code.workspace_bytes,
            logits: (samples * plan.model.vocab * size_of::<f32>()) as u64,
            candidates: Candidates::bytes(samples, plan.model.vocab),
            samples,
            layout: Layout::new(plan),
        }
    }

    fn fixed(&self) -> u64 {
        let logits = self.logits.saturating_add(self.candidates);
        let rest = self.arena.saturating_add(self.workspace).saturating_add(logits);
        self.weights.saturating_add(rest).saturating_add(self.layout.bytes)
    }

    /// Blocks of the KV pool, once it is clear that everything fits.
    fn kv_blocks(&self, plan: &Plan, gpu: &Gpu, wanted: Option<usize>) -> Result<usize, CudaError> {
        let have = gpu.free_memory()?;
        let each = plan.kv.block_bytes() as u64;
        let room = have.saturating_sub(have / SHARE_LEFT_FREE).saturating_sub(self.fixed());
        let least = plan.model.max_context.div_ceil(KV_BLOCK_POSITIONS);
        let blocks = wanted.unwrap_or_else(|| default_kv_blocks_within(plan, room).max(least));
        let kv = (blocks as u64).saturating_mul(each);
        let need = self.fixed().saturating_add(kv);
        if need <= have {
            return Ok(blocks);
        }
        let (weights, rest) = (self.weights, self.fixed() - self.weights);
        let smallest = self.fixed().saturating_add(least as u64 * each);
        let advice = match blocks > least && smallest <= have {
            true => format!("give the KV cache less with --kv-memory, {} bytes at least", least as u64 * each),
            false => "free memory, or compile with a smaller --max-context or --max-batch".to_owned(),
        };
        let parts = format!("{weights} for weights, {kv} for {blocks} blocks of KV cache, {rest} for activations");
        Err(CudaError::OutOfMemory { device: gpu.facts.describe(), have, need, parts, advice })
    }
}
