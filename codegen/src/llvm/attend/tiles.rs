//! Attention by AMX ([`super::super::amx`]) as a pipeline over chunks of positions: while a chunk's scores become weights, the scores of
//! the next chunk are taken, and the values of the one before it are added up. Products of tiles and softmax are dealt out
//! among each other, so that tiles are multiplied while vector instructions run. The KV cache holds keys and values as tiles.
//!
//! An item has up to 64 query rows, which meet each block of keys and values while it is in the first-level cache. So are the
//! scores: a chunk is short, and its weights take their place.
//!
//! Weights of positions are rounded to bf16 for it, which is the one rounding that vector instructions do without; their sums
//! are taken before.

use super::super::amx::{GROUP, LeftTiles, ROW_BYTES, ROWS, Reuse, Shape, Sums, TILE_BYTES, by_row_tiles, for_groups};
use super::super::multiply::Start;
use super::super::text::{FunctionText, I64, Value, int};
use super::super::{KernelContext, MatrixUnit};
use super::state::State;
use super::{Attend, Item};
use llmc_ir::dtype::DType;
use llmc_ir::op::Attention;
use llmc_ir::plan::KV_BLOCK_POSITIONS;

/// Positions of a chunk.
pub const CHUNK: usize = 2 * KV_BLOCK_POSITIONS;
/// Chunks whose scores or weights are in use at a time.
pub const CHUNKS_IN_USE: usize = 3;
/// Items per thread from which on they have so many rows; of shorter prompts there are more items of fewer rows.
const ITEMS_PER_THREAD: usize = 4;
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

/// Tokens of an item at most, which has about so many query rows.
pub fn most_tokens(query_rows: usize, group: usize) -> usize {
    (query_rows / group).max(1)
}

/// Tokens of the items of a sequence of so many: as many as fill all rows, or half of them where there would be few items.
/// `most` is how many items have at most.
pub fn tokens(f: &mut FunctionText, attention: &Attention, most: usize, [count, threads]: [&Value; 2]) -> Value {
    let group = attention.heads / attention.kv_heads;
    let fewer = (GROUP / group).max(1).min(most);
    let items = f.scale(count, attention.kv_heads as i64);
    let many = f.scale(threads, (ITEMS_PER_THREAD * most) as i64);
    let are_many = f.compare("icmp sge", &items, &many);
    f.select(&are_many, &int(most as i64), &int(fewer as i64))
}

/// Rows that working memory must have room for.
pub fn whole_groups(rows: usize) -> usize {
    rows.next_multiple_of(GROUP)
}

/// What an item's chunks have in common.
struct Work<'v> {
    item: &'v Item,
    /// The positions that it sees, and how many chunks they are.
    start: &'v Value,
    end: &'v Value,
    chunks: Value,
    /// Its query rows, and how many blocks of them there are.
    rows: &'v Value,
    groups: Value,
}

/// A chunk of an item at one stage of the pipeline.
struct Chunk {
    /// Whether there is one.
    exists: Value,
    /// Its first position in the sequence.
    start: Value,
    /// Blocks of positions that the item sees, 0 where there is no such chunk.
    blocks: Value,
    /// Where its scores or weights are.
    scores: Value,
}

/// How turns of the softmax are dealt out to steps of products: after each step as many are due as keep up with it.
struct Pace {
    turns: Value,
    /// Turns per step, in units of 2^-16.
    rate: Value,
}

impl Pace {
    fn new(f: &mut FunctionText, turns: Value, steps: &Value) -> Pace {
        let all = f.scale(&turns, 1 << 16);
        let steps = f.max(steps, &int(1));
        let rate = f.div_ceil(&all, &steps);
        Pace { turns, rate }
    }

    /// Turns that are due once so many steps are done.
    fn due(&self, f: &mut FunctionText, steps: &Value) -> Value {
        let due = f.binary("mul nsw", steps, &self.rate);
        let due = f.binary("ashr", &due, &int(16));
        f.min(&due, &self.turns)
    }
}

impl Attend {
    /// Adds what the rows of an item see in positions `start..end` to their state. `position` is the first token's.
    pub fn attend_by_tiles(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        item: &Item,
        [start, end]: [&Value; 2],
        position: &Value,
        rows: &Value,
    ) {
        let soften = self.softmax.function(context.module, f.instructions());
        let length = f.binary("sub nsw", end, start);
        let chunks = f.div_ceil(&length, &int(CHUNK as i64));
        let groups = f.div_ceil(rows, &int(GROUP as i64));
        let work = Work { item, start, end, chunks, rows, groups };
        let all_turns = self.softmax.turns(f, rows);
        let after = f.add(&work.chunks, &int(1));
        f.for_each(&int(-1), &after, 1, |f, number| {
            let [weighed, softened, scored] = [-1, 0, 1].map(|later| {
                let number = f.add(number, &int(later));
                self.chunk_of(f, &work, &number)
            });
            // Keys and values of a block consist of equally many steps.
            let per_block = f.scale(&work.groups, self.depth() as i64);
            let [steps_of_scores, steps_of_values] =
                [&scored, &weighed].map(|chunk| f.binary("mul nsw", &chunk.blocks, &per_block));
            let steps = f.add(&steps_of_scores, &steps_of_values);
            let turns = f.select(&softened.exists, &all_turns, &int(0));
            let pace = Pace::new(f, turns, &steps);
            let width = f.scale(&softened.blocks, KV_BLOCK_POSITIONS as i64);
            let soften = |f: &mut FunctionText, [from, to]: [&Value; 2]| {
                f.for_each(from, to, 1, |f, turn| {
                    let (scores, state) = (&softened.scores, self.state.base());
                    let arguments = [scores, state, &softened.start, &width, position, turn];
                    f.call_local(&soften, &arguments.map(Value::clone));
                });
            };
            let beside = |f: &mut FunctionText, step: &Value| {
                let done = f.add(step, &int(1));
                let turns = [step, &done].map(|steps| pace.due(f, steps));
                soften(f, turns.each_ref());
            };
            self.score_by_tiles(f, context, &work, &scored, beside);
            self.weigh_by_tiles(f, context, &work, &weighed, |f, step| {
                let step = f.add(&steps_of_scores, step);
                beside(f, &step);
            });
            let done = pace.due(f, &steps);
            soften(f, [&done, &pace.turns]);
            self.state.rescale(f, rows);
        });
    }

