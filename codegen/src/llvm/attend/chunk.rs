//! One chunk of positions of attention by vector instructions: scores, their weights, and the weighted sum of values. What
//! the next product reads is prefetched meanwhile.

use super::{Attend, Item, SPLIT};
use crate::llvm::KernelContext;
use crate::llvm::math::{exp2_of_nonpositive, floats, fma, max_lanes, sum_lanes};
use crate::llvm::memory::load_index;
use crate::llvm::multiply::{LeftForm, Level, Shape, TILE, Tiles};
use crate::llvm::rows::LANES;
use crate::llvm::text::{F32, FunctionText, I32, I64, Value, float_of, int, int_of};
use llmc_ir::dtype::DType;
use llmc_ir::op::AttendMethod;
use llmc_ir::plan::KV_BLOCK_POSITIONS;

impl Attend {
    /// The address of keys (and behind them values) of one block of a chunk and one head.
    pub(super) fn block(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        (sequence, kv_head): (&Value, &Value),
        chunk: &Value,
        block: &Value,
    ) -> Value {
        let first = f.binary("sdiv", chunk, &int(KV_BLOCK_POSITIONS as i64));
        let number = f.add(&first, block);
        let table = f.binary("mul nsw", sequence, &self.table_stride);
        let entry = f.add(&table, &number);
        let block = load_index(f, &self.tables, &entry);
        let address = f.element(&self.kv, &block, context.kv.block_bytes() as i64);
        f.element(&address, kv_head, 2 * context.kv.half_bytes() as i64)
    }

