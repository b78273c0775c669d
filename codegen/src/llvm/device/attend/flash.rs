//! Attention of many rows on matrix units (Dao, "FlashAttention-2", 2023): a block takes the rows of some tokens and of
//! all query heads that share a key/value head, and walks over the blocks of the cache that they see, a chunk of one or two
//! at a time, copied to shared memory ahead of their use.
//!
//! Scores are `Q K^T`, so that a lane has two neighbouring positions of a row; as pairs these are the right operand of
//! `V^T P^T`, whose left operand, values, lies in the cache as the instruction wants it. So weights never leave their
//! registers; each is the sum of two in bf16, sums and maxima are f32.
//!
//! Chunks start at multiples of their length, 64 or 32 positions, of the sequence. One that a row does not see changes no
//! bit of it (factor 1, weights 0), so it does not matter which rows share a block, be they of other sequences.

mod chunk;
mod load;
mod segment;

use self::segment::SegmentRows;
use super::super::copy;
use super::super::matrix::{self, DEPTH};
use super::super::thread::{WARP, barrier, butterfly, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::{Attend, NO_MAXIMUM, POSITIONS, RESIDENT, sequence_of};
use crate::llvm::step_args::integer;
use crate::llvm::text::{F32, FunctionText, I32, I64, Value, float_of, int, int_of};
use llmc_ir::gpu::GpuStepArgs;
use std::mem::offset_of;

/// Warps of a block.
const WARPS: usize = 4;
const THREADS: usize = WARPS * WARP;
/// Bytes behind a chunk in its stage: the numbers of the pool's blocks of the next one, up to where copies may start.
const BLOCKS_BYTES: usize = copy::BYTES;
/// Stages that shared memory holds.
const STAGES: usize = 2;
/// Elements per head up to which queries stay in registers.
const KEPT_QUERY: usize = 64;
/// Elements per head up to which a warp takes 32 rows and not 16, and a chunk two blocks of the cache and not one: of more,
/// shared memory holds no two stages.
const WIDE: usize = 128;
/// Elements per head that registers hold at all.
const MOST_ELEMENTS: usize = 256;

/// Bytes in which a block keeps what it works on: its tokens and head, then the address of the sequence's block table.
/// What is left of the step's sequences comes next, then the rows of the one that it is at, then the maxima of its rows.
const PLACE_BYTES: usize = 64;
const TABLE: i64 = 16;
const SEQUENCE: i64 = 24;
const END_SEQUENCE: i64 = 28;
const ROWS: i64 = 32;
const CHUNKS: i64 = 48;
const MAXIMA: i64 = PLACE_BYTES as i64;

/// Whether this kernel can do it.
pub fn takes(attend: &Attend) -> bool {
    attend.padded <= MOST_ELEMENTS && attend.group() <= rows_per_block(attend) && attend.attention.scale.get() > 0.0
}

fn rows_per_warp(attend: &Attend) -> usize {
    if attend.padded <= WIDE { 32 } else { 16 }
}

/// Blocks of the cache in a chunk.
fn blocks_per_chunk(attend: &Attend) -> usize {
    if attend.padded <= WIDE { 2 } else { 1 }
}

fn rows_per_block(attend: &Attend) -> usize {
    WARPS * rows_per_warp(attend)
}

/// Bytes between rows of queries in shared memory: 16 more than they take, so that rows lie in other banks.
fn query_stride(attend: &Attend) -> usize {
    attend.padded * 2 + 16
}

/// Emits the kernel.
pub fn emit(context: &mut DeviceContext<'_>, attend: &Attend) -> Result<(), String> {
    let rows = rows_per_block(attend);
    let tokens = rows / attend.group();
    let stage_bytes = blocks_per_chunk(attend) * 2 * attend.half_bytes + BLOCKS_BYTES;
    let shared_bytes = STAGES * stage_bytes + rows * query_stride(attend) + PLACE_BYTES + 4 * rows;
    let heads = attend.attention.kv_heads;
    let geometry =
        Geometry { blocks: blocks(attend.rows, tokens, heads)?, threads: THREADS, shared_bytes, resident: RESIDENT };
    context.launch("flash", &geometry, |_, f, params| {
        let flash = Flash { attend, params, stage_bytes, stages: f.shared_memory() };
        let all = integer(f, &params.args, offset_of!(GpuStepArgs, tokens));
        let block = special_wide(f, "ctaid.x");
        let token_block = f.binary("udiv", &block, &int(heads as i64));
        let kv_head = f.binary("urem", &block, &int(heads as i64));
        let first = f.scale(&token_block, tokens as i64);
        let end = f.add(&first, &int(tokens as i64));
        let end = f.min(&end, &all);
        let any = f.compare("icmp slt", &first, &end);
        f.when(&any, |f| {
            let mut kept = int_of(I32.with_lanes(4), 0);
            for (lane, value) in [&first, &end, &kv_head].into_iter().enumerate() {
                let value = f.cast("trunc", value, I32);
                kept = f.insert(&kept, &value, lane);
            }
            let to = flash.kept(f);
            let thread = special_wide(f, "tid.x");
            let one = f.compare("icmp eq", &thread, &int(0));
            f.when(&one, |f| f.store(&kept, &to, 16));
            barrier(f);
            flash.emit(f);
        });
        Ok(())
    })
}

/// One block at work.
struct Flash<'a> {
    attend: &'a Attend,
    params: &'a DeviceParams,
    stage_bytes: usize,
    stages: Value,
}

