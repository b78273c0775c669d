//! Attention of one row per sequence, bound by reading the cache (Dao et al., "Flash-Decoding", 2023): contexts are cut
//! into splits at fixed positions of the sequence; a block takes one split of one sequence and key/value head for all
//! query heads that share it, and its warps take turns at the blocks of the cache. Keys and values go straight into the
//! registers of matrix instructions, 16 bytes a load; queries of heads so wide that keys and sums fill the registers wait
//! in shared memory. Results of warps, then of splits are combined in ascending order.
//!
//! In a block of the cache the k pairs of a lane are `4t..4t + 4` of each 32, for scores elements of the head and for
//! values positions; the lane's four columns are `4g..4g + 4`. So a lane has the scores of the positions `8t..8t + 8`,
//! which are the very pairs that it needs as weights.

mod block;
mod combine;

use self::block::load_all;
use super::super::matrix::{self, PANEL};
use super::super::thread::{WARP, barrier, special_wide, warp_barrier};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::{Attend, NO_MAXIMUM, POSITIONS, RESIDENT};
use crate::llvm::memory::load_index;
use crate::llvm::step_args::{integer, pointer, size, step_input};
use crate::llvm::text::{F32, FunctionText, Value, float_of, int};
use llmc_ir::gpu::GpuStepArgs;
use llmc_ir::op::AttendMethod;
use llmc_ir::plan::StepInput;
use std::mem::offset_of;

/// Warps of a block.
const WARPS: usize = 4;
/// The most splits of a context, and the fewest positions of one.
const MOST_SPLITS: usize = 32;
const LEAST_POSITIONS: usize = 256;
/// Query heads of a block at most, and where heads have more than [`WIDE`] elements.
const HEADS: [usize; 2] = [matrix::ROWS, 8];
const WIDE: usize = 128;
/// Registers of a thread for what it loads and sums, up to which more is held beside each other.
const MOST_REGISTERS: usize = 200;
/// Elements per head that registers hold.
const MOST_ELEMENTS: usize = 256;

/// Bytes from 32 elements of the keys of 16 positions to the next, and from 32 elements of 32 values.
const KEY_GROUP_BYTES: usize = 1024;
const VALUE_GROUP_BYTES: usize = 2048;

/// Whether these kernels can do it.
pub fn takes(attend: &Attend) -> bool {
    attend.padded <= MOST_ELEMENTS && attend.attention.scale.get() > 0.0
}

/// Emits the kernels.
pub fn emit(context: &mut DeviceContext<'_>, attend: &Attend) -> Result<(), String> {
    let longest = context.bounds.max.context;
    let wanted = match attend.attention.method {
        AttendMethod::Whole => longest,
        AttendMethod::Split => longest.div_ceil(MOST_SPLITS).max(LEAST_POSITIONS),
    };
    let positions = wanted.next_multiple_of(WARPS * POSITIONS);
    let splits = longest.div_ceil(positions).max(1);
    let heads = attend.attention.heads;
    let partial_bytes = (attend.padded + 4) * 4;
    let partials = context.reserve(context.bounds.max_of(attend.rows) * heads * splits * partial_bytes);
    let decode = Decode { attend, positions, splits, partial_bytes, partials };
    decode.emit_splits(context)?;
    decode.emit_combine(context)
}

/// Sizes that both kernels share.
struct Decode<'a> {
    attend: &'a Attend,
    /// Positions of a split.
    positions: usize,
    /// The most splits of a context.
    splits: usize,
    /// A partial result: the elements of the head, then maximum and sum.
    partial_bytes: usize,
    /// Offset of the partial results into the workspace: per row, head and split.
    partials: usize,
}

/// What a row sees.
struct Seen {
    /// Its position, and the first one that it sees.
    own: Value,
    oldest: Value,
    /// Splits with positions that it sees.
    first_split: Value,
    end_split: Value,
}

