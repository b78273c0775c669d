//! Integer arithmetic over the lanes of a warp.

use super::partial;
use super::warp::{Lanes32, Lanes64, Mask, Warp};
use crate::instruction::{
    CarryMultiply, CarryOp, CarryOut, Dot, Half, IntegerOp, Narrow, R32, R64, RP, Register, Sign,
};

#[inline(always)]
pub(super) fn map32(warp: &mut Warp, d: R32, [a, b]: [R32; 2], mask: Mask, f: impl Fn(u32, u32) -> u32) {
    let (x, y) = (*warp.get32(a), *warp.get32(b));
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(x[lane], y[lane]);
    }
    let defined = warp.defined32(a) & warp.defined32(b);
    warp.set32(d, &out, mask, defined);
}

#[inline(always)]
pub(super) fn map32x3(warp: &mut Warp, d: R32, [a, b, c]: [R32; 3], mask: Mask, f: impl Fn(u32, u32, u32) -> u32) {
    let (x, y, z) = (*warp.get32(a), *warp.get32(b), *warp.get32(c));
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(x[lane], y[lane], z[lane]);
    }
    let defined = warp.defined32(a) & warp.defined32(b) & warp.defined32(c);
    warp.set32(d, &out, mask, defined);
}

#[inline(always)]
pub(super) fn map64(warp: &mut Warp, d: R64, [a, b]: [R64; 2], mask: Mask, f: impl Fn(u64, u64) -> u64) {
    let (x, y) = (*warp.get64(a), *warp.get64(b));
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(x[lane], y[lane]);
    }
    let defined = warp.defined64(a) & warp.defined64(b);
    warp.set64(d, &out, mask, defined);
}

#[inline(always)]
pub(super) fn map64x3(warp: &mut Warp, d: R64, [a, b, c]: [R64; 3], mask: Mask, f: impl Fn(u64, u64, u64) -> u64) {
    let (x, y, z) = (warp.get64(a), warp.get64(b), warp.get64(c));
    let out = std::array::from_fn(|lane| f(x[lane], y[lane], z[lane]));
    let defined = warp.defined64(a) & warp.defined64(b) & warp.defined64(c);
    warp.set64(d, &out, mask, defined);
}

/// The operation on one lane of 32 bits. Division by zero gives all ones, the remainder of it the dividend.
#[inline(always)]
fn word(op: IntegerOp, sign: Sign, a: u32, b: u32) -> u32 {
    let signed = sign == Sign::Signed;
    let (s, t) = (a as i32, b as i32);
    match op {
        IntegerOp::Add => a.wrapping_add(b),
        IntegerOp::AddSaturated => s.saturating_add(t) as u32,
        IntegerOp::Sub => a.wrapping_sub(b),
        IntegerOp::SubSaturated => s.saturating_sub(t) as u32,
        IntegerOp::MulLow => a.wrapping_mul(b),
        IntegerOp::MulHigh if signed => ((i64::from(s) * i64::from(t)) >> 32) as u32,
        IntegerOp::MulHigh => ((u64::from(a) * u64::from(b)) >> 32) as u32,
        IntegerOp::MulWide16 => a.wrapping_mul(b),
        IntegerOp::Mul24 if signed => ((s << 8) >> 8).wrapping_mul((t << 8) >> 8) as u32,
        IntegerOp::Mul24 => (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff),
        IntegerOp::Div if b == 0 => u32::MAX,
        IntegerOp::Div if signed => s.wrapping_div(t) as u32,
        IntegerOp::Div => a / b,
        IntegerOp::Rem if b == 0 => a,
        IntegerOp::Rem if signed => s.wrapping_rem(t) as u32,
        IntegerOp::Rem => a % b,
        IntegerOp::Min if signed => s.min(t) as u32,
        IntegerOp::Min => a.min(b),
        IntegerOp::Max if signed => s.max(t) as u32,
        IntegerOp::Max => a.max(b),
        IntegerOp::MinRelu => s.min(t).max(0) as u32,
        IntegerOp::MaxRelu => s.max(t).max(0) as u32,
        IntegerOp::And => a & b,
        IntegerOp::Or => a | b,
        IntegerOp::Xor => a ^ b,
    }
}

/// Extends a 16-bit operand to 32 bits.
#[inline(always)]
pub(super) fn extend16(ty: Narrow, value: u32) -> u32 {
    match ty {
        Narrow::S16 => i32::from(value as i16) as u32,
        Narrow::U16 => value & 0xffff,
        _ => value,
    }
}

