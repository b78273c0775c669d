//! The softmax of attention: a chunk's scores become weights relative to a maximum of their row.
//!
//! The maximum is one of the scores so far. It stays until a score exceeds it by so much that weights would grow large: most
//! chunks raise none, and then nothing before them need be multiplied. Sums of weights stay in 16 lanes until the end of a
//! row.
//!
//! Some rows are taken together, so that their chains of operations overlap; each row's own order of operations does not
//! depend on its neighbours.

use super::state::{State, multiply, once_if_any};
use crate::llvm::math::{Fma, exp2, exp2_within_bf16, floats, fma, larger, max_lanes, pair_to_bf16};
use crate::llvm::rows::LANES;
use crate::llvm::text::{
    F32, FunctionText, I32, I64, Instructions, ModuleText, PTR, Role, Value, float_of, int, int_of,
};
use llmc_ir::op::Attention;
use llmc_ir::plan::KV_BLOCK_POSITIONS;

/// Rows that are taken together at most: as many as leave registers for what they share.
pub const TOGETHER: usize = 4;
/// A maximum is raised where a score exceeds it by more than this power of 2.
const SLACK: f64 = 8.0;

/// What becomes of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// f32 in the place of scores.
    Wide,
    /// bf16 as tiles want them: those of 32 positions are in the place of the first 16 scores.
    Halves,
}

/// The softmax of one kernel.
pub struct Softmax {
    attention: Attention,
    group: usize,
    padded: usize,
    fused: Fma,
    weights: Weights,
    /// Rows that the state has, and that are taken together.
    rows: usize,
    together: usize,
    score_stride: usize,
}

/// A chunk, and the rows that see it.
pub struct Chunk<'a> {
    /// Its first position in the sequence.
    pub start: &'a Value,
    /// Scores per row.
    pub width: &'a Value,
    /// Position of the first token.
    pub position: &'a Value,
}

/// A row while code is written.
struct Row {
    scores: Value,
    number: Value,
}

impl Softmax {
    /// For rows of that many heads per key, of which items have `most`. The state and the scores have room for a multiple of
    /// [`TOGETHER`] rows.
    pub fn new(
        attention: Attention,
        (padded, fused, weights): (usize, Fma, Weights),
        (most, rows): (usize, usize),
        score_stride: usize,
    ) -> Softmax {
        // As many that the turns are as few as they can be, and about equal.
        let together = most.div_ceil(most.div_ceil(TOGETHER));
        let group = attention.heads / attention.kv_heads;
        Softmax { attention, group, padded, fused, weights, rows, together, score_stride }
    }

    /// Turns that so many rows take.
    pub fn turns(&self, f: &mut FunctionText, rows: &Value) -> Value {
        f.div_ceil(rows, &int(self.together as i64))
    }

    /// Turns a chunk's scores into weights. What lies behind the last row may be taken for rows too.
    pub fn soften(&self, f: &mut FunctionText, scores: &Value, state: &State, chunk: &Chunk<'_>, rows: &Value) {
        let turns = self.turns(f, rows);
        f.for_each(&int(0), &turns, 1, |f, turn| self.turn(f, scores, state, chunk, turn));
    }

    /// The name of a function `(scores: ptr, state: ptr, start: i64, width: i64, position: i64, turn: i64)` that takes one turn
    /// of a chunk.
    pub fn function(&self, module: &mut ModuleText, instructions: Instructions) -> String {
        let Softmax { attention, group, padded, rows, together, score_stride, .. } = self;
        let scale = attention.scale.get().to_bits();
        let window = attention.window.map_or(String::new(), |window| format!("_w{window}"));
        let name = format!("soften_g{group}_d{padded}_r{rows}_t{together}_c{score_stride}_s{scale:x}{window}");
        module.add_once(&name, || {
            let params =
                [(PTR, "scores"), (PTR, "state"), (I64, "start"), (I64, "width"), (I64, "position"), (I64, "turn")];
            let (f, values) = FunctionText::new(Role::Kernel, &name, &params);
            let mut f = f.with_instructions(instructions);
            let [scores, state, start, width, position, turn] = values.try_into().expect("six parameters");
            let state = State::new(state, self.rows, self.padded);
            let chunk = Chunk { start: &start, width: &width, position: &position };
            self.turn(&mut f, &scores, &state, &chunk, &turn);
            f.finish()
        });
        name
    }

