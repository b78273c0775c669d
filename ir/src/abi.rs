//! The calling convention between the runtime and compiled host code.

use std::ffi::c_void;

/// The entry point of a program: every thread of a step calls it once with its own `thread` number.
///
/// # Safety
/// `args` must be valid for the whole call on all threads, all threads must pass the same `args`
/// and `threads`, and the numbers `0..threads` must each be used by exactly one thread.
pub type StepFunction = unsafe extern "C" fn(args: *const StepArgs, thread: u32, threads: u32);

/// Waits until all threads of the step have called it.
pub type BarrierFunction = unsafe extern "C" fn(state: *const c_void, thread: u32);

/// Told by each thread of a step that its next launch begins, if anyone wants to know.
pub type TraceFunction = unsafe extern "C" fn(state: *const c_void, thread: u32);

/// What a thread found of a row of logits: a step that searches writes `Found[threads, samples]` in place of logits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// No logit of the thread's columns is certain to be larger than this one, which one of them is not below.
    pub bound: f32,
    /// The largest of the logits that the thread computed; minus infinity if none of its columns could be the row's largest.
    pub logit: f32,
    /// The first token that has it, or -1 where a logit that the thread computed is not finite.
    pub token: i32,
    /// Nothing: it makes an element 16 bytes.
    pub unused: i32,
}

impl Found {
    /// The first token of a row that has the largest logit, of what each thread found; `None` if one found a logit that is
    /// not finite.
    pub fn token(of_threads: impl IntoIterator<Item = Found>) -> Option<i32> {
        let mut best: Option<Found> = None;
        for found in of_threads {
            if found.token < 0 {
                return None;
            }
            let better =
                |best: Found| found.logit > best.logit || found.logit == best.logit && found.token < best.token;
            if best.is_none_or(better) {
                best = Some(found);
            }
        }
        best.map(|found| found.token)
    }
}

/// Large logits of a row among a thread's columns: a step for candidates writes `Listed[threads, samples]` in place of logits.
/// Columns whose numbers are equal modulo [`Listed::LANES`] share a lane, and each lane lists its largest, in descending order
/// and of equal ones the lowest column first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    /// The logits; one that is not finite counts as infinity, and a lane that has fewer columns ends with minus infinity.
    pub logits: [[f32; Listed::LANES]; Listed::DEPTH],
    /// Their columns, or -1 for one that is not finite.
    pub tokens: [[i32; Listed::LANES]; Listed::DEPTH],
}

impl Listed {
    /// Lanes of a list.
    pub const LANES: usize = 16;
    /// What a lane lists at most. Of 40 tokens, the usual `top_k`, a lane of one thread has more in 0.1 % of rows, if it
    /// is all the same which columns tokens have.
    pub const DEPTH: usize = 8;
}

/// One step's inputs and memory. Compiled code reads fields by their offsets in this struct.
#[repr(C)]
#[derive(Debug)]
pub struct StepArgs {
    /// Rows of activations: new tokens of all sequences, sequence after sequence.
    pub tokens: u64,
    /// Sequences that take part.
    pub sequences: u64,
    /// Rows whose logits are wanted.
    pub samples: u64,
    /// Distance between the block tables of two sequences, in entries.
    pub block_table_stride: u64,
    /// `i32[tokens]`: in `0..vocab`.
    pub token_ids: *const i32,
    /// `i32[tokens]`: consecutive within a sequence.
    pub positions: *const i32,
    /// `i32[samples]`: in `0..tokens`.
    pub sample_rows: *const i32,
    /// `i32[tokens]`: where a row's key and value go, `block * 32 + position % 32`.
    pub slots: *const i32,
    /// `i32[sequences + 1]`: first row of each sequence, then `tokens`. No sequence is empty.
    pub sequence_starts: *const i32,
    /// `i32[sequences, block_table_stride]`: the pool's block for each 32 positions.
    pub block_tables: *const i32,
    /// The packed weights, 64-byte aligned, in the order of the plan's weight table.
    pub weights: *const *const u8,
    /// The KV block pool, 64-byte aligned.
    pub kv: *mut u8,
    /// Activations, 64-byte aligned, of the program's `arena_bytes`.
    pub arena: *mut u8,
    /// Per-thread working memory, 64-byte aligned: thread t owns
    /// `t * scratch_stride .. (t + 1) * scratch_stride`.
    pub scratch: *mut u8,
    /// At least the `scratch_bytes` that codegen reported, a multiple of 64.
    pub scratch_stride: u64,
    /// `f32[samples, vocab]`, written by the step; by one for another goal [`Found`] or [`Listed`] `[threads, samples]`.
    pub logits: *mut f32,
    /// Called by compiled code wherever threads must meet.
    pub barrier: BarrierFunction,
    /// First argument of `barrier`.
    pub barrier_state: *const c_void,
    /// Called before every launch; `None` costs a comparison per launch.
    pub trace: Option<TraceFunction>,
    /// First argument of `trace`.
    pub trace_state: *const c_void,
}