impl Decode<'_> {
    /// Query heads of a block, in whole groups of 8.
    fn heads(&self) -> usize {
        self.attend.group().next_multiple_of(8).min(self.most_heads())
    }

    /// Registers of a thread: of each 32 elements `loaded`, and per 8 query heads 8 of sums and 4 of queries.
    fn registers(&self, loaded: usize) -> usize {
        self.attend.padded / PANEL * (loaded + 12 * self.heads() / 8)
    }

    /// Whether registers hold keys and values of a block of the cache beside each other.
    fn loads_ahead(&self) -> bool {
        self.registers(32) <= MOST_REGISTERS
    }

    /// Whether registers hold queries beside keys. Else they are read again for each block of the cache.
    fn keeps_queries(&self) -> bool {
        self.registers(16) <= MOST_REGISTERS
    }

    fn most_heads(&self) -> usize {
        HEADS[usize::from(self.attend.padded > WIDE)]
    }

    fn seen(&self, f: &mut FunctionText, params: &DeviceParams, row: &Value) -> Seen {
        let positions = step_input(f, &params.args, StepInput::Positions);
        let own = load_index(f, &positions, row);
        let oldest = match self.attend.attention.window {
            Some(window) => {
                let oldest = f.add(&own, &int(1 - window as i64));
                f.max(&oldest, &int(0))
            }
            None => int(0),
        };
        let length = int(self.positions as i64);
        let first_split = match self.attend.attention.window {
            Some(_) => f.binary("udiv", &oldest, &length),
            None => int(0),
        };
        let last = f.binary("udiv", &own, &length);
        Seen { own, oldest, first_split, end_split: f.add(&last, &int(1)) }
    }

    fn partial(&self, f: &mut FunctionText, params: &DeviceParams, row: &Value, head: &Value, split: &Value) -> Value {
        let number = f.scale(row, self.attend.attention.heads as i64);
        let number = f.add(&number, head);
        let number = f.scale(&number, self.splits as i64);
        let number = f.add(&number, split);
        let base = f.offset(&params.workspace, &int(self.partials as i64));
        f.element(&base, &number, self.partial_bytes as i64)
    }

    fn emit_splits(&self, context: &mut DeviceContext<'_>) -> Result<(), String> {
        let attend = self.attend;
        let head_tiles = attend.group().div_ceil(self.most_heads());
        let beside = attend.attention.kv_heads * head_tiles * self.splits;
        let shared_bytes = WARPS * self.heads() * self.result_stride();
        let geometry = Geometry {
            blocks: blocks(attend.rows, 1, beside)?,
            threads: WARPS * WARP,
            shared_bytes,
            resident: RESIDENT,
        };
        context.launch("split", &geometry, |_, f, params| {
            let rows = size(f, &params.args, attend.rows)?;
            let block = special_wide(f, "ctaid.x");
            let divide = |f: &mut FunctionText, value: &Value, by: usize| match by {
                1 => (value.clone(), int(0)),
                _ => (f.binary("udiv", value, &int(by as i64)), f.binary("urem", value, &int(by as i64))),
            };
            // Blocks of one row and split follow each other.
            let (rest, head_tile) = divide(f, &block, head_tiles);
            let (rest, kv_head) = divide(f, &rest, attend.attention.kv_heads);
            let (row, split) = divide(f, &rest, self.splits);
            let exists = f.compare("icmp slt", &row, &rows);
            f.when(&exists, |f| {
                let seen = self.seen(f, params, &row);
                let not_before = f.compare("icmp sge", &split, &seen.first_split);
                let not_after = f.compare("icmp slt", &split, &seen.end_split);
                let any = f.binary("and", &not_before, &not_after);
                f.when(&any, |f| self.emit_split(f, params, &seen, [&row, &split, &kv_head, &head_tile]));
            });
            Ok(())
        })
    }

    fn emit_split(
        &self,
        f: &mut FunctionText,
        params: &DeviceParams,
        seen: &Seen,
        [row, split, kv_head, head_tile]: [&Value; 4],
    ) {
        let attend = self.attend;
        let thread = special_wide(f, "tid.x");
        let warp = f.binary("lshr", &thread, &int(5));
        let lane = f.binary("and", &thread, &int(31));
        let (g, t) = (f.binary("lshr", &lane, &int(2)), f.binary("and", &lane, &int(3)));
        let first_head = f.scale(head_tile, self.most_heads() as i64);
        let queries = self.queries(f, [row, kv_head, &first_head], [&warp, &g, &t]);
        // The split's blocks of the cache that the row sees.
        let start = f.scale(split, self.positions as i64);
        let end = f.add(&start, &int(self.positions as i64 - 1));
        let start = f.max(&start, &seen.oldest);
        let end = f.min(&end, &seen.own);
        let bits = int(POSITIONS.trailing_zeros().into());
        let first = f.binary("lshr", &start, &bits);
        let last = f.binary("lshr", &end, &bits);
        let end = f.add(&last, &int(1));
        let first = f.add(&first, &warp);
        let tables = pointer(f, &params.args, offset_of!(GpuStepArgs, block_tables));
        let stride = integer(f, &params.args, offset_of!(GpuStepArgs, block_table_stride));
        let table = f.binary("mul nsw", row, &stride);
        let table = f.element(&tables, &table, 4);
        let head = f.scale(kv_head, 2 * attend.half_bytes as i64);
        let cache = f.offset(&attend.cache, &head);
        let place = matrix::place_in_block(f, &g, &t, 4);
        let cache = f.offset(&cache, &place);
        // Lanes with g < 4 read the first 16 positions; those of the others are as many bytes on as keys have per tile.
        let second = f.binary("lshr", &g, &int(2));
        let second = f.scale(&second, attend.padded as i64 * 32 - 1024);
        let keys = f.offset(&cache, &second);
        let values = f.offset(&cache, &int(attend.half_bytes as i64));
        let eights = self.heads() / 8;
        let groups = attend.padded / PANEL;
        let mut initial = vec![float_of(F32, NO_MAXIMUM); eights];
        initial.extend(vec![float_of(F32, 0.0); eights + groups * eights * 8]);
        let last_block = |f: &mut FunctionText, block: &Value| {
            let block = f.min(block, &last);
            load_index(f, &table, &block)
        };
        let mut carried = vec![last_block(f, &first)];
        carried.extend(initial);
        let state = f.fold(&first, &end, WARPS as i64, &carried, |f, block, carried| {
            let at = f.element(&keys, &carried[0], attend.block_bytes as i64);
            let keys = load_all(f, &at, groups, KEY_GROUP_BYTES);
            let load_values = |f: &mut FunctionText| {
                let at = f.element(&values, &carried[0], attend.block_bytes as i64);
                load_all(f, &at, groups, VALUE_GROUP_BYTES)
            };
            let ahead = self.loads_ahead().then(|| load_values(f));
            let next_block = f.add(block, &int(WARPS as i64));
            let mut next = vec![last_block(f, &next_block)];
            let scores = self.scores(f, &queries, &keys, eights);
            let start = f.scale(block, POSITIONS as i64);
            let own = f.scale(&t, 8);
            let start = f.add(&start, &own);
            let scores = self.hide(f, seen, &start, scores);
            let values = ahead.unwrap_or_else(|| {
                // Nor does the assembler then load them beside keys.
                warp_barrier(f);
                load_values(f)
            });
            next.extend(self.fold_block(f, &t, &scores, &values, &carried[1..]));
            next
        });
        if !self.keeps_queries() {
            // Results take the queries' place.
            warp_barrier(f);
        }
        self.keep(f, [&warp, &g, &t], &state[1..]);
        barrier(f);
        self.combine_warps(f, params, [row, split, kv_head, &first_head], &thread);
    }
}
