//! Which part of the step a block is at: its tokens that are of one sequence, and what of the cache they see.

use super::{CHUNKS, Flash, POSITIONS, ROWS, SEQUENCE};
use crate::llvm::memory::load_index;
use crate::llvm::text::{FunctionText, I32, I64, Ty, Value, int, int_of};
use llmc_ir::gpu::GpuStepArgs;
use std::mem::offset_of;

/// The part of the block's tokens that are of one sequence.
pub(super) struct Segment {
    /// Block table of the sequence.
    pub table: Value,
    /// See [`SegmentRows`].
    pub rows: Value,
    /// The first chunk that any of its rows sees, the first that not all see whole, and the first that none sees.
    pub chunks: Value,
}

/// Rows of a segment, as `i32`.
pub(super) struct SegmentRows {
    /// Last block of the cache that any of them sees.
    pub last_block: Value,
    /// From the first to behind the last.
    pub begin: Value,
    pub after: Value,
    /// What a row's number is less than its position.
    pub shift: Value,
}

impl Flash<'_> {
    /// What the block has of the sequence that it is at.
    pub(super) fn segment(&self, f: &mut FunctionText) -> Segment {
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
        let bits = int(self.positions().trailing_zeros().into());
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
        let zero = int(0);
        let [rows, chunks] = [[&last_block, &begin, &after, &shift], [&first, &whole, &end, &zero]].map(|values| {
            let none = int_of(I32.with_lanes(4), 0);
            values.into_iter().enumerate().fold(none, |all, (lane, value)| {
                let value = f.cast("trunc", value, I32);
                f.insert(&all, &value, lane)
            })
        });
        Segment { table, rows, chunks }
    }

    /// The rows of the segment that the block is at.
    pub(super) fn segment_rows(&self, f: &mut FunctionText) -> SegmentRows {
        let from = self.kept_at(f, ROWS);
        let kept = f.load_anew(I32.with_lanes(4), &from, 16);
        let [last_block, begin, after, shift] = [0, 1, 2, 3].map(|lane| f.extract(&kept, lane));
        SegmentRows { last_block, begin, after, shift }
    }

    /// One of a segment's [`Segment::chunks`].
    pub(super) fn segment_chunk(&self, f: &mut FunctionText, number: i64) -> Value {
        let from = self.kept_at(f, CHUNKS + 4 * number);
        f.load_anew(I32, &from, 4)
    }
}
