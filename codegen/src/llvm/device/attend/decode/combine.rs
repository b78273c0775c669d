//! Results of warps become one of a split, and those of splits the row's.

use super::{Decode, WARPS};
use crate::llvm::device::attend::{NO_MAXIMUM, exp2, warp_per_head};
use crate::llvm::device::matrix::{self, PANEL};
use crate::llvm::device::thread::{WARP, butterfly};
use crate::llvm::device::{DeviceContext, DeviceParams};
use crate::llvm::text::{F32, FunctionText, I16, Value, float_of, int};

impl Decode<'_> {
    /// Bytes of one head's result in shared memory: as a partial result, and some so that heads lie in other banks.
    pub(super) fn result_stride(&self) -> usize {
        self.partial_bytes
    }

    /// Where a warp's results go in shared memory.
    pub(super) fn result_of_warp(&self, f: &mut FunctionText, warp: &Value) -> Value {
        let shared = f.shared_memory();
        f.element(&shared, warp, (self.heads() * self.result_stride()) as i64)
    }

    /// Writes a warp's results to shared memory, per head.
    pub(super) fn keep(&self, f: &mut FunctionText, [warp, g, t]: [&Value; 3], state: &[Value]) {
        let eights = self.heads() / 8;
        let stride = self.result_stride();
        let own = self.result_of_warp(f, warp);
        for eight in 0..eights {
            let sum = butterfly(f, &state[eights + eight], &[1, 2], |f, a, b| f.binary("fadd", a, b));
            let head = f.add(g, &int(8 * eight as i64));
            let to = f.element(&own, &head, stride as i64);
            let to = f.offset(&to, &int(self.attend.padded as i64 * 4));
            let first = f.compare("icmp eq", t, &int(0));
            f.when(&first, |f| {
                f.store(&state[eight], &to, 4);
                let to = f.offset(&to, &int(4));
                f.store(&sum, &to, 4);
            });
            for odd in 0..2 {
                let head = f.scale(t, 2);
                let head = f.add(&head, &int((8 * eight + odd) as i64));
                let to = f.element(&own, &head, stride as i64);
                let to = f.element(&to, g, 16);
                for group in 0..self.attend.padded / PANEL {
                    let at = 2 * eights + (group * eights + eight) * 8 + odd;
                    let four = [at, at + 2, at + 4, at + 6].map(|at| &state[at]);
                    let to = f.offset(&to, &int((group * PANEL * 4) as i64));
                    matrix::store_four(f, four, &to);
                }
            }
        }
    }

    /// Combines the warps' results in order, 4 elements of a head per thread and turn.
    pub(super) fn combine_warps(
        &self,
        f: &mut FunctionText,
        params: &DeviceParams,
        [row, split, kv_head, first_head]: [&Value; 4],
        thread: &Value,
    ) {
        let attend = self.attend;
        let stride = self.result_stride() as i64;
        let scale = float_of(F32, attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let shared = f.shared_memory();
        let fours = attend.padded / 4;
        let rest = f.binary("sub nsw", &int(attend.group() as i64), first_head);
        let heads = f.min(&rest, &int(self.heads() as i64));
        let items = f.scale(&heads, fours as i64);
        f.for_each(thread, &items, (WARPS * WARP) as i64, |f, item| {
            let head = f.binary("udiv", item, &int(fours as i64));
            let four = f.binary("urem", item, &int(fours as i64));
            let own = f.element(&shared, &head, stride);
            let warps: Vec<Value> =
                (0..WARPS).map(|warp| f.offset(&own, &int((warp * self.heads()) as i64 * stride))).collect();
            let statistic = |f: &mut FunctionText, warp: &Value, number: usize| {
                let from = f.offset(warp, &int(((attend.padded + number) * 4) as i64));
                f.load(F32, &from, 4)
            };
            let maxima: Vec<Value> = warps.iter().map(|warp| statistic(f, warp, 0)).collect();
            let maximum = maxima[1..].iter().fold(maxima[0].clone(), |a, b| f.intrinsic("maxnum", &[a, b.clone()]));
            let mut sum = float_of(F32, 0.0);
            let mut elements = float_of(F32.with_lanes(4), 0.0);
            for (warp, own) in warps.iter().zip(&maxima) {
                let factor = relative(f, own, &maximum, &scale);
                let part = statistic(f, warp, 1);
                sum = f.intrinsic("fma", &[part, factor.clone(), sum]);
                let from = f.element(warp, &four, 16);
                let part = f.load(F32.with_lanes(4), &from, 16);
                let factor = f.splat(&factor, 4);
                elements = f.intrinsic("fma", &[part, factor, elements]);
            }
            let in_group = f.add(first_head, &head);
            let number = f.scale(kv_head, attend.group() as i64);
            let number = f.add(&number, &in_group);
            let to = self.partial(f, params, row, &number, split);
            let place = f.element(&to, &four, 16);
            f.store(&elements, &place, 16);
            let first = f.compare("icmp eq", &four, &int(0));
            f.when(&first, |f| {
                let to = f.offset(&to, &int(attend.padded as i64 * 4));
                f.store(&maximum, &to, 4);
                let to = f.offset(&to, &int(4));
                f.store(&sum, &to, 4);
            });
        });
    }

    /// The kernel that combines splits in ascending order: a warp per row and head.
    pub(super) fn emit_combine(&self, context: &mut DeviceContext<'_>) -> Result<(), String> {
        let attend = self.attend;
        let heads = attend.attention.heads;
        warp_per_head(context, "combine", (attend.rows, heads), |_, f, params, own| {
            self.combine_splits(f, params, own);
            Ok(())
        })
    }

    fn combine_splits(&self, f: &mut FunctionText, params: &DeviceParams, [row, head, lane]: [&Value; 3]) {
        let attend = self.attend;
        let scale = float_of(F32, attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let seen = self.seen(f, params, row);
        let (first, end) = (&seen.first_split, &seen.end_split);
        let statistics = |f: &mut FunctionText, partial: &Value| {
            let from = f.offset(partial, &int(attend.padded as i64 * 4));
            let both = f.load(F32.with_lanes(2), &from, 8);
            (f.extract(&both, 0), f.extract(&both, 1))
        };
        let maximum = f.fold(first, end, 1, &[float_of(F32, NO_MAXIMUM)], |f, split, largest| {
            let partial = self.partial(f, params, row, head, split);
            let (own, _) = statistics(f, &partial);
            vec![f.intrinsic("maxnum", &[largest[0].clone(), own])]
        });
        let parts = attend.padded / WARP;
        let zeros = vec![float_of(F32, 0.0); 1 + parts];
        let sums = f.fold(first, end, 1, &zeros, |f, split, sums| {
            let partial = self.partial(f, params, row, head, split);
            let (own, sum) = statistics(f, &partial);
            let factor = relative(f, &own, &maximum[0], &scale);
            let mut next = vec![f.intrinsic("fma", &[sum, factor.clone(), sums[0].clone()])];
            for part in 0..parts {
                let from = f.element(&partial, lane, 4);
                let from = f.offset(&from, &int((part * WARP * 4) as i64));
                let value = f.load(F32, &from, 4);
                next.push(f.intrinsic("fma", &[value, factor.clone(), sums[1 + part].clone()]));
            }
            next
        });
        let inverse = f.binary("fdiv", &float_of(F32, 1.0), &sums[0]);
        let to = f.scale(row, attend.attention.heads as i64);
        let to = f.add(&to, head);
        let to = f.element(&attend.output, &to, attend.head_dim as i64 * 2);
        for part in 0..parts {
            let dim = f.add(lane, &int((part * WARP) as i64));
            let inside = f.compare("icmp slt", &dim, &int(attend.head_dim as i64));
            f.when(&inside, |f| {
                let value = f.binary("fmul", &sums[1 + part], &inverse);
                let bits = matrix::pack(f, &value, &value);
                let bits = f.cast("trunc", &bits, I16);
                let to = f.element(&to, &dim, 2);
                f.store(&bits, &to, 2);
            });
        }
    }
}

/// `2^((x - maximum) scale)`.
fn relative(f: &mut FunctionText, x: &Value, maximum: &Value, scale: &Value) -> Value {
    let lowered = f.binary("fsub", x, maximum);
    let lowered = f.binary("fmul", &lowered, scale);
    exp2(f, &lowered)
}
