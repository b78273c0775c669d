//! What a warp does with a block of the cache: loads, scores, what hides some of them, and the values that they weigh.

use super::{Decode, Seen};
use crate::llvm::device::attend::exp2;
use crate::llvm::device::matrix::{self, Lifetime, PANEL};
use crate::llvm::device::thread::{WARP, butterfly, from_lane};
use crate::llvm::text::{F32, FunctionText, I16, I32, Value, float_of, int, int_of};

/// Bytes of a warp's pairs for eight query heads and 32 elements.
const QUERY_BYTES: usize = WARP * 16;

/// The pairs of a lane per eight query heads and 32 elements of the head.
pub(super) enum Queries {
    InRegisters(Vec<Vec<Vec<Value>>>),
    /// Where the lane's lie, [`QUERY_BYTES`] from one to the next.
    InShared(Value),
}

impl Decode<'_> {
    /// The query heads g and, if there are more than 8, `g + 8`.
    pub(super) fn queries(
        &self,
        f: &mut FunctionText,
        [row, kv_head, first_head]: [&Value; 3],
        [warp, g, t]: [&Value; 3],
    ) -> Queries {
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
        let heads: Vec<Vec<_>> = heads.collect();
        if self.keeps_queries() {
            return Queries::InRegisters(heads);
        }
        // Each lane reads what it wrote, where its warp's results will be.
        let lane = f.scale(g, 4);
        let lane = f.add(&lane, t);
        let own = self.result_of_warp(f, warp);
        let own = f.element(&own, &lane, 16);
        for (number, pairs) in heads.iter().flatten().enumerate() {
            let to = f.offset(&own, &int((number * QUERY_BYTES) as i64));
            matrix::store_four(f, [0, 1, 2, 3].map(|pair| &pairs[pair]), &to);
        }
        Queries::InShared(own)
    }

    fn pairs(&self, f: &mut FunctionText, queries: &Queries, eight: usize, group: usize) -> Vec<Value> {
        match queries {
            Queries::InRegisters(heads) => heads[eight][group].clone(),
            Queries::InShared(own) => {
                let number = eight * (self.attend.padded / PANEL) + group;
                let from = f.offset(own, &int((number * QUERY_BYTES) as i64));
                matrix::load_pairs(f, &from, Lifetime::Written)
            }
        }
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
    pub(super) fn scores(
        &self,
        f: &mut FunctionText,
        queries: &Queries,
        keys: &[Vec<Vec<Value>>],
        eights: usize,
    ) -> Vec<Vec<Value>> {
        let zero = float_of(F32, 0.0);
        let mut products = vec![vec![zero.clone(); 4]; 4];
        let nothing = vec![int_of(I32, 0); 4];
        for (group, keys) in keys.iter().enumerate() {
            let first = self.pairs(f, queries, 0, group);
            let second = if eights > 1 { self.pairs(f, queries, 1, group) } else { nothing.clone() };
            for (depth, j) in [0, 2].into_iter().flat_map(|depth| (0..4).map(move |j| (depth, j))) {
                let a = [&first[depth], &second[depth], &first[depth + 1], &second[depth + 1]];
                let b = [&keys[depth][j], &keys[depth + 1][j]];
                products[j] = matrix::multiply(f, a, b, &products[j]);
            }
        }
        // Product j has the positions 8t + j and 8t + 4 + j.
        (0..eights)
            .map(|eight| (0..8).map(|position| products[position % 4][2 * eight + position / 4].clone()).collect())
            .collect()
    }

    /// Scores of positions that the row does not see are minus infinity; `start` is the lane's first position.
    pub(super) fn hide(
        &self,
        f: &mut FunctionText,
        seen: &Seen,
        start: &Value,
        scores: Vec<Vec<Value>>,
    ) -> Vec<Vec<Value>> {
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
    pub(super) fn fold_block(
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
}

/// Per 32 elements (positions) of a block and its lane's four pairs: four columns each.
pub(super) fn load_all(f: &mut FunctionText, from: &Value, groups: usize, group_bytes: usize) -> Vec<Vec<Vec<Value>>> {
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

/// From the value of head g those of heads `2t` and `2t + 1`.
fn for_columns(f: &mut FunctionText, t: &Value, value: &Value) -> [Value; 2] {
    let lane = f.scale(t, 8);
    let lane = f.cast("trunc", &lane, I32);
    let next = f.add(&lane, &int_of(I32, 4));
    [lane, next].map(|lane| from_lane(f, value, &lane))
}
