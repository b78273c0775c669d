//! `wmma`: matrices of a warp whose elements the ISA spreads over registers in a way that it leaves open. Here the elements of
//! a matrix are numbered row by row, and each lane has equally many that follow each other; where a fragment has more room,
//! they are there again.

use super::access::{Direction, addresses, check_alignment, count, global, global_mut, number, split};
use super::block::Block;
use super::matrix::whole_warp;
use super::shared::Actor;
use super::warp::{Defect, Lanes64, Mask, Warp, lanes};
use crate::error::{FaultKind, Space};
use crate::instruction::{
    Accumulator, Format, Fragment, MmaElement, Order, Rounding, Saturate, Sign, Wmma, WmmaAccess,
};
use crate::numeric::{canonical32, encode, f16_to_f32};

/// What lines of a matrix in memory are aligned to at least, in bytes.
const LINE: u64 = 16;

impl Fragment {
    /// Elements that a lane has, each counted once.
    fn own(&self) -> usize {
        self.rows * self.columns / 32
    }

    /// Where element number `slot` of a lane lies in its registers: which one, and its lowest bit.
    fn place(&self, slot: usize) -> (usize, u32) {
        let per_register = (32 / self.bits) as usize;
        (slot / per_register, slot as u32 % per_register as u32 * self.bits)
    }

    fn low_bits(&self) -> u32 {
        u32::MAX >> (32 - self.bits)
    }

    /// All elements, row by row.
    fn gather(&self, warp: &Warp) -> Vec<u32> {
        let own = self.own();
        let element = |number: usize| {
            let (register, shift) = self.place(number % own);
            warp.get32(self.registers[register])[number / own] >> shift & self.low_bits()
        };
        (0..self.rows * self.columns).map(element).collect()
    }

    /// Writes the elements, given row by row, into the registers.
    fn scatter(&self, warp: &mut Warp, elements: &[u32]) {
        let own = self.own();
        let mut out = vec![[0; 32]; self.registers.len()];
        for slot in 0..self.registers.len() * (32 / self.bits) as usize {
            let (register, shift) = self.place(slot);
            for (lane, word) in out[register].iter_mut().enumerate() {
                *word |= (elements[lane * own + slot % own] & self.low_bits()) << shift;
            }
        }
        for (&register, out) in self.registers.iter().zip(&out) {
            warp.set32(register, out, Mask::MAX, Mask::MAX);
        }
    }
}

/// Per element of a lane its address in each lane.
fn places(warp: &Warp, block: &Block, access: &WmmaAccess) -> Result<Vec<Lanes64>, Defect> {
    let base = addresses(warp, block, &access.address, Mask::MAX)?;
    let Fragment { rows, columns, bits, .. } = access.fragment;
    let bytes = u64::from(bits / 8);
    let line = match access.order {
        Order::RowMajor => columns,
        Order::ColumnMajor => rows,
    };
    let strides = match access.stride {
        Some(register) => {
            warp.demand32(register, Mask::MAX, block.kernel)?;
            warp.get32(register).map(|stride| i64::from(stride as i32))
        }
        None => [line as i64; 32],
    };
    let own = access.fragment.own();
    let mut all = vec![[0; 32]; own];
    for lane in 0..32 {
        if base[lane] != base[0] || strides[lane] != strides[0] {
            let reason = "the address and the stride must be the same in all lanes".to_string();
            return Err(Defect::lane(lane as u32, FaultKind::Operand(reason)));
        }
        let distance = if access.stride.is_some() { strides[lane].wrapping_mul(bytes as i64) } else { 0 };
        if base[lane] % LINE != 0 || distance % LINE as i64 != 0 {
            let reason = format!("the matrix at {:#x} has lines that are not aligned to {LINE} bytes", base[lane]);
            return Err(Defect::lane(lane as u32, FaultKind::Operand(reason)));
        }
        for (slot, places) in all.iter_mut().enumerate() {
            let number = lane * own + slot;
            let (row, column) = (number / columns, number % columns);
            let (across, along) = match access.order {
                Order::RowMajor => (row, column),
                Order::ColumnMajor => (column, row),
            };
            let element = strides[lane].wrapping_mul(across as i64).wrapping_add(along as i64);
            places[lane] = base[lane].wrapping_add_signed(element.wrapping_mul(bytes as i64));
        }
    }
    Ok(all)
}

fn no_such_memory(lane: usize, space: Space) -> Defect {
    Defect::lane(lane as u32, FaultKind::Operand(format!("a matrix in {space} memory")))
}

