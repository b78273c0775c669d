//! The largest column of each row of a product, in place of the product: what a greedy step wants of the logits.
//!
//! At the end every thread writes a [`Found`] per row.

use super::super::math::{floats, ints, max_lanes};
use super::super::multiply::TILE;
use super::super::text::{F32, FunctionText, I32, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::kept::{KeptRows, NO_TOKEN};
use llmc_ir::abi::Found;
use std::mem::offset_of;

/// What a thread keeps of the rows of a product.
#[derive(Clone)]
pub struct Largest {
    /// `f32[rows][16]`: of each lane the largest so far.
    logits: Value,
    /// `i32[rows][16]`: the first columns that have it.
    tokens: Value,
    rows: KeptRows,
}

impl Largest {
    /// Of a step with `rows` rows and a program with `most_rows` of them.
    pub fn new(
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        (rows, most_rows): (&Value, usize),
    ) -> Result<Largest, String> {
        let [logits, tokens] = [(); 2].map(|()| context.working(f, params, most_rows * TILE * 4));
        Ok(Largest { logits, tokens, rows: KeptRows::new(context, params, rows)? })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.rows.columns
    }

    fn of_row(&self, f: &mut FunctionText, row: &Value) -> [Value; 2] {
        [&self.logits, &self.tokens].map(|all| f.element(all, row, TILE as i64 * 4))
    }

    /// Forgets all columns.
    pub fn reset(&self, f: &mut FunctionText) {
        self.rows.for_each(f, |f, row| {
            let [logits, tokens] = self.of_row(f, row);
            f.store(&float_of(floats(TILE), f64::NEG_INFINITY), &logits, 64);
            f.store(&int_of(ints(TILE), NO_TOKEN), &tokens, 64);
        });
    }

    /// Looks at 16 columns of a row, from `first` on. Those of each lane must come in ascending order.
    pub fn keep(&self, f: &mut FunctionText, row: &Value, first: &Value, logits: &Value) {
        let [logits, columns] = self.rows.columns(f, first, logits);
        let [logits_at, tokens_at] = self.of_row(f, row);
        let best = f.load(floats(TILE), &logits_at, 64);
        let tokens = f.load(ints(TILE), &tokens_at, 64);
        let above = f.compare("fcmp ogt", &logits, &best);
        let [best, tokens] = [(&logits, &best), (&columns, &tokens)].map(|(new, old)| f.select(&above, new, old));
        f.store(&best, &logits_at, 64);
        f.store(&tokens, &tokens_at, 64);
    }

    /// The address of what a thread found of a row.
    pub fn found(&self, f: &mut FunctionText, thread: &Value, row: &Value) -> Value {
        self.rows.output(f, thread, row, size_of::<Found>())
    }

    /// Writes what was found.
    pub fn finish(&self, f: &mut FunctionText, params: &KernelParams) {
        self.rows.for_each(f, |f, row| {
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
