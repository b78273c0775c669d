//! A compiled case in memory, run on threads.

use crate::case::Case;
use crate::enclosure::error::PositionWeights;
use crate::guarded::Guarded;
use crate::pool::{Batch, Pool};
use libloading::Library;
use llmc_codegen::error::CodegenError;
use llmc_codegen::host::HostTarget;
use llmc_codegen::pack::Packing;
use llmc_codegen::{HostCode, compile_host};
use llmc_ir::abi::{StepArgs, StepFunction};
use llmc_ir::dtype::DType;
use llmc_ir::eval::{Mode, StepInputs, Tensor, eval_function};
use llmc_ir::module::Function;
use llmc_ir::plan::{PackedWeight, Plan};
use llmc_ir::region::PlannedModel;
use std::ffi::c_void;
use std::io::Write;
use std::sync::Barrier;

/// Bytes of memory that compiled code must write before it reads: as bf16, f32 and i32 each a value that shows.
const UNWRITTEN: u8 = 0xFF;

/// Code and weights.
#[derive(Debug)]
pub struct Compiled {
    /// What it was compiled from.
    pub plan: Plan,
    programs: Vec<StepFunction>,
    weights: Vec<Guarded>,
    scratch_bytes: usize,
    /// What attention rounds the weights of positions to.
    pub attention_weights: PositionWeights,
    _library: Library,
}

impl Compiled {
    /// Compiles, links and loads a planned case and packs its weights.
    ///
    /// # Errors
    /// If code generation fails.
    ///
    /// # Panics
    /// If the code does not load or a weight is missing.
    pub fn new(case: &Case, model: PlannedModel, target: &HostTarget) -> Result<Compiled, CodegenError> {
        let HostCode { shared_object, scratch_bytes } = compile_host(&model, target)?;
        let weights = model.plan.weights.iter().map(|weight| packed(case, &model, weight)).collect::<Result<_, _>>()?;
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&shared_object).expect("room for the code");
        // SAFETY: the code was just made; shared objects of the compiler run nothing on loading.
        let library = unsafe { Library::new(file.path()) }.expect("the code loads");
        let entry = |symbol: String| {
            // SAFETY: the compiler gives every entry point this type.
            *unsafe { library.get::<StepFunction>(symbol.as_bytes()) }.expect("an entry point per program")
        };
        let programs = model.plan.programs.iter().map(|program| entry(program.entry_symbol())).collect();
        let scratch_bytes = (scratch_bytes as usize).max(64);
        let by_tiles = target.has("amx-bf16") && model.plan.kv.dtype == DType::BF16;
        let attention_weights = if by_tiles { PositionWeights::Bf16 } else { PositionWeights::F32 };
        Ok(Compiled { plan: model.plan, programs, weights, scratch_bytes, attention_weights, _library: library })
    }

    /// Runs one step of a program on `threads` threads. Returns the logits, `[samples, vocab]`.
    ///
    /// # Errors
    /// If anything beyond the step's memory was written.
    pub fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, threads: usize) -> Result<Vec<f32>, String> {
        let step = &batch.step;
        let vocab = self.plan.model.vocab;
        let mut arena = Guarded::new(self.plan.programs[program].arena_bytes as usize, 64, UNWRITTEN);
        let mut scratch = Guarded::new(self.scratch_bytes * threads, 64, UNWRITTEN);
        let mut logits = Guarded::new(step.sample_rows.len() * vocab * 4, 4, UNWRITTEN);
        let lists = [&step.token_ids, &step.positions, &step.sample_rows, &batch.slots, &batch.starts, &batch.tables];
        let lists = lists.map(|list| integers(list));
        let [token_ids, positions, sample_rows, slots, sequence_starts, block_tables] =
            lists.each_ref().map(|list| list.as_ptr().cast::<i32>());
        let weights: Vec<*const u8> = self.weights.iter().map(Guarded::as_ptr).collect();
        let barrier = Barrier::new(threads);
        let args = StepArgs {
            tokens: step.token_ids.len() as u64,
            sequences: step.sequence_ids.len() as u64,
            samples: step.sample_rows.len() as u64,
            block_table_stride: batch.stride as u64,
            token_ids,
            positions,
            sample_rows,
            slots,
            sequence_starts,
            block_tables,
            weights: weights.as_ptr(),
            kv: pool.memory().as_mut_ptr(),
            arena: arena.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            scratch_stride: self.scratch_bytes as u64,
            logits: logits.as_mut_ptr().cast(),
            barrier: meet,
            barrier_state: (&raw const barrier).cast(),
            trace: None,
            trace_state: std::ptr::null(),
        };
        let shared = Shared(&args);
        let function = self.programs[program];
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let shared = &shared;
                // SAFETY: `args` and all that it points to outlives the scope, has the sizes that the plan and codegen
                // ask for, and each thread number is used once.
                scope.spawn(move || unsafe { function(shared.0, thread as u32, threads as u32) });
            }
        });
        for (memory, name) in
            [(&arena, "arena"), (&scratch, "scratch"), (&logits, "logits"), (pool.memory(), "KV pool")]
        {
            memory.check().map_err(|error| format!("around the {name}: {error}"))?;
        }
        let inputs = lists.iter().zip([&step.token_ids, &step.positions, &step.sample_rows]);
        if inputs.into_iter().any(|(list, before)| list.bytes() != bytes(before)) {
            return Err("the step's inputs were written".into());
        }
        let floats =
            logits.bytes().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(floats.collect())
    }
}

struct Shared(*const StepArgs);

// SAFETY: the threads of a step share its arguments: that is their contract.
unsafe impl Sync for Shared {}

unsafe extern "C" fn meet(state: *const c_void, _thread: u32) {
    // SAFETY: `run` passes a barrier that lives until all threads are through.
    let barrier = unsafe { &*state.cast::<Barrier>() };
    barrier.wait();
}

/// What a recipe makes of the case's weights.
fn computed(case: &Case, recipe: &Function) -> Option<Tensor> {
    let weights = |name: &str| case.weights.get(name).cloned();
    let mut results = eval_function(recipe, &mut [], &weights, &StepInputs::batch(&[]), Mode::AsTyped).ok()?;
    results.pop()?.as_tensor().cloned()
}

/// A weight of a case as the plan lays it out: one of the case's, or what a recipe makes of them.
///
/// # Errors
/// If it cannot be packed.
///
/// # Panics
/// If the case has no such weight.
pub fn packed(case: &Case, model: &PlannedModel, weight: &PackedWeight) -> Result<Guarded, CodegenError> {
    let tensor = match model.recipes.get(&weight.name) {
        Some(recipe) => computed(case, recipe),
        None => case.weights.get(&weight.name).cloned(),
    };
    let tensor = tensor.unwrap_or_else(|| panic!("there is no weight `{}`", weight.name));
    let mut memory = Guarded::new(weight.bytes as usize, 64, UNWRITTEN);
    let packing = Packing::of(weight)?;
    for piece in 0..packing.pieces() {
        let values: Vec<f32> =
            tensor.data()[packing.elements(piece..piece + 1)].iter().map(|&value| value as f32).collect();
        packing.pack(&values, &mut memory.bytes_mut()[packing.bytes(piece..piece + 1)]);
    }
    Ok(memory)
}

fn bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn integers(values: &[i32]) -> Guarded {
    let mut memory = Guarded::new(values.len() * 4, 4, UNWRITTEN);
    memory.bytes_mut().copy_from_slice(&bytes(values));
    memory
}
