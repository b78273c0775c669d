//! Attention by AMX ([`super::super::amx`]): scores of 32 query rows with blocks of keys, and sums over a whole chunk of values. The KV
//! cache holds both as tiles.
//!
//! Weights of positions are rounded to bf16 for it, which is the one rounding that vector instructions do without; their sums
//! are taken before.

use super::super::amx::{GROUP, LeftTiles, ROW_BYTES, ROWS, Reuse, Shape, Sums, TILE_BYTES, by_row_tiles, for_groups};
use super::super::math::{bf16_bits, round_to_bf16};
use super::super::multiply::Start;
use super::super::rows::LANES;
use super::super::text::{FunctionText, PTR, Value, int};
use super::super::{KernelContext, MatrixUnit};
use super::{Attend, Item, SPLIT};
use llmc_ir::dtype::DType;
use llmc_ir::op::{AttendMethod, Attention};
use llmc_ir::plan::KV_BLOCK_POSITIONS;

/// Positions of a chunk: sums of many stay in registers longer.
const LONG_CHUNK: usize = 512;
/// Query heads per key/value head, and elements of a head, from which on tiles win in steps of one token per sequence.
const DECODE_GROUP: usize = 6;
const DECODE_HEAD: usize = 128;

/// What multiplies in a kernel. This goes by the program, not by the step, because tiles round weights.
pub fn unit(context: &KernelContext<'_>, attention: &Attention, dtype: DType) -> MatrixUnit {
    let is_bf16 = dtype == DType::BF16 && context.kv.dtype == DType::BF16;
    let group = attention.heads / attention.kv_heads;
    let has_rows =
        !context.bounds.one_token_per_sequence || group >= DECODE_GROUP && context.kv.head_dim >= DECODE_HEAD;
    match context.unit {
        MatrixUnit::Pairs if is_bf16 => MatrixUnit::Pairs,
        MatrixUnit::Tiles if is_bf16 && has_rows => MatrixUnit::Tiles,
        _ => MatrixUnit::Vectors,
    }
}

/// Tokens of an item: as many as fill so many rows.
pub fn tokens(query_rows: usize, group: usize) -> usize {
    (query_rows / group).max(1)
}

/// Positions of a chunk.
pub fn chunk(method: AttendMethod) -> usize {
    match method {
        AttendMethod::Whole => LONG_CHUNK,
        AttendMethod::Split => SPLIT,
    }
}

/// Rows that working memory must have room for.
pub fn whole_groups(rows: usize) -> usize {
    rows.next_multiple_of(GROUP)
}

/// Working memory that only tiles need.
pub struct Memory {
    /// Weights of positions in bf16, a row per row of scores.
    weights: Value,
    weight_stride: usize,
    /// Addresses of the values of a chunk's blocks.
    values: Value,
}

impl Memory {
    /// For so many rows of a chunk's positions.
    pub fn new(rows: usize, chunk: usize, mut working: impl FnMut(usize) -> Value) -> Memory {
        let weight_stride = chunk * 2 + ROW_BYTES;
        let values = working(chunk / KV_BLOCK_POSITIONS * 8);
        Memory { weights: working(rows * weight_stride), weight_stride, values }
    }

    /// Keeps the weights of a row's positions from `column` of the chunk on.
    pub fn store_weights(&self, f: &mut FunctionText, row: &Value, column: &Value, weights: &Value) {
        let rounded = round_to_bf16(f, weights);
        let bits = bf16_bits(f, &rounded);
        let to = f.element(&self.weights, row, self.weight_stride as i64);
        let to = f.element(&to, column, 2);
        f.store(&bits, &to, LANES * 2);
    }
}

impl Attend {
    /// Scores of all rows with the positions of a chunk. Notes where the values are.
    pub fn score_by_tiles(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        memory: &Memory,
        item: &Item,
        (chunk, blocks): (&Value, &Value),
        rows: &Value,
    ) {
        let shape = |row_tiles: usize| Shape {
            depth: self.padded * 2 / ROW_BYTES,
            row_tiles,
            a_row: self.query_stride,
            a_depth: ROW_BYTES,
            a_tile: ROWS * self.query_stride,
            a_reuse: Reuse::Soon,
            b_depth: TILE_BYTES,
            b_tile: context.kv.half_bytes() / 2,
            c_row: self.score_stride,
            start: Start::Zero,
            ahead: 0,
        };
        let products = [1, 2].map(|row_tiles| context.tile_products.get(context.module, &shape(row_tiles)));
        f.for_each(&int(0), blocks, 1, |f, block| {
            let keys = self.block(f, context, (&item.sequence, &item.kv_head), chunk, block);
            let values = f.offset(&keys, &int(context.kv.half_bytes() as i64));
            let at = f.element(&memory.values, block, 8);
            f.store(&values, &at, 8);
            let scores = f.element(&self.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            for_groups(f, rows, |f, group, rows| {
                let queries = f.element(&self.queries, group, (GROUP * self.query_stride) as i64);
                let scores = f.element(&scores, group, (GROUP * self.score_stride) as i64);
                let arguments = [queries, keys.clone(), scores, keys.clone()];
                by_row_tiles(f, self.tokens * self.group, rows, |f, row_tiles| {
                    f.call_local(&products[row_tiles - 1], &arguments)
                });
            });
        });
    }

    /// Adds the chunk's values, weighted, to the state: 32 elements of a head at a time, over all blocks.
    pub fn weigh_by_tiles(&self, f: &mut FunctionText, memory: &Memory, blocks: &Value, rows: &Value) {
        for_groups(f, rows, |f, group, rows| {
            let weights = f.element(&memory.weights, group, (GROUP * memory.weight_stride) as i64);
            let state = f.element(&self.state, group, (GROUP * self.state_stride) as i64);
            by_row_tiles(f, self.tokens * self.group, rows, |f, row_tiles| {
                f.for_each(&int(0), &int((self.padded / (2 * ROWS)) as i64), 1, |f, pass| {
                    let address = f.element(&state, pass, (2 * ROW_BYTES) as i64);
                    let sums = Sums { row_tiles, address, row: self.state_stride };
                    sums.load(f, Start::Memory);
                    f.for_each(&int(0), blocks, 1, |f, block| {
                        let values = f.element(&memory.values, block, 8);
                        let values = f.load(PTR, &values, 8);
                        let values = f.element(&values, pass, (2 * TILE_BYTES) as i64);
                        let address = f.element(&weights, block, ROW_BYTES as i64);
                        let tile = ROWS * memory.weight_stride;
                        let left = LeftTiles { address, row: memory.weight_stride, tile, reuse: Reuse::Soon };
                        sums.multiply(f, &left, &values, TILE_BYTES);
                    });
                    sums.store(f);
                });
            });
        });
    }
}