    fn turn(&self, f: &mut FunctionText, scores: &Value, state: &State, chunk: &Chunk<'_>, turn: &Value) {
        let first = f.scale(turn, self.together as i64);
        let rows: Vec<Row> = (0..self.together).map(|i| self.row(f, scores, &first, i)).collect();
        let largest = self.largest_scores(f, chunk, &rows);
        let maxima = state.maximum(f, &first);
        let maxima = f.load(F32.with_lanes(rows.len()), &maxima, 4);
        let lowered_by = self.lowered_by(f, &maxima);
        let above: Vec<Value> =
            largest.iter().zip(&lowered_by).map(|(largest, by)| self.lowered(f, largest, by)).collect();
        let most = above[1..].iter().fold(above[0].clone(), |most, above| larger(f, above, &most));
        let exceeds = f.compare("fcmp ogt", &most, &float_of(most.ty, SLACK));
        let times = once_if_any(f, &exceeds);
        let maxima = f.fold(&int(0), &times, 1, &[maxima], |f, _, maxima| {
            vec![self.raise(f, state, &rows, &largest, &maxima[0])]
        });
        let lowered_by = self.lowered_by(f, &maxima[0]);
        self.weigh(f, state, chunk, &rows, &lowered_by);
    }

    fn row(&self, f: &mut FunctionText, scores: &Value, first: &Value, i: usize) -> Row {
        let number = f.add(first, &int(i as i64));
        let scores = f.element(scores, &number, self.score_stride as i64);
        Row { scores, number }
    }

    /// A row's position in the sequence.
    fn position(&self, f: &mut FunctionText, chunk: &Chunk<'_>, row: &Row) -> Value {
        let token = f.binary("udiv", &row.number, &int(self.group as i64));
        f.add(chunk.position, &token)
    }

    /// What scores are multiplied by before weights are powers of 2.
    fn scale(&self) -> f64 {
        self.attention.scale.get() * std::f64::consts::LOG2_E
    }

    /// Each row's maximum, negated, in all lanes.
    fn lowered_by(&self, f: &mut FunctionText, maxima: &Value) -> Vec<Value> {
        let negated = f.negate(maxima);
        let each = (0..self.together).map(|i| {
            let one = f.extract(&negated, i);
            f.splat(&one, LANES)
        });
        each.collect()
    }

    /// Exponents of weights.
    fn lowered(&self, f: &mut FunctionText, scores: &Value, by: &Value) -> Value {
        fma(f, self.fused, scores, &float_of(scores.ty, self.scale()), by)
    }