pub(super) fn load(
    warp: &mut Warp,
    block: &mut Block,
    access: &WmmaAccess,
    mask: Mask,
    line: u32,
) -> Result<(), Defect> {
    whole_warp(mask)?;
    let (bytes, own) = (u64::from(access.fragment.bits / 8), access.fragment.own());
    let actor = Actor { warp: warp.index, line };
    let mut elements = vec![0; 32 * own];
    for (slot, mut places) in places(warp, block, access)?.into_iter().enumerate() {
        for (space, mask) in split(access.address.space, &mut places, mask) {
            for lane in lanes(mask) {
                let address = places[lane];
                let value = match space {
                    Space::Global => {
                        check_alignment(lane, space, address, bytes)?;
                        number(global(block, lane, address, bytes)?)
                    }
                    Space::Shared => number(block.shared.read(actor, lane, address, bytes)?),
                    Space::Local | Space::Parameter => return Err(no_such_memory(lane, space)),
                };
                elements[lane * own + slot] = value as u32;
            }
            if mask != 0 {
                count(block, space, &places, mask, bytes, Direction::Load);
            }
        }
    }
    access.fragment.scatter(warp, &elements);
    Ok(())
}

pub(super) fn store(
    warp: &mut Warp,
    block: &mut Block,
    access: &WmmaAccess,
    mask: Mask,
    line: u32,
) -> Result<(), Defect> {
    whole_warp(mask)?;
    for &register in &access.fragment.registers {
        warp.demand32(register, mask, block.kernel)?;
    }
    let (bytes, own) = (u64::from(access.fragment.bits / 8), access.fragment.own());
    let elements = access.fragment.gather(warp);
    let actor = Actor { warp: warp.index, line };
    block.shared.begin_store();
    for (slot, mut places) in places(warp, block, access)?.into_iter().enumerate() {
        for (space, mask) in split(access.address.space, &mut places, mask) {
            for lane in lanes(mask) {
                let (address, value) = (places[lane], elements[lane * own + slot].to_le_bytes());
                let value = &value[..bytes as usize];
                match space {
                    Space::Global => {
                        check_alignment(lane, space, address, bytes)?;
                        global_mut(block, lane, address, bytes)?.copy_from_slice(value);
                    }
                    Space::Shared => block.shared.write(actor, lane, address, value)?,
                    Space::Local | Space::Parameter => return Err(no_such_memory(lane, space)),
                }
            }
            if mask != 0 {
                count(block, space, &places, mask, bytes, Direction::Store);
            }
        }
    }
    Ok(())
}

pub(super) fn multiply(warp: &mut Warp, block: &mut Block, wmma: &Wmma, mask: Mask) -> Result<(), Defect> {
    whole_warp(mask)?;
    for &register in [&wmma.a, &wmma.b, &wmma.c].into_iter().flat_map(|fragment| &fragment.registers) {
        warp.demand32(register, mask, block.kernel)?;
    }
    let (m, n, k) = (wmma.a.rows, wmma.b.columns, wmma.a.columns);
    block.counters.mma_flops += 2 * (m * n * k) as u64;
    let [a, b, c] = [&wmma.a, &wmma.b, &wmma.c].map(|fragment| fragment.gather(warp));
    let results: Vec<u32> = match wmma.element {
        MmaElement::Integer(sign) => {
            let value = |bits: u32| match sign {
                Sign::Signed => i64::from(bits as u8 as i8),
                Sign::Unsigned => i64::from(bits as u8),
            };
            let sums =
                products(&a, &b, c.iter().map(|&bits| i64::from(bits as i32)), [m, n, k], value, |s, x, y| s + x * y);
            sums.map(|sum| match wmma.result {
                Accumulator::S32Saturated => sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32,
                _ => sum as u32,
            })
            .collect()
        }
        element => {
            let value = |bits: u32| match element {
                MmaElement::F16 => f16_to_f32(bits),
                MmaElement::Bf16 => f32::from_bits(bits << 16),
                // The hardware reads the upper 19 bits.
                _ => f32::from_bits(bits & 0xffff_e000),
            };
            let sum = |bits: &u32| if wmma.sum == Accumulator::F16 { f16_to_f32(*bits) } else { f32::from_bits(*bits) };
            let sums = products(&a, &b, c.iter().map(sum), [m, n, k], value, |s, x, y| s + x * y);
            sums.map(|sum| match wmma.result {
                Accumulator::F16 => encode(f64::from(sum), Format::F16, Rounding::NearestEven, Saturate::No),
                _ => canonical32(sum),
            })
            .collect()
        }
    };
    wmma.d.scatter(warp, &results);
    Ok(())
}

/// Sums of products, row by row, each in the order of k.
fn products<T: Copy>(
    a: &[u32],
    b: &[u32],
    c: impl Iterator<Item = T>,
    [_, n, k]: [usize; 3],
    value: impl Fn(u32) -> T,
    add: impl Fn(T, T, T) -> T,
) -> impl Iterator<Item = T> {
    c.enumerate().map(move |(number, sum)| {
        let (row, column) = (number / n, number % n);
        (0..k).fold(sum, |sum, depth| add(sum, value(a[row * k + depth]), value(b[depth * n + column])))
    })
}
