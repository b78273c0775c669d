//! Fused attention over the paged KV cache: scores, online softmax and the weighted sum of values, one chunk of
//! positions at a time (Dao et al., "FlashAttention", 2022; running maximum after Milakov and Gimelshein, 2018). Vector
//! instructions multiply, or a matrix unit ([`tiles`]). Those that multiply pairs of bf16 take scores only: weights of
//! positions are f32.
//!
//! Chunks start at multiples of their length in the sequence, and splits at multiples of [`SPLIT`]; neither
//! depends on the batch or on the number of threads. A chunk that a row does not see changes nothing in it, bit for bit.

mod chunk;
mod combine;
mod soften;
mod state;
mod tiles;

use super::math::{bf16_bits, floats, round_to_bf16};
use super::memory::load_index;
use super::multiply::{LeftForm, Rows};
use super::rows::LANES;
use super::step_args::{barrier, integer, pointer};
use super::text::{F32, FunctionText, Value, float_of, int};
use super::{KernelContext, KernelParams, MatrixUnit};
use crate::kernel::attend::AttendRegion;
use llmc_ir::abi::StepArgs;
use llmc_ir::dtype::DType;
use llmc_ir::op::{AttendMethod, Attention};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, StepInput};
use soften::{Softmax, TOGETHER, Weights};
use state::State;
use std::mem::offset_of;

/// Positions whose scores are held at a time.
const CHUNK: usize = 4 * KV_BLOCK_POSITIONS;
/// Positions of a sequence that one work item of split attention covers.
const SPLIT: usize = AttendMethod::SPLIT_POSITIONS;
const _: () = assert!(SPLIT.is_multiple_of(CHUNK) && SPLIT.is_multiple_of(tiles::CHUNK), "a split is whole chunks");

/// Sizes and addresses while one attend kernel is written.
struct Attend {
    attention: Attention,
    /// Query heads per key/value head.
    group: usize,
    head_dim: usize,
    padded: usize,
    /// Tokens per item at most.
    most_tokens: usize,
    /// How many query rows items have.
    rows: Rows,
    /// Form of the queries in working memory.
    query_form: LeftForm,
    query_stride: usize,
    /// Rows of a chunk's scores, and bytes from one to the next.
    score_rows: usize,
    score_stride: usize,
    queries: Value,
    /// Scores of one chunk, or of as many as tiles work on at a time.
    scores: Value,
    softmax: Softmax,
    state: State,
    workspace: Value,
    /// Positions of a chunk.
    chunk: usize,
    by_tiles: bool,
    positions: Value,
    starts: Value,
    tables: Value,
    table_stride: Value,
    query: Value,
    kv: Value,
    output: Value,
    dtype: DType,
}

