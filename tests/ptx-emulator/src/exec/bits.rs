//! Bit operations over the lanes of a warp: shifts, fields, counts, byte permutation.

use super::integer::{extend16, is_short, map32, map32x3};
use super::warp::{Lanes32, Mask, Warp};
use crate::instruction::{Clamp, CountOp, Direction, Narrow, PermuteMode, R32, R64, ShiftOp, Sign, UnaryOp};

pub(super) fn unary32(warp: &mut Warp, op: UnaryOp, ty: Narrow, d: R32, a: R32, mask: Mask) {
    let keep = if is_short(ty) { 0xffff } else { u32::MAX };
    let pair = [a, a];
    match op {
        UnaryOp::Not => map32(warp, d, pair, mask, |a, _| !a & keep),
        UnaryOp::LogicalNot => map32(warp, d, pair, mask, |a, _| u32::from(a == 0)),
        UnaryOp::Neg => map32(warp, d, pair, mask, |a, _| a.wrapping_neg() & keep),
        UnaryOp::Abs => map32(warp, d, pair, mask, |a, _| (extend16(ty, a) as i32).wrapping_abs() as u32 & keep),
        UnaryOp::Reverse => map32(warp, d, pair, mask, |a, _| a.reverse_bits()),
        UnaryOp::Count(count) => map32(warp, d, pair, mask, |a, _| counted(count, u64::from(a), 32)),
    }
}

pub(super) fn unary64(op: UnaryOp, a: u64) -> u64 {
    match op {
        UnaryOp::Not => !a,
        UnaryOp::LogicalNot => u64::from(a == 0),
        UnaryOp::Neg => a.wrapping_neg(),
        UnaryOp::Abs => (a as i64).wrapping_abs() as u64,
        UnaryOp::Reverse => a.reverse_bits(),
        UnaryOp::Count(count) => u64::from(counted(count, a, 64)),
    }
}

/// Counts in the lower `bits` bits.
pub(super) fn counted(op: CountOp, a: u64, bits: u32) -> u32 {
    let top = a << (64 - bits);
    let leading = top.leading_zeros().min(bits);
    // A signed search looks for the highest bit that differs from the sign.
    let differing = if (top as i64) < 0 { (!top).leading_zeros().min(bits) } else { leading };
    let position = |leading: u32| if leading == bits { u32::MAX } else { bits - 1 - leading };
    let amount = |leading: u32| if leading == bits { u32::MAX } else { leading };
    match op {
        CountOp::Ones => a.count_ones(),
        CountOp::LeadingZeros => leading,
        CountOp::FindUnsigned => position(leading),
        CountOp::FindSigned => position(differing),
        CountOp::FindUnsignedShift => amount(leading),
        CountOp::FindSignedShift => amount(differing),
    }
}

pub(super) fn shift32(warp: &mut Warp, op: ShiftOp, ty: Narrow, d: R32, ab: [R32; 2], mask: Mask) {
    if is_short(ty) {
        return map32(warp, d, ab, mask, |a, b| short_shift(op, a, b));
    }
    match op {
        ShiftOp::Left => map32(warp, d, ab, mask, |a, b| if b > 31 { 0 } else { a << (b & 31) }),
        ShiftOp::RightUnsigned => map32(warp, d, ab, mask, |a, b| if b > 31 { 0 } else { a >> (b & 31) }),
        ShiftOp::RightSigned => map32(warp, d, ab, mask, |a, b| (a as i32 >> b.min(31)) as u32),
    }
}

fn short_shift(op: ShiftOp, a: u32, b: u32) -> u32 {
    match op {
        ShiftOp::Left if b > 15 => 0,
        ShiftOp::Left => (a << b) & 0xffff,
        ShiftOp::RightUnsigned if b > 15 => 0,
        ShiftOp::RightUnsigned => a >> b,
        ShiftOp::RightSigned => (i32::from(a as i16) >> b.min(15)) as u32 & 0xffff,
    }
}