pub(super) fn sign(ty: Narrow) -> Sign {
    if matches!(ty, Narrow::S16 | Narrow::S32) { Sign::Signed } else { Sign::Unsigned }
}

pub(super) fn is_short(ty: Narrow) -> bool {
    matches!(ty, Narrow::S16 | Narrow::U16)
}

/// Calls `run` with each operation as a constant, so that each gets its own vectorised loop.
macro_rules! each_operation {
    ($op:expr, $run:ident) => {
        match $op {
            IntegerOp::Add => $run!(IntegerOp::Add),
            IntegerOp::AddSaturated => $run!(IntegerOp::AddSaturated),
            IntegerOp::Sub => $run!(IntegerOp::Sub),
            IntegerOp::SubSaturated => $run!(IntegerOp::SubSaturated),
            IntegerOp::MulLow => $run!(IntegerOp::MulLow),
            IntegerOp::MulHigh => $run!(IntegerOp::MulHigh),
            IntegerOp::MulWide16 => $run!(IntegerOp::MulWide16),
            IntegerOp::Mul24 => $run!(IntegerOp::Mul24),
            IntegerOp::Div => $run!(IntegerOp::Div),
            IntegerOp::Rem => $run!(IntegerOp::Rem),
            IntegerOp::Min => $run!(IntegerOp::Min),
            IntegerOp::Max => $run!(IntegerOp::Max),
            IntegerOp::MinRelu => $run!(IntegerOp::MinRelu),
            IntegerOp::MaxRelu => $run!(IntegerOp::MaxRelu),
            IntegerOp::And => $run!(IntegerOp::And),
            IntegerOp::Or => $run!(IntegerOp::Or),
            IntegerOp::Xor => $run!(IntegerOp::Xor),
        }
    };
}

pub(super) fn integer32(warp: &mut Warp, op: IntegerOp, ty: Narrow, d: R32, ab: [R32; 2], mask: Mask) {
    if is_decided_by_bits(op) && mask & !(warp.defined32(ab[0]) & warp.defined32(ab[1])) != 0 {
        return partial::logic(warp, op, d.into(), ab.map(Register::from), mask);
    }
    if is_short(ty) {
        return map32(warp, d, ab, mask, |a, b| short(op, ty, a, b));
    }
    if sign(ty) == Sign::Signed {
        macro_rules! run {
            ($op:expr) => {
                map32(warp, d, ab, mask, |a, b| word($op, Sign::Signed, a, b))
            };
        }
        each_operation!(op, run)
    } else {
        macro_rules! run {
            ($op:expr) => {
                map32(warp, d, ab, mask, |a, b| word($op, Sign::Unsigned, a, b))
            };
        }
        each_operation!(op, run)
    }
}

/// The operation on both halves of the registers, which are of the 16-bit type `ty`.
pub(super) fn pair(warp: &mut Warp, op: IntegerOp, ty: Narrow, d: R32, ab: [R32; 2], mask: Mask) {
    map32(warp, d, ab, mask, |a, b| short(op, ty, a, b) | short(op, ty, a >> 16, b >> 16) << 16);
}

fn short(op: IntegerOp, ty: Narrow, a: u32, b: u32) -> u32 {
    let (x, y) = (extend16(ty, a), extend16(ty, b));
    match op {
        IntegerOp::MulWide16 => x.wrapping_mul(y),
        IntegerOp::MulHigh => (x.wrapping_mul(y) >> 16) & 0xffff,
        _ => word(op, sign(ty), x, y) & 0xffff,
    }
}

/// Whether one operand's bits may decide the result's, whatever the other holds.
fn is_decided_by_bits(op: IntegerOp) -> bool {
    matches!(op, IntegerOp::And | IntegerOp::Or)
}

pub(super) fn integer64(warp: &mut Warp, op: IntegerOp, sign: Sign, d: R64, ab: [R64; 2], mask: Mask) {
    if is_decided_by_bits(op) && mask & !(warp.defined64(ab[0]) & warp.defined64(ab[1])) != 0 {
        return partial::logic(warp, op, d.into(), ab.map(Register::from), mask);
    }
    match op {
        IntegerOp::Add => map64(warp, d, ab, mask, u64::wrapping_add),
        IntegerOp::Sub => map64(warp, d, ab, mask, u64::wrapping_sub),
        IntegerOp::MulLow => map64(warp, d, ab, mask, u64::wrapping_mul),
        IntegerOp::And => map64(warp, d, ab, mask, |a, b| a & b),
        IntegerOp::Or => map64(warp, d, ab, mask, |a, b| a | b),
        IntegerOp::Xor => map64(warp, d, ab, mask, |a, b| a ^ b),
        _ => map64(warp, d, ab, mask, |a, b| long(op, sign, a, b)),
    }
}

