//! Which columns may be the largest: products with rounded weights, and the bounds that they give.

use super::super::super::KernelContext;
use super::super::super::math::{Fma, floats, fma, ints, larger, max_lanes};
use super::super::super::memory::load_index;
use super::super::super::multiply::{Level, TILE};
use super::super::super::step_args::share;
use super::super::super::text::{F32, FunctionText, I16, I32, I64, Value, float_of, int, int_of};
use super::super::PANEL;
use super::super::kept::column_numbers;
use super::bytes::add_products;
use super::{
    BOUND, EXCESS, GROUPS, LARGE_SUM, LOST_LENGTH, LOW_BITS, MOST_NOTED, NOTED, OTHER_LENGTH, RUN, STEP, Search,
    parts_stride,
};
use crate::host::ByteProducts;
use crate::pack::rounded::{HEAD_BYTES, panel_bytes};

/// Rows that meet a panel at a time: each has two tiles of sums, and they all lie in registers.
fn rows_at_a_time(products: ByteProducts) -> usize {
    if products == ByteProducts::InPairs(32) { 3 } else { 12 }
}

/// Bytes of 4 k of a panel.
const GROUP: i64 = 128;

/// A panel's rounded numbers, and what is prefetched while they are read.
struct Numbers {
    first: Value,
    /// How far ahead, and how much further where that lies behind the panel.
    distance: Value,
    skipped: Value,
}

impl Search {
    /// Multiplies all rows with the thread's rounded panels and notes columns.
    pub(super) fn note(&self, f: &mut FunctionText, context: &KernelContext<'_>) {
        let most = rows_at_a_time(self.products).min(self.most_rows);
        let counts: Vec<usize> = (1..=most).collect();
        let bytes = panel_bytes(self.k) as i64;
        let others = f.add(&self.threads, &int(-1));
        let others = f.scale(&others, RUN * bytes);
        self.for_panels(f, |f, panel, is_last| {
            let base = f.element(&self.rounded, panel, bytes);
            let numbers = f.offset(&base, &int(HEAD_BYTES as i64));
            let skipped = f.select(is_last, &others, &int(0));
            let blocks = f.div_ceil(&self.rows, &int(most as i64));
            f.for_each(&int(0), &blocks, 1, |f, block| {
                let (start, end) = share(f, &self.rows, block, &blocks);
                let count = f.binary("sub nsw", &end, &start);
                // The first one fetches for all.
                let is_first = f.compare("icmp eq", block, &int(0));
                let [distance, skipped] = [&int(context.target.tuning.prefetch_bytes as i64), &skipped]
                    .map(|bytes| f.select(&is_first, bytes, &int(0)));
                let panel = Numbers { first: numbers.clone(), distance, skipped };
                f.for_count(&counts, &count, &mut |f, rows| self.multiply(f, context, rows, &start, &panel));
            });
            f.for_each(&int(0), &self.rows, 1, |f, row| {
                let sums = self.whole_sums(f, row, &numbers);
                self.note_columns(f, context.registers.fma, row, panel, (&base, &sums));
            });
        });
    }

    /// Multiplies the lower parts of `rows` rows with a panel.
    fn multiply(&self, f: &mut FunctionText, context: &KernelContext<'_>, rows: usize, row: &Value, panel: &Numbers) {
        let [low, ..] = self.parts_of(f, row);
        let level = Level::of_rows(rows);
        let none = vec![int_of(ints(TILE), 0); rows * 2];
        // What is so far ahead of the last lines lies behind the panel.
        let all = self.k.div_ceil(4) as i64;
        let last = all.min(context.target.tuning.prefetch_bytes as i64 / GROUP);
        let sums = f.fold(&int(0), &int(2), 1, &none, |f, part, sums| {
            let start = f.scale(part, all - last);
            let length = f.scale(part, last - (all - last));
            let end = f.add(&start, &length);
            let end = f.add(&end, &int(all - last));
            let skipped = f.binary("mul nsw", part, &panel.skipped);
            let distance = f.add(&panel.distance, &skipped);
            f.fold(&start, &end, 1, sums, |f, group, sums| {
                let lines = f.element(&panel.first, group, GROUP);
                let x = f.element(&low, group, 4);
                let next = f.offset(&lines, &distance);
                for line in [0, 64] {
                    let next = f.offset(&next, &int(line));
                    level.prefetch(f, &next);
                }
                let lines = load_lines(f, &lines);
                let rows = sums.chunks(2).zip(0..);
                let rows = rows.flat_map(|(sums, number)| {
                    let x = f.offset(&x, &int(number * parts_stride(self.part_bytes) as i64));
                    add_products(f, self.products, &x, &lines, sums)
                });
                rows.collect()
            })
        });
        let to = f.element(&self.sums, row, PANEL as i64 * 4);
        for (sum, number) in sums.iter().zip(0..) {
            let to = f.offset(&to, &int(number * TILE as i64 * 4));
            f.store(sum, &to, 64);
        }
    }