/// Emits the kernel's body.
pub fn emit(f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) -> Result<(), String> {
    let AttendRegion { attention, ty, query, cache } = AttendRegion::of(&context.kernel.region)?;
    let group = attention.heads / attention.kv_heads;
    let (head_dim, padded) = (context.kv.head_dim, context.kv.padded_head_dim());
    let split = attention.method == AttendMethod::Split;
    if split && !context.bounds.one_token_per_sequence {
        return Err("attention is split over the context only where a step has one token per sequence".into());
    }
    if split {
        context.workspace_bytes = combine::workspace_bytes(&attention, padded, context.bounds);
    }
    let unit = tiles::unit(context, &attention, ty.dtype);
    context.used = context.used.max(unit);
    let tuning = &context.target.tuning;
    let by_tiles = unit == MatrixUnit::Tiles;
    let (tokens, chunk, chunks_in_use) = match by_tiles {
        true => (tiles::most_tokens(tuning.tile_query_rows, group), tiles::CHUNK, tiles::CHUNKS_IN_USE),
        false => (tuning.query_rows.div_ceil(group), CHUNK, 1),
    };
    let query_form = if unit == MatrixUnit::Vectors { LeftForm::Wide } else { LeftForm::Pairs };
    // Rows start at cache lines that are not all alike.
    let query_stride = padded * query_form.bytes() + 64;
    let most_tokens = if context.bounds.one_token_per_sequence { 1 } else { tokens };
    let most_rows = most_tokens * group;
    let rows = if by_tiles { tiles::whole_groups(most_rows) } else { most_rows.next_multiple_of(TOGETHER) };
    let score_stride = (chunk + LANES) * 4;
    let weights = if by_tiles { Weights::Halves } else { Weights::Wide };
    let form = (padded, context.registers.fma, weights);
    let mut working = |f: &mut FunctionText, bytes: usize| context.working(f, params, bytes);
    let attend = Attend {
        attention,
        group,
        head_dim,
        padded,
        most_tokens,
        rows: Rows { unit: group, most: most_rows },
        query_form,
        query_stride,
        score_rows: rows,
        score_stride,
        queries: working(f, rows * query_stride),
        scores: working(f, chunks_in_use * rows * score_stride),
        softmax: Softmax::new(attention, form, (most_rows, rows), score_stride),
        state: State::new(working(f, State::bytes(rows, padded)), rows, padded),
        chunk,
        by_tiles,
        workspace: params.workspace.clone(),
        positions: super::step_args::step_input(f, &params.args, StepInput::Positions),
        starts: pointer(f, &params.args, offset_of!(StepArgs, sequence_starts)),
        tables: pointer(f, &params.args, offset_of!(StepArgs, block_tables)),
        table_stride: integer(f, &params.args, offset_of!(StepArgs, block_table_stride)),
        query: params.inputs[query].clone(),
        kv: params.inputs[cache].clone(),
        output: params.outputs[0].clone(),
        dtype: ty.dtype,
    };
    attend.for_items(f, params, |f, item| attend.emit_item(f, context, item));
    if split {
        barrier(f, &params.args, &params.physical_thread);
        attend.emit_combine(f, context, params);
    }
    Ok(())
}

/// One work item: a unit (query rows, or a split of the context) of one sequence and one key/value head.
struct Item {
    /// Number of the item in the step.
    number: Value,
    sequence: Value,
    first_row: Value,
    /// Rows of the sequence in this step, and tokens of each of its items.
    row_count: Value,
    tokens: Value,
    unit: Value,
    kv_head: Value,
    /// The thread's next item, if it is of the same sequence or of the one behind it.
    next: NextItem,
}

/// Whose keys are prefetched at the end of an item.
struct NextItem {
    exists: Value,
    /// A sequence of the step, whether or not the item exists, and its first row.
    sequence: Value,
    first_row: Value,
    unit: Value,
    kv_head: Value,
}

impl Attend {
    fn position_after(&self, f: &mut FunctionText, row: &Value) -> Value {
        let position = load_index(f, &self.positions, row);
        f.add(&position, &int(1))
    }

    /// How many units of work a sequence has for each of its key/value heads, and the tokens of each.
    fn units(&self, f: &mut FunctionText, params: &KernelParams, first_row: &Value, count: &Value) -> (Value, Value) {
        if self.attention.method == AttendMethod::Split {
            let context_length = self.position_after(f, first_row);
            return (f.div_ceil(&context_length, &int(SPLIT as i64)), int(1));
        }
        let tokens = match self.by_tiles && self.most_tokens > 1 {
            true => tiles::tokens(f, &self.attention, self.most_tokens, [count, &params.threads]),
            false => int(self.most_tokens as i64),
        };
        (f.div_ceil(count, &tokens), tokens)
    }