    /// The largest scores of each row in 16 lanes; those of positions that a row does not see become minus infinity. A NaN
    /// is not larger; it reaches the sum through its weight.
    fn largest_scores(&self, f: &mut FunctionText, chunk: &Chunk<'_>, rows: &[Row]) -> Vec<Value> {
        // Vectors up to here are seen as a whole by the first row, and by those behind it.
        let clear = match self.attention.window {
            Some(_) => int(0),
            None => {
                let position = self.position(f, chunk, &rows[0]);
                let seen = f.binary("sub nsw", &position, chunk.start);
                let seen = f.add(&seen, &int(1));
                let seen = f.max(&seen, &int(0));
                let seen = f.min(&seen, chunk.width);
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
        f.fold(&clear, chunk.width, LANES as i64, &largest, |f, column, largest| {
            let ints = I32.with_lanes(LANES);
            let start = f.add(chunk.start, column);
            let start = f.cast("trunc", &start, I32);
            let start = f.splat(&start, LANES);
            let lanes = f.lane_numbers(ints);
            let key = f.binary("add", &start, &lanes);
            let each = rows.iter().zip(largest).map(|(row, largest)| {
                let address = f.element(&row.scores, column, 4);
                let score = f.load(floats(LANES), &address, 64);
                let own = self.position(f, chunk, row);
                let own = f.cast("trunc", &own, I32);
                let own = f.splat(&own, LANES);
                let mut visible = f.compare("icmp sle", &key, &own);
                if let Some(window) = self.attention.window {
                    let reach = f.binary("add", &key, &int_of(ints, window as i64));
                    let near = f.compare("icmp sgt", &reach, &own);
                    visible = f.binary("and", &visible, &near);
                }
                let score = f.select(&visible, &score, &minimum);
                f.store(&score, &address, 64);
                larger(f, &score, largest)
            });
            each.collect()
        })
    }

    /// Raises the maxima of rows that a score exceeds by too much. Returns all.
    fn raise(&self, f: &mut FunctionText, state: &State, rows: &[Row], largest: &[Value], maxima: &Value) -> Value {
        let mut scores = Value { text: "poison".into(), ty: maxima.ty };
        for (i, largest) in largest.iter().enumerate() {
            let largest = max_lanes(f, largest);
            scores = f.insert(&scores, &largest, i);
        }
        let by = f.negate(maxima);
        let above = self.lowered(f, &scores, &by);
        let exceeds = f.compare("fcmp ogt", &above, &float_of(above.ty, SLACK));
        let scaled = f.binary("fmul", &scores, &float_of(scores.ty, self.scale()));
        let raised = f.select(&exceeds, &scaled, maxima);
        let lowered = f.binary("fsub", maxima, &raised);
        let factors = exp2(f, self.fused, &lowered);
        let first = &rows[0].number;
        let (at_maxima, at_factors) = (state.maximum(f, first), state.factor(f, first));
        f.store(&raised, &at_maxima, 4);
        f.store(&factors, &at_factors, 4);
        for (i, row) in rows.iter().enumerate() {
            let factor = f.extract(&factors, i);
            let factor = f.splat(&factor, LANES);
            let sums = state.sums(f, &row.number);
            multiply(f, &sums, LANES, &factor);
        }
        raised
    }

    /// Weights of all positions in the place of scores, and their sums.
    fn weigh(&self, f: &mut FunctionText, state: &State, chunk: &Chunk<'_>, rows: &[Row], lowered_by: &[Value]) {
        let at_sums: Vec<Value> = rows.iter().map(|row| state.sums(f, &row.number)).collect();
        let before: Vec<Value> = at_sums.iter().map(|at| f.load(floats(LANES), at, 64)).collect();
        let step = match self.weights {
            Weights::Wide => LANES,
            Weights::Halves => KV_BLOCK_POSITIONS,
        };
        let sums = f.fold(&int(0), chunk.width, step as i64, &before, |f, column, sums| {
            let each = rows.iter().zip(lowered_by).zip(sums).map(|((row, by), sum)| {
                let at = f.element(&row.scores, column, 4);
                let exponents = |f: &mut FunctionText, lane: usize| {
                    let address = f.offset(&at, &int((lane * 4) as i64));
                    let scores = f.load(floats(LANES), &address, 64);
                    self.lowered(f, &scores, by)
                };
                match self.weights {
                    Weights::Wide => {
                        let exponents = exponents(f, 0);
                        let weights = exp2(f, self.fused, &exponents);
                        f.store(&weights, &at, 64);
                        f.binary("fadd", sum, &weights)
                    }
                    Weights::Halves => {
                        let [low, high] = [0, LANES].map(|lane| {
                            let exponents = exponents(f, lane);
                            exp2_within_bf16(f, &exponents)
                        });
                        let pair = pair_to_bf16(f, &low, &high);
                        f.store(&pair, &at, 64);
                        let sum = f.binary("fadd", sum, &low);
                        f.binary("fadd", &sum, &high)
                    }
                }
            });
            each.collect()
        });
        for (at, sum) in at_sums.iter().zip(&sums) {
            f.store(sum, at, 64);
        }
    }
}