    /// A row's sums with a panel: those of its lower parts, and of what higher parts it has.
    fn whole_sums(&self, f: &mut FunctionText, row: &Value, numbers: &Value) -> Vec<Value> {
        let [_, high, groups] = self.parts_of(f, row);
        let count = self.fact(f, row, GROUPS);
        let count = f.load(I64, &count, 8);
        let none = vec![int_of(ints(TILE), 0); 2];
        let highs = f.fold(&int(0), &count, 1, &none, |f, number, sums| {
            let group = load_index(f, &groups, number);
            let lines = f.element(numbers, &group, GROUP);
            let lines = load_lines(f, &lines);
            let x = f.element(&high, &group, 4);
            add_products(f, self.products, &x, &lines, sums)
        });
        let lows = f.element(&self.sums, row, PANEL as i64 * 4);
        let whole = highs.iter().zip(0..).map(|(high, tile)| {
            let low = f.offset(&lows, &int(tile * TILE as i64 * 4));
            let low = f.load(ints(TILE), &low, 64);
            let high = f.binary("shl", high, &int_of(ints(TILE), LOW_BITS));
            f.binary("add", &low, &high)
        });
        whole.collect()
    }

    /// Notes the columns of a panel that may be the largest of a row, given its sums.
    fn note_columns(
        &self,
        f: &mut FunctionText,
        fused: Fma,
        row: &Value,
        panel: &Value,
        (base, sums): (&Value, &[Value]),
    ) {
        let fact = |f: &mut FunctionText, offset, ty| {
            let at = self.fact(f, row, offset);
            let value = f.load(ty, &at, 4);
            f.splat(&value, TILE)
        };
        let [step, large, other, lost] =
            [STEP, LARGE_SUM, OTHER_LENGTH, LOST_LENGTH].map(|offset| fact(f, offset, F32));
        let excess = fact(f, EXCESS, I32);
        for (sum, tile) in sums.iter().zip(0..) {
            let sum = f.binary("sub", sum, &excess);
            let sum = f.cast("sitofp", &sum, floats(TILE));
            let at = f.offset(base, &int(tile * TILE as i64 * 4));
            let [scale, error, size] = [0, 1, 2].map(|part| {
                let at = f.offset(&at, &int(part * PANEL as i64 * 4));
                f.load(floats(TILE), &at, 64)
            });
            let about = f.binary("fmul", &sum, &step);
            let about = f.binary("fmul", &about, &scale);
            let off = f.binary("fmul", &size, &lost);
            let off = fma(f, fused, &error, &other, &off);
            let off = fma(f, fused, &scale, &large, &off);
            let upper = f.binary("fadd", &about, &off);
            let bound_at = self.fact(f, row, BOUND);
            let bound = f.load(F32, &bound_at, 4);
            let bounds = f.splat(&bound, TILE);
            // One that is no number says nothing.
            let near = f.compare("fcmp uge", &upper, &bounds);
            let bits = f.cast("bitcast", &near, I16);
            let some = f.compare("icmp ne", &bits, &int_of(I16, 0));
            f.when(&some, |f| {
                let noted_at = self.fact(f, row, NOTED);
                let noted = f.load(I64, &noted_at, 8);
                let is_room = f.compare("icmp sle", &noted, &int(MOST_NOTED));
                f.when(&is_room, |f| {
                    let first = f.scale(panel, PANEL as i64);
                    let first = f.add(&first, &int(tile * TILE as i64));
                    let columns = column_numbers(f, &first);
                    let place = f.scale(row, MOST_NOTED + TILE as i64);
                    let place = f.add(&place, &noted);
                    let lists = [(&self.noted, &columns), (&self.uppers, &upper)].map(|(list, values)| {
                        let to = f.element(list, &place, 4);
                        f.store(values, &to, 4);
                        to
                    });
                    // Those that are near take the first places; there is room for the others.
                    let count = f.fold(&int(0), &int(TILE as i64), 1, &[int(0)], |f, lane, count| {
                        for list in &lists {
                            let [from, to] = [lane, &count[0]].map(|number| f.element(list, number, 4));
                            let value = f.load(I32, &from, 4);
                            f.store(&value, &to, 4);
                        }
                        let short = f.cast("trunc", lane, I16);
                        let bit = f.binary("lshr", &bits, &short);
                        let bit = f.binary("and", &bit, &int_of(I16, 1));
                        let bit = f.cast("zext", &bit, I64);
                        vec![f.add(&count[0], &bit)]
                    });
                    let noted = f.add(&noted, &count[0]);
                    f.store(&noted, &noted_at, 8);
                    let lower = f.binary("fsub", &about, &off);
                    let exists = f.compare("fcmp olt", &lower, &float_of(floats(TILE), f64::INFINITY));
                    let lower = f.select(&exists, &lower, &bounds);
                    let lower = larger(f, &lower, &bounds);
                    let bound = max_lanes(f, &lower);
                    f.store(&bound, &bound_at, 4);
                });
            });
        }
    }
}

/// The two lines of a panel that hold 4 k.
fn load_lines(f: &mut FunctionText, at: &Value) -> [Value; 2] {
    [0, 64].map(|offset| {
        let at = f.offset(at, &int(offset));
        f.load(ints(TILE), &at, 64)
    })
}
