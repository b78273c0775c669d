//! A compiled case in memory, run on threads.

use crate::case::Case;
use crate::enclosure::error::PositionWeights;
use crate::guarded::Guarded;
use crate::pool::{Batch, Pool};
use libloading::Library;
use llmc_codegen::error::CodegenError;
use llmc_codegen::host::HostTarget;
use llmc_codegen::pack::{PANEL_ROWS, Packing, compressed};
use llmc_codegen::{HostCode, compile_host};
use llmc_ir::abi::{Found, Listed, StepArgs, StepFunction};
use llmc_ir::dtype::DType;
use llmc_ir::eval::{Mode, StepInputs, Tensor, eval_function};
use llmc_ir::module::Function;
use llmc_ir::plan::{Goal, PackedWeight, Plan, Program};
use llmc_ir::region::PlannedModel;
use std::array;
use std::ffi::c_void;
use std::io::Write;
use std::mem::offset_of;
use std::sync::Barrier;

/// Bytes of memory that compiled code must write before it reads: as bf16, f32 and i32 each a value that shows.
const UNWRITTEN: u8 = 0xFF;

/// Code and weights.
#[derive(Debug)]
pub struct Compiled {
    /// What it was compiled from.
    pub plan: Plan,
    /// The entry points of each, that for logits first.
    programs: Vec<Vec<(Goal, StepFunction)>>,
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
        let entry = |program: &Program, goal: Goal| {
            // SAFETY: the compiler gives every entry point this type.
            let found = unsafe { library.get::<StepFunction>(program.entry_symbol(goal).as_bytes()) };
            found.map(|function| (goal, *function)).ok()
        };
        let entries = |program: &Program| -> Vec<_> {
            let goals = [Goal::Logits, Goal::Largest, Goal::Search, Goal::Candidates];
            let found: Vec<_> = goals.into_iter().filter_map(|goal| entry(program, goal)).collect();
            assert_eq!(found.first().map(|(goal, _)| *goal), Some(Goal::Logits), "an entry point per program");
            assert_eq!(found.len() > 1, program.search.is_some(), "{}", program.name);
            found
        };
        let programs = model.plan.programs.iter().map(entries).collect();
        let scratch_bytes = (scratch_bytes as usize).max(64);
        let by_tiles = target.has("amx-bf16") && model.plan.kv.dtype == DType::BF16;
        let attention_weights = if by_tiles { PositionWeights::Bf16 } else { PositionWeights::F32 };
        Ok(Compiled { plan: model.plan, programs, weights, scratch_bytes, attention_weights, _library: library })
    }

    /// Runs one step of a program on `threads` threads. Returns the logits, `[samples, vocab]`.
    ///
    /// # Errors
    /// If anything beyond the step's memory was written, or if the program's other entry points find something else than the
    /// first of the largest logits, or list others than the largest.
    pub fn run(&self, program: usize, batch: &Batch, pool: &mut Pool, threads: usize) -> Result<Vec<f32>, String> {
        let samples = batch.step.sample_rows.len();
        let logits_bytes = samples * self.plan.model.vocab * 4;
        let [(_, logits), others @ ..] = &self.programs[program][..] else { unreachable!("checked when loaded") };
        let logits = self.step((program, *logits), batch, pool, threads, logits_bytes)?;
        let logits: Vec<f32> = logits.bytes().chunks_exact(4).map(|bytes| f32::from_le_bytes(word(bytes, 0))).collect();
        let rows: Vec<&[f32]> = logits.chunks_exact(self.plan.model.vocab).collect();
        for &(goal, function) in others {
            let size = if goal == Goal::Candidates { size_of::<Listed>() } else { size_of::<Found>() };
            let written = self.step((program, function), batch, pool, threads, threads * samples * size)?;
            for (index, row) in rows.iter().enumerate() {
                // What each thread wrote of it.
                let of_row = written.bytes().chunks_exact(size).skip(index).step_by(samples);
                let checked = match goal {
                    Goal::Candidates => check_listed(&of_row.map(listed_of).collect::<Vec<_>>(), row),
                    _ => check_found(&of_row.map(found_of).collect::<Vec<_>>(), row),
                };
                checked.map_err(|error| format!("{goal:?}, row {index}: {error}"))?;
            }
        }
        Ok(logits)
    }

    /// Runs one step of a program by one of its entry points. Returns the memory for logits, of so many bytes.
    fn step(
        &self,
        (program, function): (usize, StepFunction),
        batch: &Batch,
        pool: &mut Pool,
        threads: usize,
        logits_bytes: usize,
    ) -> Result<Guarded, String> {
        let step = &batch.step;
        let mut arena = Guarded::new(self.plan.programs[program].arena_bytes as usize, 64, UNWRITTEN);
        let mut scratch = Guarded::new(self.scratch_bytes * threads, 64, UNWRITTEN);
        let mut logits = Guarded::new(logits_bytes, 4, UNWRITTEN);
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
        Ok(logits)
    }
}

