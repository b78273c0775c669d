//! The largest of a product's columns, without all of them ([`llmc_ir::plan::Search`]).
//!
//! Each thread multiplies the rows with its panels of rounded weights, in 8-bit numbers: a weight is one, an element of a
//! row is the sum `128 high + low` of two. That bounds each logit from both sides. Columns whose upper bound reaches the
//! best lower bound so far are noted; when all threads are through, each computes those of its columns that still reach
//! the best lower bound of all, as the product's own kernel would, and keeps the largest. Which columns are looked at
//! differs with the number of threads, the largest logit does not.
//!
//! A row whose bounds say nothing (it is not finite, or nearly zero, or too many columns are close) is computed whole.

use super::super::math::{bf16_to_f32, floats, fma, ints, larger, max_lanes, sum_lanes};
use super::super::multiply::{LeftForm, Level, Rows, Shape, Start, TILE, Tiles};
use super::super::step_args::{barrier, share, size};
use super::super::text::{F32, FunctionText, I8, I16, I32, I64, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams, MatrixUnit};
use super::left::{Left, LeftRows, Source};
use super::{Blocking, PANEL, tiles};
use crate::kernel::dot::left_operand;
use crate::pack::rounded::{HEAD_BYTES, LARGEST, LEAST_LENGTH, STEPS, panel_bytes};
use llmc_ir::abi::Found;
use llmc_ir::dtype::DType;
use std::mem::offset_of;

/// Rows that meet a panel at a time: each has two tiles of sums for either part, and they all lie in registers.
const ROWS: usize = 6;

/// Columns of a row that are noted at most.
const MOST_NOTED: i64 = 1024;

/// Panels that follow each other; then come other threads' turns. Tokens are often in the order of their frequency: so all
/// threads soon know a large lower bound.
const RUN: i64 = 4;

/// Bits of the lower part of an element.
const LOW_BITS: i64 = 7;

/// What is kept of a row, in this order: `f32` a step of its rounded elements, `f32` its length or a little more, `i32` what the
/// sign that weights have not adds to sums, `f32` the best lower bound when a column was last noted, `i64` how many are noted.
const ROW_BYTES: i64 = 64;
const STEP: i64 = 0;
const LENGTH: i64 = 4;
const EXCESS: i64 = 8;
const BOUND: i64 = 12;
const NOTED: i64 = 16;

/// Whether the kernel's products are taken in a way that single columns can be computed in.
pub fn suits(context: &KernelContext<'_>) -> Result<bool, String> {
    let operand = left_operand(&context.kernel.region)?;
    Ok(context.target.searches() && !tiles::suit(context, &operand))
}

/// Sizes and addresses while a search is written.
struct Search {
    k: usize,
    columns: usize,
    most_rows: usize,
    rows: Value,
    form: LeftForm,
    /// The rows as the product's kernel reads them.
    exact: Value,
    exact_stride: usize,
    /// Their elements' higher parts, then the lower ones.
    parts: Value,
    part_bytes: usize,
    /// What is kept of each row.
    facts: Value,
    /// `f32[rows][16]`: the largest lower bounds; later the largest logits.
    best: Value,
    /// `i32[16]`: the tokens of the largest logits.
    tokens: Value,
    /// `i32[rows][32]`: products with a panel.
    sums: Value,
    /// `i32[rows][MOST_NOTED + 16]`, and as many `f32`: columns that are noted, and their upper bounds.
    noted: Value,
    uppers: Value,
    weight: Value,
    rounded: Value,
    found: Value,
    /// Runs of panels: how many there are, and which are the thread's: every `threads`-th from `first` on.
    runs: Value,
    first: Value,
    threads: Value,
}