fn long(op: IntegerOp, sign: Sign, a: u64, b: u64) -> u64 {
    let (s, t) = (a as i64, b as i64);
    let signed = sign == Sign::Signed;
    match op {
        IntegerOp::MulHigh if signed => ((i128::from(s) * i128::from(t)) >> 64) as u64,
        IntegerOp::MulHigh => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        IntegerOp::Div if b == 0 => u64::MAX,
        IntegerOp::Div if signed => s.wrapping_div(t) as u64,
        IntegerOp::Div => a / b,
        IntegerOp::Rem if b == 0 => a,
        IntegerOp::Rem if signed => s.wrapping_rem(t) as u64,
        IntegerOp::Rem => a % b,
        IntegerOp::Min if signed => s.min(t) as u64,
        IntegerOp::Min => a.min(b),
        IntegerOp::Max if signed => s.max(t) as u64,
        IntegerOp::Max => a.max(b),
        _ => a,
    }
}

#[inline(always)]
fn widen(sign: Sign, value: u32) -> u64 {
    match sign {
        Sign::Signed => i64::from(value as i32) as u64,
        Sign::Unsigned => u64::from(value),
    }
}

pub(super) fn multiply_wide(warp: &mut Warp, sign: Sign, d: R64, [a, b]: [R32; 2], c: Option<R64>, mask: Mask) {
    let (x, y): (Lanes32, Lanes32) = (*warp.get32(a), *warp.get32(b));
    let mut defined = warp.defined32(a) & warp.defined32(b);
    let mut out: Lanes64 = [0; 32];
    if let Some(c) = c {
        out = *warp.get64(c);
        defined &= warp.defined64(c);
    }
    for lane in 0..32 {
        out[lane] = out[lane].wrapping_add(widen(sign, x[lane]).wrapping_mul(widen(sign, y[lane])));
    }
    warp.set64(d, &out, mask, defined);
}

