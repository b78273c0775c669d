//! Which columns may be the largest: products with rounded weights, and the bounds that they give.

use super::super::super::KernelContext;
use super::super::super::math::{floats, ints, larger, max_lanes};
use super::super::super::multiply::{Level, TILE};
use super::super::super::step_args::share;
use super::super::super::text::{F32, FunctionText, I16, I32, I64, Value, int, int_of};
use super::super::PANEL;
use super::super::largest::column_numbers;
use super::{BOUND, EXCESS, LENGTH, LOW_BITS, MOST_NOTED, NOTED, STEP, Search};
use crate::pack::rounded::{HEAD_BYTES, panel_bytes};

/// Rows that meet a panel at a time: each has two tiles of sums for either part, and they all lie in registers.
const ROWS: usize = 6;

impl Search {
    /// Multiplies all rows with the thread's rounded panels and notes columns.
    pub(super) fn note(&self, f: &mut FunctionText, context: &KernelContext<'_>) {
        let most = ROWS.min(self.most_rows);
        let counts: Vec<usize> = (1..=most).collect();
        let prefetch = int(context.target.tuning.prefetch_bytes as i64);
        self.for_panels(f, |f, panel| {
            let base = f.element(&self.rounded, panel, panel_bytes(self.k) as i64);
            let blocks = f.div_ceil(&self.rows, &int(most as i64));
            f.for_each(&int(0), &blocks, 1, |f, block| {
                let (start, end) = share(f, &self.rows, block, &blocks);
                let count = f.binary("sub nsw", &end, &start);
                let is_first = f.compare("icmp eq", block, &int(0));
                let ahead = f.select(&is_first, &prefetch, &int(0));
                self.multiply_some(f, &counts, [&start, &count], [&base, &ahead]);
            });
            f.for_each(&int(0), &self.rows, 1, |f, row| self.note_columns(f, row, panel, &base));
        });
    }

    /// Multiplies `rows` rows, which are one of `counts`, with a panel.
    fn multiply_some(&self, f: &mut FunctionText, counts: &[usize], [row, rows]: [&Value; 2], panel: [&Value; 2]) {
        if let &[count] = counts {
            self.multiply(f, count, row, panel);
            return;
        }
        let (fewer, more) = counts.split_at(counts.len() / 2);
        let is_more = f.compare("icmp sge", rows, &int(more[0] as i64));
        let is_fewer = f.compare("icmp slt", rows, &int(more[0] as i64));
        f.when(&is_fewer, |f| self.multiply_some(f, fewer, [row, rows], panel));
        f.when(&is_more, |f| self.multiply_some(f, more, [row, rows], panel));
    }

    fn multiply(&self, f: &mut FunctionText, rows: usize, row: &Value, [base, ahead]: [&Value; 2]) {
        let numbers = f.offset(base, &int(HEAD_BYTES as i64));
        let parts = f.element(&self.parts, row, 2 * self.part_bytes as i64);
        let level = if self.most_rows <= 8 { Level::First } else { Level::Second };
        let none = vec![int_of(ints(TILE), 0); rows * 4];
        let sums = f.fold(&int(0), &int(self.k.div_ceil(4) as i64), 1, &none, |f, k4, sums| {
            let lines = f.element(&numbers, k4, 128);
            let x = f.element(&parts, k4, 4);
            let lines: Vec<Value> = (0..2)
                .map(|tile| {
                    let line = f.offset(&lines, &int(tile * 64));
                    let next = f.offset(&line, ahead);
                    match level {
                        Level::First => f.prefetch(&next),
                        Level::Second => f.prefetch_to_second_level(&next),
                    }
                    f.load(ints(TILE), &line, 64)
                })
                .collect();
            let mut next = Vec::new();
            for (number, sum) in sums.chunks(2).enumerate() {
                let at = f.offset(&x, &int((number * self.part_bytes) as i64));
                let x = f.load(I32, &at, 4);
                let x = f.splat(&x, TILE);
                for (sum, line) in sum.iter().zip(&lines) {
                    let operands = [sum.clone(), line.clone(), x.clone()];
                    let product = f.call("llvm.x86.avx512.vpdpbusd.512", Some(ints(TILE)), &operands);
                    next.push(product.expect("it has a result"));
                }
            }
            next
        });
        for (number, of_row) in sums.chunks(4).enumerate() {
            for tile in 0..2 {
                let high = f.binary("shl", &of_row[tile], &int_of(ints(TILE), LOW_BITS));
                let sum = f.binary("add", &high, &of_row[2 + tile]);
                let to = f.element(&self.sums, row, PANEL as i64 * 4);
                let to = f.offset(&to, &int((number * PANEL + tile * TILE) as i64 * 4));
                f.store(&sum, &to, 64);
            }
        }
    }

    /// Notes the columns of a panel that may be the largest of a row.
    fn note_columns(&self, f: &mut FunctionText, row: &Value, panel: &Value, base: &Value) {
        let fact = |f: &mut FunctionText, offset, ty| {
            let at = self.fact(f, row, offset);
            let value = f.load(ty, &at, 4);
            f.splat(&value, TILE)
        };
        let [step, length] = [STEP, LENGTH].map(|offset| fact(f, offset, F32));
        let excess = fact(f, EXCESS, I32);
        let sums = f.element(&self.sums, row, PANEL as i64 * 4);
        let best_at = f.element(&self.best, row, TILE as i64 * 4);
        for tile in 0..2 {
            let offset = int(tile * TILE as i64 * 4);
            let at = f.offset(&sums, &offset);
            let sum = f.load(ints(TILE), &at, 64);
            let sum = f.binary("sub", &sum, &excess);
            let sum = f.cast("sitofp", &sum, floats(TILE));
            let at = f.offset(base, &offset);
            let scale = f.load(floats(TILE), &at, 64);
            let scale = f.binary("fmul", &scale, &step);
            let about = f.binary("fmul", &sum, &scale);
            let at = f.offset(&at, &int(HEAD_BYTES as i64 / 2));
            let error = f.load(floats(TILE), &at, 64);
            let error = f.binary("fmul", &error, &length);
            let lower = f.binary("fsub", &about, &error);
            let upper = f.binary("fadd", &about, &error);
            let best = f.load(floats(TILE), &best_at, 64);
            let best = larger(f, &lower, &best);
            f.store(&best, &best_at, 64);
            let bound_at = self.fact(f, row, BOUND);
            let bound = f.load(F32, &bound_at, 4);
            let bounds = f.splat(&bound, TILE);
            let near = f.compare("fcmp oge", &upper, &bounds);
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
                    for (list, values) in [(&self.noted, &columns), (&self.uppers, &upper)] {
                        let to = f.element(list, &place, 4);
                        let name = format!("llvm.masked.compressstore.{}", values.ty.suffix());
                        f.call(&name, None, &[values.clone(), to, near.clone()]);
                    }
                    let count = f.intrinsic("ctpop", std::slice::from_ref(&bits));
                    let count = f.cast("zext", &count, I64);
                    let noted = f.add(&noted, &count);
                    f.store(&noted, &noted_at, 8);
                    let bound = max_lanes(f, &best);
                    f.store(&bound, &bound_at, 4);
                });
            });
        }
    }
}
