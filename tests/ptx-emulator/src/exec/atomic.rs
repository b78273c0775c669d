//! The arithmetic of atomic operations.

use super::half;
use crate::instruction::{AtomicOp, HalfFormat};

/// The new value of `bytes` bytes that hold `old`.
pub(super) fn combine(op: AtomicOp, bytes: u64, old: u64, b: u64, c: u64) -> u64 {
    let unused = 64 - 8 * bytes as u32;
    let signed = |value: u64| (value << unused) as i64 >> unused;
    let single = |value: u64| f32::from_bits(value as u32);
    let halves = |format| {
        let part = |shift: u32| u64::from(half::add(format, (old >> shift) as u32, (b >> shift) as u32)) << shift;
        part(0) | part(16)
    };
    match op {
        AtomicOp::And => old & b,
        AtomicOp::Or => old | b,
        AtomicOp::Xor => old ^ b,
        AtomicOp::Exchange => b,
        AtomicOp::CompareAndSwap => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomicOp::Add => old.wrapping_add(b),
        AtomicOp::Increment => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Decrement => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        AtomicOp::MinUnsigned => old.min(b),
        AtomicOp::MaxUnsigned => old.max(b),
        AtomicOp::MinSigned => {
            if signed(b) < signed(old) {
                b
            } else {
                old
            }
        }
        AtomicOp::MaxSigned => {
            if signed(b) > signed(old) {
                b
            } else {
                old
            }
        }
        AtomicOp::AddF32 => u64::from((single(old) + single(b)).to_bits()),
        AtomicOp::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AtomicOp::AddF16x2 => halves(HalfFormat::F16),
        AtomicOp::AddBf16x2 => halves(HalfFormat::Bf16),
        AtomicOp::AddF16 => u64::from(half::add(HalfFormat::F16, old as u32, b as u32)),
        AtomicOp::AddBf16 => u64::from(half::add(HalfFormat::Bf16, old as u32, b as u32)),
    }
}