/// Emits the body: inputs are the rows, the weight in panels, and the rounded weight; the output is `Found[threads, rows]`.
pub fn emit(f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) -> Result<(), String> {
    let operand = left_operand(&context.kernel.region)?;
    let output = context.kernel.region.outputs[0];
    let ty = context.kernel.region.body.ty(output).as_tensor().ok_or("logits are a tensor")?;
    let columns = ty.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
    let k = operand.k;
    let rows = size(f, &params.args, operand.rows)?;
    let most_rows = context.bounds.max_of(operand.rows);
    let runs = int((columns.div_ceil(PANEL) as i64 + RUN - 1) / RUN);
    let left = if context.unit == MatrixUnit::Pairs { Left::Pairs } else { Left::Copied(DType::BF16) };
    let form = left.form();
    let exact_stride = k.next_multiple_of(32) * form.bytes() + 64;
    let part_bytes = k.next_multiple_of(64);
    let noted_bytes = most_rows * (MOST_NOTED as usize + TILE) * 4;
    let mut working = |bytes: usize| {
        let offset = context.scratch(bytes);
        f.offset(&params.scratch, &int(offset as i64))
    };
    let search = Search {
        k,
        columns,
        most_rows,
        rows,
        form,
        exact: working(most_rows * exact_stride),
        exact_stride,
        parts: working(most_rows * 2 * part_bytes),
        part_bytes,
        facts: working(most_rows * ROW_BYTES as usize),
        best: working(most_rows * TILE * 4),
        tokens: working(TILE * 4),
        sums: working(most_rows * PANEL * 4),
        noted: working(noted_bytes),
        uppers: working(noted_bytes),
        weight: params.inputs[1].clone(),
        rounded: params.inputs[2].clone(),
        found: params.outputs[0].clone(),
        runs,
        first: params.thread.clone(),
        threads: params.threads.clone(),
    };
    let blocking = Blocking {
        k,
        rows: most_rows,
        most_rows,
        row_unit: 1,
        a_stride: exact_stride,
        left,
        widened: None,
    };
    let rows = LeftRows {
        blocking: &blocking,
        dtype: operand.dtype,
        source: Source::Memory(params.inputs[0].clone()),
        copy: search.exact.clone(),
        rows: search.rows.clone(),
        row_block: int(most_rows as i64),
    };
    rows.block(f, context, params, &int(0))?;
    search.round_rows(f, context);
    search.note(f, context);
    search.tell_bounds(f, params);
    barrier(f, &params.args, &params.physical_thread);
    search.decide(f, context, params);
    Ok(())
}

impl Search {
    fn fact(&self, f: &mut FunctionText, row: &Value, offset: i64) -> Value {
        let facts = f.element(&self.facts, row, ROW_BYTES);
        f.offset(&facts, &int(offset))
    }

    /// 16 elements of a row, of which `exact` is the first.
    fn elements(&self, f: &mut FunctionText, exact: &Value, k: &Value) -> Value {
        let address = f.element(exact, k, self.form.bytes() as i64);
        match self.form {
            LeftForm::Wide => f.load(floats(TILE), &address, 64),
            LeftForm::Pairs => {
                let bits = f.load(I16.with_lanes(TILE), &address, 32);
                bf16_to_f32(f, &bits)
            }
        }
    }

