//! The largest column of each row of a product, in place of the product: what a greedy step wants of the logits.
//!
//! Every thread keeps the largest of its columns, lane by lane and with their numbers, in the work behind the product; at the
//! end it writes a [`Found`] per row. So a step writes 16 bytes per row and thread instead of all columns, and nobody reads
//! those again.

use super::super::math::{floats, ints, max_lanes};
use super::super::multiply::TILE;
use super::super::text::{F32, FunctionText, I32, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::{RowSpan, Section};
use llmc_ir::abi::Found;
use std::mem::offset_of;

/// A token that is behind all others.
const NO_TOKEN: i64 = i32::MAX as i64;

/// What a thread keeps of the rows of a product.
#[derive(Clone)]
pub struct Largest {
    /// `f32[rows][16]`: of each lane the largest so far.
    logits: Value,
    /// `i32[rows][16]`: the first columns that have it.
    tokens: Value,
    /// Number of columns.
    columns: usize,
    /// Number of rows.
    rows: Value,
    /// The output.
    found: Value,
}

impl Largest {
    /// Of a step with `rows` rows and a program with `most_rows` of them.
    pub fn new(
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        (rows, most_rows): (&Value, usize),
    ) -> Result<Largest, String> {
        let output = context.kernel.region.outputs[0];
        let ty = context.kernel.region.body.ty(output).as_tensor().ok_or("logits are a tensor")?;
        let columns = ty.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
        let [logits, tokens] = [(); 2].map(|()| context.working(f, params, most_rows * TILE * 4));
        Ok(Largest { logits, tokens, columns, rows: rows.clone(), found: params.outputs[0].clone() })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    fn of_row(&self, f: &mut FunctionText, row: &Value) -> [Value; 2] {
        [&self.logits, &self.tokens].map(|all| f.element(all, row, TILE as i64 * 4))
    }

    /// Forgets all columns.
    pub fn reset(&self, f: &mut FunctionText) {
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let [logits, tokens] = self.of_row(f, row);
            f.store(&float_of(floats(TILE), f64::NEG_INFINITY), &logits, 64);
            f.store(&int_of(ints(TILE), NO_TOKEN), &tokens, 64);
        });
    }

    /// Looks at 16 columns of a row, from `first` on. Those of each lane must come in ascending order. One that is not finite
    /// counts as the largest, and as token -1.
    pub fn keep(&self, f: &mut FunctionText, row: &Value, first: &Value, logits: &Value) {
        let columns = column_numbers(f, first);
        let exists = f.compare("icmp slt", &columns, &int_of(ints(TILE), self.columns as i64));
        let size = f.intrinsic("fabs", std::slice::from_ref(logits));
        let is_finite = f.compare("fcmp olt", &size, &float_of(floats(TILE), f64::INFINITY));
        let logits = f.select(&is_finite, logits, &float_of(floats(TILE), f64::INFINITY));
        let columns = f.select(&is_finite, &columns, &int_of(ints(TILE), -1));
        let logits = f.select(&exists, &logits, &float_of(floats(TILE), f64::NEG_INFINITY));
        let [logits_at, tokens_at] = self.of_row(f, row);
        let best = f.load(floats(TILE), &logits_at, 64);
        let tokens = f.load(ints(TILE), &tokens_at, 64);
        let above = f.compare("fcmp ogt", &logits, &best);
        let [best, tokens] = [(&logits, &best), (&columns, &tokens)].map(|(new, old)| f.select(&above, new, old));
        f.store(&best, &logits_at, 64);
        f.store(&tokens, &tokens_at, 64);
    }

    /// Looks at some rows of a block of columns, where they lie as the product left them.
    pub fn keep_block(&self, f: &mut FunctionText, section: &Section<'_>, rows: RowSpan<'_>, column_block: &Value) {
        let first = f.scale(column_block, section.columns as i64);
        let behind = f.add(&first, &int(section.columns as i64));
        let end = f.min(&behind, &int(self.columns as i64));
        f.for_each(rows.start, rows.end, 1, |f, row| {
            let in_block = f.binary("sub nsw", row, rows.block);
            let values = f.element(&section.tiles[0], &in_block, section.c_stride as i64);
            f.for_each(&first, &end, TILE as i64, |f, column| {
                let in_block = f.binary("sub nsw", column, &first);
                let at = f.element(&values, &in_block, 4);
                let logits = f.load(floats(TILE), &at, 64);
                self.keep(f, row, column, &logits);
            });
        });
    }

    /// The address of what a thread found of a row.
    pub fn found(&self, f: &mut FunctionText, thread: &Value, row: &Value) -> Value {
        let before = f.binary("mul nsw", thread, &self.rows);
        let number = f.add(&before, row);
        f.element(&self.found, &number, size_of::<Found>() as i64)
    }

    /// Writes what was found.
    pub fn finish(&self, f: &mut FunctionText, params: &KernelParams) {
        f.for_each(&int(0), &self.rows, 1, |f, row| {
            let [logits_at, tokens_at] = self.of_row(f, row);
            let logits = f.load(floats(TILE), &logits_at, 64);
            let tokens = f.load(ints(TILE), &tokens_at, 64);
            let largest = max_lanes(f, &logits);
            let all = f.splat(&largest, TILE);
            let is_largest = f.compare("fcmp oeq", &logits, &all);
            let tokens = f.select(&is_largest, &tokens, &int_of(ints(TILE), NO_TOKEN));
            let token = f.call("llvm.vector.reduce.smin.v16i32", Some(I32), &[tokens]).expect("it has a result");
            let found = self.found(f, &params.thread, row);
            for (value, offset) in [(&largest, offset_of!(Found, logit)), (&token, offset_of!(Found, token))] {
                let at = f.offset(&found, &int(offset as i64));
                f.store(value, &at, 4);
            }
        });
    }
}

/// 16 columns from `first` on.
pub fn column_numbers(f: &mut FunctionText, first: &Value) -> Value {
    let first = f.cast("trunc", first, I32);
    let first = f.splat(&first, TILE);
    let lanes = f.lane_numbers(ints(TILE));
    f.binary("add", &first, &lanes)
}

/// A lower bound of each row's largest column, for the other threads.
pub fn tell_bound(f: &mut FunctionText, found: &Value, bound: &Value) {
    let at = f.offset(found, &int(offset_of!(Found, bound) as i64));
    f.store(bound, &at, 4);
}

/// What another thread told.
pub fn told_bound(f: &mut FunctionText, found: &Value) -> Value {
    let at = f.offset(found, &int(offset_of!(Found, bound) as i64));
    f.load(F32, &at, 4)
}
