//! What a block does with one chunk: scores, what hides some of them, weights, and the values that they weigh.

use super::{Flash, Mask, Place, SegmentRows, rows_per_warp};
use crate::llvm::device::attend::exp2;
use crate::llvm::device::matrix::{self, DEPTH};
use crate::llvm::device::thread::{butterfly, from_lane};
use crate::llvm::text::{F32, FunctionText, I32, Value, float_of, int, int_of};

impl Flash<'_> {
    /// Folds a chunk into maxima, sums and weighted values.
    pub(super) fn chunk(
        &self,
        f: &mut FunctionText,
        (chunk, mask): (&Value, Mask),
        outputs: &[Value],
        kept: Option<&[Vec<Value>]>,
    ) -> Vec<Value> {
        let rows = 2 * self.row_tiles();
        let stage = self.stage(f, chunk);
        let mut scores = self.scores(f, &stage, kept);
        if mask == Mask::Needed {
            self.hide(f, chunk, &mut scores);
        }
        let scale = float_of(F32, self.attend.attention.scale.get() * std::f64::consts::LOG2_E);
        let place = self.place(f);
        let place_of_sums = self.sums(f, &place);
        let ty = F32.with_lanes(rows);
        let sums = f.load(ty, &place_of_sums, 4 * rows);
        let maxima = self.kept_maxima(f);
        let (mut next_maxima, mut next_sums, mut factors) = (maxima.clone(), sums.clone(), Vec::new());
        for row in 0..rows {
            let before = &f.extract(&maxima, row);
            let own: Vec<Value> = self.of_row(row).map(|at| scores[at].clone()).collect();
            let largest = own.iter().fold(before.clone(), |a, b| f.intrinsic("maxnum", &[a, b.clone()]));
            let maximum = butterfly(f, &largest, &[1, 2], |f, a, b| f.intrinsic("maxnum", &[a.clone(), b.clone()]));
            let scaled = f.binary("fmul", &maximum, &scale);
            let negated = f.negate(&scaled);
            // Exactly 0 where the maximum stays, also where no position was seen yet.
            let before = f.binary("fsub", before, &maximum);
            let before = f.binary("fmul", &before, &scale);
            let factor = exp2(f, &before);
            let sum = f.extract(&sums, row);
            let mut sum = f.binary("fmul", &sum, &factor);
            for (at, score) in self.of_row(row).zip(&own) {
                let lowered = f.intrinsic("fma", &[score.clone(), scale.clone(), negated.clone()]);
                scores[at] = exp2(f, &lowered);
                sum = f.binary("fadd", &sum, &scores[at]);
            }
            next_maxima = f.insert(&next_maxima, &maximum, row);
            next_sums = f.insert(&next_sums, &sum, row);
            factors.push(factor);
        }
        let place = self.place(f);
        let place_of_sums = self.sums(f, &place);
        f.store(&next_sums, &place_of_sums, 4 * rows);
        self.keep_maxima(f, &place, &next_maxima);
        self.weigh(f, &stage, &scores, &factors, outputs)
    }

    /// Where the scores of a lane's row are among all of its: `[16 rows][8 positions][2 rows][2 positions]`.
    pub(super) fn of_row(&self, row: usize) -> impl Iterator<Item = usize> + use<> {
        let eights = self.positions() / 8;
        let start = row / 2 * eights * 4 + row % 2 * 2;
        (0..eights).flat_map(move |eight| [start + eight * 4, start + eight * 4 + 1])
    }

    pub(super) fn scores(&self, f: &mut FunctionText, stage: &Value, kept: Option<&[Vec<Value>]>) -> Vec<Value> {
        let place = &self.place(f);
        let addresses = self.query_addresses(f, place);
        let eights = self.positions() / 8;
        let mut scores = vec![float_of(F32, 0.0); self.row_tiles() * eights * 4];
        // Pair t of 16 elements, position g of 8; which half of a line those 8 are in is permuted.
        let bit = f.binary("lshr", &place.t, &int(1));
        let line = f.scale(&place.t, 64);
        let column = f.scale(&place.g, 4);
        let start = f.add(&line, &column);
        let halves = [0, 1].map(|half| {
            let half = f.binary("xor", &bit, &int(half));
            let half = f.scale(&half, 32);
            let start = f.add(&start, &half);
            f.offset(stage, &start)
        });
        for depth in 0..self.depths() {
            if kept.is_none() && depth % 2 == 0 {
                f.call("llvm.nvvm.bar.warp.sync", None, &[int_of(I32, -1)]);
            }
            let query = match kept {
                Some(kept) => kept[depth].clone(),
                None => self.query(f, &addresses, depth),
            };
            for eight in 0..eights {
                let block = eight / 4 * 2 * self.attend.half_bytes;
                let tile = eight / 2 % 2 * (self.attend.padded / 32) * 1024;
                let start = block + tile + depth / 2 * 1024 + depth % 2 * 512;
                let key = [0, 256].map(|pairs| {
                    let address = f.offset(&halves[eight % 2], &int((start + pairs) as i64));
                    f.load(I32, &address, 4)
                });
                for (tile, query) in query.chunks_exact(4).enumerate() {
                    let at = (tile * eights + eight) * 4;
                    let query = [&query[0], &query[1], &query[2], &query[3]];
                    let next = matrix::multiply(f, query, [&key[0], &key[1]], &scores[at..at + 4]);
                    scores.splice(at..at + 4, next);
                }
            }
        }
        scores
    }

    /// Lets positions that a row does not see have no weight. Which rows the lane has is found anew: there is no register to
    /// spare for what does not change from chunk to chunk.
    pub(super) fn hide(&self, f: &mut FunctionText, chunk: &Value, scores: &mut [Value]) {
        let Place { first, warp, g, t, .. } = self.place(f);
        let SegmentRows { begin, after, shift, .. } = self.segment_rows(f);
        let group = self.attend.group() as i64;
        let warp = f.scale(&warp, rows_per_warp(self.attend) as i64);
        let own = f.add(&warp, &g);
        let columns = f.scale(&t, 2);
        let columns = f.cast("trunc", &columns, I32);
        let start = f.scale(chunk, self.positions() as i64);
        let start = f.add(&start, &columns);
        for row in 0..2 * self.row_tiles() {
            let number = f.add(&own, &int(8 * row as i64));
            let token = f.binary("udiv", &number, &int(group));
            let token = f.add(&first, &token);
            let token = f.cast("trunc", &token, I32);
            let not_before = f.compare("icmp sge", &token, &begin);
            let not_after = f.compare("icmp slt", &token, &after);
            let is_own = f.binary("and", &not_before, &not_after);
            let position = f.add(&token, &shift);
            let limit = f.select(&is_own, &position, &int_of(I32, -1));
            // Relative to this lane's first position.
            let newest = f.binary("sub", &limit, &start);
            let oldest = self.attend.attention.window.map(|window| f.add(&newest, &int_of(I32, 1 - window as i64)));
            for (number, at) in self.of_row(row).enumerate() {
                let position = int_of(I32, (number / 2 * 8 + number % 2) as i64);
                let mut seen = f.compare("icmp sge", &newest, &position);
                if let Some(oldest) = &oldest {
                    let not_older = f.compare("icmp sle", oldest, &position);
                    seen = f.binary("and", &seen, &not_older);
                }
                scores[at] = f.select(&seen, &scores[at], &float_of(F32, f64::NEG_INFINITY));
            }
        }
    }

    /// `O^T = O^T * factors + V^T P^T`: per 16 elements and 8 rows, elements `2g` and `2g + 1` of rows `2t` and `2t + 1`.
    pub(super) fn weigh(
        &self,
        f: &mut FunctionText,
        stage: &Value,
        weights: &[Value],
        factors: &[Value],
        outputs: &[Value],
    ) -> Vec<Value> {
        let rows = factors.len();
        let place = self.place(f);
        let factors = self.for_columns(f, &place.t, factors);
        let mut outputs: Vec<Value> = outputs.to_vec();
        for (at, output) in outputs.iter_mut().enumerate() {
            *output = f.binary("fmul", output, &factors[at / 4 % rows][at % 2]);
        }
        let columns = matrix::place_of_columns(f, &place.g, &place.t);
        let values = f.offset(stage, &columns);
        for depth in 0..self.positions() / DEPTH {
            let pairs: Vec<[[Value; 2]; 2]> = (0..rows)
                .map(|row| {
                    [0, 1].map(|half| {
                        let at = (row / 2 * (self.positions() / 8) + 2 * depth + half) * 4 + row % 2 * 2;
                        matrix::pack_in_parts(f, &weights[at], &weights[at + 1])
                    })
                })
                .collect();
            for tile in 0..self.depths() {
                let block = (depth / 2 * 2 + 1) * self.attend.half_bytes;
                let address = f.offset(&values, &int((block + tile * 1024 + depth % 2 * 512) as i64));
                let a = matrix::load_columns(f, &address);
                for (row, b) in pairs.iter().enumerate() {
                    let at = (tile * rows + row) * 4;
                    let a = [&a[0], &a[1], &a[2], &a[3]];
                    for (first, second) in b[0].iter().zip(&b[1]) {
                        let next = matrix::multiply(f, a, [first, second], &outputs[at..at + 4]);
                        outputs.splice(at..at + 4, next);
                    }
                }
            }
        }
        outputs
    }

    /// From values of rows g those of rows `2t` and `2t + 1`.
    pub(super) fn for_columns(&self, f: &mut FunctionText, t: &Value, values: &[Value]) -> Vec<[Value; 2]> {
        let lane = f.scale(t, 8);
        let lane = f.cast("trunc", &lane, I32);
        let lanes = [lane.clone(), f.add(&lane, &int_of(I32, 4))];
        values.iter().map(|value| lanes.each_ref().map(|lane| from_lane(f, value, lane))).collect()
    }
}
