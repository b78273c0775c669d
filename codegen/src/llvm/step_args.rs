//! Access to the fields of [`StepArgs`] from compiled code.

use super::text::{FunctionText, I64, Value, int};
use llmc_ir::abi::StepArgs;
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::plan::StepInput;
use std::mem::offset_of;

/// Loads the address in a pointer field at `offset`.
pub fn pointer(f: &mut FunctionText, args: &Value, offset: usize) -> Value {
    let address = f.offset(args, &int(offset as i64));
    f.load(args.ty, &address, 8)
}

/// Loads the integer in a `u64` field at `offset`.
pub fn integer(f: &mut FunctionText, args: &Value, offset: usize) -> Value {
    let address = f.offset(args, &int(offset as i64));
    f.load(I64, &address, 8)
}

/// The address of a step input.
pub fn step_input(f: &mut FunctionText, args: &Value, input: StepInput) -> Value {
    let offset = match input {
        StepInput::TokenIds => offset_of!(StepArgs, token_ids),
        StepInput::Positions => offset_of!(StepArgs, positions),
        StepInput::SampleRows => offset_of!(StepArgs, sample_rows),
    };
    pointer(f, args, offset)
}

/// The size of a dimension in this step.
pub fn size(f: &mut FunctionText, args: &Value, dim: Dim) -> Result<Value, String> {
    let offset = match dim.symbol {
        None => return Ok(int(dim.coefficient as i64)),
        Some(Symbol::Tokens) => offset_of!(StepArgs, tokens),
        Some(Symbol::Samples) => offset_of!(StepArgs, samples),
        Some(Symbol::Sequences) => offset_of!(StepArgs, sequences),
        Some(Symbol::Context) => return Err("context differs between sequences and is no number of rows".into()),
    };
    let value = integer(f, args, offset);
    Ok(f.scale(&value, dim.coefficient as i64))
}

/// Waits until all threads have arrived.
pub fn barrier(f: &mut FunctionText, args: &Value, thread: &Value) {
    let function = pointer(f, args, offset_of!(StepArgs, barrier));
    let state = pointer(f, args, offset_of!(StepArgs, barrier_state));
    let thread = f.cast("trunc", thread, super::text::I32);
    f.call_pointer(&function, &[state, thread]);
}

/// Tells `function` that this thread's next launch begins.
pub fn trace(f: &mut FunctionText, args: &Value, function: &Value, thread: &Value) {
    let state = pointer(f, args, offset_of!(StepArgs, trace_state));
    let thread = f.cast("trunc", thread, super::text::I32);
    f.call_pointer(function, &[state, thread]);
}

/// The share `thread` of `threads` in `count` items: a contiguous range.
pub fn share(f: &mut FunctionText, count: &Value, thread: &Value, threads: &Value) -> (Value, Value) {
    let next = f.add(thread, &int(1));
    let [start, end] = [thread, &next].map(|t| {
        let scaled = f.binary("mul nsw", count, t);
        f.binary("sdiv", &scaled, threads)
    });
    (start, end)
}