    /// Visits this thread's items: those whose number modulo the number of threads is its own.
    fn for_items(&self, f: &mut FunctionText, params: &KernelParams, mut body: impl FnMut(&mut FunctionText, &Item)) {
        let sequences = integer(f, &params.args, offset_of!(StepArgs, sequences));
        let last_sequence = f.add(&sequences, &int(-1));
        let heads = int(self.attention.kv_heads as i64);
        // First row of a sequence, how many it has, how many items, and how many tokens those have.
        let of_sequence = |f: &mut FunctionText, sequence: &Value| {
            let next = f.add(sequence, &int(1));
            let first_row = load_index(f, &self.starts, sequence);
            let end_row = load_index(f, &self.starts, &next);
            let row_count = f.binary("sub nsw", &end_row, &first_row);
            let (units, tokens) = self.units(f, params, &first_row, &row_count);
            let count = f.binary("mul nsw", &units, &heads);
            [first_row, row_count, count, tokens]
        };
        f.fold(&int(0), &sequences, 1, &[int(0)], |f, sequence, before| {
            let [first_row, row_count, count, tokens] = of_sequence(f, sequence);
            let behind = f.add(sequence, &int(1));
            let behind = f.min(&behind, &last_sequence);
            let [first_row_behind, _, count_behind, _] = of_sequence(f, &behind);
            let is_followed = f.compare("icmp ne", &behind, sequence);
            // First local number that is this thread's, then every `threads`-th.
            let phase = f.binary("srem", &before[0], &params.threads);
            let first = f.binary("sub nsw", &params.thread, &phase);
            let first = f.add(&first, &params.threads);
            let first = f.binary("srem", &first, &params.threads);
            let left = f.binary("sub nsw", &count, &first);
            let left = f.add(&left, &params.threads);
            let left = f.add(&left, &int(-1));
            let turns = f.binary("sdiv", &left, &params.threads);
            f.for_each(&int(0), &turns, 1, |f, turn| {
                let skipped = f.binary("mul nsw", turn, &params.threads);
                let local = f.add(&first, &skipped);
                let number = f.add(&before[0], &local);
                let unit = f.binary("sdiv", &local, &heads);
                let kv_head = f.binary("srem", &local, &heads);
                let next = f.add(&local, &params.threads);
                let is_own = f.compare("icmp slt", &next, &count);
                let next_behind = f.binary("sub nsw", &next, &count);
                let is_behind = f.compare("icmp slt", &next_behind, &count_behind);
                let is_behind = f.binary("and", &is_behind, &is_followed);
                let next = f.select(&is_own, &next, &next_behind);
                let next = NextItem {
                    exists: f.binary("or", &is_own, &is_behind),
                    sequence: f.select(&is_own, sequence, &behind),
                    first_row: f.select(&is_own, &first_row, &first_row_behind),
                    unit: f.binary("sdiv", &next, &heads),
                    kv_head: f.binary("srem", &next, &heads),
                };
                let [sequence, first_row, row_count, tokens] =
                    [sequence, &first_row, &row_count, &tokens].map(Value::clone);
                body(f, &Item { number, sequence, first_row, row_count, tokens, unit, kv_head, next });
            });
            vec![f.add(&before[0], &count)]
        });
    }

    fn emit_item(&self, f: &mut FunctionText, context: &mut KernelContext<'_>, item: &Item) {
        let split = self.attention.method == AttendMethod::Split;
        // Rows of this item, and the positions that they see.
        let (row, count) = if split {
            (item.first_row.clone(), int(1))
        } else {
            let skipped = f.binary("mul nsw", &item.unit, &item.tokens);
            let row = f.add(&item.first_row, &skipped);
            let left = f.binary("sub nsw", &item.row_count, &skipped);
            (row, f.min(&left, &item.tokens))
        };
        let position = load_index(f, &self.positions, &row);
        let end = f.add(&position, &count);
        let (start, end) = if split {
            let start = f.scale(&item.unit, SPLIT as i64);
            let split_end = f.add(&start, &int(SPLIT as i64));
            (start, f.min(&end, &split_end))
        } else {
            (int(0), end)
        };
        let start = match self.attention.window {
            None => start,
            Some(window) => {
                let seen = f.add(&position, &int(1 - window as i64));
                let seen = f.max(&seen, &int(0));
                let chunk = f.binary("sdiv", &seen, &int(self.chunk as i64));
                let chunk = f.scale(&chunk, self.chunk as i64);
                f.max(&start, &chunk)
            }
        };
        let rows = f.scale(&count, self.group as i64);
        self.load_queries(f, item, &row, &count);
        self.state.reset(f, &rows);
        if self.by_tiles {
            self.attend_by_tiles(f, context, item, [&start, &end], &position, &rows);
        } else {
            self.attend_by_vectors(f, context, item, [&start, &end], &position, &rows);
        }
        if split {
            self.store_partial(f, item);
        } else {
            self.store_rows(f, item, &row, &count);
        }
    }

