//! Copies from global to shared memory that run beside the computation.

use crate::llvm::text::{FunctionText, I32, Value, int_of};

/// Bytes of one copy.
pub const BYTES: usize = 16;

/// Copies have a place for offsets from here less than this far away: what is copied from more places that lie together is
/// best addressed from their middle.
pub const CENTER: i64 = 0x800;

/// An address and bytes from it on.
pub type Place<'a> = (&'a Value, i64);

/// Starts to copy 16 bytes, past the first-level cache. The offsets become part of the instruction, which LLVM's intrinsic
/// has no place for.
pub fn start(f: &mut FunctionText, (to, to_offset): Place<'_>, (from, from_offset): Place<'_>) {
    let text = format!("cp.async.cg.shared.global [$0+{to_offset}], [$1+{from_offset}], {BYTES};");
    f.assembly(&text, "l,l,~{memory}", &[to.clone(), from.clone()]);
}

/// Starts to copy 4 bytes.
pub fn start_word(f: &mut FunctionText, to: &Value, from: &Value) {
    f.assembly("cp.async.ca.shared.global [$0], [$1], 4;", "l,l,~{memory}", &[to.clone(), from.clone()]);
}

/// Ends a group: what was started since the last one.
pub fn commit(f: &mut FunctionText) {
    f.call("llvm.nvvm.cp.async.commit.group", None, &[]);
}

/// Waits until at most the last `groups` groups of this thread are still under way.
pub fn wait(f: &mut FunctionText, groups: usize) {
    f.call("llvm.nvvm.cp.async.wait.group", None, &[int_of(I32, groups as i64)]);
}
