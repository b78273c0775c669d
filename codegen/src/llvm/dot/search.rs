//! The largest of a product's columns, without all of them ([`llmc_ir::plan::Search`]).
//!
//! Each thread multiplies the rows with its panels of rounded weights, in 8-bit numbers: a weight is one, and so is an element
//! of a row, except for a few large ones, which are the sum `128 high + low` of two. Trained models have rows with some elements
//! that are ten times as large as the others; steps that let one number hold those would lose the others. That bounds each logit
//! from both sides. Columns whose upper bound reaches the best lower bound so far are noted; when all threads are through, each
//! computes those of its columns that still reach the best lower bound of all, as the product's own kernel would, and keeps the
//! largest. Which columns are looked at differs with the number of threads, the largest logit does not.
//!
//! A row whose bounds say nothing (it is not finite, or nearly zero, or too many columns are close) is computed whole.

mod bytes;
mod decide;
mod note;

use super::super::math::{bf16_to_f32, floats, fma, ints, larger, max_lanes, sum_lanes};
use super::super::multiply::{LeftForm, TILE};
use super::super::step_args::{barrier, size};
use super::super::text::{F32, FunctionText, I8, I16, I32, I64, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams, MatrixUnit};
use super::largest::{Largest, tell_bound};
use super::left::{Left, LeftRows, Source};
use super::{Blocking, PANEL, Panels, padded, tiles};
use crate::host::ByteProducts;
use crate::kernel::dot::left_operand;
use crate::pack::rounded::{LEAST_LENGTH, MOST_LOST, ZERO, rounding};
use llmc_ir::dtype::DType;
use llmc_ir::plan::WeightLayout;

/// Columns of a row that are noted at most.
const MOST_NOTED: i64 = 1024;

/// Panels that follow each other; then come other threads' turns. Tokens are often in the order of their frequency: so all
/// threads soon know a large lower bound.
const RUN: i64 = 4;

/// Bits of the lower part of a large element.
const LOW_BITS: i64 = 7;

/// Elements are large if they exceed the mean of all by this factor. In text some 20 of a row are, of SmolLM2 and of Qwen2.5-0.5B;
/// with twice the factor there are half as many, and twice as many columns must be computed.
const LARGE: i64 = 4;

/// What bounds are multiplied with: more than rounding errors can have taken away.
const ROUNDED_UP: f64 = 1.001;

/// What is kept of a row, in this order: `f32` a step of its rounded elements; `f32` what the three parts of a bound are multiples
/// of ([`crate::pack::rounded::RoundedRow`]); `i32` what the sign that weights have not adds to sums; `f32` the best lower bound when a
/// column was last noted; `i64` how many are noted; `i64` how many groups of 4 k have large elements.
const ROW_BYTES: i64 = 64;
const STEP: i64 = 0;
const LARGE_SUM: i64 = 4;
const OTHER_LENGTH: i64 = 8;
const LOST_LENGTH: i64 = 12;
const EXCESS: i64 = 16;
const BOUND: i64 = 20;
const NOTED: i64 = 24;
const GROUPS: i64 = 32;

/// Whether the kernel's products are taken in a way that single columns can be computed in.
pub fn suits(context: &KernelContext<'_>) -> Result<bool, String> {
    let operand = left_operand(&context.kernel.region)?;
    Ok(context.target.byte_products().is_some() && !tiles::suit(context, &operand))
}

/// Sizes and addresses while a search is written.
struct Search {
    products: ByteProducts,
    k: usize,
    columns: usize,
    most_rows: usize,
    rows: Value,
    form: LeftForm,
    /// The rows as the product's kernel reads them.
    exact: Value,
    exact_stride: usize,
    /// Of each row: its elements' lower parts, the higher ones, and `i32` which groups of 4 k have any of these.
    parts: Value,
    part_bytes: usize,
    /// What is kept of each row.
    facts: Value,
    /// `i32[rows][32]`: products with a panel.
    sums: Value,
    /// `i32[rows][MOST_NOTED + 16]`, and as many `f32`: columns that are noted, and their upper bounds.
    noted: Value,
    uppers: Value,
    weight: Panels,
    rounded: Value,
    largest: Largest,
    /// Runs of panels: how many there are, and which are the thread's: every `threads`-th from `first` on.
    runs: Value,
    first: Value,
    threads: Value,
}

