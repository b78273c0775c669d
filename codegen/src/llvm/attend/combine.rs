//! Split attention's partial results: each item leaves its own in the shared workspace, and behind a barrier those of a
//! sequence and head are combined in ascending order of positions.

use super::super::math::{exp2, floats, fma};
use super::super::memory::load_index;
use super::super::rows::LANES;
use super::super::step_args::{integer, share};
use super::super::text::{F32, FunctionText, Value, float_of, int};
use super::super::{KernelContext, KernelParams};
use super::state::State;
use super::{Attend, Item, SPLIT};
use crate::kernel::attend::NO_MAXIMUM;
use llmc_ir::abi::StepArgs;
use llmc_ir::dim::Bounds;
use llmc_ir::op::Attention;
use std::mem::offset_of;

/// Bytes of working memory shared by all threads that the partial results of split attention take.
pub fn workspace_bytes(attention: &Attention, padded_head_dim: usize, bounds: &Bounds) -> usize {
    let splits = bounds.max.context.div_ceil(SPLIT);
    bounds.max.sequences * splits * attention.heads * State::stride(padded_head_dim)
}

impl Attend {
    /// Where the partial results of an item lie: each row's values as in its state, then its maximum and its sum of weights.
    fn partial(&self, f: &mut FunctionText, number: &Value) -> Value {
        f.element(&self.workspace, number, (self.group * State::stride(self.padded)) as i64)
    }

    /// Leaves the item's result in the workspace.
    pub fn store_partial(&self, f: &mut FunctionText, item: &Item) {
        let partial = self.partial(f, &item.number);
        f.for_each(&int(0), &int(self.group as i64), 1, |f, row| {
            let from = self.state.values(f, row);
            let to = f.element(&partial, row, State::stride(self.padded) as i64);
            for dim in (0..self.padded).step_by(LANES) {
                let [from, to] = [&from, &to].map(|address| f.offset(address, &int((dim * 4) as i64)));
                let value = f.load(floats(LANES), &from, 64);
                f.store(&value, &to, 64);
            }
            let maximum = self.state.maximum(f, row);
            let maximum = f.load(F32, &maximum, 4);
            let sum = self.state.sum(f, row);
            for (number, value) in [maximum, sum].iter().enumerate() {
                let to = f.offset(&to, &int(((self.padded + number) * 4) as i64));
                f.store(value, &to, 4);
            }
        });
    }

    /// Combines the splits of every sequence and head, in order, and writes the rows.
    pub fn emit_combine(&self, f: &mut FunctionText, context: &KernelContext<'_>, params: &KernelParams) {
        let fused = context.registers.fma;
        let heads = int(self.attention.kv_heads as i64);
        let sequences = integer(f, &params.args, offset_of!(StepArgs, sequences));
        f.fold(&int(0), &sequences, 1, &[int(0)], |f, sequence, before| {
            let row = load_index(f, &self.starts, sequence);
            let length = self.position_after(f, &row);
            let rounded = f.add(&length, &int(SPLIT as i64 - 1));
            let splits = f.binary("sdiv", &rounded, &int(SPLIT as i64));
            // Query heads are dealt out to threads.
            let (first, last) = share(f, &int(self.attention.heads as i64), &params.thread, &params.threads);
            f.for_each(&first, &last, 1, |f, head| {
                let kv_head = f.binary("sdiv", head, &int(self.group as i64));
                let in_group = f.binary("srem", head, &int(self.group as i64));
                let state_of = |f: &mut FunctionText, split: &Value| {
                    let local = f.binary("mul nsw", split, &heads);
                    let local = f.add(&local, &kv_head);
                    let number = f.add(&before[0], &local);
                    let partial = self.partial(f, &number);
                    f.element(&partial, &in_group, State::stride(self.padded) as i64)
                };
                let maximum = f.fold(&int(0), &splits, 1, &[float_of(F32, NO_MAXIMUM)], |f, split, largest| {
                    let state = state_of(f, split);
                    let address = f.offset(&state, &int((self.padded * 4) as i64));
                    let value = f.load(F32, &address, 4);
                    vec![f.intrinsic("maxnum", &[largest[0].clone(), value])]
                });
                let vectors = self.padded / LANES;
                let mut initial = vec![float_of(F32, 0.0)];
                initial.extend(vec![float_of(floats(LANES), 0.0); vectors]);
                let sums = f.fold(&int(0), &splits, 1, &initial, |f, split, sums| {
                    let state = state_of(f, split);
                    let address = f.offset(&state, &int((self.padded * 4) as i64));
                    let value = f.load(F32, &address, 4);
                    let lowered = f.binary("fsub", &value, &maximum[0]);
                    let factor = exp2(f, fused, &lowered);
                    let address = f.offset(&state, &int((self.padded * 4 + 4) as i64));
                    let part = f.load(F32, &address, 4);
                    let mut next = vec![fma(f, fused, &part, &factor, &sums[0])];
                    let factor = f.splat(&factor, LANES);
                    for vector in 0..vectors {
                        let address = f.offset(&state, &int((vector * LANES * 4) as i64));
                        let value = f.load(floats(LANES), &address, 64);
                        next.push(fma(f, fused, &value, &factor, &sums[vector + 1]));
                    }
                    next
                });
                let row_head = f.scale(&row, self.attention.heads as i64);
                let element = f.add(&row_head, head);
                let element = f.scale(&element, self.head_dim as i64);
                let to = f.element(&self.output, &element, self.dtype.bytes() as i64);
                let share = f.binary("fdiv", &float_of(F32, 1.0), &sums[0]);
                self.for_dims(f, |f, dim, lanes| {
                    let vector = &sums[dim / LANES + 1];
                    let value = if lanes == 1 { f.extract(vector, dim % LANES) } else { vector.clone() };
                    let share = f.splat(&share, lanes);
                    let value = f.binary("fmul", &value, &share);
                    self.store_output(f, &to, dim, &value);
                });
            });
            let count = f.binary("mul nsw", &splits, &heads);
            vec![f.add(&before[0], &count)]
        });
    }
}
