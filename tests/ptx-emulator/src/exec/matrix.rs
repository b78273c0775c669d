//! Matrix instructions of a warp: `ldmatrix`, `stmatrix` and `mma.sync`.
//!
//! With `g = lane / 4` and `t = lane % 4`, and `e` elements per 32-bit register, register `r` of a fragment holds
//! * of A (16 x k): row `g + 8 (r mod 2)`, columns `4e (r div 2) + e t ..`;
//! * of B (k x 8): rows `4e r + e t ..`, column `g`;
//! * of C and D (16 x 8) in 32 bits: row `g + 8 (r div 2)`, column `2t + r mod 2`; in 16 bits two columns per register.
//!
//! Products of all floating formats are exact in single precision; sums are rounded to single precision after every term, in the
//! order of k. A tensor core sums in another order and with other roundings, so results agree within a few units in the last place
//! of the largest partial sum, not bit for bit.

use super::access::addresses;
use super::block::Block;
use super::shared::Actor;
use super::warp::{Defect, Mask, Warp};
use crate::error::FaultKind;
use crate::instruction::{
    Accumulator, Format, LoadMatrix, Mma, MmaElement, R32, Rounding, Saturate, Sign, StoreMatrix, Transpose,
};
use crate::numeric::{canonical32, decode, encode, f16_to_f32};

/// Fails unless all 32 lanes take part.
pub(super) fn whole_warp(mask: Mask) -> Result<(), Defect> {
    if mask == Mask::MAX {
        return Ok(());
    }
    Err(Defect::warp(FaultKind::DivergentWarp { needed: Mask::MAX, missing: !mask }))
}

/// Row and column inside of an 8x8 matrix of the first of the two elements that a lane holds, and the step to the second.
fn element(lane: usize, transpose: Transpose) -> [(usize, usize); 2] {
    let (g, t) = (lane / 4, lane % 4);
    match transpose {
        Transpose::No => [(g, 2 * t), (g, 2 * t + 1)],
        Transpose::Yes => [(2 * t, g), (2 * t + 1, g)],
    }
}

pub(super) fn load(warp: &mut Warp, block: &mut Block, load: &LoadMatrix, mask: Mask, line: u32) -> Result<(), Defect> {
    whole_warp(mask)?;
    let rows = 8 * load.targets.len();
    let addresses = addresses(warp, block, &load.address, Mask::MAX >> (32 - rows))?;
    let actor = Actor { warp: warp.index, line };
    for (at, &target) in load.targets.iter().enumerate() {
        let mut matrix = [[0u16; 8]; 8];
        for (row, values) in matrix.iter_mut().enumerate() {
            let lane = 8 * at + row;
            let bytes = block.shared.read(actor, lane, addresses[lane], 16)?;
            for (value, pair) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = u16::from_le_bytes([pair[0], pair[1]]);
            }
        }
        block.counters.shared_loads.add(&addresses[8 * at..8 * at + 8], 16);
        let mut out = [0; 32];
        for (lane, out) in out.iter_mut().enumerate() {
            let [low, high] = element(lane, load.transpose);
            *out = u32::from(matrix[low.0][low.1]) | u32::from(matrix[high.0][high.1]) << 16;
        }
        warp.set32(target, &out, Mask::MAX, Mask::MAX);
    }
    Ok(())
}

pub(super) fn store(
    warp: &mut Warp,
    block: &mut Block,
    store: &StoreMatrix,
    mask: Mask,
    line: u32,
) -> Result<(), Defect> {
    whole_warp(mask)?;
    let rows = 8 * store.sources.len();
    let addresses = addresses(warp, block, &store.address, Mask::MAX >> (32 - rows))?;
    let actor = Actor { warp: warp.index, line };
    block.shared.begin_store();
    for (at, &source) in store.sources.iter().enumerate() {
        warp.demand32(source, mask, block.kernel)?;
        let mut matrix = [[0u8; 16]; 8];
        for (lane, value) in warp.get32(source).iter().enumerate() {
            let [low, high] = element(lane, store.transpose);
            for ((row, column), half) in [(low, value & 0xffff), (high, value >> 16)] {
                matrix[row][2 * column..2 * column + 2].copy_from_slice(&(half as u16).to_le_bytes());
            }
        }
        for (row, bytes) in matrix.iter().enumerate() {
            let lane = 8 * at + row;
            block.shared.write(actor, lane, addresses[lane], bytes)?;
        }
        block.counters.shared_stores.add(&addresses[8 * at..8 * at + 8], 16);
    }
    Ok(())
}