/// Emits the body: inputs are the rows, the weight in panels, and the rounded weight; the output is `Found[threads, rows]`.
pub fn emit(f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) -> Result<(), String> {
    let operand = left_operand(&context.kernel.region)?;
    let k = operand.k;
    let rows = size(f, &params.args, operand.rows)?;
    let most_rows = context.bounds.max_of(operand.rows);
    let products = context.target.byte_products().ok_or("the target multiplies no 8-bit numbers")?;
    let largest = Largest::new(f, context, params, (&rows, most_rows))?;
    let columns = largest.columns();
    let runs = int((columns.div_ceil(PANEL) as i64 + RUN - 1) / RUN);
    let left = if context.unit == MatrixUnit::Pairs { Left::Pairs } else { Left::Copied(DType::BF16) };
    let form = left.form();
    let exact_stride = k.next_multiple_of(32) * form.bytes() + 64;
    let part_bytes = k.next_multiple_of(64);
    let noted_bytes = most_rows * (MOST_NOTED as usize + TILE) * 4;
    let mut working = |bytes: usize| context.working(f, params, bytes);
    let search = Search {
        products,
        k,
        columns,
        most_rows,
        rows,
        form,
        exact: working(most_rows * exact_stride),
        exact_stride,
        parts: working(most_rows * parts_stride(part_bytes)),
        part_bytes,
        facts: working(most_rows * ROW_BYTES as usize),
        sums: working(most_rows * PANEL * 4),
        noted: working(noted_bytes),
        uppers: working(noted_bytes),
        weight: Panels {
            address: params.inputs[1].clone(),
            dtype: DType::BF16,
            is_compressed: context.kernel.weight_layouts[1] == Some(WeightLayout::Compressed),
            k: padded(k, DType::BF16),
        },
        rounded: params.inputs[2].clone(),
        largest,
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
        in_parts: false,
        unpacked: None,
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

/// Bytes between the parts of two rows, which do not all lie in the same places of a cache.
fn parts_stride(part_bytes: usize) -> usize {
    3 * part_bytes + 64
}

/// The root of a sum of squares, or a little more.
fn length_of(f: &mut FunctionText, squares: &Value) -> Value {
    let squares = sum_lanes(f, squares);
    let length = f.intrinsic("sqrt", &[squares]);
    f.binary("fmul", &length, &float_of(F32, ROUNDED_UP))
}

impl Search {
    fn fact(&self, f: &mut FunctionText, row: &Value, offset: i64) -> Value {
        let facts = f.element(&self.facts, row, ROW_BYTES);
        f.offset(&facts, &int(offset))
    }

    /// No step of a row is smaller than its largest element over this: so a number of steps fits two parts.
    fn steps(&self) -> i64 {
        (self.products.largest() - 2) << LOW_BITS
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

    /// The parts of a row: lower ones, higher ones, groups.
    fn parts_of(&self, f: &mut FunctionText, row: &Value) -> [Value; 3] {
        let low = f.element(&self.parts, row, parts_stride(self.part_bytes) as i64);
        let [high, groups] = [1, 2].map(|number| f.offset(&low, &int((number * self.part_bytes) as i64)));
        [low, high, groups]
    }

    /// Rounds the elements of all rows, and begins what is kept of them.
    fn round_rows(&self, f: &mut FunctionText, context: &KernelContext<'_>) {
        let padded = int(self.k.next_multiple_of(32) as i64);
        let lanes = floats(TILE);
        let zero = float_of(lanes, 0.0);
        let fused = context.registers.fma;
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let exact = f.element(&self.exact, row, self.exact_stride as i64);
            let totals = vec![zero.clone(); 3];
            let totals = f.fold(&int(0), &padded, TILE as i64, &totals, |f, k, totals| {
                let x = self.elements(f, &exact, k);
                let size = f.intrinsic("fabs", std::slice::from_ref(&x));
                let squares = fma(f, fused, &x, &x, &totals[0]);
                vec![squares, f.binary("fadd", &totals[1], &size), larger(f, &size, &totals[2])]
            });
            let length = length_of(f, &totals[0]);
            let large = f.compare("fcmp oge", &length, &float_of(F32, LEAST_LENGTH));
            let finite = f.compare("fcmp olt", &length, &float_of(F32, f64::INFINITY));
            let is_bounded = f.binary("and", &large, &finite);
            // Sums of products with numbers of such steps stay within 32 bits.
            let all = sum_lanes(f, &totals[1]);
            let step = f.binary(
                "fmul",
                &all,
                &float_of(F32, LARGE as f64 / (self.products.largest() as usize * self.k) as f64),
            );
            let largest = max_lanes(f, &totals[2]);
            let least = f.binary("fmul", &largest, &float_of(F32, 1.0 / self.steps() as f64));
            let step = larger(f, &step, &least);
            let per_step = f.binary("fdiv", &float_of(F32, 1.0), &step);
            let nothing = float_of(F32, 0.0);
            let [step, per_step] = [&step, &per_step].map(|value| f.select(&is_bounded, value, &nothing));
            let [low_at, high_at, groups_at] = self.parts_of(f, row);
            let [steps, per_step] = [&step, &per_step].map(|value| f.splat(value, TILE));
            let bounded = f.splat(&is_bounded, TILE);
            let none = int_of(ints(TILE), 0);
            let totals = [none.clone(), zero.clone(), zero.clone(), zero.clone()];
            let totals = f.fold(&int(0), &padded, TILE as i64, &totals, |f, k, totals| {
                let x = self.elements(f, &exact, k);
                let x = f.select(&bounded, &x, &zero);
                let number = f.binary("fmul", &x, &per_step);
                let number = f.intrinsic("rint", &[number]);
                let negative = f.negate(&number);
                let lost = fma(f, fused, &negative, &steps, &x);
                let [size, magnitude] = [&x, &number].map(|value| f.intrinsic("fabs", std::slice::from_ref(value)));
                let is_large = f.compare("fcmp ogt", &magnitude, &float_of(lanes, self.products.largest() as f64));
                let number = f.cast("fptosi", &number, ints(TILE));
                let above = f.binary("add", &number, &int_of(ints(TILE), 1 << (LOW_BITS - 1)));
                let high = f.binary("ashr", &above, &int_of(ints(TILE), LOW_BITS));
                let high = f.select(&is_large, &high, &none);
                let of_high = f.binary("shl", &high, &int_of(ints(TILE), LOW_BITS));
                let low = f.binary("sub", &number, &of_high);
                for (part, to) in [(low, &low_at), (high, &high_at)] {
                    let part = f.cast("trunc", &part, I8.with_lanes(TILE));
                    let to = f.offset(to, k);
                    f.store(&part, &to, TILE);
                }
                let [large, other] = [(&size, &zero), (&zero, &x)].map(|(yes, no)| f.select(&is_large, yes, no));
                vec![
                    f.binary("add", &totals[0], &number),
                    f.binary("fadd", &totals[1], &large),
                    fma(f, fused, &other, &other, &totals[2]),
                    fma(f, fused, &lost, &lost, &totals[3]),
                ]
            });
            let sum = f.call("llvm.vector.reduce.add.v16i32", Some(I32), &totals[..1]).expect("it has a result");
            let excess = f.binary("mul", &sum, &int_of(I32, i64::from(ZERO)));
            let large_sum = sum_lanes(f, &totals[1]);
            let large_sum = f.binary("fmul", &large_sum, &float_of(F32, MOST_LOST * ROUNDED_UP));
            let [other_length, lost_length] = [2, 3].map(|number| length_of(f, &totals[number]));
            let always_lost = f.binary("fmul", &length, &float_of(F32, rounding(self.k)));
            let lost_length = f.binary("fadd", &lost_length, &always_lost);
            let groups = int(self.k.div_ceil(4) as i64);
            let groups = f.fold(&int(0), &groups, 1, &[int(0)], |f, group, count| {
                let high = f.element(&high_at, group, 4);
                let high = f.load(I32, &high, 4);
                let to = f.element(&groups_at, &count[0], 4);
                let short = f.cast("trunc", group, I32);
                f.store(&short, &to, 4);
                let is_one = f.compare("icmp ne", &high, &int_of(I32, 0));
                let one = f.cast("zext", &is_one, I64);
                vec![f.add(&count[0], &one)]
            });
            let [nothing, all] = [f64::NEG_INFINITY, f64::INFINITY].map(|bound| float_of(F32, bound));
            let bound = f.select(&is_bounded, &nothing, &all);
            let noted = f.select(&is_bounded, &int(0), &int(MOST_NOTED + 1));
            for (offset, value) in [
                (STEP, &step),
                (LARGE_SUM, &large_sum),
                (OTHER_LENGTH, &other_length),
                (LOST_LENGTH, &lost_length),
                (EXCESS, &excess),
                (BOUND, &bound),
                (NOTED, &noted),
                (GROUPS, &groups[0]),
            ] {
                let at = self.fact(f, row, offset);
                f.store(value, &at, 4);
            }
        });
    }

    /// Tells the other threads the thread's best lower bounds.
    fn tell_bounds(&self, f: &mut FunctionText, params: &KernelParams) {
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let bound = self.fact(f, row, BOUND);
            let bound = f.load(F32, &bound, 4);
            let found = self.largest.found(f, &params.thread, row);
            tell_bound(f, &found, &bound);
        });
    }

    /// Visits the thread's runs of panels in ascending order.
    fn for_runs(&self, f: &mut FunctionText, body: impl FnOnce(&mut FunctionText, &Value)) {
        let others = f.binary("sub nsw", &self.runs, &self.first);
        let above = f.add(&others, &self.threads);
        let above = f.add(&above, &int(-1));
        let turns = f.binary("sdiv", &above, &self.threads);
        f.for_each(&int(0), &turns, 1, |f, turn| {
            let skipped = f.binary("mul nsw", turn, &self.threads);
            let run = f.add(&self.first, &skipped);
            body(f, &run);
        });
    }

    /// Visits the thread's panels in ascending order, and says which are the last of a run.
    fn for_panels(&self, f: &mut FunctionText, body: impl FnOnce(&mut FunctionText, &Value, &Value)) {
        let panels = int(self.columns.div_ceil(PANEL) as i64);
        self.for_runs(f, |f, run| {
            let start = f.scale(run, RUN);
            let end = f.add(&start, &int(RUN));
            let last = f.add(&end, &int(-1));
            let end = f.min(&end, &panels);
            f.for_each(&start, &end, 1, |f, panel| {
                let is_last = f.compare("icmp eq", panel, &last);
                body(f, panel, &is_last);
            });
        });
    }
}
