//! Values of which only some bits were ever written: structures with padding or unset bit fields, as code that no compiler
//! optimised copies them in words and takes them apart.

use super::warp::{Mask, Warp, lanes};
use crate::instruction::{IntegerOp, Register};
use std::collections::HashMap;

/// Which bits hold something, for registers that were written in part, per lane.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partial(HashMap<(Register, usize), u64>);

impl Partial {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The bits that hold something.
    pub fn bits(&self, register: Register, lane: usize) -> u64 {
        self.0.get(&(register, lane)).copied().unwrap_or(0)
    }

    pub fn insert(&mut self, register: Register, lane: usize, bits: u64) {
        self.0.insert((register, lane), bits);
    }

    /// Nothing of the register holds something in lanes of `mask`.
    #[inline]
    pub fn forget(&mut self, register: Register, mask: Mask) {
        if !self.0.is_empty() {
            for lane in lanes(mask) {
                self.0.remove(&(register, lane));
            }
        }
    }
}

/// Copies a register that was not written whole.
#[cold]
pub(super) fn copy(warp: &mut Warp, d: Register, a: Register, mask: Mask) {
    let value = warp.get(a);
    let known: [u64; 32] = std::array::from_fn(|lane| warp.known(a, lane));
    warp.set(d, &value, mask, 0);
    for lane in lanes(mask) {
        warp.mark_bits(d, lane, known[lane]);
    }
}

/// A conjunction or disjunction with something that was not written whole: bits that one side decides are known.
#[cold]
pub(super) fn logic(warp: &mut Warp, op: IntegerOp, d: Register, [a, b]: [Register; 2], mask: Mask) {
    let (x, y) = (warp.get(a), warp.get(b));
    let known: [u64; 32] = std::array::from_fn(|lane| {
        let [of_x, of_y] = [a, b].map(|register| warp.known(register, lane));
        // What decides is a zero in a conjunction, a one in a disjunction.
        let deciding = |value: u64| if op == IntegerOp::And { !value } else { value };
        of_x & of_y | of_x & deciding(x[lane]) | of_y & deciding(y[lane])
    });
    let value = std::array::from_fn(|lane| if op == IntegerOp::And { x[lane] & y[lane] } else { x[lane] | y[lane] });
    warp.set(d, &value, mask, 0);
    for lane in lanes(mask) {
        warp.mark_bits(d, lane, known[lane]);
    }
}