pub(super) fn shift64(warp: &mut Warp, op: ShiftOp, d: R64, a: R64, b: R32, mask: Mask) {
    let (x, y) = (*warp.get64(a), *warp.get32(b));
    let mut out = [0; 32];
    for lane in 0..32 {
        let (value, amount) = (x[lane], y[lane]);
        out[lane] = match op {
            ShiftOp::Left if amount > 63 => 0,
            ShiftOp::Left => value << amount,
            ShiftOp::RightUnsigned if amount > 63 => 0,
            ShiftOp::RightUnsigned => value >> amount,
            ShiftOp::RightSigned => (value as i64 >> amount.min(63)) as u64,
        };
    }
    let defined = warp.defined64(a) & warp.defined32(b);
    warp.set64(d, &out, mask, defined);
}

/// `shf`: the double word `b:a` shifted by `c`, its upper half to the left, its lower half to the right.
pub(super) fn funnel(direction: Direction, clamp: Clamp, a: u32, b: u32, c: u32) -> u32 {
    let amount = match clamp {
        Clamp::Wrap => c & 31,
        Clamp::Clamp => c.min(32),
    };
    let double = u64::from(b) << 32 | u64::from(a);
    match direction {
        Direction::Left => (double << amount >> 32) as u32,
        Direction::Right => (double >> amount) as u32,
    }
}

/// `bfe` of `bits` bits: only the low byte of position and length counts; bits beyond the top repeat the sign of the last one.
pub(super) fn extract(sign: Sign, a: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let keep = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let last = (position + length).saturating_sub(1).min(bits - 1);
    let negative = sign == Sign::Signed && length > 0 && a >> last & 1 == 1;
    let shifted = if position > 63 { 0 } else { (a & keep) >> position };
    let available = bits.saturating_sub(position).min(length);
    let field = if available > 63 { u64::MAX } else { (1 << available) - 1 };
    let fill = if negative { !field } else { 0 };
    (shifted & field | fill) & keep
}

/// `bfi` of `bits` bits: `b` with `length` low bits of `a` at `position`.
pub(super) fn insert(a: u64, b: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= bits || length == 0 {
        return b;
    }
    let available = length.min(bits - position);
    let field = if available > 63 { u64::MAX } else { (1 << available) - 1 } << position;
    b & !field | a << position & field
}

pub(super) fn permute(mode: PermuteMode, a: u32, b: u32, c: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let pick = |select: [u32; 4]| u32::from_le_bytes(select.map(|at| bytes[at as usize & 7]));
    let s = c & 3;
    match mode {
        PermuteMode::General => {
            let byte = |at: u32| {
                let select = c >> (4 * at);
                let value = bytes[select as usize & 7];
                // The fourth bit of a selector replicates the byte's sign.
                if select & 8 != 0 { (value as i8 >> 7) as u8 } else { value }
            };
            u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
        }
        PermuteMode::Forward4 => pick([s, s + 1, s + 2, s + 3]),
        PermuteMode::Backward4 => pick([s, s + 7, s + 6, s + 5]),
        PermuteMode::Replicate8 => pick([s; 4]),
        PermuteMode::EdgeLeft => pick([s, s.max(1), s.max(2), 3]),
        PermuteMode::EdgeRight => pick([0, s.min(1), s.min(2), s]),
        PermuteMode::Replicate16 => {
            let low = 2 * (c & 1);
            pick([low, low + 1, low, low + 1])
        }
    }
}

pub(super) fn lop3(warp: &mut Warp, table: u8, d: R32, abc: [R32; 3], mask: Mask) {
    // Expands the table into whole words, so that the lanes need no loop over bits.
    let row = |index: u32| if table >> index & 1 == 1 { u32::MAX } else { 0 };
    let rows: [u32; 8] = std::array::from_fn(|index| row(index as u32));
    map32x3(warp, d, abc, mask, |a, b, c| {
        let low = !a & (!b & (!c & rows[0] | c & rows[1]) | b & (!c & rows[2] | c & rows[3]));
        let high = a & (!b & (!c & rows[4] | c & rows[5]) | b & (!c & rows[6] | c & rows[7]));
        low | high
    });
}

/// The operands of a comparison, extended to 32 bits.
pub(super) fn extended(ty: Narrow, a: &Lanes32) -> Lanes32 {
    if is_short(ty) { a.map(|value| extend16(ty, value)) } else { *a }
}
