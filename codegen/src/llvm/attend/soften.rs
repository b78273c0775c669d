//! The softmax of attention: a chunk's scores become weights relative to the running maximum of their row.
//!
//! Some rows are taken together, so that their chains of operations overlap; each row's own order of operations does not
//! depend on its neighbours.

use super::Attend;
use crate::llvm::KernelContext;
use crate::llvm::math::{Fma, exp2_of_nonpositive, floats, fma, larger, max_lanes, sum_lanes};
use crate::llvm::rows::LANES;
use crate::llvm::text::{F32, FunctionText, I32, Value, float_of, int, int_of};
use llmc_ir::plan::KV_BLOCK_POSITIONS;

/// Rows that are taken together at most: as many as leave registers for what they share.
const TOGETHER: usize = 4;

/// A chunk, and the rows that see it.
struct Chunk<'a> {
    /// Its first position in the sequence.
    start: &'a Value,
    /// Scores per row.
    width: Value,
    /// Position of the first token.
    position: &'a Value,
    fused: Fma,
    /// What scores are multiplied by before weights are powers of 2.
    scale: f64,
}

/// A row while code is written.
struct Row {
    scores: Value,
    state: Value,
    number: Value,
    /// Its position in the sequence, and that in every lane.
    position: Value,
    own: Value,
}

impl Attend {
    /// Turns a chunk's scores into weights relative to the running maximum, and rescales the state to it.
    pub(super) fn soften(
        &self,
        f: &mut FunctionText,
        context: &KernelContext<'_>,
        start: &Value,
        blocks: &Value,
        position: &Value,
        rows: &Value,
    ) {
        let scale = self.attention.scale.get() * std::f64::consts::LOG2_E;
        let width = f.scale(blocks, KV_BLOCK_POSITIONS as i64);
        let chunk = Chunk { start, width, position, fused: context.registers.fma, scale };
        let together = (2..=TOGETHER).rev().find(|together| self.rows.most.is_multiple_of(*together));
        let together = together.unwrap_or(TOGETHER.min(self.rows.most));
        let step = int(together as i64);
        let turns = f.binary("sdiv", rows, &step);
        f.for_each(&int(0), &turns, 1, |f, turn| {
            let first = f.scale(turn, together as i64);
            self.soften_rows(f, &chunk, &first, together);
        });
        if !self.rows.unit.is_multiple_of(together) {
            let first = f.scale(&turns, together as i64);
            f.for_each(&first, rows, 1, |f, row| self.soften_rows(f, &chunk, row, 1));
        }
    }

    fn soften_rows(&self, f: &mut FunctionText, chunk: &Chunk<'_>, first: &Value, count: usize) {
        let rows: Vec<Row> = (0..count).map(|i| self.row(f, chunk, first, i)).collect();
        let largest = self.largest_scores(f, chunk, &rows);
        // The maxima of all rows, and what weights so far are multiplied with for them.
        let lanes = F32.with_lanes(count);
        let mut before = Value { text: "poison".into(), ty: lanes };
        let mut maxima = before.clone();
        for (i, (row, largest)) in rows.iter().zip(&largest).enumerate() {
            let at_maximum = f.offset(&row.state, &int((self.padded * 4) as i64));
            let old = f.load(F32, &at_maximum, 4);
            let largest = max_lanes(f, largest);
            let scaled = f.binary("fmul", &largest, &float_of(F32, chunk.scale));
            let maximum = larger(f, &scaled, &old);
            f.store(&maximum, &at_maximum, 4);
            before = f.insert(&before, &old, i);
            maxima = f.insert(&maxima, &maximum, i);
        }
        let lowered = f.binary("fsub", &before, &maxima);
        let factors = exp2_of_nonpositive(f, chunk.fused, &lowered);
        let sums = self.weights(f, chunk, &rows, &maxima);
        for (i, (row, sums)) in rows.iter().zip(&sums).enumerate() {
            let factor = f.extract(&factors, i);
            let sum = sum_lanes(f, sums);
            let at_sum = f.offset(&row.state, &int((self.padded * 4 + 4) as i64));
            let old = f.load(F32, &at_sum, 4);
            let sum = fma(f, chunk.fused, &old, &factor, &sum);
            f.store(&sum, &at_sum, 4);
            let factor = f.splat(&factor, LANES);
            for dim in (0..self.padded).step_by(LANES) {
                let address = f.offset(&row.state, &int((dim * 4) as i64));
                let value = f.load(floats(LANES), &address, 64);
                let value = f.binary("fmul", &value, &factor);
                f.store(&value, &address, 64);
            }
        }
    }

