//! Compiled steps in this process, for their time alone: their code is loaded, their memory is filled with numbers that mean
//! nothing.

use libloading::Library;
use llmc_codegen::HostCode;
use llmc_ir::abi::{StepArgs, StepFunction};
use llmc_ir::plan::{Goal, KV_BLOCK_POSITIONS, Plan, Program};
use llmc_limits::{Line, Meeting, buffer, together};
use std::ffi::c_void;
use std::io::Write;

/// Bytes of weights at most, unless one weight has more: they take turns in it. More than caches hold, so that weights come
/// from where a whole model's come from.
const WEIGHT_BYTES: u64 = 256 << 20;

/// Which step of a program is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences that take part.
    pub sequences: usize,
    /// New tokens of each.
    pub tokens: usize,
    /// Positions before them.
    pub depth: usize,
}

/// Memory for the steps of a plan.
pub struct Memory {
    threads: usize,
    /// Owns what `weights` leads into.
    _weight_memory: Box<[Line]>,
    weights: Vec<*const u8>,
    kv: Box<[Line]>,
    arena: Box<[Line]>,
    scratch: Box<[Line]>,
    scratch_stride: u64,
    logits: Box<[Line]>,
}

impl Memory {
    /// For steps of these sizes on so many threads, each with `scratch_bytes` of working memory at most.
    pub fn new(plan: &Plan, sizes: &[Sizes], scratch_bytes: u64, threads: usize) -> Memory {
        let padded = |bytes: u64| bytes.next_multiple_of(size_of::<Line>() as u64);
        let all: u64 = plan.weights.iter().map(|weight| padded(weight.bytes)).sum();
        let largest = plan.weights.iter().map(|weight| padded(weight.bytes)).max().unwrap_or(0);
        let room = all.min(WEIGHT_BYTES).max(largest);
        // Zeros are weights in any layout, and are multiplied as fast as others.
        let mut weight_memory = buffer(room, threads);
        weight_memory.fill(Line([0.0; 16]));
        let mut at = 0;
        let weights = plan.weights.iter().map(|weight| {
            if at + weight.bytes > room {
                at = 0;
            }
            let address = &raw const weight_memory[(at / size_of::<Line>() as u64) as usize];
            at += padded(weight.bytes);
            address.cast()
        });
        let weights = weights.collect();
        let blocks = sizes.iter().map(|sizes| sizes.sequences * sizes.blocks()).max().unwrap_or(1);
        let samples = sizes.iter().map(|sizes| sizes.sequences).max().unwrap_or(1);
        let arena = plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0);
        let scratch_stride = padded(scratch_bytes.max(1)).next_multiple_of(4096);
        Memory {
            threads,
            weights,
            _weight_memory: weight_memory,
            kv: buffer((blocks * plan.kv.block_bytes()) as u64, threads),
            arena: buffer(padded(arena), threads),
            scratch: buffer(scratch_stride * threads as u64, threads),
            scratch_stride,
            logits: buffer(padded((samples * plan.model.vocab * size_of::<f32>()) as u64), threads),
        }
    }
}

impl Sizes {
    /// Cache blocks of each sequence.
    fn blocks(self) -> usize {
        (self.depth + self.tokens).div_ceil(KV_BLOCK_POSITIONS)
    }
}

/// Code of a plan's programs, loaded.
pub struct Steps {
    functions: Vec<StepFunction>,
    _library: Library,
}

impl Steps {
    /// Loads code.
    ///
    /// # Errors
    /// What the system says if it does not load.
    pub fn load(code: &HostCode, programs: &[Program]) -> Result<Steps, String> {
        let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        file.write_all(&code.shared_object).map_err(|error| error.to_string())?;
        // SAFETY: the code was just made by this compiler, whose shared objects run nothing on loading.
        let library = unsafe { Library::new(file.path()) }.map_err(|error| error.to_string())?;
        let functions = programs.iter().map(|program| {
            // SAFETY: the compiler gives every program's entry point this type.
            let function = unsafe { library.get::<StepFunction>(program.entry_symbol(Goal::Logits).as_bytes()) };
            function.map(|function| *function).map_err(|error| error.to_string())
        });
        Ok(Steps { functions: functions.collect::<Result<_, _>>()?, _library: library })
    }

    /// Runs a step of a program and returns its seconds. The sizes must be among those that the memory was made for and that
    /// the program takes, and the CPU must have the features that the code was made for.
    ///
    /// # Safety
    /// As said.
    pub unsafe fn seconds(&self, program: usize, sizes: Sizes, memory: &mut Memory) -> f64 {
        let Sizes { sequences, tokens, depth } = sizes;
        let blocks = sizes.blocks();
        let rows = sequences * tokens;
        let row = |row: usize| (row / tokens, depth + row % tokens);
        let positions: Vec<i32> = (0..rows).map(|index| row(index).1 as i32).collect();
        let slot = |(sequence, position): (usize, usize)| (sequence * blocks * KV_BLOCK_POSITIONS + position) as i32;
        let slots: Vec<i32> = (0..rows).map(|index| slot(row(index))).collect();
        let token_ids = vec![0i32; rows];
        let starts: Vec<i32> = (0..=sequences).map(|sequence| (sequence * tokens) as i32).collect();
        let sample_rows: Vec<i32> = starts[1..].iter().map(|end| end - 1).collect();
        let tables: Vec<i32> = (0..sequences * blocks).map(|block| block as i32).collect();
        let meeting = Meeting::new(memory.threads);
        let args = StepArgs {
            tokens: rows as u64,
            sequences: sequences as u64,
            samples: sequences as u64,
            block_table_stride: blocks as u64,
            token_ids: token_ids.as_ptr(),
            positions: positions.as_ptr(),
            sample_rows: sample_rows.as_ptr(),
            slots: slots.as_ptr(),
            sequence_starts: starts.as_ptr(),
            block_tables: tables.as_ptr(),
            weights: memory.weights.as_ptr(),
            kv: memory.kv.as_mut_ptr().cast(),
            arena: memory.arena.as_mut_ptr().cast(),
            scratch: memory.scratch.as_mut_ptr().cast(),
            scratch_stride: memory.scratch_stride,
            logits: memory.logits.as_mut_ptr().cast(),
            barrier: meet,
            barrier_state: (&raw const meeting).cast(),
            trace: None,
            trace_state: std::ptr::null(),
        };
        let (args, threads, function) = (Shared(&args), memory.threads, self.functions[program]);
        let (seconds, _) = together((0..threads).collect(), |thread| {
            let args = &args;
            // SAFETY: as promised by the caller; the arguments and all that they point to outlive the threads, and each
            // number is one thread's.
            unsafe { function(args.0, thread as u32, threads as u32) };
            0.0
        });
        seconds
    }
}

/// Arguments that threads share.
struct Shared<'a>(&'a StepArgs);

// SAFETY: threads read the arguments only, and compiled code shares what they point to by its barriers.
unsafe impl Sync for Shared<'_> {}

/// What compiled code calls to let its threads meet.
///
/// # Safety
/// `state` must point to a live [`Meeting`] of more than `thread` threads, each of which calls with its own number.
unsafe extern "C" fn meet(state: *const c_void, thread: u32) {
    // SAFETY: as promised by the caller.
    unsafe { &*state.cast::<Meeting>() }.meet(thread as usize);
}