pub(super) fn mma(warp: &mut Warp, block: &mut Block, mma: &Mma, mask: Mask) -> Result<(), Defect> {
    whole_warp(mask)?;
    for &register in mma.a.iter().chain(&mma.b).chain(&mma.c) {
        warp.demand32(register, mask, block.kernel)?;
    }
    block.counters.mma_flops += 2 * 16 * 8 * u64::from(mma.k);
    match mma.accumulator {
        Accumulator::F32 | Accumulator::F16 => float(warp, mma),
        Accumulator::S32 | Accumulator::S32Saturated => integer(warp, mma),
    }
    Ok(())
}

/// A (16 x k) and B (k x 8) written out; `K` is the largest k of the element type: 8 elements times those in a register.
type Matrices<T, const K: usize> = ([[T; K]; 16], [[T; 8]; K]);

/// Spreads the registers of A and B over matrices, `split` yielding the `E` elements of a register.
#[inline(always)]
fn gather<T: Copy + Default, const E: usize, const K: usize>(
    warp: &Warp,
    mma: &Mma,
    split: [impl Fn(u32) -> [T; E]; 2],
) -> Matrices<T, K> {
    let (mut a, mut b) = ([[T::default(); K]; 16], [[T::default(); 8]; K]);
    // Four lanes hold elements beside each other.
    for (r, &register) in mma.a.iter().enumerate() {
        let rows = &mut a[8 * (r % 2)..8 * (r % 2) + 8];
        for (row, values) in rows.iter_mut().zip(warp.get32(register).chunks_exact(4)) {
            let columns = row[4 * E * (r / 2)..4 * E * (r / 2) + 4 * E].chunks_exact_mut(E);
            columns.zip(values).for_each(|(columns, &value)| columns.copy_from_slice(&split[0](value)));
        }
    }
    for (r, &register) in mma.b.iter().enumerate() {
        let rows = &mut b[4 * E * r..4 * E * r + 4 * E];
        for (column, values) in warp.get32(register).chunks_exact(4).enumerate() {
            for (rows, &value) in rows.chunks_exact_mut(E).zip(values) {
                rows.iter_mut().zip(split[1](value)).for_each(|(row, element)| row[column] = element);
            }
        }
    }
    (a, b)
}

/// Adds A times B to the sums.
#[inline(always)]
fn multiply<const K: usize>((a, b): &Matrices<f32, K>, k: u32, sums: &mut [[f32; 8]; 16]) {
    for (sums, row) in sums.iter_mut().zip(a) {
        let terms = row.iter().zip(b);
        // Without a count to look at, the loop is unrolled.
        *sums = if k as usize == K { add_terms(*sums, terms) } else { add_terms(*sums, terms.take(k as usize)) };
    }
}

/// Adds multiples of rows of B to a row of sums.
#[inline(always)]
fn add_terms<'m>(mut sums: [f32; 8], terms: impl Iterator<Item = (&'m f32, &'m [f32; 8])>) -> [f32; 8] {
    for (&left, right) in terms {
        for column in 0..8 {
            sums[column] += left * right[column];
        }
    }
    sums
}