    /// Scores of all rows with the positions of a chunk.
    pub(super) fn score(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        item: &Item,
        chunk: &Value,
        blocks: &Value,
        rows: &Value,
    ) {
        let layout = match context.kv.dtype {
            DType::F32 => Tiles::F32 { tile_stride: self.padded * 64, k_stride: 64 },
            _ => Tiles::Bf16 { tile_stride: self.padded / 32 * 1024, block_stride: 1024 },
        };
        let tiles = KV_BLOCK_POSITIONS / TILE;
        let (a_stride, c_stride) = (self.query_stride, self.score_stride);
        let (left, rows_of_call, prefetch) = (self.query_form, self.rows, Level::Second);
        let shape = Shape { k: self.padded, tiles, layout, left, a_stride, c_stride, rows: rows_of_call, prefetch };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        f.for_each(&int(0), blocks, 1, |f, block| {
            let keys = self.block(f, context, (&item.sequence, &item.kv_head), chunk, block);
            let scores = f.element(&self.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            f.for_each(&int(0), rows, 1, |f, row| {
                let at = f.element(&scores, row, self.score_stride as i64);
                for tile in 0..2 {
                    let at = f.offset(&at, &int(tile * 64));
                    f.store(&float_of(floats(LANES), 0.0), &at, 64);
                }
            });
            let to_values = int(context.kv.half_bytes() as i64);
            f.call_local(&multiply, &[self.queries.clone(), keys, scores, rows.clone(), to_values]);
        });
    }

    /// Turns a chunk's scores into weights relative to the running maximum, and rescales the state to it.
    pub(super) fn soften(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        chunk: &Value,
        blocks: &Value,
        position: &Value,
        count: &Value,
    ) {
        let fused = context.registers.fma;
        let scale = self.attention.scale.get() * std::f64::consts::LOG2_E;
        let width = f.scale(blocks, KV_BLOCK_POSITIONS as i64);
        let ints = I32.with_lanes(LANES);
        let minimum = float_of(floats(LANES), f64::NEG_INFINITY);
        let none = [minimum.clone()];
        f.for_each(&int(0), count, 1, |f, token| {
            let own = f.add(position, token);
            let own = f.cast("trunc", &own, I32);
            let own = f.splat(&own, LANES);
            let local = f.scale(token, self.group as i64);
            f.for_each(&int(0), &int(self.group as i64), 1, |f, head| {
                let row = f.add(&local, head);
                let scores = f.element(&self.scores, &row, self.score_stride as i64);
                let state = f.element(&self.state, &row, self.state_stride as i64);
                let masked = f.fold(&int(0), &width, LANES as i64, &none, |f, column, largest| {
                    let address = f.element(&scores, column, 4);
                    let score = f.load(floats(LANES), &address, 64);
                    let score = f.binary("fmul", &score, &float_of(floats(LANES), scale));
                    let first = f.add(chunk, column);
                    let first = f.cast("trunc", &first, I32);
                    let first = f.splat(&first, LANES);
                    let lanes = f.lane_numbers(ints);
                    let key = f.binary("add", &first, &lanes);
                    let mut visible = f.compare("icmp sle", &key, &own);
                    if let Some(window) = self.attention.window {
                        let reach = f.binary("add", &key, &int_of(ints, window as i64));
                        let near = f.compare("icmp sgt", &reach, &own);
                        visible = f.binary("and", &visible, &near);
                    }
                    let score = f.select(&visible, &score, &minimum);
                    f.store(&score, &address, 64);
                    // NaN is not larger; it reaches the sum through its weight.
                    let larger = f.compare("fcmp ogt", &score, &largest[0]);
                    vec![f.select(&larger, &score, &largest[0])]
                });
                let at_maximum = f.offset(&state, &int((self.padded * 4) as i64));
                let at_sum = f.offset(&state, &int((self.padded * 4 + 4) as i64));
                let before = f.load(F32, &at_maximum, 4);
                let largest = max_lanes(f, &masked[0]);
                let maximum = f.intrinsic("maxnum", &[before.clone(), largest]);
                let lowered = f.binary("fsub", &before, &maximum);
                let factor = exp2_of_nonpositive(f, fused, &lowered);
                let maximum_lanes = f.splat(&maximum, LANES);
                let zero = float_of(floats(LANES), 0.0);
                let sums = f.fold(&int(0), &width, LANES as i64, &[zero], |f, column, sums| {
                    let address = f.element(&scores, column, 4);
                    let score = f.load(floats(LANES), &address, 64);
                    let lowered = f.binary("fsub", &score, &maximum_lanes);
                    let weight = exp2_of_nonpositive(f, fused, &lowered);
                    match &self.by_tiles {
                        None => f.store(&weight, &address, 64),
                        Some(memory) => memory.store_weights(f, &row, column, &weight),
                    }
                    vec![f.binary("fadd", &sums[0], &weight)]
                });
                let sum = sum_lanes(f, &sums[0]);
                let old = f.load(F32, &at_sum, 4);
                let sum = fma(f, fused, &old, &factor, &sum);
                f.store(&sum, &at_sum, 4);
                f.store(&maximum, &at_maximum, 4);
                let factor = f.splat(&factor, LANES);
                f.for_each(&int(0), &int(self.padded as i64), LANES as i64, |f, dim| {
                    let address = f.element(&state, dim, 4);
                    let value = f.load(floats(LANES), &address, 64);
                    let value = f.binary("fmul", &value, &factor);
                    f.store(&value, &address, 64);
                });
            });
        });
    }

    /// Adds the chunk's values, weighted, to the state.
    pub(super) fn weigh(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        item: &Item,
        (chunk, end): (&Value, &Value),
        blocks: &Value,
        rows: &Value,
    ) {
        let layout = match context.kv.dtype {
            DType::F32 => Tiles::F32 { tile_stride: KV_BLOCK_POSITIONS * 64, k_stride: 64 },
            _ => Tiles::Bf16 { tile_stride: 1024, block_stride: 1024 },
        };
        let tiles = self.padded / TILE;
        let (a_stride, c_stride) = (self.score_stride, self.state_stride);
        let (k, left, prefetch) = (KV_BLOCK_POSITIONS, LeftForm::Wide, Level::Second);
        let shape = Shape { k, tiles, layout, left, a_stride, c_stride, rows: self.rows, prefetch };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        f.for_each(&int(0), blocks, 1, |f, block| {
            let keys = self.block(f, context, (&item.sequence, &item.kv_head), chunk, block);
            let values = f.offset(&keys, &int(context.kv.half_bytes() as i64));
            let weights = f.element(&self.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            let to_keys = self.to_next_keys(f, context, item, (chunk, block, end), &values);
            f.call_local(&multiply, &[weights, values, self.state.clone(), rows.clone(), to_keys]);
        });
    }

    /// The distance from the values of a block to the keys that are needed next: of that block in the next chunk, or in
    /// the first chunk of the thread's next item. 0 where there are none.
    fn to_next_keys(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        item: &Item,
        (chunk, block, end): (&Value, &Value, &Value),
        values: &Value,
    ) -> Value {
        let next = f.add(chunk, &int(self.chunk as i64));
        let skipped = f.scale(block, KV_BLOCK_POSITIONS as i64);
        let first = f.add(&next, &skipped);
        let is_own = f.compare("icmp slt", &first, end);
        let (start, length) = match self.attention.method {
            AttendMethod::Whole => (int(0), end.clone()),
            AttendMethod::Split => (f.scale(&item.next.unit, SPLIT as i64), self.position_after(f, &item.first_row)),
        };
        let first_of_next = f.add(&start, &skipped);
        let is_next = f.compare("icmp slt", &first_of_next, &length);
        let is_next = f.binary("and", &is_next, &item.next.exists);
        let exists = f.binary("or", &is_own, &is_next);
        let kv_head = f.select(&is_own, &item.kv_head, &item.next.kv_head);
        let next = f.select(&is_own, &next, &start);
        let next = f.select(&exists, &next, chunk);
        let keys = self.block(f, context, (&item.sequence, &kv_head), &next, block);
        let [keys, values] = [&keys, values].map(|address| f.cast("ptrtoint", address, I64));
        let distance = f.binary("sub", &keys, &values);
        f.select(&exists, &distance, &int(0))
    }
}
