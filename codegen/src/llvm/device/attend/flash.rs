//! Attention of many rows on matrix units (Dao, "FlashAttention-2", 2023): a block takes the rows of some tokens and of
//! all query heads that share a key/value head, and walks over the blocks of the cache that they see, 64 positions at a
//! time, copied to shared memory ahead of their use.
//!
//! Scores are `Q K^T`, so that a lane has two neighbouring positions of a row; as pairs these are the right operand of
//! `V^T P^T`, whose left operand, values, lies in the cache as the instruction wants it. So weights never leave their
//! registers; they are rounded to bf16, sums and maxima are f32.
//!
//! Chunks start at multiples of 64 positions of the sequence. One that a row does not see changes no bit of it (factor 1,
//! weights 0), so it does not matter which rows share a block, be they of other sequences.

use super::super::copy;
use super::super::matrix::{self, DEPTH};
use super::super::thread::{WARP, barrier, butterfly, from_lane, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::{Attend, NO_MAXIMUM, POSITIONS, exp2, sequence_of};
use crate::llvm::memory::load_index;
use crate::llvm::step_args::integer;
use crate::llvm::text::{F32, FunctionText, GLOBAL, I16, I32, I64, Scalar, Ty, Value, float_of, int, int_of};
use llmc_ir::gpu::GpuStepArgs;
use std::mem::offset_of;

/// Warps of a block.
const WARPS: usize = 4;
const THREADS: usize = WARPS * WARP;
/// Blocks of the cache in a chunk, and its positions.
const BLOCKS: usize = 2;
const CHUNK: usize = BLOCKS * POSITIONS;
/// Stages that shared memory holds.
const STAGES: usize = 2;
/// Elements per head up to which queries stay in registers.
const KEPT_QUERY: usize = 64;
/// Elements per head up to which a warp takes 32 rows and not 16.
const WIDE_WARP: usize = 128;
/// Elements per head that registers hold at all.
const MOST_ELEMENTS: usize = 256;

/// Bytes in which a block keeps what it works on: its tokens and head, then the address of the sequence's block table.
/// What is left of the step's sequences comes last.
const PLACE_BYTES: usize = 32;
const TABLE: i64 = 16;
const SEQUENCE: i64 = 24;
const END_SEQUENCE: i64 = 28;

/// Whether this kernel can do it.
pub fn takes(attend: &Attend) -> bool {
    attend.padded <= MOST_ELEMENTS && attend.group() <= rows_per_block(attend) && attend.attention.scale.get() > 0.0
}

fn rows_per_warp(attend: &Attend) -> usize {
    if attend.padded <= WIDE_WARP { 32 } else { 16 }
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
    let stage_bytes = BLOCKS * 2 * attend.half_bytes;
    let shared_bytes = STAGES * stage_bytes + rows * query_stride(attend) + PLACE_BYTES;
    let heads = attend.attention.kv_heads;
    let geometry = Geometry { blocks: blocks(attend.rows, tokens, heads)?, threads: THREADS, shared_bytes };
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

/// The part of the block's tokens that are of one sequence.
struct Segment {
    /// Block table of the sequence.
    table: Value,
    /// Last block of the cache that any of its rows sees.
    last_block: Value,
    /// Its rows, from the first to behind the last, as `i32`.
    begin: Value,
    after: Value,
    /// What a row's number is less than its position.
    shift: Value,
    /// Where this thread's pieces of a stage are written to, without the stage.
    target: Value,
    /// The first chunk that any of its rows sees, the first that not all see whole, and the first that none sees.
    chunks: [Value; 3],
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
        let mut initial = vec![float_of(F32, NO_MAXIMUM); rows];
        initial.extend(vec![float_of(F32, 0.0); self.depths() * rows * 4]);
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

    /// What the block has of the sequence that it is at.
    fn segment(&self, f: &mut FunctionText) -> Segment {
        let args = &self.params.args;
        let place = self.place(f);
        let field = |f: &mut FunctionText, ty: Ty, offset: usize| {
            let address = f.offset(args, &int(offset as i64));
            f.load_anew(ty, &address, 8)
        };
        let positions = field(f, args.ty, offset_of!(GpuStepArgs, positions));
        let starts = field(f, args.ty, offset_of!(GpuStepArgs, sequence_starts));
        let tables = field(f, args.ty, offset_of!(GpuStepArgs, block_tables));
        let stride = field(f, I64, offset_of!(GpuStepArgs, block_table_stride));
        let sequence = self.kept_at(f, SEQUENCE);
        let sequence = f.load_anew(I32, &sequence, 4);
        let sequence = f.cast("zext", &sequence, I64);
        let next = f.add(&sequence, &int(1));
        let begin = load_index(f, &starts, &sequence);
        let after = load_index(f, &starts, &next);
        let begin = f.max(&begin, &place.first);
        let after = f.min(&after, &place.end);
        let last = f.add(&after, &int(-1));
        let lowest = load_index(f, &positions, &begin);
        let highest = load_index(f, &positions, &last);
        let table = f.binary("mul nsw", &sequence, &stride);
        let table = f.element(&tables, &table, 4);
        let target = self.target(f, &place);
        let bits = int(CHUNK.trailing_zeros().into());
        let first = match self.attend.attention.window {
            Some(window) => {
                let oldest = f.add(&lowest, &int(1 - window as i64));
                let oldest = f.max(&oldest, &int(0));
                f.binary("lshr", &oldest, &bits)
            }
            None => int(0),
        };
        let last_chunk = f.binary("lshr", &highest, &bits);
        let end = f.add(&last_chunk, &int(1));
        // Chunks that every row of the block sees whole.
        let seen = f.add(&lowest, &int(1));
        let seen = f.binary("lshr", &seen, &bits);
        let begins = f.compare("icmp eq", &begin, &place.first);
        let ends = f.compare("icmp eq", &after, &place.end);
        let alone = f.binary("and", &begins, &ends);
        let whole = match self.attend.attention.window {
            Some(_) => first.clone(),
            None => f.select(&alone, &seen, &int(0)),
        };
        let last_block = f.binary("lshr", &highest, &int(POSITIONS.trailing_zeros().into()));
        let shift = f.binary("sub nsw", &lowest, &begin);
        let [last_block, begin, after, shift, first, whole, end] =
            [&last_block, &begin, &after, &shift, &first, &whole, &end].map(|value| f.cast("trunc", value, I32));
        let chunks = [first, whole, end];
        Segment { table, last_block, begin, after, shift, target, chunks }
    }

    /// Where queries lie in shared memory.
    fn queries(&self, f: &mut FunctionText) -> Value {
        f.offset(&self.stages, &int((STAGES * self.stage_bytes) as i64))
    }

    /// Where a thread keeps the sums of its rows' weights: behind the elements of a row of queries, which leaves as many
    /// bytes free. They are needed twice a chunk, and registers are short.
    fn sums(&self, f: &mut FunctionText, place: &Place) -> Value {
        let queries = self.queries(f);
        let rows = f.offset(&queries, &int(self.attend.padded as i64 * 2));
        // With 16 rows per warp two threads share what one row leaves.
        match self.row_tiles() {
            2 => f.element(&rows, &place.thread, query_stride(self.attend) as i64),
            _ => {
                let row = f.binary("lshr", &place.thread, &int(1));
                let half = f.binary("and", &place.thread, &int(1));
                let row = f.element(&rows, &row, query_stride(self.attend) as i64);
                f.element(&row, &half, 8)
            }
        }
    }

    /// Brings the block's queries to shared memory, one row per thread and turn, zeros behind the head's elements.
    fn load_queries(&self, f: &mut FunctionText, place: &Place) {
        let attend = self.attend;
        let rows = rows_per_block(attend) as i64;
        let last = f.add(&place.end, &int(-1));
        f.for_each(&place.thread, &int(rows), THREADS as i64, |f, row| {
            let token = f.binary("udiv", row, &int(attend.group() as i64));
            let head = f.binary("urem", row, &int(attend.group() as i64));
            let token = f.add(&place.first, &token);
            let token = f.min(&token, &last);
            let from = attend.head_address(f, &attend.query, &token, &place.kv_head, &head);
            let queries = self.queries(f);
            let to = f.element(&queries, row, query_stride(attend) as i64);
            let whole = if attend.head_dim.is_multiple_of(8) { attend.head_dim } else { 0 };
            for dim in (0..whole).step_by(8) {
                let address = f.offset(&from, &int(2 * dim as i64));
                let value = f.load(I32.with_lanes(4), &address, 16);
                let address = f.offset(&to, &int(2 * dim as i64));
                f.store(&value, &address, 16);
            }
            for dim in whole..attend.padded {
                let value = if dim < attend.head_dim {
                    let address = f.offset(&from, &int(2 * dim as i64));
                    f.load(I16, &address, 2)
                } else {
                    int_of(I16, 0)
                };
                let address = f.offset(&to, &int(2 * dim as i64));
                f.store(&value, &address, 2);
            }
        });
    }

    /// Per 16 rows of the warp where this lane's row of a matrix starts: rows 0..8, rows 8..16, then the next 8 elements.
    fn query_addresses(&self, f: &mut FunctionText, place: &Place) -> Vec<Value> {
        let row = f.binary("and", &place.lane, &int(15));
        let piece = f.binary("lshr", &place.lane, &int(4));
        let warp = f.scale(&place.warp, rows_per_warp(self.attend) as i64);
        let row = f.add(&warp, &row);
        let queries = self.queries(f);
        let address = f.element(&queries, &row, query_stride(self.attend) as i64);
        let address = f.element(&address, &piece, 16);
        let tile_bytes = matrix::ROWS * query_stride(self.attend);
        (0..self.row_tiles()).map(|tile| f.offset(&address, &int((tile * tile_bytes) as i64))).collect()
    }

    /// 16 elements of the queries of all rows, 4 registers per 16 rows.
    fn query(&self, f: &mut FunctionText, addresses: &[Value], depth: usize) -> Vec<Value> {
        let load = |address| {
            let address = f.offset(address, &int((depth * DEPTH * 2) as i64));
            matrix::load_matrices(f, &address)
        };
        addresses.iter().flat_map(load).collect()
    }

    /// This thread's first piece of a block of the cache, in bytes from the block's first and in a stage; pieces are
    /// permuted as in [`matrix::place_of_columns`]. A warp copies a quarter of a block, so that all pieces of a thread are
    /// within what an instruction has a place for ([`copy::CENTER`]).
    fn source(&self, f: &mut FunctionText, place: &Place) -> Value {
        let own = f.scale(&place.lane, copy::BYTES as i64);
        let quarter = f.scale(&place.warp, (2 * self.attend.half_bytes / WARPS) as i64);
        let head = f.scale(&place.kv_head, 2 * self.attend.half_bytes as i64);
        let source = f.add(&head, &quarter);
        let source = f.add(&source, &own);
        let center = f.binary("or", &place.zero, &int(copy::CENTER));
        f.add(&source, &center)
    }

    fn target(&self, f: &mut FunctionText, place: &Place) -> Value {
        let quarter = f.scale(&place.warp, (2 * self.attend.half_bytes / WARPS) as i64);
        let bit = f.binary("lshr", &place.lane, &int(3));
        let bit = f.binary("and", &bit, &int(1));
        let bit = f.scale(&bit, 2);
        let piece = f.binary("xor", &place.lane, &bit);
        let piece = f.scale(&piece, copy::BYTES as i64);
        let target = f.add(&quarter, &piece);
        f.offset(&self.stages, &target)
    }

    /// The pool's blocks of a chunk; behind the last one that one.
    fn chunk_blocks(&self, f: &mut FunctionText, table: &Value, segment: &Segment, chunk: &Value) -> Vec<Value> {
        let first = f.scale(chunk, BLOCKS as i64);
        let block = |number| {
            let block = f.add(&first, &int_of(I32, number as i64));
            let block = f.min(&block, &segment.last_block);
            let block = f.cast("zext", &block, I64);
            let address = f.element(table, &block, 4);
            f.load(I32, &address, 4)
        };
        (0..BLOCKS).map(block).collect()
    }

    fn copy(&self, f: &mut FunctionText, segment: &Segment, blocks: &[Value], stage: &Value) {
        let target = f.offset(&segment.target, stage);
        let place = self.place(f);
        let own = self.source(f, &place);
        let pieces = 2 * self.attend.half_bytes / copy::BYTES / THREADS;
        let line = (WARP * copy::BYTES) as i64;
        for (number, block) in blocks.iter().enumerate() {
            let block = f.cast("zext", block, I64);
            let start = f.scale(&block, self.attend.block_bytes as i64);
            let start = f.add(&start, &own);
            let source = f.offset(&self.attend.cache, &start);
            for piece in 0..pieces {
                let offset = piece as i64 * line;
                let to = (number * 2 * self.attend.half_bytes) as i64 + offset;
                copy::start(f, (&target, to), (&source, offset - copy::CENTER));
            }
        }
        copy::commit(f);
    }

    /// Folds the chunks that the block's rows of a sequence see: first those that all see whole.
    fn walk(&self, f: &mut FunctionText, state: &[Value], kept: Option<&[Vec<Value>]>) -> Vec<Value> {
        // What was read for the sequence before is read.
        barrier(f);
        let whole = self.segment(f);
        let [first, end, _] = &whole.chunks;
        let place = self.place(f);
        let one = f.compare("icmp eq", &place.thread, &int(0));
        let kept_table = self.kept_at(f, TABLE);
        f.when(&one, |f| f.store(&whole.table, &kept_table, 8));
        let blocks = self.chunk_blocks(f, &whole.table, &whole, first);
        self.copy(f, &whole, &blocks, &int(0));
        let second = f.add(first, &int_of(I32, 1));
        let mut carried = vec![int(0)];
        carried.extend(self.chunk_blocks(f, &whole.table, &whole, &second));
        carried.extend(state.iter().cloned());
        let carried = self.walk_over(f, &whole, [first, end], carried, Mask::None, kept);
        let masked = self.segment(f);
        let [_, first, end] = &masked.chunks;
        let carried = self.walk_over(f, &masked, [first, end], carried, Mask::Needed, kept);
        copy::wait(f, 0);
        carried[1 + BLOCKS..].to_vec()
    }

    /// `carried`: the stage to read, the blocks of the chunk behind it, then the state.
    fn walk_over(
        &self,
        f: &mut FunctionText,
        segment: &Segment,
        [first, end]: [&Value; 2],
        carried: Vec<Value>,
        mask: Mask,
        kept: Option<&[Vec<Value>]>,
    ) -> Vec<Value> {
        let place = self.place(f);
        let addresses = self.query_addresses(f, &place);
        f.fold(first, end, 1, &carried, |f, chunk, carried| {
            copy::wait(f, 0);
            barrier(f);
            let stage = &carried[0];
            let next_stage = f.binary("xor", stage, &int(self.stage_bytes as i64));
            self.copy(f, segment, &carried[1..=BLOCKS], &next_stage);
            let later = f.add(chunk, &int_of(I32, 2));
            let mut next = vec![next_stage];
            let table = self.kept_at(f, TABLE);
            let table = f.load_anew(GLOBAL, &table, 8);
            next.extend(self.chunk_blocks(f, &table, segment, &later));
            let masked = (mask == Mask::Needed).then_some(segment);
            next.extend(self.chunk(f, &place, (chunk, stage, masked), &carried[1 + BLOCKS..], (&addresses, kept)));
            next
        })
    }

    /// Folds a chunk into maxima, sums and weighted values.
    fn chunk(
        &self,
        f: &mut FunctionText,
        place: &Place,
        (chunk, stage, masked): (&Value, &Value, Option<&Segment>),
        state: &[Value],
        (addresses, kept): (&[Value], Option<&[Vec<Value>]>),
    ) -> Vec<Value> {
        let rows = 2 * self.row_tiles();
        let (maxima, outputs) = state.split_at(rows);
        let stage = f.offset(&self.stages, stage);
        let mut scores = self.scores(f, place, &stage, addresses, kept);
        if let Some(segment) = masked {
            self.hide(f, segment, chunk, &mut scores);
        }
        let scale = float_of(F32, self.attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let place_of_sums = self.sums(f, place);
        let ty = F32.with_lanes(rows);
        let sums = f.load(ty, &place_of_sums, 4 * rows);
        let (mut next_maxima, mut next_sums, mut factors) = (Vec::new(), sums.clone(), Vec::new());
        for row in 0..rows {
            let own: Vec<Value> = self.of_row(row).map(|at| scores[at].clone()).collect();
            let largest = own.iter().fold(maxima[row].clone(), |a, b| f.intrinsic("maxnum", &[a, b.clone()]));
            let maximum = butterfly(f, &largest, &[1, 2], |f, a, b| f.intrinsic("maxnum", &[a.clone(), b.clone()]));
            let scaled = f.binary("fmul", &maximum, &scale);
            let negated = f.negate(&scaled);
            // Exactly 0 where the maximum stays, also where no position was seen yet.
            let before = f.binary("fsub", &maxima[row], &maximum);
            let before = f.binary("fmul", &before, &scale);
            let factor = exp2(f, &before);
            let sum = f.extract(&sums, row);
            let mut sum = f.binary("fmul", &sum, &factor);
            for (at, score) in self.of_row(row).zip(&own) {
                let lowered = f.intrinsic("fma", &[score.clone(), scale.clone(), negated.clone()]);
                scores[at] = exp2(f, &lowered);
                sum = f.binary("fadd", &sum, &scores[at]);
            }
            next_maxima.push(maximum);
            next_sums = f.insert(&next_sums, &sum, row);
            factors.push(factor);
        }
        f.store(&next_sums, &place_of_sums, 4 * rows);
        let mut next = next_maxima;
        next.extend(self.weigh(f, place, &stage, &scores, &factors, outputs));
        next
    }

    /// Where the scores of a lane's row are among all of its: `[16 rows][8 positions][2 rows][2 positions]`.
    fn of_row(&self, row: usize) -> impl Iterator<Item = usize> + use<> {
        let start = row / 2 * (CHUNK / 8) * 4 + row % 2 * 2;
        (0..CHUNK / 8).flat_map(move |eight| [start + eight * 4, start + eight * 4 + 1])
    }

    fn scores(
        &self,
        f: &mut FunctionText,
        place: &Place,
        stage: &Value,
        addresses: &[Value],
        kept: Option<&[Vec<Value>]>,
    ) -> Vec<Value> {
        let eights = CHUNK / 8;
        let mut scores = vec![float_of(F32, 0.0); self.row_tiles() * eights * 4];
        // Pair t of 16 elements, position g of 8; which half of a line those 8 are in is permuted.
        let bit = f.binary("lshr", &place.t, &int(1));
        let line = f.scale(&place.t, 64);
        let column = f.scale(&place.g, 4);
        let start = f.add(&line, &column);
        let halves = [0, 1].map(|half| {
            let half = f.binary("xor", &bit, &int(half));
            let half = f.scale(&half, 32);
            let start = f.add(&start, &half);
            f.offset(stage, &start)
        });
        for depth in 0..self.depths() {
            if kept.is_none() && depth % 2 == 0 {
                f.call("llvm.nvvm.bar.warp.sync", None, &[int_of(I32, -1)]);
            }
            let query = match kept {
                Some(kept) => kept[depth].clone(),
                None => self.query(f, addresses, depth),
            };
            for eight in 0..eights {
                let block = eight / 4 * 2 * self.attend.half_bytes;
                let tile = eight / 2 % 2 * (self.attend.padded / 32) * 1024;
                let start = block + tile + depth / 2 * 1024 + depth % 2 * 512;
                let key = [0, 256].map(|pairs| {
                    let address = f.offset(&halves[eight % 2], &int((start + pairs) as i64));
                    f.load(I32, &address, 4)
                });
                for (tile, query) in query.chunks_exact(4).enumerate() {
                    let at = (tile * eights + eight) * 4;
                    let query = [&query[0], &query[1], &query[2], &query[3]];
                    let next = matrix::multiply(f, query, [&key[0], &key[1]], &scores[at..at + 4]);
                    scores.splice(at..at + 4, next);
                }
            }
        }
        scores
    }

    /// Lets positions that a row does not see have no weight. Which rows the lane has is found anew: there is no register to
    /// spare for what does not change from chunk to chunk.
    fn hide(&self, f: &mut FunctionText, segment: &Segment, chunk: &Value, scores: &mut [Value]) {
        let Place { first, warp, g, t, .. } = self.place(f);
        let group = self.attend.group() as i64;
        let warp = f.scale(&warp, rows_per_warp(self.attend) as i64);
        let own = f.add(&warp, &g);
        let columns = f.scale(&t, 2);
        let columns = f.cast("trunc", &columns, I32);
        let start = f.scale(chunk, CHUNK as i64);
        let start = f.add(&start, &columns);
        for row in 0..2 * self.row_tiles() {
            let number = f.add(&own, &int(8 * row as i64));
            let token = f.binary("udiv", &number, &int(group));
            let token = f.add(&first, &token);
            let token = f.cast("trunc", &token, I32);
            let not_before = f.compare("icmp sge", &token, &segment.begin);
            let not_after = f.compare("icmp slt", &token, &segment.after);
            let is_own = f.binary("and", &not_before, &not_after);
            let position = f.add(&token, &segment.shift);
            let limit = f.select(&is_own, &position, &int_of(I32, -1));
            // Relative to this lane's first position.
            let newest = f.binary("sub", &limit, &start);
            let oldest = self.attend.attention.window.map(|window| f.add(&newest, &int_of(I32, 1 - window as i64)));
            for (number, at) in self.of_row(row).enumerate() {
                let position = int_of(I32, (number / 2 * 8 + number % 2) as i64);
                let mut seen = f.compare("icmp sge", &newest, &position);
                if let Some(oldest) = &oldest {
                    let not_older = f.compare("icmp sle", oldest, &position);
                    seen = f.binary("and", &seen, &not_older);
                }
                scores[at] = f.select(&seen, &scores[at], &float_of(F32, f64::NEG_INFINITY));
            }
        }
    }

    /// `O^T = O^T * factors + V^T P^T`: per 16 elements and 8 rows, elements `2g` and `2g + 1` of rows `2t` and `2t + 1`.
    fn weigh(
        &self,
        f: &mut FunctionText,
        place: &Place,
        stage: &Value,
        weights: &[Value],
        factors: &[Value],
        outputs: &[Value],
    ) -> Vec<Value> {
        let rows = factors.len();
        let factors = self.for_columns(f, &place.t, factors);
        let mut outputs: Vec<Value> = outputs.to_vec();
        for (at, output) in outputs.iter_mut().enumerate() {
            *output = f.binary("fmul", output, &factors[at / 4 % rows][at % 2]);
        }
        let columns = matrix::place_of_columns(f, &place.g, &place.t);
        let values = f.offset(stage, &columns);
        for depth in 0..CHUNK / DEPTH {
            let pairs: Vec<[Value; 2]> = (0..rows)
                .map(|row| {
                    [0, 1].map(|half| {
                        let at = (row / 2 * (CHUNK / 8) + 2 * depth + half) * 4 + row % 2 * 2;
                        pack(f, &weights[at], &weights[at + 1])
                    })
                })
                .collect();
            for tile in 0..self.depths() {
                let block = (depth / 2 * 2 + 1) * self.attend.half_bytes;
                let address = f.offset(&values, &int((block + tile * 1024 + depth % 2 * 512) as i64));
                let a = matrix::load_columns(f, &address);
                for (row, b) in pairs.iter().enumerate() {
                    let at = (tile * rows + row) * 4;
                    let a = [&a[0], &a[1], &a[2], &a[3]];
                    let next = matrix::multiply(f, a, [&b[0], &b[1]], &outputs[at..at + 4]);
                    outputs.splice(at..at + 4, next);
                }
            }
        }
        outputs
    }

    /// From values of rows g those of rows `2t` and `2t + 1`.
    fn for_columns(&self, f: &mut FunctionText, t: &Value, values: &[Value]) -> Vec<[Value; 2]> {
        let lane = f.scale(t, 8);
        let lane = f.cast("trunc", &lane, I32);
        let lanes = [lane.clone(), f.add(&lane, &int_of(I32, 4))];
        values.iter().map(|value| lanes.each_ref().map(|lane| from_lane(f, value, lane))).collect()
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
                    let at = rows + (tile * rows + eight) * 4 + odd;
                    [at, at + 2].map(|at| f.binary("fmul", &state[at], &inverses[eight][odd]))
                });
                let elements: Vec<[Value; 2]> = elements.collect();
                attend.store_pairs(f, &to, &place.g, &elements);
            });
        }
    }
}

/// Two floats rounded to bf16, the first in the lower half.
pub fn pack(f: &mut FunctionText, low: &Value, high: &Value) -> Value {
    let ty = Ty { scalar: Scalar::BF16, lanes: 2 };
    let pair = f.call("llvm.nvvm.ff2bf16x2.rn", Some(ty), &[high.clone(), low.clone()]);
    f.cast("bitcast", &pair.expect("the intrinsic returns a value"), I32)
}
