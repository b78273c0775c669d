//! Attention of one row per sequence, bound by reading the cache (Dao et al., "Flash-Decoding", 2023): contexts are cut
//! into splits at fixed positions of the sequence; a block takes one split of one sequence and key/value head for all
//! query heads that share it, and its warps take turns at the blocks of the cache. Keys and values go straight into the
//! registers of matrix instructions, 16 bytes a load. Results of warps, then of splits are combined in ascending order.
//!
//! In a block of the cache the k pairs of a lane are `4t..4t + 4` of each 32, for scores elements of the head and for
//! values positions; the lane's four columns are `4g..4g + 4`. So a lane has the scores of the positions `8t..8t + 8`,
//! which are the very pairs that it needs as weights.

use super::super::matrix::{self, Lifetime, PANEL};
use super::super::thread::{WARP, barrier, butterfly, from_lane, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::{Attend, NO_MAXIMUM, POSITIONS, exp2};
use crate::llvm::memory::load_index;
use crate::llvm::step_args::{integer, pointer, size, step_input};
use crate::llvm::text::{F32, FunctionText, I16, I32, Value, float_of, int, int_of};
use llmc_ir::gpu::GpuStepArgs;
use llmc_ir::op::AttendMethod;
use llmc_ir::plan::StepInput;
use std::mem::offset_of;

/// Warps of a block.
const WARPS: usize = 4;
/// The most splits of a context, and the fewest positions of one.
const MOST_SPLITS: usize = 32;
const LEAST_POSITIONS: usize = 256;
/// Query heads of a block.
const HEADS: usize = matrix::ROWS;
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
        self.attend.group().next_multiple_of(8).min(HEADS)
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
        let head_tiles = attend.group().div_ceil(HEADS);
        let beside = attend.attention.kv_heads * head_tiles * self.splits;
        let shared_bytes = WARPS * self.heads() * self.result_stride();
        let geometry =
            Geometry { blocks: blocks(attend.rows, 1, beside)?, threads: WARPS * WARP, shared_bytes, resident: None };
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
        let first_head = f.scale(head_tile, HEADS as i64);
        let queries = self.queries(f, [row, kv_head, &first_head], &g, &t);
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
            let at = f.element(&values, &carried[0], attend.block_bytes as i64);
            let values = load_all(f, &at, groups, VALUE_GROUP_BYTES);
            let next_block = f.add(block, &int(WARPS as i64));
            let mut next = vec![last_block(f, &next_block)];
            let scores = self.scores(f, &queries, &keys, eights);
            let start = f.scale(block, POSITIONS as i64);
            let own = f.scale(&t, 8);
            let start = f.add(&start, &own);
            let scores = self.hide(f, seen, &start, scores);
            next.extend(self.fold_block(f, &t, &scores, &values, &carried[1..]));
            next
        });
        self.keep(f, [&warp, &g, &t], &state[1..]);
        barrier(f);
        self.combine_warps(f, params, [row, split, kv_head, &first_head], &thread);
    }

    /// Per 32 elements of the head the pairs of a lane, for the query heads g and, if there are more than 8, `g + 8`.
    fn queries(
        &self,
        f: &mut FunctionText,
        [row, kv_head, first_head]: [&Value; 3],
        g: &Value,
        t: &Value,
    ) -> Vec<Vec<Vec<Value>>> {
        let attend = self.attend;
        let heads = (0..self.heads() / 8).map(|eight| {
            let head = f.add(first_head, &int(8 * eight as i64));
            let head = f.add(&head, g);
            let head = f.min(&head, &int(attend.group() as i64 - 1));
            let from = attend.head_address(f, &attend.query, row, kv_head, &head);
            let groups = (0..attend.padded / PANEL).map(|group| {
                let first = f.scale(t, 8);
                let first = f.add(&first, &int((group * PANEL) as i64));
                self.query(f, &from, &first)
            });
            groups.collect()
        });
        heads.collect()
    }

    /// Eight elements of a query from `first` on as pairs; zeros behind the head's elements.
    fn query(&self, f: &mut FunctionText, from: &Value, first: &Value) -> Vec<Value> {
        let head_dim = self.attend.head_dim as i64;
        if head_dim % 8 == 0 {
            let place = f.min(first, &int(head_dim - 8));
            let address = f.element(from, &place, 2);
            let pairs = matrix::load_pairs(f, &address, Lifetime::Written);
            let inside = f.compare("icmp slt", first, &int(head_dim));
            return pairs.iter().map(|pair| f.select(&inside, pair, &int_of(I32, 0))).collect();
        }
        let element = |f: &mut FunctionText, number: i64| {
            let dim = f.add(first, &int(number));
            let place = f.min(&dim, &int(head_dim - 1));
            let address = f.element(from, &place, 2);
            let bits = f.load(I16, &address, 2);
            let bits = f.cast("zext", &bits, I32);
            let inside = f.compare("icmp slt", &dim, &int(head_dim));
            f.select(&inside, &bits, &int_of(I32, 0))
        };
        (0..4)
            .map(|pair| {
                let [low, high] = [0, 1].map(|half| element(f, 2 * pair + half));
                let high = f.binary("shl", &high, &int_of(I32, 16));
                f.binary("or", &low, &high)
            })
            .collect()
    }

    /// Scores of the heads g (and `g + 8`) and the lane's 8 positions.
    fn scores(
        &self,
        f: &mut FunctionText,
        queries: &[Vec<Vec<Value>>],
        keys: &[Vec<Vec<Value>>],
        eights: usize,
    ) -> Vec<Vec<Value>> {
        let zero = float_of(F32, 0.0);
        let mut products = vec![vec![zero.clone(); 4]; 4];
        for (group, keys) in keys.iter().enumerate() {
            for (depth, j) in [0, 2].into_iter().flat_map(|depth| (0..4).map(move |j| (depth, j))) {
                let [low, high] = [&queries[0][group][depth], &queries[0][group][depth + 1]];
                let nothing = int_of(I32, 0);
                let [low_8, high_8] = match queries.get(1) {
                    Some(query) => [&query[group][depth], &query[group][depth + 1]],
                    None => [&nothing, &nothing],
                };
                let b = [&keys[depth][j], &keys[depth + 1][j]];
                products[j] = matrix::multiply(f, [low, low_8, high, high_8], b, &products[j]);
            }
        }
        // Product j has the positions 8t + j and 8t + 4 + j.
        (0..eights)
            .map(|eight| (0..8).map(|position| products[position % 4][2 * eight + position / 4].clone()).collect())
            .collect()
    }

    /// Scores of positions that the row does not see are minus infinity; `start` is the lane's first position.
    fn hide(&self, f: &mut FunctionText, seen: &Seen, start: &Value, scores: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
        let newest = f.binary("sub", &seen.own, start);
        let newest = f.cast("trunc", &newest, I32);
        let oldest = self.attend.attention.window.map(|_| {
            let oldest = f.binary("sub", &seen.oldest, start);
            f.cast("trunc", &oldest, I32)
        });
        let visible: Vec<Value> = (0..8)
            .map(|position| {
                let position = int_of(I32, position);
                let not_later = f.compare("icmp sge", &newest, &position);
                match &oldest {
                    Some(oldest) => {
                        let not_older = f.compare("icmp sle", oldest, &position);
                        f.binary("and", &not_later, &not_older)
                    }
                    None => not_later,
                }
            })
            .collect();
        let hidden = float_of(F32, f64::NEG_INFINITY);
        let hide = |f: &mut FunctionText, scores: Vec<Value>| {
            scores.iter().zip(&visible).map(|(score, visible)| f.select(visible, score, &hidden)).collect()
        };
        scores.into_iter().map(|scores| hide(f, scores)).collect()
    }

    /// Folds the positions of a block into maxima, sums and weighted values.
    fn fold_block(
        &self,
        f: &mut FunctionText,
        t: &Value,
        scores: &[Vec<Value>],
        values: &[Vec<Vec<Value>>],
        state: &[Value],
    ) -> Vec<Value> {
        let eights = scores.len();
        let scale = float_of(F32, self.attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let (mut maxima, mut sums, mut factors, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (eight, scores) in scores.iter().enumerate() {
            let largest = scores.iter().fold(state[eight].clone(), |a, b| f.intrinsic("maxnum", &[a, b.clone()]));
            let maximum = butterfly(f, &largest, &[1, 2], |f, a, b| f.intrinsic("maxnum", &[a.clone(), b.clone()]));
            let scaled = f.binary("fmul", &maximum, &scale);
            let negated = f.negate(&scaled);
            let before = f.binary("fsub", &state[eight], &maximum);
            let before = f.binary("fmul", &before, &scale);
            let factor = exp2(f, &before);
            let mut sum = f.binary("fmul", &state[eights + eight], &factor);
            let mut own = Vec::new();
            for score in scores {
                let lowered = f.intrinsic("fma", &[score.clone(), scale.clone(), negated.clone()]);
                let weight = exp2(f, &lowered);
                sum = f.binary("fadd", &sum, &weight);
                own.push(weight);
            }
            weights
                .push(own.chunks_exact(2).map(|pair| matrix::pack_in_parts(f, &pair[0], &pair[1])).collect::<Vec<_>>());
            maxima.push(maximum);
            sums.push(sum);
            factors.push(for_columns(f, t, &factor));
        }
        let mut outputs = state[2 * eights..].to_vec();
        for (at, output) in outputs.iter_mut().enumerate() {
            *output = f.binary("fmul", output, &factors[at / 8 % eights][at % 2]);
        }
        for (group, values) in values.iter().enumerate() {
            for (depth, half) in [0, 2].into_iter().flat_map(|depth| [(depth, 0), (depth, 1)]) {
                let (low, high) = (&values[depth], &values[depth + 1]);
                let a = [&low[2 * half], &low[2 * half + 1], &high[2 * half], &high[2 * half + 1]];
                for (eight, weights) in weights.iter().enumerate() {
                    let at = (group * eights + eight) * 8 + half * 4;
                    for (first, second) in weights[depth].iter().zip(&weights[depth + 1]) {
                        let next = matrix::multiply(f, a, [first, second], &outputs[at..at + 4]);
                        outputs.splice(at..at + 4, next);
                    }
                }
            }
        }
        maxima.into_iter().chain(sums).chain(outputs).collect()
    }

    /// Bytes of one head's result in shared memory: as a partial result, and some so that heads lie in other banks.
    fn result_stride(&self) -> usize {
        self.partial_bytes
    }

    /// Writes a warp's results to shared memory, per head.
    fn keep(&self, f: &mut FunctionText, [warp, g, t]: [&Value; 3], state: &[Value]) {
        let eights = self.heads() / 8;
        let stride = self.result_stride();
        let shared = f.shared_memory();
        let own = f.element(&shared, warp, (self.heads() * stride) as i64);
        for eight in 0..eights {
            let sum = butterfly(f, &state[eights + eight], &[1, 2], |f, a, b| f.binary("fadd", a, b));
            let head = f.add(g, &int(8 * eight as i64));
            let to = f.element(&own, &head, stride as i64);
            let to = f.offset(&to, &int(self.attend.padded as i64 * 4));
            let first = f.compare("icmp eq", t, &int(0));
            f.when(&first, |f| {
                f.store(&state[eight], &to, 4);
                let to = f.offset(&to, &int(4));
                f.store(&sum, &to, 4);
            });
            for odd in 0..2 {
                let head = f.scale(t, 2);
                let head = f.add(&head, &int((8 * eight + odd) as i64));
                let to = f.element(&own, &head, stride as i64);
                let to = f.element(&to, g, 16);
                for group in 0..self.attend.padded / PANEL {
                    let at = 2 * eights + (group * eights + eight) * 8 + odd;
                    let four = [at, at + 2, at + 4, at + 6].map(|at| &state[at]);
                    let to = f.offset(&to, &int((group * PANEL * 4) as i64));
                    matrix::store_four(f, four, &to);
                }
            }
        }
    }

    /// Combines the warps' results in order, 4 elements of a head per thread and turn.
    fn combine_warps(
        &self,
        f: &mut FunctionText,
        params: &DeviceParams,
        [row, split, kv_head, first_head]: [&Value; 4],
        thread: &Value,
    ) {
        let attend = self.attend;
        let stride = self.result_stride() as i64;
        let scale = float_of(F32, attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let shared = f.shared_memory();
        let fours = attend.padded / 4;
        let rest = f.binary("sub nsw", &int(attend.group() as i64), first_head);
        let heads = f.min(&rest, &int(self.heads() as i64));
        let items = f.scale(&heads, fours as i64);
        f.for_each(thread, &items, (WARPS * WARP) as i64, |f, item| {
            let head = f.binary("udiv", item, &int(fours as i64));
            let four = f.binary("urem", item, &int(fours as i64));
            let own = f.element(&shared, &head, stride);
            let warps: Vec<Value> =
                (0..WARPS).map(|warp| f.offset(&own, &int((warp * self.heads()) as i64 * stride))).collect();
            let statistic = |f: &mut FunctionText, warp: &Value, number: usize| {
                let from = f.offset(warp, &int(((attend.padded + number) * 4) as i64));
                f.load(F32, &from, 4)
            };
            let maxima: Vec<Value> = warps.iter().map(|warp| statistic(f, warp, 0)).collect();
            let maximum = maxima[1..].iter().fold(maxima[0].clone(), |a, b| f.intrinsic("maxnum", &[a, b.clone()]));
            let mut sum = float_of(F32, 0.0);
            let mut elements = float_of(F32.with_lanes(4), 0.0);
            for (warp, own) in warps.iter().zip(&maxima) {
                let factor = relative(f, own, &maximum, &scale);
                let part = statistic(f, warp, 1);
                sum = f.intrinsic("fma", &[part, factor.clone(), sum]);
                let from = f.element(warp, &four, 16);
                let part = f.load(F32.with_lanes(4), &from, 16);
                let factor = f.splat(&factor, 4);
                elements = f.intrinsic("fma", &[part, factor, elements]);
            }
            let in_group = f.add(first_head, &head);
            let number = f.scale(kv_head, attend.group() as i64);
            let number = f.add(&number, &in_group);
            let to = self.partial(f, params, row, &number, split);
            let place = f.element(&to, &four, 16);
            f.store(&elements, &place, 16);
            let first = f.compare("icmp eq", &four, &int(0));
            f.when(&first, |f| {
                let to = f.offset(&to, &int(attend.padded as i64 * 4));
                f.store(&maximum, &to, 4);
                let to = f.offset(&to, &int(4));
                f.store(&sum, &to, 4);
            });
        });
    }

    /// The kernel that combines splits in ascending order: a warp per row and head.
    fn emit_combine(&self, context: &mut DeviceContext<'_>) -> Result<(), String> {
        let attend = self.attend;
        let heads = attend.attention.heads;
        let beside = heads.div_ceil(WARPS);
        let geometry = Geometry {
            blocks: blocks(attend.rows, 1, beside)?,
            threads: WARPS * WARP,
            shared_bytes: 0,
            resident: None,
        };
        context.launch("combine", &geometry, |_, f, params| {
            let rows = size(f, &params.args, attend.rows)?;
            let block = special_wide(f, "ctaid.x");
            let thread = special_wide(f, "tid.x");
            let row = f.binary("udiv", &block, &int(beside as i64));
            let number = f.binary("urem", &block, &int(beside as i64));
            let warp = f.binary("lshr", &thread, &int(5));
            let lane = f.binary("and", &thread, &int(31));
            let head = f.scale(&number, WARPS as i64);
            let head = f.add(&head, &warp);
            let row_exists = f.compare("icmp slt", &row, &rows);
            let head_exists = f.compare("icmp slt", &head, &int(heads as i64));
            let exists = f.binary("and", &row_exists, &head_exists);
            f.when(&exists, |f| self.combine_splits(f, params, [&row, &head, &lane]));
            Ok(())
        })
    }

    fn combine_splits(&self, f: &mut FunctionText, params: &DeviceParams, [row, head, lane]: [&Value; 3]) {
        let attend = self.attend;
        let scale = float_of(F32, attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let seen = self.seen(f, params, row);
        let (first, end) = (&seen.first_split, &seen.end_split);
        let statistics = |f: &mut FunctionText, partial: &Value| {
            let from = f.offset(partial, &int(attend.padded as i64 * 4));
            let both = f.load(F32.with_lanes(2), &from, 8);
            (f.extract(&both, 0), f.extract(&both, 1))
        };
        let maximum = f.fold(first, end, 1, &[float_of(F32, NO_MAXIMUM)], |f, split, largest| {
            let partial = self.partial(f, params, row, head, split);
            let (own, _) = statistics(f, &partial);
            vec![f.intrinsic("maxnum", &[largest[0].clone(), own])]
        });
        let parts = attend.padded / WARP;
        let zeros = vec![float_of(F32, 0.0); 1 + parts];
        let sums = f.fold(first, end, 1, &zeros, |f, split, sums| {
            let partial = self.partial(f, params, row, head, split);
            let (own, sum) = statistics(f, &partial);
            let factor = relative(f, &own, &maximum[0], &scale);
            let mut next = vec![f.intrinsic("fma", &[sum, factor.clone(), sums[0].clone()])];
            for part in 0..parts {
                let from = f.element(&partial, lane, 4);
                let from = f.offset(&from, &int((part * WARP * 4) as i64));
                let value = f.load(F32, &from, 4);
                next.push(f.intrinsic("fma", &[value, factor.clone(), sums[1 + part].clone()]));
            }
            next
        });
        let inverse = f.binary("fdiv", &float_of(F32, 1.0), &sums[0]);
        let to = f.scale(row, attend.attention.heads as i64);
        let to = f.add(&to, head);
        let to = f.element(&attend.output, &to, attend.head_dim as i64 * 2);
        for part in 0..parts {
            let dim = f.add(lane, &int((part * WARP) as i64));
            let inside = f.compare("icmp slt", &dim, &int(attend.head_dim as i64));
            f.when(&inside, |f| {
                let value = f.binary("fmul", &sums[1 + part], &inverse);
                let bits = matrix::pack(f, &value, &value);
                let bits = f.cast("trunc", &bits, I16);
                let to = f.element(&to, &dim, 2);
                f.store(&bits, &to, 2);
            });
        }
    }
}

/// Per 32 elements (positions) of a block and its lane's four pairs: four columns each.
fn load_all(f: &mut FunctionText, from: &Value, groups: usize, group_bytes: usize) -> Vec<Vec<Vec<Value>>> {
    let mut all = Vec::new();
    for group in 0..groups {
        let pairs = (0..4).map(|pair| {
            let address = f.offset(from, &int((group * group_bytes + pair * 64) as i64));
            matrix::load_pairs(f, &address, Lifetime::Written)
        });
        all.push(pairs.collect());
    }
    all
}

/// `2^((x - maximum) scale)`.
fn relative(f: &mut FunctionText, x: &Value, maximum: &Value, scale: &Value) -> Value {
    let lowered = f.binary("fsub", x, maximum);
    let lowered = f.binary("fmul", &lowered, scale);
    exp2(f, &lowered)
}

/// From the value of head g those of heads `2t` and `2t + 1`.
fn for_columns(f: &mut FunctionText, t: &Value, value: &Value) -> [Value; 2] {
    let lane = f.scale(t, 8);
    let lane = f.cast("trunc", &lane, I32);
    let next = f.add(&lane, &int_of(I32, 4));
    [lane, next].map(|lane| from_lane(f, value, &lane))
}