    /// Rounds the elements of all rows, and begins what is kept of them.
    fn round_rows(&self, f: &mut FunctionText, context: &KernelContext<'_>) {
        let padded = int(self.k.next_multiple_of(32) as i64);
        let lanes = floats(TILE);
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let exact = f.element(&self.exact, row, self.exact_stride as i64);
            let zero = float_of(lanes, 0.0);
            let totals = vec![zero.clone(); 3];
            let totals = f.fold(&int(0), &padded, TILE as i64, &totals, |f, k, totals| {
                let x = self.elements(f, &exact, k);
                let size = f.intrinsic("fabs", std::slice::from_ref(&x));
                let squares = fma(f, context.registers.fma, &x, &x, &totals[0]);
                vec![squares, f.binary("fadd", &totals[1], &size), larger(f, &size, &totals[2])]
            });
            let squares = sum_lanes(f, &totals[0]);
            let length = f.intrinsic("sqrt", &[squares]);
            // More than rounding errors can have taken away.
            let length = f.binary("fmul", &length, &float_of(F32, 1.001));
            let large = f.compare("fcmp oge", &length, &float_of(F32, LEAST_LENGTH));
            let finite = f.compare("fcmp olt", &length, &float_of(F32, f64::INFINITY));
            let is_bounded = f.binary("and", &large, &finite);
            let largest = max_lanes(f, &totals[2]);
            let step = f.binary("fmul", &largest, &float_of(F32, 1.0 / STEPS as f64));
            // So long that sums of products stay within 32 bits.
            let all = sum_lanes(f, &totals[1]);
            let least = f.binary("fmul", &all, &float_of(F32, 1.1 * LARGEST as f64 / 2f64.powi(31)));
            let step = larger(f, &step, &least);
            let per_step = f.binary("fdiv", &float_of(F32, 1.0), &step);
            let nothing = float_of(F32, 0.0);
            let [step, length, per_step] =
                [&step, &length, &per_step].map(|value| f.select(&is_bounded, value, &nothing));
            let parts = f.element(&self.parts, row, 2 * self.part_bytes as i64);
            let per_step = f.splat(&per_step, TILE);
            let bounded = f.splat(&is_bounded, TILE);
            let none = int_of(ints(TILE), 0);
            let sum = f.fold(&int(0), &padded, TILE as i64, &[none], |f, k, sum| {
                let x = self.elements(f, &exact, k);
                let x = f.select(&bounded, &x, &zero);
                let steps = f.binary("fmul", &x, &per_step);
                let steps = f.intrinsic("rint", &[steps]);
                let steps = f.cast("fptosi", &steps, ints(TILE));
                let above = f.binary("add", &steps, &int_of(ints(TILE), 1 << (LOW_BITS - 1)));
                let high = f.binary("ashr", &above, &int_of(ints(TILE), LOW_BITS));
                let of_high = f.binary("shl", &high, &int_of(ints(TILE), LOW_BITS));
                let low = f.binary("sub", &steps, &of_high);
                let to = f.offset(&parts, k);
                for (part, offset) in [(high, 0), (low, self.part_bytes)] {
                    let part = f.cast("trunc", &part, I8.with_lanes(TILE));
                    let to = f.offset(&to, &int(offset as i64));
                    f.store(&part, &to, TILE);
                }
                vec![f.binary("add", &sum[0], &steps)]
            });
            let sum = f.call("llvm.vector.reduce.add.v16i32", Some(I32), &sum).expect("it has a result");
            let excess = f.binary("mul", &sum, &int_of(I32, i64::from(crate::pack::rounded::ZERO)));
            let minimum = float_of(F32, f64::NEG_INFINITY);
            let noted = f.select(&is_bounded, &int(0), &int(MOST_NOTED + 1));
            for (offset, value) in [(STEP, &step), (LENGTH, &length), (EXCESS, &excess), (BOUND, &minimum), (NOTED, &noted)] {
                let at = self.fact(f, row, offset);
                f.store(value, &at, 4);
            }
            let best = f.element(&self.best, row, TILE as i64 * 4);
            f.store(&float_of(lanes, f64::NEG_INFINITY), &best, 64);
        });
    }

    /// Visits the thread's panels in ascending order.
    fn for_panels(&self, f: &mut FunctionText, body: impl FnOnce(&mut FunctionText, &Value)) {
        let panels = int(self.columns.div_ceil(PANEL) as i64);
        let others = f.binary("sub nsw", &self.runs, &self.first);
        let above = f.add(&others, &self.threads);
        let above = f.add(&above, &int(-1));
        let turns = f.binary("sdiv", &above, &self.threads);
        f.for_each(&int(0), &turns, 1, |f, turn| {
            let skipped = f.binary("mul nsw", turn, &self.threads);
            let run = f.add(&self.first, &skipped);
            let start = f.scale(&run, RUN);
            let end = f.add(&start, &int(RUN));
            let end = f.min(&end, &panels);
            f.for_each(&start, &end, 1, body);
        });
    }

    /// Multiplies all rows with the thread's rounded panels and notes columns.
    fn note(&self, f: &mut FunctionText, context: &KernelContext<'_>) {
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

    /// The address of what a thread found of a row.
    fn found(&self, f: &mut FunctionText, thread: &Value, row: &Value) -> Value {
        let before = f.binary("mul nsw", thread, &self.rows);
        let number = f.add(&before, row);
        f.element(&self.found, &number, size_of::<Found>() as i64)
    }

    /// Tells the other threads the thread's best lower bounds.
    fn tell_bounds(&self, f: &mut FunctionText, params: &KernelParams) {
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let best = f.element(&self.best, row, TILE as i64 * 4);
            let best = f.load(floats(TILE), &best, 64);
            let bound = max_lanes(f, &best);
            let found = self.found(f, &params.thread, row);
            let at = f.offset(&found, &int(offset_of!(Found, bound) as i64));
            f.store(&bound, &at, 4);
        });
    }

    /// Computes the noted columns of each row that may be the largest of all, and keeps the largest.
    fn decide(&self, f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) {
        let none = float_of(F32, f64::NEG_INFINITY);
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let bound = f.fold(&int(0), &params.threads, 1, std::slice::from_ref(&none), |f, thread, bound| {
                let found = self.found(f, thread, row);
                let at = f.offset(&found, &int(offset_of!(Found, bound) as i64));
                let other = f.load(F32, &at, 4);
                vec![larger(f, &other, &bound[0])]
            });
            let best_at = f.element(&self.best, row, TILE as i64 * 4);
            f.store(&float_of(floats(TILE), f64::NEG_INFINITY), &best_at, 64);
            f.store(&int_of(ints(TILE), i64::from(i32::MAX)), &self.tokens, 64);
            let noted_at = self.fact(f, row, NOTED);
            let noted = f.load(I64, &noted_at, 8);
            let is_whole = f.compare("icmp sgt", &noted, &int(MOST_NOTED));
            let is_noted = f.compare("icmp sle", &noted, &int(MOST_NOTED));
            f.when(&is_whole, |f| {
                self.for_panels(f, |f, panel| {
                    let first = f.scale(panel, 2);
                    let end = f.add(&first, &int(2));
                    f.for_each(&first, &end, 1, |f, tile| self.compute(f, context, row, [tile, tile]));
                });
            });
            f.when(&is_noted, |f| self.compute_noted(f, context, row, [&noted, &bound[0]]));
            let best = f.load(floats(TILE), &best_at, 64);
            let tokens = f.load(ints(TILE), &self.tokens, 64);
            let largest = max_lanes(f, &best);
            let all = f.splat(&largest, TILE);
            let is_largest = f.compare("fcmp oeq", &best, &all);
            let tokens = f.select(&is_largest, &tokens, &int_of(ints(TILE), i64::from(i32::MAX)));
            let token = f.call("llvm.vector.reduce.smin.v16i32", Some(I32), &[tokens]).expect("it has a result");
            let found = self.found(f, &params.thread, row);
            for (value, offset) in [(&largest, offset_of!(Found, logit)), (&token, offset_of!(Found, token))] {
                let at = f.offset(&found, &int(offset as i64));
                f.store(value, &at, 4);
            }
        });
    }

    /// Computes those of a row's noted columns whose upper bounds reach `bound`.
    fn compute_noted(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        row: &Value,
        [noted, bound]: [&Value; 2],
    ) {
        let list = f.scale(row, MOST_NOTED + TILE as i64);
        let at = |f: &mut FunctionText, values: &Value, number: &Value, ty| {
            let place = f.add(&list, number);
            let at = f.element(values, &place, 4);
            f.load(ty, &at, 4)
        };
        // Those that stay, each tile once, in front.
        let none = int(-1);
        let kept = f.fold(&int(0), noted, 1, &[int(0), none], |f, number, state| {
            let [kept, last] = state else { unreachable!("two values") };
            let upper = at(f, &self.uppers, number, F32);
            let column = at(f, &self.noted, number, I32);
            let column = f.cast("zext", &column, I64);
            let tile = f.binary("lshr", &column, &int(4));
            let near = f.compare("fcmp oge", &upper, bound);
            let is_new = f.compare("icmp ne", &tile, last);
            let stays = f.binary("and", &near, &is_new);
            let place = f.add(&list, kept);
            let to = f.element(&self.noted, &place, 4);
            let short = f.cast("trunc", &tile, I32);
            f.when(&stays, |f| f.store(&short, &to, 4));
            let one = f.cast("zext", &stays, I64);
            vec![f.add(kept, &one), f.select(&stays, &tile, last)]
        });
        let last = f.add(&kept[0], &int(-1));
        f.for_each(&int(0), &kept[0], 1, |f, number| {
            let next = f.add(number, &int(1));
            let next = f.min(&next, &last);
            let [tile, next] = [number, &next].map(|number| {
                let tile = at(f, &self.noted, number, I32);
                f.cast("zext", &tile, I64)
            });
            self.compute(f, context, row, [&tile, &next]);
        });
    }

    /// The address of a tile of the weight.
    fn tile(&self, f: &mut FunctionText, tile: &Value) -> Value {
        let panel = f.binary("lshr", tile, &int(1));
        let b = f.element(&self.weight, &panel, (self.k.next_multiple_of(32) * PANEL * 2) as i64);
        let in_panel = f.binary("and", tile, &int(1));
        f.element(&b, &in_panel, 1024)
    }

    /// Computes the 16 logits of a tile as the product's kernel does. One that is not finite becomes the largest, as token -1.
    /// The next tile is prefetched.
    fn compute(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        row: &Value,
        [tile, next]: [&Value; 2],
    ) {
        let k = self.k.next_multiple_of(32);
        let shape = Shape {
            k,
            tiles: 1,
            layout: Tiles::Bf16 { tile_stride: 1024, block_stride: 2048 },
            left: self.form,
            a_stride: self.exact_stride,
            c_stride: TILE * 4,
            start: Start::Zero,
            rows: Rows { unit: 1, most: 1 },
            prefetch: Level::First,
        };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        let a = f.element(&self.exact, row, self.exact_stride as i64);
        let [b, next] = [tile, next].map(|tile| self.tile(f, tile));
        f.for_each(&int(0), &int(k as i64 / 32), 1, |f, k32| {
            let block = f.element(&next, k32, 2048);
            for line in 0..16 {
                let line = f.offset(&block, &int(line * 64));
                f.prefetch_to_second_level(&line);
            }
        });
        f.call_local(&multiply, &[a, b, self.sums.clone(), int(1), int(0)]);
        let logits = f.load(floats(TILE), &self.sums, 64);
        let first = f.scale(tile, TILE as i64);
        let columns = column_numbers(f, &first);
        let exists = f.compare("icmp slt", &columns, &int_of(ints(TILE), self.columns as i64));
        let size = f.intrinsic("fabs", std::slice::from_ref(&logits));
        let is_finite = f.compare("fcmp olt", &size, &float_of(floats(TILE), f64::INFINITY));
        let logits = f.select(&is_finite, &logits, &float_of(floats(TILE), f64::INFINITY));
        let columns = f.select(&is_finite, &columns, &int_of(ints(TILE), -1));
        let logits = f.select(&exists, &logits, &float_of(floats(TILE), f64::NEG_INFINITY));
        let best_at = f.element(&self.best, row, TILE as i64 * 4);
        let best = f.load(floats(TILE), &best_at, 64);
        let tokens = f.load(ints(TILE), &self.tokens, 64);
        let above = f.compare("fcmp ogt", &logits, &best);
        let [best, tokens] = [(&logits, &best), (&columns, &tokens)].map(|(new, old)| f.select(&above, new, old));
        f.store(&best, &best_at, 64);
        f.store(&tokens, &self.tokens, 64);
    }
}

/// 16 columns from `first` on.
fn column_numbers(f: &mut FunctionText, first: &Value) -> Value {
    let first = f.cast("trunc", first, I32);
    let first = f.splat(&first, TILE);
    let lanes = f.lane_numbers(ints(TILE));
    f.binary("add", &first, &lanes)
}
