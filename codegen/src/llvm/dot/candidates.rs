//! Some of the largest columns of each row of a product, in place of the product: what a step wants of the logits whose tokens are
//! drawn from the likeliest.
//!
//! A thread lists the largest columns of each lane ([`Listed`]). Once it has seen some, few are larger than the least of
//! their lane's list, and only those are put in their place.

use super::super::math::{floats, ints};
use super::super::multiply::TILE;
use super::super::text::{FunctionText, I16, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::kept::{KeptRows, NO_TOKEN};
use llmc_ir::abi::Listed;
use std::mem::offset_of;

/// What a thread keeps of the rows of a product.
#[derive(Clone)]
pub struct Candidates {
    rows: KeptRows,
    thread: Value,
}

impl Candidates {
    /// Of a step with so many rows.
    pub fn new(context: &KernelContext<'_>, params: &KernelParams, rows: &Value) -> Result<Candidates, String> {
        Ok(Candidates { rows: KeptRows::new(context, params, rows)?, thread: params.thread.clone() })
    }

    /// Where the thread's list of a row has logits and tokens of a depth.
    fn at(&self, f: &mut FunctionText, row: &Value, depth: usize) -> [Value; 2] {
        let list = self.rows.output(f, &self.thread, row, size_of::<Listed>());
        [offset_of!(Listed, logits), offset_of!(Listed, tokens)]
            .map(|part| f.offset(&list, &int((part + depth * TILE * 4) as i64)))
    }

    /// Forgets all columns.
    pub fn reset(&self, f: &mut FunctionText) {
        self.rows.for_each(f, |f, row| {
            for depth in 0..Listed::DEPTH {
                let [logits, tokens] = self.at(f, row, depth);
                f.store(&float_of(floats(TILE), f64::NEG_INFINITY), &logits, 4);
                f.store(&int_of(ints(TILE), NO_TOKEN), &tokens, 4);
            }
        });
    }

    /// Looks at 16 columns of a row, from `first` on, a multiple of 16. Those of each lane must come in ascending order.
    pub fn keep(&self, f: &mut FunctionText, row: &Value, first: &Value, logits: &Value) {
        let [logits, columns] = self.rows.columns(f, first, logits);
        let [least, _] = self.at(f, row, Listed::DEPTH - 1);
        let least = f.load(floats(TILE), &least, 4);
        let enter = f.compare("fcmp ogt", &logits, &least);
        let enter = f.cast("bitcast", &enter, I16);
        let some = f.compare("icmp ne", &enter, &int_of(I16, 0));
        f.when(&some, |f| {
            // Each lane's takes the place of the first that is smaller, and from there on all go down by one.
            let mut falling = [logits.clone(), columns.clone()];
            let mut moves: Option<Value> = None;
            for depth in 0..Listed::DEPTH {
                let [logits_at, tokens_at] = self.at(f, row, depth);
                let listed = [f.load(floats(TILE), &logits_at, 4), f.load(ints(TILE), &tokens_at, 4)];
                let above = f.compare("fcmp ogt", &falling[0], &listed[0]);
                let moved = match &moves {
                    Some(moves) => f.binary("or", moves, &above),
                    None => above,
                };
                for ((falling, listed), at) in falling.iter().zip(&listed).zip([&logits_at, &tokens_at]) {
                    let stays = f.select(&moved, falling, listed);
                    f.store(&stays, at, 4);
                }
                falling = [0, 1].map(|part| f.select(&moved, &listed[part], &falling[part]));
                moves = Some(moved);
            }
        });
    }
}