    /// Copies the queries of the item's rows and heads into working memory.
    fn load_queries(&self, f: &mut FunctionText, item: &Item, row: &Value, count: &Value) {
        let bytes = self.dtype.bytes();
        let to_bytes = self.query_form.bytes();
        self.for_query_heads(f, item, row, count, |f, local, element| {
            let to = f.element(&self.queries, local, self.query_stride as i64);
            let from = f.element(&self.query, element, bytes as i64);
            for dim in (0..self.padded).step_by(LANES) {
                let to = f.offset(&to, &int((dim * to_bytes) as i64));
                let lanes = LANES.min(self.head_dim.saturating_sub(dim));
                if lanes < LANES {
                    f.store(&self.query_form.zero(LANES), &to, LANES * to_bytes);
                }
                let (lanes, times) = if lanes == LANES { (LANES, 1) } else { (1, lanes) };
                for lane in 0..times {
                    let from = f.offset(&from, &int(((dim + lane) * bytes) as i64));
                    let to = f.offset(&to, &int((lane * to_bytes) as i64));
                    let value = self.query_form.load(f, self.dtype, &from, lanes);
                    f.store(&value, &to, to_bytes);
                }
            }
        });
    }

    /// For each row and query head of the item: its number in the item, and its first element in a `[tokens, heads,
    /// head_dim]` tensor.
    fn for_query_heads(
        &self,
        f: &mut FunctionText,
        item: &Item,
        row: &Value,
        count: &Value,
        mut body: impl FnMut(&mut FunctionText, &Value, &Value),
    ) {
        let first_head = f.scale(&item.kv_head, self.group as i64);
        f.for_each(&int(0), count, 1, |f, token| {
            let row = f.add(row, token);
            let row_head = f.scale(&row, self.attention.heads as i64);
            let row_head = f.add(&row_head, &first_head);
            let local = f.scale(token, self.group as i64);
            f.for_each(&int(0), &int(self.group as i64), 1, |f, head| {
                let local = f.add(&local, head);
                let element = f.add(&row_head, head);
                let element = f.scale(&element, self.head_dim as i64);
                body(f, &local, &element);
            });
        });
    }

    /// Divides by the sums and writes the item's rows to the output.
    fn store_rows(&self, f: &mut FunctionText, item: &Item, row: &Value, count: &Value) {
        self.for_query_heads(f, item, row, count, |f, local, element| {
            let values = self.state.values(f, local);
            let sum = self.state.sum(f, local);
            let share = f.binary("fdiv", &float_of(F32, 1.0), &sum);
            let to = f.element(&self.output, element, self.dtype.bytes() as i64);
            self.for_dims(f, |f, dim, lanes| {
                let from = f.offset(&values, &int((dim * 4) as i64));
                let value = f.load(floats(lanes), &from, 4);
                let share = f.splat(&share, lanes);
                let value = f.binary("fmul", &value, &share);
                self.store_output(f, &to, dim, &value);
            });
        });
    }

    /// Writes vectors, then single elements, of one head.
    fn for_dims(&self, f: &mut FunctionText, mut body: impl FnMut(&mut FunctionText, usize, usize)) {
        let whole = self.head_dim / LANES * LANES;
        for dim in (0..whole).step_by(LANES) {
            body(f, dim, LANES);
        }
        for dim in whole..self.head_dim {
            body(f, dim, 1);
        }
    }

    fn store_output(&self, f: &mut FunctionText, to: &Value, dim: usize, value: &Value) {
        let bytes = self.dtype.bytes();
        let address = f.offset(to, &int((dim * bytes) as i64));
        let stored = match self.dtype {
            DType::F32 => value.clone(),
            _ => {
                let rounded = round_to_bf16(f, value);
                bf16_bits(f, &rounded)
            }
        };
        f.store(&stored, &address, bytes);
    }
}
