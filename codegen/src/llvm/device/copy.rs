//! Copies from global to shared memory that run beside the computation.

use crate::llvm::text::{FunctionText, I32, Value, int_of};

/// Bytes of one copy.
pub const BYTES: usize = 16;

/// Starts to copy 16 bytes, past the first-level cache.
pub fn start(f: &mut FunctionText, to: &Value, from: &Value) {
    f.call("llvm.nvvm.cp.async.cg.shared.global.16", None, &[to.clone(), from.clone()]);
}

/// Ends a group: what was started since the last one.
pub fn commit(f: &mut FunctionText) {
    f.call("llvm.nvvm.cp.async.commit.group", None, &[]);
}

/// Waits until at most the last `groups` groups of this thread are still under way.
pub fn wait(f: &mut FunctionText, groups: usize) {
    f.call("llvm.nvvm.cp.async.wait.group", None, &[int_of(I32, groups as i64)]);
}