    /// Tiles of k of a head.
    fn depth(&self) -> usize {
        self.padded * 2 / ROW_BYTES
    }

    /// A chunk by its number in the item.
    fn chunk_of(&self, f: &mut FunctionText, work: &Work<'_>, number: &Value) -> Chunk {
        let is_later = f.compare("icmp sge", number, &int(0));
        let is_earlier = f.compare("icmp slt", number, &work.chunks);
        let exists = f.binary("and", &is_later, &is_earlier);
        let before = f.scale(number, CHUNK as i64);
        let start = f.add(work.start, &before);
        let left = f.binary("sub nsw", work.end, &start);
        let blocks = f.div_ceil(&left, &int(KV_BLOCK_POSITIONS as i64));
        let blocks = f.min(&blocks, &int((CHUNK / KV_BLOCK_POSITIONS) as i64));
        let blocks = f.select(&exists, &blocks, &int(0));
        let turn = f.add(number, &int(CHUNKS_IN_USE as i64));
        let turn = f.binary("srem", &turn, &int(CHUNKS_IN_USE as i64));
        let scores = f.element(&self.scores, &turn, (self.score_rows * self.score_stride) as i64);
        Chunk { exists, start, blocks, scores }
    }

    /// Scores of all rows with the positions of a chunk, with work `beside` each step.
    fn score_by_tiles(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        work: &Work<'_>,
        chunk: &Chunk,
        beside: impl Fn(&mut FunctionText, &Value),
    ) {
        f.for_each(&int(0), &chunk.blocks, 1, |f, block| {
            let keys = self.block(f, context, (&work.item.sequence, &work.item.kv_head), &chunk.start, block);
            let scores = f.element(&chunk.scores, block, (KV_BLOCK_POSITIONS * 4) as i64);
            let groups_before = f.binary("mul nsw", block, &work.groups);
            for_groups(f, work.rows, |f, group, rows| {
                let queries = f.element(&self.queries, group, (GROUP * self.query_stride) as i64);
                let scores = f.element(&scores, group, (GROUP * self.score_stride) as i64);
                let before = f.add(&groups_before, group);
                let before = f.scale(&before, self.depth() as i64);
                by_row_tiles(f, self.rows.most, rows, |f, row_tiles| {
                    let shape = Shape {
                        depth: self.depth(),
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
                        ahead_depth: 0,
                    };
                    shape.emit(f, [&queries, &keys, &scores, &keys], |f, k| {
                        let step = f.add(&before, k);
                        beside(f, &step);
                    });
                });
            });
        });
    }

    /// Adds a chunk's values, weighted, to the state: 32 elements of a head at a time, with work `beside` each step.
    fn weigh_by_tiles(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        work: &Work<'_>,
        chunk: &Chunk,
        beside: impl Fn(&mut FunctionText, &Value),
    ) {
        let exists = f.cast("zext", &chunk.exists, I64);
        let passes = f.scale(&exists, self.depth() as i64);
        f.for_each(&int(0), &passes, 1, |f, pass| {
            let groups_before = f.binary("mul nsw", pass, &work.groups);
            for_groups(f, work.rows, |f, group, rows| {
                let weights = f.element(&chunk.scores, group, (GROUP * self.score_stride) as i64);
                let first = f.scale(group, GROUP as i64);
                let values = self.state.values(f, &first);
                let address = f.element(&values, pass, (2 * ROW_BYTES) as i64);
                let before = f.add(&groups_before, group);
                let before = f.binary("mul nsw", &before, &chunk.blocks);
                by_row_tiles(f, self.rows.most, rows, |f, row_tiles| {
                    let sums = Sums { row_tiles, address: address.clone(), row: State::stride(self.padded) };
                    sums.load(f, Start::Memory);
                    f.for_each(&int(0), &chunk.blocks, 1, |f, block| {
                        let keys =
                            self.block(f, context, (&work.item.sequence, &work.item.kv_head), &chunk.start, block);
                        let values = f.offset(&keys, &int(context.kv.half_bytes() as i64));
                        let values = f.element(&values, pass, (2 * TILE_BYTES) as i64);
                        let address = f.element(&weights, block, (KV_BLOCK_POSITIONS * 4) as i64);
                        let tile = ROWS * self.score_stride;
                        let left = LeftTiles { address, row: self.score_stride, tile, reuse: Reuse::Soon };
                        sums.multiply(f, &left, &values, TILE_BYTES);
                        let step = f.add(&before, block);
                        beside(f, &step);
                    });
                    sums.store(f);
                });
            });
        });
    }
}