    fn row(&self, f: &mut FunctionText, chunk: &Chunk<'_>, first: &Value, i: usize) -> Row {
        let number = f.add(first, &int(i as i64));
        let token = f.binary("sdiv", &number, &int(self.group as i64));
        let position = f.add(chunk.position, &token);
        let own = f.cast("trunc", &position, I32);
        let own = f.splat(&own, LANES);
        let scores = f.element(&self.scores, &number, self.score_stride as i64);
        let state = f.element(&self.state, &number, self.state_stride as i64);
        Row { scores, state, number, position, own }
    }

    /// The largest scores of each row in 16 lanes; those of positions that a row does not see become minus infinity. A NaN
    /// is not larger; it reaches the sum through its weight.
    fn largest_scores(&self, f: &mut FunctionText, chunk: &Chunk<'_>, rows: &[Row]) -> Vec<Value> {
        // Vectors up to here are seen as a whole by the first row, and by those behind it.
        let clear = match self.attention.window {
            Some(_) => int(0),
            None => {
                let seen = f.binary("sub nsw", &rows[0].position, chunk.start);
                let seen = f.add(&seen, &int(1));
                let seen = f.max(&seen, &int(0));
                let seen = f.min(&seen, &chunk.width);
                f.binary("and", &seen, &int(-(LANES as i64)))
            }
        };
        let minimum = float_of(floats(LANES), f64::NEG_INFINITY);
        let none = vec![minimum.clone(); rows.len()];
        let largest = f.fold(&int(0), &clear, LANES as i64, &none, |f, column, largest| {
            let each = rows.iter().zip(largest).map(|(row, largest)| {
                let address = f.element(&row.scores, column, 4);
                let score = f.load(floats(LANES), &address, 64);
                larger(f, &score, largest)
            });
            each.collect()
        });
        f.fold(&clear, &chunk.width, LANES as i64, &largest, |f, column, largest| {
            let ints = I32.with_lanes(LANES);
            let start = f.add(chunk.start, column);
            let start = f.cast("trunc", &start, I32);
            let start = f.splat(&start, LANES);
            let lanes = f.lane_numbers(ints);
            let key = f.binary("add", &start, &lanes);
            let each = rows.iter().zip(largest).map(|(row, largest)| {
                let address = f.element(&row.scores, column, 4);
                let score = f.load(floats(LANES), &address, 64);
                let mut visible = f.compare("icmp sle", &key, &row.own);
                if let Some(window) = self.attention.window {
                    let reach = f.binary("add", &key, &int_of(ints, window as i64));
                    let near = f.compare("icmp sgt", &reach, &row.own);
                    visible = f.binary("and", &visible, &near);
                }
                let score = f.select(&visible, &score, &minimum);
                f.store(&score, &address, 64);
                larger(f, &score, largest)
            });
            each.collect()
        })
    }

    /// Weights of all positions in the place of scores, or where tiles read them. Returns each row's sums in 16 lanes.
    fn weights(&self, f: &mut FunctionText, chunk: &Chunk<'_>, rows: &[Row], maxima: &Value) -> Vec<Value> {
        let lowered_by: Vec<Value> = (0..rows.len())
            .map(|i| {
                let maximum = f.extract(maxima, i);
                let negated = f.negate(&maximum);
                f.splat(&negated, LANES)
            })
            .collect();
        let scale = float_of(floats(LANES), chunk.scale);
        let zeros = vec![float_of(floats(LANES), 0.0); rows.len()];
        f.fold(&int(0), &chunk.width, LANES as i64, &zeros, |f, column, sums| {
            let each = rows.iter().zip(&lowered_by).zip(sums).map(|((row, by), sum)| {
                let address = f.element(&row.scores, column, 4);
                let score = f.load(floats(LANES), &address, 64);
                let lowered = fma(f, chunk.fused, &score, &scale, by);
                let weight = exp2_of_nonpositive(f, chunk.fused, &lowered);
                match &self.by_tiles {
                    None => f.store(&weight, &address, 64),
                    Some(memory) => memory.store_weights(f, &row.number, column, &weight),
                }
                f.binary("fadd", sum, &weight)
            });
            each.collect()
        })
    }
}
