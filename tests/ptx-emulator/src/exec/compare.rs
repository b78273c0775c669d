//! Comparisons, predicates and selections.

use super::bits::extended;
use super::integer::sign;
use super::warp::{Mask, Warp};
use crate::instruction::{Compare, Comparison, Logic, Negation, R32, R64, RP, Set, SetPredicate, Sign, Subnormals};
use crate::numeric::{flush_half, flush32, half_to_f64};

/// One bit per lane in which the comparison holds, and the lanes in which both operands were written.
fn compare(warp: &Warp, op: Compare, comparison: Comparison) -> (Mask, Mask) {
    match comparison {
        Comparison::Integer32 { ty, a, b } => {
            let defined = warp.defined32(a) & warp.defined32(b);
            let (a, b) = (extended(ty, warp.get32(a)), extended(ty, warp.get32(b)));
            let held = if sign(ty) == Sign::Signed {
                ordered(op, &a.map(|value| value as i32), &b.map(|value| value as i32))
            } else {
                ordered(op, &a, &b)
            };
            (held, defined)
        }
        Comparison::Integer64 { sign, a, b } => {
            let defined = warp.defined64(a) & warp.defined64(b);
            let (a, b) = (warp.get64(a), warp.get64(b));
            let held = match sign {
                Sign::Signed => ordered(op, &a.map(|value| value as i64), &b.map(|value| value as i64)),
                Sign::Unsigned => ordered(op, a, b),
            };
            (held, defined)
        }
        Comparison::Float32 { subnormals, a, b } => {
            let defined = warp.defined32(a) & warp.defined32(b);
            let read =
                |value: u32| f32::from_bits(if subnormals == Subnormals::Flush { flush32(value) } else { value });
            (ordered(op, &warp.get32(a).map(read), &warp.get32(b).map(read)), defined)
        }
        Comparison::Float64 { a, b } => {
            let defined = warp.defined64(a) & warp.defined64(b);
            (ordered(op, &warp.get64(a).map(f64::from_bits), &warp.get64(b).map(f64::from_bits)), defined)
        }
        Comparison::Half { format, subnormals, shift, a, b } => {
            let defined = warp.defined32(a) & warp.defined32(b);
            let read = |value: u32| half_to_f64(flush_half(format, subnormals, value >> shift & 0xffff), format);
            (ordered(op, &warp.get32(a).map(read), &warp.get32(b).map(read)), defined)
        }
    }
}

fn ordered<T: Copy + PartialOrd>(op: Compare, a: &[T; 32], b: &[T; 32]) -> Mask {
    // Only NaN differs from itself.
    #[expect(clippy::eq_op, reason = "the test for NaN that integers pass too")]
    let number = |value: T| value == value;
    let unordered = |a: T, b: T| !(number(a) && number(b));
    let each = |f: &dyn Fn(T, T) -> bool| (0..32).fold(0, |mask, lane| mask | u32::from(f(a[lane], b[lane])) << lane);
    match op {
        Compare::Equal => collect(a, b, |a, b| a == b),
        Compare::NotEqual => collect(a, b, |a, b| number(a) && number(b) && a != b),
        Compare::Less => collect(a, b, |a, b| a < b),
        Compare::LessEqual => collect(a, b, |a, b| a <= b),
        Compare::Greater => collect(a, b, |a, b| a > b),
        Compare::GreaterEqual => collect(a, b, |a, b| a >= b),
        Compare::EqualUnordered => each(&|a, b| a == b || unordered(a, b)),
        Compare::NotEqualUnordered => each(&|a, b| a != b),
        Compare::LessUnordered => each(&|a, b| a < b || unordered(a, b)),
        Compare::LessEqualUnordered => each(&|a, b| a <= b || unordered(a, b)),
        Compare::GreaterUnordered => each(&|a, b| a > b || unordered(a, b)),
        Compare::GreaterEqualUnordered => each(&|a, b| a >= b || unordered(a, b)),
        Compare::BothNumbers => each(&|a, b| !unordered(a, b)),
        Compare::EitherNan => each(&unordered),
    }
}

#[inline(always)]
fn collect<T: Copy>(a: &[T; 32], b: &[T; 32], f: impl Fn(T, T) -> bool) -> Mask {
    let mut mask = 0;
    for lane in 0..32 {
        mask |= u32::from(f(a[lane], b[lane])) << lane;
    }
    mask
}

/// `a op b` with the lanes in which the result is known: one operand can decide alone.
fn logic(op: Logic, (a, a_known): (Mask, Mask), (b, b_known): (Mask, Mask)) -> (Mask, Mask) {
    let both = a_known & b_known;
    match op {
        Logic::And => (a & b, both | a_known & !a | b_known & !b),
        Logic::Or => (a | b, both | a_known & a | b_known & b),
        Logic::Xor => (a ^ b, both),
    }
}

pub(super) fn predicate_logic(warp: &mut Warp, op: Logic, d: RP, [a, b]: [RP; 2], mask: Mask) {
    let left = (warp.get_predicate(a), warp.defined_predicate(a));
    let right = (warp.get_predicate(b), warp.defined_predicate(b));
    let (value, known) = logic(op, left, right);
    warp.set_predicate(d, value, mask, known);
}

pub(super) fn set_predicate(warp: &mut Warp, set: &SetPredicate, mask: Mask) {
    let (held, defined) = compare(warp, set.compare, set.comparison);
    let combined = |held| match set.combine {
        None => (held, defined),
        Some((op, p, negation)) => {
            let value = warp.get_predicate(p);
            let value = if negation == Negation::Negated { !value } else { value };
            logic(op, (held, defined), (value, warp.defined_predicate(p)))
        }
    };
    let (plain, complement) = (combined(held), combined(!held));
    if let Some(d) = set.d {
        warp.set_predicate(d, plain.0, mask, plain.1);
    }
    if let Some(d) = set.complement {
        warp.set_predicate(d, complement.0, mask, complement.1);
    }
}

pub(super) fn set(warp: &mut Warp, set: &Set, mask: Mask) {
    let (held, defined) = compare(warp, set.compare, set.comparison);
    let upper = set.upper.map_or(0, |comparison| compare(warp, set.compare, comparison).0);
    let truth = |held: Mask, lane: usize| if held >> lane & 1 == 1 { set.truth } else { 0 };
    let out = std::array::from_fn(|lane| truth(held, lane) | truth(upper, lane) << 16);
    warp.set32(set.d, &out, mask, defined);
}

pub(super) fn select32(warp: &mut Warp, d: R32, [a, b]: [R32; 2], p: RP, mask: Mask) {
    let choice = warp.get_predicate(p);
    let (x, y) = (*warp.get32(a), *warp.get32(b));
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = if choice >> lane & 1 == 1 { x[lane] } else { y[lane] };
    }
    let defined = warp.defined_predicate(p) & (choice & warp.defined32(a) | !choice & warp.defined32(b));
    warp.set32(d, &out, mask, defined);
}

pub(super) fn select64(warp: &mut Warp, d: R64, [a, b]: [R64; 2], p: RP, mask: Mask) {
    let choice = warp.get_predicate(p);
    let (x, y) = (*warp.get64(a), *warp.get64(b));
    let out = std::array::from_fn(|lane| if choice >> lane & 1 == 1 { x[lane] } else { y[lane] });
    let defined = warp.defined_predicate(p) & (choice & warp.defined64(a) | !choice & warp.defined64(b));
    warp.set64(d, &out, mask, defined);
}