/// Which block and which thread it is. Read from shared memory wherever it is needed, since the loop over chunks needs all
/// registers.
struct Place {
    /// The block's tokens: from the first to behind the last.
    first: Value,
    end: Value,
    kv_head: Value,
    thread: Value,
    warp: Value,
    lane: Value,
    g: Value,
    t: Value,
    /// 0, which only this kernel knows: what is combined with it the assembler can neither keep from before nor fold.
    zero: Value,
}

/// Whether a chunk may hold positions that a row does not see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    None,
    Needed,
}

impl Flash<'_> {
    /// Products of 16 rows.
    fn row_tiles(&self) -> usize {
        rows_per_warp(self.attend) / matrix::ROWS
    }

    /// Blocks of the cache in a chunk, and its positions.
    fn blocks(&self) -> usize {
        blocks_per_chunk(self.attend)
    }

    fn positions(&self) -> usize {
        self.blocks() * POSITIONS
    }

    fn depths(&self) -> usize {
        self.attend.padded / DEPTH
    }

    /// Where the block keeps its tokens and head.
    fn kept(&self, f: &mut FunctionText) -> Value {
        let queries = rows_per_block(self.attend) * query_stride(self.attend);
        f.offset(&self.stages, &int((STAGES * self.stage_bytes + queries) as i64))
    }

    fn kept_at(&self, f: &mut FunctionText, offset: i64) -> Value {
        let start = self.kept(f);
        f.offset(&start, &int(offset))
    }

    fn place(&self, f: &mut FunctionText) -> Place {
        let from = self.kept(f);
        let kept = f.load_anew(I32.with_lanes(4), &from, 16);
        let [first, end, kv_head, zero] = [0, 1, 2, 3].map(|lane| {
            let value = f.extract(&kept, lane);
            f.cast("zext", &value, I64)
        });
        let thread = special_wide(f, "tid.x");
        let thread = f.binary("or", &thread, &zero);
        let warp = f.binary("lshr", &thread, &int(5));
        let lane = f.binary("and", &thread, &int(31));
        let (g, t) = (f.binary("lshr", &lane, &int(2)), f.binary("and", &lane, &int(3)));
        Place { first, end, kv_head, thread, warp, lane, g, t, zero }
    }

    fn emit(&self, f: &mut FunctionText) {
        let place = &self.place(f);
        self.load_queries(f, place);
        barrier(f);
        let kept: Option<Vec<Vec<Value>>> = (self.attend.padded <= KEPT_QUERY).then(|| {
            let addresses = self.query_addresses(f, place);
            (0..self.depths()).map(|depth| self.query(f, &addresses, depth)).collect()
        });
        let last_token = f.add(&place.end, &int(-1));
        let first_sequence = sequence_of(f, self.params, &place.first);
        let last_sequence = sequence_of(f, self.params, &last_token);
        let end_sequence = f.add(&last_sequence, &int(1));
        let [first_sequence, end_sequence] =
            [&first_sequence, &end_sequence].map(|sequence| f.cast("trunc", sequence, I32));
        let rows = 2 * self.row_tiles();
        let sums = self.sums(f, place);
        f.store(&float_of(F32.with_lanes(rows), 0.0), &sums, 4 * rows);
        self.keep_maxima(f, place, &float_of(F32.with_lanes(rows), NO_MAXIMUM));
        let initial = vec![float_of(F32, 0.0); self.depths() * rows * 4];
        let one = f.compare("icmp eq", &place.thread, &int(0));
        f.when(&one, |f| {
            for (value, offset) in [(&first_sequence, SEQUENCE), (&end_sequence, END_SEQUENCE)] {
                let to = self.kept_at(f, offset);
                f.store(value, &to, 4);
            }
        });
        let state = f.repeat(&initial, |f, state| {
            let state = self.walk(f, state, kept.as_deref());
            let [sequence, end] = [SEQUENCE, END_SEQUENCE].map(|offset| {
                let from = self.kept_at(f, offset);
                f.load_anew(I32, &from, 4)
            });
            let next = f.add(&sequence, &int_of(I32, 1));
            let again = f.compare("icmp slt", &next, &end);
            barrier(f);
            let place = self.place(f);
            let one = f.compare("icmp eq", &place.thread, &int(0));
            f.when(&one, |f| {
                let to = self.kept_at(f, SEQUENCE);
                f.store(&next, &to, 4);
            });
            (state, again)
        });
        let place = self.place(f);
        self.finish(f, &place, &state, rows);
    }

    /// Folds the chunks that the block's rows of a sequence see: first those that all see whole.
    fn walk(&self, f: &mut FunctionText, state: &[Value], kept: Option<&[Vec<Value>]>) -> Vec<Value> {
        // What was read for the sequence before is read.
        barrier(f);
        let segment = self.segment(f);
        let place = self.place(f);
        let one = f.compare("icmp eq", &place.thread, &int(0));
        f.when(&one, |f| {
            for (value, offset, align) in
                [(&segment.table, TABLE, 8), (&segment.rows, ROWS, 16), (&segment.chunks, CHUNKS, 16)]
            {
                let to = self.kept_at(f, offset);
                f.store(value, &to, align);
            }
        });
        barrier(f);
        let first = self.segment_chunk(f, 0);
        let blocks = self.chunk_blocks(f, &first);
        self.copy(f, &blocks, &first);
        // With a window there is no chunk that all rows see whole.
        let state = match self.attend.attention.window {
            Some(_) => state.to_vec(),
            None => self.walk_over(f, 0, state, Mask::None, kept),
        };
        let state = self.walk_over(f, 1, &state, Mask::Needed, kept);
        copy::wait(f, 0);
        state
    }

    /// The chunks from one of a segment to before the next, of which the first is on its way.
    fn walk_over(
        &self,
        f: &mut FunctionText,
        from: i64,
        state: &[Value],
        mask: Mask,
        kept: Option<&[Vec<Value>]>,
    ) -> Vec<Value> {
        let first = self.segment_chunk(f, from);
        let end = |f: &mut FunctionText| self.segment_chunk(f, from + 1);
        f.fold_until(&first, end, 1, state, |f, chunk, state| {
            copy::wait(f, 0);
            barrier(f);
            let blocks = self.blocks_after(f, chunk);
            let next = f.add(chunk, &int_of(I32, 1));
            self.copy(f, &blocks, &next);
            self.chunk(f, (chunk, mask), state, kept)
        })
    }

    /// Divides by the sums and writes the rows.
    fn finish(&self, f: &mut FunctionText, place: &Place, state: &[Value], rows: usize) {
        let attend = self.attend;
        let sums = self.sums(f, place);
        let sums = f.load(F32.with_lanes(rows), &sums, 4 * rows);
        let inverses: Vec<Value> = (0..rows)
            .map(|row| {
                let sum = f.extract(&sums, row);
                let sum = butterfly(f, &sum, &[1, 2], |f, a, b| f.binary("fadd", a, b));
                f.binary("fdiv", &float_of(F32, 1.0), &sum)
            })
            .collect();
        let inverses = self.for_columns(f, &place.t, &inverses);
        let group = attend.group() as i64;
        let used = f.binary("sub nsw", &place.end, &place.first);
        let used = f.scale(&used, group);
        let warp = f.scale(&place.warp, rows_per_warp(attend) as i64);
        let own = f.scale(&place.t, 2);
        let first_row = f.add(&warp, &own);
        for (eight, odd) in (0..rows).flat_map(|eight| [(eight, 0), (eight, 1)]) {
            let row = f.add(&first_row, &int((8 * eight + odd) as i64));
            let exists = f.compare("icmp slt", &row, &used);
            f.when(&exists, |f| {
                let token = f.binary("udiv", &row, &int(group));
                let head = f.binary("urem", &row, &int(group));
                let token = f.add(&place.first, &token);
                let to = attend.head_address(f, &attend.output, &token, &place.kv_head, &head);
                let elements = (0..self.depths()).map(|tile| {
                    let at = (tile * rows + eight) * 4 + odd;
                    [at, at + 2].map(|at| f.binary("fmul", &state[at], &inverses[eight][odd]))
                });
                let elements: Vec<[Value; 2]> = elements.collect();
                attend.store_pairs(f, &to, &place.g, &elements);
            });
        }
    }
}
