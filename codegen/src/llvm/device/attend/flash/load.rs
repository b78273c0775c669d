//! What a block brings to shared memory: its queries once, then chunk after chunk of the cache.

use super::{
    BLOCKS_BYTES, Flash, MAXIMA, Place, STAGES, TABLE, THREADS, WARPS, query_stride, rows_per_block, rows_per_warp,
};
use crate::llvm::device::copy;
use crate::llvm::device::matrix::{self, DEPTH};
use crate::llvm::device::thread::WARP;
use crate::llvm::text::{F32, FunctionText, GLOBAL, I16, I32, I64, Value, int, int_of};

/// Elements that a thread brings at once.
const PIECE: usize = 8;

impl Flash<'_> {
    /// Where queries lie in shared memory.
    pub(super) fn queries(&self, f: &mut FunctionText) -> Value {
        f.offset(&self.stages, &int((STAGES * self.stage_bytes) as i64))
    }

    /// Where a thread keeps the sums of its rows' weights: behind the elements of a row of queries, which leaves as many
    /// bytes free. They are needed twice a chunk, and registers are short.
    pub(super) fn sums(&self, f: &mut FunctionText, place: &Place) -> Value {
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

    /// Where a warp keeps the maxima of this lane's rows, which the lanes of those rows share.
    fn maxima(&self, f: &mut FunctionText, place: &Place) -> Value {
        let rows = 2 * self.row_tiles() as i64;
        let maxima = self.kept_at(f, MAXIMA);
        let number = f.binary("lshr", &place.thread, &int(2));
        f.element(&maxima, &number, 4 * rows)
    }

    /// The maxima of this lane's rows. All lanes have them when it returns.
    pub(super) fn kept_maxima(&self, f: &mut FunctionText) -> Value {
        let rows = 2 * self.row_tiles();
        let place = self.place(f);
        let from = self.maxima(f, &place);
        let maxima = f.load_anew(F32.with_lanes(rows), &from, 4 * rows);
        f.call("llvm.nvvm.bar.warp.sync", None, &[int_of(I32, -1)]);
        maxima
    }

    /// Keeps the maxima until the block's next barrier.
    pub(super) fn keep_maxima(&self, f: &mut FunctionText, place: &Place, maxima: &Value) {
        let to = self.maxima(f, place);
        let first = f.compare("icmp eq", &place.t, &int(0));
        f.when(&first, |f| f.store(maxima, &to, 4 * maxima.ty.lanes));
    }

    /// Brings the block's queries to shared memory, zeros behind the head's elements. Neighbouring threads take neighbouring
    /// pieces of 16 bytes; elements one by one where rows are no whole pieces.
    pub(super) fn load_queries(&self, f: &mut FunctionText, place: &Place) {
        let attend = self.attend;
        let rows = rows_per_block(attend);
        let (ty, elements) = match attend.head_dim.is_multiple_of(PIECE) {
            true => (I32.with_lanes(4), PIECE),
            false => (I16, 1),
        };
        let bytes = 2 * elements;
        let per_row = (attend.padded / elements) as i64;
        let last = f.add(&place.end, &int(-1));
        let queries = self.queries(f);
        f.for_each(&place.thread, &int(rows as i64 * per_row), THREADS as i64, |f, piece| {
            let row = f.binary("udiv", piece, &int(per_row));
            let piece = f.binary("urem", piece, &int(per_row));
            let token = f.binary("udiv", &row, &int(attend.group() as i64));
            let head = f.binary("urem", &row, &int(attend.group() as i64));
            let token = f.add(&place.first, &token);
            let token = f.min(&token, &last);
            let from = attend.head_address(f, &attend.query, &token, &place.kv_head, &head);
            let to = f.element(&queries, &row, query_stride(attend) as i64);
            let to = f.element(&to, &piece, bytes as i64);
            // Behind the end the last piece stands in until it is known to be none.
            let inside = (attend.head_dim / elements) as i64;
            let own = if inside < per_row { f.min(&piece, &int(inside - 1)) } else { piece.clone() };
            let from = f.element(&from, &own, bytes as i64);
            let mut value = f.load(ty, &from, bytes);
            if inside < per_row {
                let is_one = f.compare("icmp slt", &piece, &int(inside));
                value = f.select(&is_one, &value, &Value { text: "zeroinitializer".into(), ty });
            }
            f.store(&value, &to, bytes);
        });
    }

    /// Per 16 rows of the warp where this lane's row of a matrix starts: rows 0..8, rows 8..16, then the next 8 elements.
    pub(super) fn query_addresses(&self, f: &mut FunctionText, place: &Place) -> Vec<Value> {
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
    pub(super) fn query(&self, f: &mut FunctionText, addresses: &[Value], depth: usize) -> Vec<Value> {
        let load = |address| {
            let address = f.offset(address, &int((depth * DEPTH * 2) as i64));
            matrix::load_matrices(f, &address)
        };
        addresses.iter().flat_map(load).collect()
    }

    /// This thread's first piece of a block of the cache, in bytes from the block's first and in a stage; pieces are
    /// permuted as in [`matrix::place_of_columns`]. A warp copies a quarter of a block, so that all pieces of a thread are
    /// within what an instruction has a place for ([`copy::CENTER`]).
    pub(super) fn source(&self, f: &mut FunctionText, place: &Place) -> Value {
        let own = f.scale(&place.lane, copy::BYTES as i64);
        let quarter = f.scale(&place.warp, (2 * self.attend.half_bytes / WARPS) as i64);
        let head = f.scale(&place.kv_head, 2 * self.attend.half_bytes as i64);
        let source = f.add(&head, &quarter);
        let source = f.add(&source, &own);
        let center = f.binary("or", &place.zero, &int(copy::CENTER));
        f.add(&source, &center)
    }

    pub(super) fn target(&self, f: &mut FunctionText, place: &Place, stage: &Value) -> Value {
        let quarter = f.scale(&place.warp, (2 * self.attend.half_bytes / WARPS) as i64);
        let bit = f.binary("lshr", &place.lane, &int(3));
        let bit = f.binary("and", &bit, &int(1));
        let bit = f.scale(&bit, 2);
        let piece = f.binary("xor", &place.lane, &bit);
        let piece = f.scale(&piece, copy::BYTES as i64);
        let target = f.add(&quarter, &piece);
        f.offset(stage, &target)
    }

    /// Where the stage of a chunk starts: chunks take turns.
    pub(super) fn stage(&self, f: &mut FunctionText, chunk: &Value) -> Value {
        let turn = f.binary("and", chunk, &int_of(I32, STAGES as i64 - 1));
        let turn = f.cast("zext", &turn, I64);
        f.element(&self.stages, &turn, self.stage_bytes as i64)
    }

    /// Where the stage of a chunk has the numbers of the pool's blocks of the next one.
    fn next_blocks(&self, f: &mut FunctionText, chunk: &Value) -> Value {
        let stage = self.stage(f, chunk);
        f.offset(&stage, &int((self.stage_bytes - BLOCKS_BYTES) as i64))
    }

    /// The pool's blocks of the chunk after one that has come.
    pub(super) fn blocks_after(&self, f: &mut FunctionText, chunk: &Value) -> Vec<Value> {
        let from = self.next_blocks(f, chunk);
        let blocks = f.load_anew(I32.with_lanes(self.blocks()), &from, 4 * self.blocks());
        (0..self.blocks()).map(|block| f.extract(&blocks, block)).collect()
    }

    /// The pool's blocks of a chunk; behind the last one that one.
    pub(super) fn chunk_blocks(&self, f: &mut FunctionText, chunk: &Value) -> Vec<Value> {
        let block = |number| {
            let address = self.table_entry(f, chunk, &int_of(I32, number as i64));
            f.load(I32, &address, 4)
        };
        (0..self.blocks()).map(block).collect()
    }

    /// Where the sequence's table has a block of a chunk; behind the last one that one.
    fn table_entry(&self, f: &mut FunctionText, chunk: &Value, number: &Value) -> Value {
        let block = f.scale(chunk, self.blocks() as i64);
        let block = f.add(&block, number);
        let last_block = self.segment_rows(f).last_block;
        let block = f.min(&block, &last_block);
        let block = f.cast("zext", &block, I64);
        let table = self.kept_at(f, TABLE);
        let table = f.load_anew(GLOBAL, &table, 8);
        f.element(&table, &block, 4)
    }

    /// Brings a chunk, whose blocks in the pool are known, and the numbers of the next one's blocks.
    pub(super) fn copy(&self, f: &mut FunctionText, blocks: &[Value], chunk: &Value) {
        let place = self.place(f);
        let stage = self.stage(f, chunk);
        let target = self.target(f, &place, &stage);
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
        let brings = f.compare("icmp slt", &place.thread, &int(self.blocks() as i64));
        f.when(&brings, |f| {
            let thread = f.cast("trunc", &place.thread, I32);
            let next = f.add(chunk, &int_of(I32, 1));
            let from = self.table_entry(f, &next, &thread);
            let to = self.next_blocks(f, chunk);
            let to = f.element(&to, &place.thread, 4);
            copy::start_word(f, &to, &from);
        });
        copy::commit(f);
    }
}