fn float(warp: &mut Warp, mma: &Mma) {
    let mut sums = if mma.accumulator == Accumulator::F32 { accumulators(warp, &mma.c) } else { halves(warp, &mma.c) };
    match mma.a_element {
        MmaElement::Bf16 => {
            let split = |value: u32| [f32::from_bits(value << 16), f32::from_bits(value & 0xffff_0000)];
            multiply::<16>(&gather(warp, mma, [split; 2]), mma.k, &mut sums);
        }
        MmaElement::F16 => {
            let split = |value: u32| [f16_to_f32(value & 0xffff), f16_to_f32(value >> 16)];
            multiply::<16>(&gather(warp, mma, [split; 2]), mma.k, &mut sums);
        }
        // The hardware reads the upper 19 bits.
        MmaElement::Tf32 => {
            let split = |value: u32| [f32::from_bits(value & 0xffff_e000)];
            multiply::<8>(&gather(warp, mma, [split; 2]), mma.k, &mut sums);
        }
        MmaElement::E4m3 | MmaElement::E5m2 | MmaElement::Integer(_) => {
            let split = |element| {
                let format = if element == MmaElement::E4m3 { Format::E4m3 } else { Format::E5m2 };
                move |value: u32| value.to_le_bytes().map(|byte| decode(u32::from(byte), format) as f32)
            };
            let split = [split(mma.a_element), split(mma.b_element)];
            multiply::<32>(&gather(warp, mma, split), mma.k, &mut sums);
        }
    }
    if mma.accumulator == Accumulator::F32 {
        return scatter(warp, &mma.d, &sums.map(|row| row.map(canonical32)));
    }
    let round = |value: f32| encode(f64::from(value), Format::F16, Rounding::NearestEven, Saturate::No);
    for (r, &register) in mma.d.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let row = &sums[lane / 4 + 8 * r];
            round(row[2 * (lane % 4)]) | round(row[2 * (lane % 4) + 1]) << 16
        });
        warp.set32(register, &out, Mask::MAX, Mask::MAX);
    }
}

fn accumulators(warp: &Warp, registers: &[R32]) -> [[f32; 8]; 16] {
    words(warp, registers).map(|row| row.map(f32::from_bits))
}

fn words(warp: &Warp, registers: &[R32]) -> [[u32; 8]; 16] {
    let mut out = [[0; 8]; 16];
    for (r, &register) in registers.iter().enumerate() {
        let rows = out[8 * (r / 2)..8 * (r / 2) + 8].iter_mut();
        for (row, values) in rows.zip(warp.get32(register).chunks_exact(4)) {
            row.chunks_exact_mut(2).zip(values).for_each(|(pair, &value)| pair[r % 2] = value);
        }
    }
    out
}

fn halves(warp: &Warp, registers: &[R32]) -> [[f32; 8]; 16] {
    let mut out = [[0.0; 8]; 16];
    for (r, &register) in registers.iter().enumerate() {
        for (lane, &value) in warp.get32(register).iter().enumerate() {
            let row = &mut out[lane / 4 + 8 * r];
            row[2 * (lane % 4)] = f16_to_f32(value & 0xffff);
            row[2 * (lane % 4) + 1] = f16_to_f32(value >> 16);
        }
    }
    out
}

fn scatter(warp: &mut Warp, registers: &[R32], sums: &[[u32; 8]; 16]) {
    for (r, &register) in registers.iter().enumerate() {
        let mut out = [0; 32];
        let rows = sums[8 * (r / 2)..8 * (r / 2) + 8].iter();
        for (values, row) in out.chunks_exact_mut(4).zip(rows) {
            values.iter_mut().zip(row.chunks_exact(2)).for_each(|(value, pair)| *value = pair[r % 2]);
        }
        warp.set32(register, &out, Mask::MAX, Mask::MAX);
    }
}

fn integer(warp: &mut Warp, mma: &Mma) {
    let split = |element| {
        move |value: u32| {
            value.to_le_bytes().map(|byte| match element {
                MmaElement::Integer(Sign::Signed) => i64::from(byte as i8),
                _ => i64::from(byte),
            })
        }
    };
    let (a, b): Matrices<i64, 32> = gather(warp, mma, [split(mma.a_element), split(mma.b_element)]);
    let mut sums = words(warp, &mma.c).map(|row| row.map(|value| i64::from(value as i32)));
    for (sums, row) in sums.iter_mut().zip(&a) {
        for (&left, right) in row.iter().zip(&b).take(mma.k as usize) {
            for column in 0..8 {
                sums[column] += left * right[column];
            }
        }
    }
    let narrow = |value: i64| match mma.accumulator {
        Accumulator::S32Saturated => value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32,
        _ => value as u32,
    };
    scatter(warp, &mma.d, &sums.map(|row| row.map(narrow)));
}
