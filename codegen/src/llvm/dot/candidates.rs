//! Some of the largest columns of each row of a product, in place of the product: what a step wants of the logits whose tokens are
//! drawn from the likeliest.
//!
//! A thread lists the largest columns of each lane ([`Listed`]). Once it has seen some, few are larger than the least of
//! their lane's list, and only those are put in their place.

use super::super::math::{any, floats, ints};
use super::super::multiply::TILE;
use super::super::text::{FunctionText, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::kept::{KeptRows, NO_TOKEN};
use llmc_ir::abi::Listed;
use std::mem::offset_of;

const _: () = assert!(Listed::LANES == TILE, "a lane of a list is one of a vector");

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

    /// The address of the thread's list of a row.
    fn list(&self, f: &mut FunctionText, row: &Value) -> Value {
        self.rows.output(f, &self.thread, row, size_of::<Listed>())
    }

    /// Forgets all columns.
    pub fn reset(&self, f: &mut FunctionText) {
        self.rows.for_each(f, |f, row| {
            let list = self.list(f, row);
            for depth in 0..Listed::DEPTH {
                let [logits, tokens] = at(f, &list, depth);
                f.store(&float_of(floats(TILE), f64::NEG_INFINITY), &logits, 4);
                f.store(&int_of(ints(TILE), NO_TOKEN), &tokens, 4);
            }
        });
    }

    /// Looks at 16 columns of a row, from `first` on, a multiple of 16. Those of each lane must come in ascending order.
    pub fn keep(&self, f: &mut FunctionText, row: &Value, first: &Value, logits: &Value) {
        let [logits, columns] = self.rows.columns(f, first, logits);
        let list = self.list(f, row);
        let [least, _] = at(f, &list, Listed::DEPTH - 1);
        let least = f.load(floats(TILE), &least, 4);
        let enter = f.compare("fcmp ogt", &logits, &least);
        let some = any(f, &enter);
        f.when(&some, |f| {
            // Each lane's takes the place of the first that is smaller, and that and all behind it, which are smaller too, go down by one.
            let mut falling = [logits.clone(), columns.clone()];
            for depth in 0..Listed::DEPTH {
                let [logits_at, tokens_at] = at(f, &list, depth);
                let listed = [f.load(floats(TILE), &logits_at, 4), f.load(ints(TILE), &tokens_at, 4)];
                let moves = f.compare("fcmp ogt", &logits, &listed[0]);
                for ((falling, listed), at) in falling.iter().zip(&listed).zip([&logits_at, &tokens_at]) {
                    let stays = f.select(&moves, falling, listed);
                    f.store(&stays, at, 4);
                }
                falling = [0, 1].map(|part| f.select(&moves, &listed[part], &falling[part]));
            }
        });
    }
}

/// Where a list has logits and tokens of a depth.
fn at(f: &mut FunctionText, list: &Value, depth: usize) -> [Value; 2] {
    [offset_of!(Listed, logits), offset_of!(Listed, tokens)]
        .map(|part| f.offset(list, &int((part + depth * TILE * 4) as i64)))
}