pub(super) fn multiply_add32(warp: &mut Warp, half: Half, ty: Narrow, d: R32, abc: [R32; 3], mask: Mask) {
    match (half, is_short(ty)) {
        (Half::Low, false) => map32x3(warp, d, abc, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        (Half::High, false) => {
            let sign = sign(ty);
            map32x3(warp, d, abc, mask, |a, b, c| word(IntegerOp::MulHigh, sign, a, b).wrapping_add(c));
        }
        (Half::Wide16, _) => {
            map32x3(warp, d, abc, mask, |a, b, c| short(IntegerOp::MulWide16, ty, a, b).wrapping_add(c));
        }
        (_, true) => {
            let op = if half == Half::Low { IntegerOp::MulLow } else { IntegerOp::MulHigh };
            map32x3(warp, d, abc, mask, |a, b, c| short(op, ty, a, b).wrapping_add(c) & 0xffff);
        }
    }
}

pub(super) fn multiply_add64(warp: &mut Warp, half: Half, sign: Sign, d: R64, [a, b, c]: [R64; 3], mask: Mask) {
    let (x, y, z) = (*warp.get64(a), *warp.get64(b), *warp.get64(c));
    let mut out = [0; 32];
    for lane in 0..32 {
        let product = match half {
            Half::High => long(IntegerOp::MulHigh, sign, x[lane], y[lane]),
            _ => x[lane].wrapping_mul(y[lane]),
        };
        out[lane] = product.wrapping_add(z[lane]);
    }
    let defined = warp.defined64(a) & warp.defined64(b) & warp.defined64(c);
    warp.set64(d, &out, mask, defined);
}

/// Extended-precision addition of `bits` bits: the results and the carries, one bit per lane. A borrow is a carry here.
pub(super) fn carry(op: CarryOp, a: &Lanes64, b: &Lanes64, carry_in: Mask, bits: u32) -> (Lanes64, Mask) {
    let (mut out, mut carries) = ([0; 32], 0);
    for lane in 0..32 {
        let comes = match op {
            CarryOp::Add | CarryOp::Sub => 0,
            CarryOp::AddWithCarry | CarryOp::SubWithBorrow => u128::from(carry_in >> lane & 1),
        };
        let wide = match op {
            CarryOp::Add | CarryOp::AddWithCarry => u128::from(a[lane]) + u128::from(b[lane]) + comes,
            CarryOp::Sub | CarryOp::SubWithBorrow => u128::from(a[lane]).wrapping_sub(u128::from(b[lane]) + comes),
        };
        out[lane] = wide as u64;
        carries |= ((wide >> bits & 1) as u32) << lane;
    }
    (out, carries)
}

pub(super) fn carry32(warp: &mut Warp, op: CarryOp, d: R32, [a, b]: [R32; 2], flag: RP, mask: Mask) -> (Mask, Mask) {
    let defined = warp.defined32(a) & warp.defined32(b) & carry_defined(warp, op, flag);
    let (x, y) = (warp.get32(a).map(u64::from), warp.get32(b).map(u64::from));
    let (out, carries) = carry(op, &x, &y, warp.get_predicate(flag), 32);
    warp.set32(d, &out.map(|lane| lane as u32), mask, defined);
    (carries, defined)
}

pub(super) fn carry64(warp: &mut Warp, op: CarryOp, d: R64, [a, b]: [R64; 2], flag: RP, mask: Mask) -> (Mask, Mask) {
    let defined = warp.defined64(a) & warp.defined64(b) & carry_defined(warp, op, flag);
    let (out, carries) = carry(op, warp.get64(a), warp.get64(b), warp.get_predicate(flag), 64);
    warp.set64(d, &out, mask, defined);
    (carries, defined)
}

pub(super) fn carry_multiply(warp: &mut Warp, operands: &CarryMultiply, mask: Mask) {
    let CarryMultiply { half, sign, op, flag, factors: [a, b], c, bits, .. } = *operands;
    let defined = warp.defined(a) & warp.defined(b) & warp.defined(c) & carry_defined(warp, op, flag);
    let (x, y) = (warp.get(a), warp.get(b));
    let product = std::array::from_fn(|lane| match (half, bits) {
        (Half::High, 64) => long(IntegerOp::MulHigh, sign, x[lane], y[lane]),
        (Half::High, _) => u64::from(word(IntegerOp::MulHigh, sign, x[lane] as u32, y[lane] as u32)),
        (_, 64) => x[lane].wrapping_mul(y[lane]),
        _ => u64::from((x[lane] as u32).wrapping_mul(y[lane] as u32)),
    });
    let (out, carries) = carry(op, &product, &warp.get(c), warp.get_predicate(flag), bits);
    warp.set(operands.d, &out, mask, defined);
    if operands.out == CarryOut::Write {
        warp.set_predicate(flag, carries, mask, defined);
    }
}

fn carry_defined(warp: &Warp, op: CarryOp, flag: RP) -> Mask {
    match op {
        CarryOp::Add | CarryOp::Sub => Mask::MAX,
        CarryOp::AddWithCarry | CarryOp::SubWithBorrow => warp.defined_predicate(flag),
    }
}

/// `dp4a` and `dp2a`: products of bytes of `b` with bytes or halves of `a`, added to `c`.
pub(super) fn dot(kind: Dot, a_sign: Sign, b_sign: Sign, a: u32, b: u32, c: u32) -> u32 {
    let field = |value: u32, at: u32, bits: u32, sign: Sign| {
        let raised = value << (32 - bits - at);
        match sign {
            Sign::Signed => (raised as i32 >> (32 - bits)) as u32,
            Sign::Unsigned => raised >> (32 - bits),
        }
    };
    let term =
        |a_at: u32, a_bits: u32, b_at: u32| field(a, a_at, a_bits, a_sign).wrapping_mul(field(b, b_at, 8, b_sign));
    match kind {
        Dot::Four => (0..4).fold(c, |sum, byte| sum.wrapping_add(term(8 * byte, 8, 8 * byte))),
        Dot::TwoLow => c.wrapping_add(term(0, 16, 0)).wrapping_add(term(16, 16, 8)),
        Dot::TwoHigh => c.wrapping_add(term(0, 16, 16)).wrapping_add(term(16, 16, 24)),
    }
}

pub(super) fn absolute_difference(sign: Sign, a: u32, b: u32, c: u32) -> u32 {
    match sign {
        Sign::Signed => (a as i32).abs_diff(b as i32).wrapping_add(c),
        Sign::Unsigned => a.abs_diff(b).wrapping_add(c),
    }
}