/// What a thread wrote.
fn found_of(bytes: &[u8]) -> Found {
    let token = i32::from_le_bytes(word(bytes, offset_of!(Found, token)));
    let [bound, logit] =
        [offset_of!(Found, bound), offset_of!(Found, logit)].map(|at| f32::from_le_bytes(word(bytes, at)));
    Found { bound, logit, token, unused: 0 }
}

/// The same of several tokens.
fn listed_of(bytes: &[u8]) -> Listed {
    let word = |at: usize, depth: usize, lane: usize| word(bytes, at + (depth * Listed::LANES + lane) * 4);
    let [logits, tokens] = [offset_of!(Listed, logits), offset_of!(Listed, tokens)];
    Listed {
        logits: array::from_fn(|depth| array::from_fn(|lane| f32::from_le_bytes(word(logits, depth, lane)))),
        tokens: array::from_fn(|depth| array::from_fn(|lane| i32::from_le_bytes(word(tokens, depth, lane)))),
    }
}

/// Four bytes.
fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes[at..at + 4].try_into().expect("four bytes")
}

/// Whether threads found the first of the largest of a row of logits.
fn check_found(found: &[Found], row: &[f32]) -> Result<(), String> {
    let (token, expected) = (Found::token(found.iter().copied()), first_of_largest(row));
    match token == expected {
        true => Ok(()),
        false => Err(format!("{token:?}, expected {expected:?} ({found:?})")),
    }
}

/// Whether threads listed what they should of a row of logits.
fn check_listed(lists: &[Listed], row: &[f32]) -> Result<(), String> {
    let are_finite = lists.iter().flat_map(|list| list.tokens[0]).all(|token| token >= 0);
    let expected = row.iter().all(|logit| logit.is_finite());
    if are_finite != expected {
        return Err(format!("are all logits finite? {are_finite}, expected {expected}"));
    }
    if !are_finite {
        return Ok(());
    }
    let mut is_listed = vec![false; row.len()];
    for list in lists {
        for lane in 0..Listed::LANES {
            let column = (0..Listed::DEPTH).map(|depth| (list.logits[depth][lane], list.tokens[depth][lane]));
            let column: Vec<(f32, i32)> = column.take_while(|(logit, _)| *logit > f32::NEG_INFINITY).collect();
            let ordered =
                |pair: &[(f32, i32)]| pair[0].0 > pair[1].0 || pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1;
            if !column.windows(2).all(ordered) {
                return Err(format!("lane {lane} is not in order: {column:?}"));
            }
            for (logit, token) in column {
                let token = token as usize;
                if row.get(token) != Some(&logit) || token % Listed::LANES != lane || is_listed[token] {
                    return Err(format!("token {token} with {logit} in lane {lane}"));
                }
                is_listed[token] = true;
            }
        }
    }
    // A lane of a thread that is not full lists all that it has.
    for lane in 0..Listed::LANES {
        let least = lists.iter().map(|list| list.logits[Listed::DEPTH - 1][lane]).fold(f32::NEG_INFINITY, f32::max);
        let missing = (lane..row.len()).step_by(Listed::LANES).find(|&token| !is_listed[token] && row[token] > least);
        if let Some(token) = missing {
            return Err(format!("token {token} with {} is not listed", row[token]));
        }
    }
    Ok(())
}

/// The first of the largest logits; `None` if one is not finite.
fn first_of_largest(row: &[f32]) -> Option<i32> {
    let all_finite = row.iter().all(|logit| logit.is_finite());
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let first = row.iter().position(|&logit| logit == largest)?;
    all_finite.then_some(first as i32)
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

/// How many quarters of each panel of a matrix are flagged if it is compressed.
pub fn flagged_panels(tensor: &Tensor) -> Vec<u32> {
    let &[_, k] = tensor.sizes() else { return Vec::new() };
    let panel = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        compressed::flagged(&values, k, &mut Vec::new())
    };
    tensor.data().chunks(PANEL_ROWS * k.max(1)).map(panel).collect()
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
    let packing = Packing::of(weight, &flagged_panels(&tensor))?;
    let mut behind = Vec::new();
    for piece in 0..packing.pieces() {
        let values: Vec<f32> =
            tensor.data()[packing.elements(piece..piece + 1)].iter().map(|&value| value as f32).collect();
        packing.pack(piece, &values, &mut memory.bytes_mut()[packing.bytes(piece..piece + 1)], &mut behind);
    }
    let panels = memory.bytes().len() - behind.len();
    memory.bytes_mut()[panels..].copy_from_slice(&behind);
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
