//! The products of one chunk of positions of attention by vector instructions: scores, and the weighted sum of values. What
//! the next product reads is prefetched meanwhile.

use super::soften::Chunk;
use super::state::State;
use super::{Attend, CHUNK, Item, SPLIT};
use crate::llvm::KernelContext;
use crate::llvm::memory::load_index;
use crate::llvm::multiply::{Distance, LeftForm, Level, Shape, Start, TILE, Tiles};
use crate::llvm::text::{FunctionText, I64, Value, int};
use llmc_ir::dtype::DType;
use llmc_ir::op::AttendMethod;
use llmc_ir::plan::KV_BLOCK_POSITIONS;

impl Attend {
    /// Adds what the rows of an item see in positions `start..end` to their state, chunk by chunk. `position` is the first
    /// token's.
    pub(super) fn attend_by_vectors(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        item: &Item,
        [start, end]: [&Value; 2],
        position: &Value,
        rows: &Value,
    ) {
        f.for_each(start, end, CHUNK as i64, |f, chunk| {
            let left = f.binary("sub nsw", end, chunk);
            let blocks = f.div_ceil(&left, &int(KV_BLOCK_POSITIONS as i64));
            let blocks = f.min(&blocks, &int((CHUNK / KV_BLOCK_POSITIONS) as i64));
            self.score(f, context, item, chunk, &blocks, rows);
            let width = f.scale(&blocks, KV_BLOCK_POSITIONS as i64);
            let scored = Chunk { start: chunk, width: &width, position };
            self.softmax.soften(f, &self.scores, &self.state, &scored, rows);
            self.state.rescale(f, rows);
            self.weigh(f, context, item, (chunk, end), &blocks, rows);
        });
    }

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
    fn score(
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
        let (left, start, rows_of_call, prefetch) = (self.query_form, Start::Zero, self.rows, Level::Second);
        let k = self.padded;
        // A block's values.
        let ahead = Distance::Fixed(context.kv.half_bytes());
        let shape = Shape { k, tiles, layout, left, a_stride, c_stride, start, rows: rows_of_call, ahead, prefetch };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        f.for_each(&int(0), blocks, 1, |f, block| {
            let keys = self.block(f, context, (&item.sequence, &item.kv_head), chunk, block);
            let scores = f.element(&self.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            f.call_local(&multiply, &[self.queries.clone(), keys, scores, rows.clone()]);
        });
    }

    /// Adds the chunk's values, weighted, to the state.
    fn weigh(
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
        let (a_stride, c_stride) = (self.score_stride, State::stride(self.padded));
        let (left, start, rows_of_call, prefetch) = (LeftForm::Wide, Start::Memory, self.rows, Level::Second);
        let k = KV_BLOCK_POSITIONS;
        let ahead = Distance::OfCall;
        let shape = Shape { k, tiles, layout, left, a_stride, c_stride, start, rows: rows_of_call, ahead, prefetch };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        f.for_each(&int(0), blocks, 1, |f, block| {
            let keys = self.block(f, context, (&item.sequence, &item.kv_head), chunk, block);
            let values = f.offset(&keys, &int(context.kv.half_bytes() as i64));
            let weights = f.element(&self.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            let to_keys = self.to_next_keys(f, context, item, (chunk, block, end), &values);
            f.call_local(&multiply, &[weights, values, self.state.base().clone(), rows.clone(), to_keys]);
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
        let next = f.add(chunk, &int(CHUNK as i64));
        let skipped = f.scale(block, KV_BLOCK_POSITIONS as i64);
        let first = f.add(&next, &skipped);
        let is_own = f.compare("icmp slt", &first, end);
        let is_last = f.compare("icmp sge", &first, end);
        let length = self.position_after(f, &item.next.first_row);
        let (start, length) = match self.attention.method {
            // A later item of the same sequence sees no less than this one.
            AttendMethod::Whole => {
                let is_same = f.compare("icmp eq", &item.next.sequence, &item.sequence);
                (int(0), f.select(&is_same, end, &length))
            }
            AttendMethod::Split => (f.scale(&item.next.unit, SPLIT as i64), length),
        };
        let first_of_next = f.add(&start, &skipped);
        let is_next = f.compare("icmp slt", &first_of_next, &length);
        let is_next = f.binary("and", &is_next, &item.next.exists);
        let is_next = f.binary("and", &is_next, &is_last);
        let exists = f.binary("or", &is_own, &is_next);
        let sequence = f.select(&is_next, &item.next.sequence, &item.sequence);
        let kv_head = f.select(&is_next, &item.next.kv_head, &item.kv_head);
        let next = f.select(&is_next, &start, &next);
        let next = f.select(&exists, &next, chunk);
        let keys = self.block(f, context, (&sequence, &kv_head), &next, block);
        let [keys, values] = [&keys, values].map(|address| f.cast("ptrtoint", address, I64));
        let distance = f.binary("sub", &keys, &values);
        f.select(&exists, &distance, &int(0))
    }
}
