//! What attention keeps of each row from chunk to chunk: the weighted sum of values so far, the sum of weights in 16 lanes, and
//! the maximum that weights are relative to.
//!
//! When a maximum is raised, the sum of weights follows at once. The weighted sum of values may be in use at that time: it
//! is multiplied later by a factor that is noted beside it.

use super::super::math::{any, floats, sum_lanes};
use super::super::rows::LANES;
use super::super::text::{F32, FunctionText, I64, Value, float_of, int};
use crate::kernel::attend::NO_MAXIMUM;

/// The rows' memory: each row's values, then its sums; behind all rows their maxima, then their factors.
pub struct State {
    base: Value,
    rows: usize,
    padded: usize,
}

impl State {
    /// The state of so many rows at an address.
    pub fn new(base: Value, rows: usize, padded_head_dim: usize) -> State {
        State { base, rows, padded: padded_head_dim }
    }

    /// Bytes that it takes.
    pub fn bytes(rows: usize, padded_head_dim: usize) -> usize {
        rows * State::stride(padded_head_dim) + 2 * State::list_bytes(rows)
    }

    /// Bytes from a row to the next.
    pub fn stride(padded_head_dim: usize) -> usize {
        (padded_head_dim + LANES) * 4
    }

    fn list_bytes(rows: usize) -> usize {
        rows.next_multiple_of(LANES) * 4
    }

    /// Where the state is.
    pub fn base(&self) -> &Value {
        &self.base
    }

    /// Where a row's weighted sum of values is.
    pub fn values(&self, f: &mut FunctionText, row: &Value) -> Value {
        f.element(&self.base, row, State::stride(self.padded) as i64)
    }

    /// Where a row's sums of weights are.
    pub fn sums(&self, f: &mut FunctionText, row: &Value) -> Value {
        let values = self.values(f, row);
        f.offset(&values, &int((self.padded * 4) as i64))
    }

    /// Where a row's maximum is, those of the rows behind it follow.
    pub fn maximum(&self, f: &mut FunctionText, row: &Value) -> Value {
        let maxima = f.offset(&self.base, &int((self.rows * State::stride(self.padded)) as i64));
        f.element(&maxima, row, 4)
    }

    /// Where a row's factor is, those of the rows behind it follow.
    pub fn factor(&self, f: &mut FunctionText, row: &Value) -> Value {
        let maximum = self.maximum(f, row);
        f.offset(&maximum, &int(State::list_bytes(self.rows) as i64))
    }

    /// A row's sum of weights.
    pub fn sum(&self, f: &mut FunctionText, row: &Value) -> Value {
        let sums = self.sums(f, row);
        let sums = f.load(floats(LANES), &sums, 64);
        sum_lanes(f, &sums)
    }

    /// The state before any position.
    pub fn reset(&self, f: &mut FunctionText, rows: &Value) {
        f.for_each(&int(0), rows, 1, |f, row| {
            let values = self.values(f, row);
            for dim in (0..self.padded + LANES).step_by(LANES) {
                let address = f.offset(&values, &int((dim * 4) as i64));
                f.store(&float_of(floats(LANES), 0.0), &address, 64);
            }
        });
        f.for_each(&int(0), &int(self.rows as i64), LANES as i64, |f, row| {
            let (maxima, factors) = (self.maximum(f, row), self.factor(f, row));
            f.store(&float_of(floats(LANES), NO_MAXIMUM), &maxima, 64);
            f.store(&float_of(floats(LANES), 1.0), &factors, 64);
        });
    }

    /// Multiplies values by what is noted beside them. Factors of 1 change nothing, and are most of them.
    pub fn rescale(&self, f: &mut FunctionText, rows: &Value) {
        f.for_each(&int(0), rows, LANES as i64, |f, first| {
            let at_factors = self.factor(f, first);
            let ones = float_of(floats(LANES), 1.0);
            let factors = f.load(floats(LANES), &at_factors, 64);
            let differ = f.compare("fcmp une", &factors, &ones);
            let differ = any(f, &differ);
            f.when(&differ, |f| {
                let behind = f.add(first, &int(LANES as i64));
                let end = f.min(&behind, rows);
                f.for_each(first, &end, 1, |f, row| {
                    let factor = self.factor(f, row);
                    let factor = f.load(F32, &factor, 4);
                    let factor = f.splat(&factor, LANES);
                    let values = self.values(f, row);
                    multiply(f, &values, self.padded, &factor);
                });
                f.store(&ones, &at_factors, 64);
            });
        });
    }
}

/// Multiplies so many numbers in memory, a multiple of the lanes.
pub fn multiply(f: &mut FunctionText, at: &Value, count: usize, factor: &Value) {
    for element in (0..count).step_by(LANES) {
        let address = f.offset(at, &int((element * 4) as i64));
        let value = f.load(floats(LANES), &address, 64);
        let value = f.binary("fmul", &value, factor);
        f.store(&value, &address, 64);
    }
}

/// Whether one of 16 lanes is set, as a number of turns, 0 or 1.
pub fn once_if_any(f: &mut FunctionText, lanes: &Value) -> Value {
    let any = any(f, lanes);
    f.cast("zext", &any, I64)
}
