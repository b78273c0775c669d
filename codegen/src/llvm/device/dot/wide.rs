//! Products of many rows in f32: a block of rows times a block of columns by multiply-adds of threads, fed from shared
//! memory, into which the next part of the sum is copied meanwhile.
//!
//! A thread has 8 rows and 8 columns: of each 32 rows every fourth, of two panels four columns side by side. Per four k
//! it loads 16 bytes of each of its rows and columns for 256 multiply-adds. Lines of rows are 16 bytes longer than what they
//! hold, and of weights in bf16 the lines of the two halves of a panel are exchanged in pairs, so that no two lanes want
//! different words of a bank. Every element is one chain over k in ascending order.

use super::super::copy;
use super::super::matrix::{self, PANEL, PANEL_BLOCK};
use super::super::thread::barrier;
use super::super::{DeviceContext, DeviceParams};
use super::block::{self, Block, SLOTS};
use super::epilogue::row_stride;
use super::{Left, Section};
use crate::llvm::text::{F32, FunctionText, I32, Value, float_of, int, int_of};
use llmc_ir::dtype::DType;

/// Elements of the sum in a stage.
const DEPTH: usize = PANEL;
/// Bytes from a row to the next in a stage.
const LINE: usize = DEPTH * 4 + copy::BYTES;
/// Rows of a warp, and slots.
const WARP_ROWS: usize = 32;
const WARP_SLOTS: usize = 2;
/// Rows of a thread, and from one to the next.
const ROWS: usize = 8;
const ROW_STEP: usize = WARP_ROWS / ROWS;

/// One block at work.
struct Multiply<'a> {
    rows: usize,
    threads: usize,
    block: Block<'a>,
}

/// What a thread copies into each stage.
struct Copies {
    /// First pieces of rows, and where they go.
    rows: Vec<(Value, Value)>,
    weights: Vec<Weights>,
}

/// A piece of 16 bytes of a panel.
struct Weights {
    /// Address of the piece in the panel's first block, but of weights in f32 of its first line.
    from: Value,
    /// The piece's line in a block, where lines are single.
    line: Value,
    to: Value,
}

/// Where a thread reads a stage.
struct Operands {
    rows: Value,
    /// Per slot: of weights in bf16, pairs of even and of odd number.
    slots: Vec<[Value; 2]>,
}

/// Emits the kernel.
pub fn emit(context: &mut DeviceContext<'_>, left: &Left, sections: &[Section<'_>]) -> Result<(), String> {
    let rows = if context.bounds.max_of(left.rows) <= 64 { 64 } else { 128 };
    let threads = rows / WARP_ROWS * (SLOTS / WARP_SLOTS) * super::super::thread::WARP;
    let results = |section: &Section<'_>| section.products.len() * rows * row_stride(section.columns);
    let results = sections.iter().map(results).max().ok_or("a region without outputs")?;
    let shared_bytes = results.max(2 * stage_bytes(rows, left.weights));
    block::launch(context, "wide", (left, sections), [rows, threads, shared_bytes], |block, f, context, params| {
        Multiply { rows, threads, block }.emit(f, context, params)
    })
}

/// Bytes of a panel in a stage.
fn slot_bytes(weights: DType) -> usize {
    DEPTH * PANEL * weights.bytes()
}

fn stage_bytes(rows: usize, weights: DType) -> usize {
    rows * LINE + SLOTS * slot_bytes(weights)
}

impl Multiply<'_> {
    fn emit(&self, f: &mut FunctionText, context: &mut DeviceContext<'_>, params: &DeviceParams) -> Result<(), String> {
        let warp = f.binary("lshr", &self.block.thread, &int(5));
        let lane = f.binary("and", &self.block.thread, &int(31));
        let (warp_row, warp_column) = (f.binary("lshr", &warp, &int(1)), f.binary("and", &warp, &int(1)));
        let (row, column) = (f.binary("lshr", &lane, &int(3)), f.binary("and", &lane, &int(7)));
        let first_row = f.scale(&warp_row, WARP_ROWS as i64);
        let first_row = f.add(&first_row, &row);
        let sums = self.sum(f, params, [&first_row, &warp_column, &column])?;
        barrier(f);
        self.block.finish(f, context, params, [self.rows, self.threads], |f, slots| {
            for slot in 0..WARP_SLOTS {
                let number = f.scale(&warp_column, WARP_SLOTS as i64);
                let number = f.add(&number, &int(slot as i64));
                slots.with(f, &number, |f, to| {
                    let to = f.element(to, &first_row, slots.stride as i64);
                    let to = f.element(&to, &column, 16);
                    for row in 0..ROWS {
                        let to = f.offset(&to, &int((row * ROW_STEP * slots.stride) as i64));
                        let at = (row * WARP_SLOTS + slot) * 4;
                        matrix::store_four(f, [&sums[at], &sums[at + 1], &sums[at + 2], &sums[at + 3]], &to);
                    }
                });
            }
        })
    }

    /// `[row][slot][4 columns]` sums of this thread.
    fn sum(&self, f: &mut FunctionText, params: &DeviceParams, place: [&Value; 3]) -> Result<Vec<Value>, String> {
        let shared = f.shared_memory();
        let copies = self.copies(f, params)?;
        let operands = self.operands(f, place);
        let stage_bytes = int(stage_bytes(self.rows, self.block.left.weights) as i64);
        self.copy(f, &copies, &int(0), &shared);
        copy::commit(f);
        let steps = int(self.block.left.k.div_ceil(DEPTH) as i64);
        let mut initial = vec![int(0)];
        initial.extend(vec![float_of(F32, 0.0); ROWS * WARP_SLOTS * 4]);
        let state = f.fold(&int(0), &steps, 1, &initial, |f, step, state| {
            copy::wait(f, 0);
            barrier(f);
            let next = f.add(step, &int(1));
            let other = f.binary("sub nsw", &stage_bytes, &state[0]);
            let more = f.compare("icmp slt", &next, &steps);
            f.when(&more, |f| {
                let to = f.offset(&shared, &other);
                self.copy(f, &copies, &next, &to);
            });
            copy::commit(f);
            let from = f.offset(&shared, &state[0]);
            let quads = int(DEPTH as i64 / 4);
            let sums =
                f.fold(&int(0), &quads, 1, &state[1..], |f, quad, sums| self.multiply(f, &operands, &from, quad, sums));
            std::iter::once(other).chain(sums).collect()
        });
        Ok(state[1..].to_vec())
    }

    fn copies(&self, f: &mut FunctionText, params: &DeviceParams) -> Result<Copies, String> {
        let left = self.block.left;
        let (line, piece) =
            (f.binary("lshr", &self.block.thread, &int(3)), f.binary("and", &self.block.thread, &int(7)));
        let lines_at_once = self.threads / 8;
        let last = f.add(&self.block.count, &int(-1));
        let mut rows = Vec::new();
        for turn in 0..self.rows / lines_at_once {
            let own = f.add(&line, &int((turn * lines_at_once) as i64));
            let row = f.min(&own, &last);
            let row = f.add(&self.block.row, &row);
            let from = left.row(f, params, &row)?;
            let from = f.element(&from, &piece, copy::BYTES as i64);
            let to = f.scale(&own, LINE as i64);
            let in_line = f.scale(&piece, copy::BYTES as i64);
            rows.push((from, f.add(&to, &in_line)));
        }
        let weights = match left.weights {
            DType::F32 => self.single_lines(f, params, &line, &piece),
            _ => self.pairs(f, params),
        };
        Ok(Copies { rows, weights })
    }

    /// Weights in f32: a line of 32 columns per k.
    fn single_lines(&self, f: &mut FunctionText, params: &DeviceParams, line: &Value, piece: &Value) -> Vec<Weights> {
        let panel_bytes = self.block.left.k * PANEL * 4;
        let slots = self.block.slots(f, params, panel_bytes as i64);
        let first = self.rows * LINE;
        let lines_at_once = self.threads / 8;
        let in_line = f.scale(piece, copy::BYTES as i64);
        let mut weights = Vec::new();
        for (slot, turn) in (0..SLOTS).flat_map(|slot| (0..DEPTH / lines_at_once).map(move |turn| (slot, turn))) {
            let line = f.add(line, &int((turn * lines_at_once) as i64));
            let (address, offset) = &slots[slot];
            let from = f.offset(address, &int(*offset));
            let from = f.offset(&from, &in_line);
            let to = f.scale(&line, (PANEL * 4) as i64);
            let to = f.add(&to, &in_line);
            let to = f.add(&to, &int((first + slot * slot_bytes(DType::F32)) as i64));
            weights.push(Weights { from, line, to });
        }
        weights
    }

    /// Weights in bf16: two halves of a panel, each with a line of 16 columns per pair of k.
    fn pairs(&self, f: &mut FunctionText, params: &DeviceParams) -> Vec<Weights> {
        let panel_bytes = self.block.left.k.div_ceil(PANEL) * PANEL_BLOCK;
        let slots = self.block.slots(f, params, panel_bytes as i64);
        let slots: Vec<Value> = slots.iter().map(|(address, offset)| f.offset(address, &int(*offset))).collect();
        let pieces = PANEL_BLOCK / copy::BYTES;
        let at_once = self.threads / pieces;
        let own = f.binary("urem", &self.block.thread, &int(pieces as i64));
        let slot_of_thread = f.binary("udiv", &self.block.thread, &int(pieces as i64));
        let from = f.scale(&own, copy::BYTES as i64);
        // Of the second half the lines of each two pairs are exchanged.
        let half = f.binary("lshr", &own, &int(6));
        let exchange = f.scale(&half, 64);
        let in_slot = f.binary("xor", &from, &exchange);
        let first = self.rows * LINE;
        (0..SLOTS / at_once)
            .map(|turn| {
                let mut address = slots[turn * at_once].clone();
                for next in 1..at_once {
                    let here = f.compare("icmp eq", &slot_of_thread, &int(next as i64));
                    address = f.select(&here, &slots[turn * at_once + next], &address);
                }
                let from = f.offset(&address, &from);
                let to = f.add(&slot_of_thread, &int((turn * at_once) as i64));
                let to = f.scale(&to, slot_bytes(DType::BF16) as i64);
                let to = f.add(&to, &in_slot);
                Weights { from, line: int(0), to: f.add(&to, &int(first as i64)) }
            })
            .collect()
    }

    /// Starts the copies of one stage.
    fn copy(&self, f: &mut FunctionText, copies: &Copies, step: &Value, stage: &Value) {
        for (from, to) in &copies.rows {
            let from = f.element(from, step, (DEPTH * 4) as i64);
            let to = f.offset(stage, to);
            copy::start(f, (&to, 0), (&from, 0));
        }
        let first = f.scale(step, DEPTH as i64);
        let k = self.block.left.k;
        for Weights { from, line, to } in &copies.weights {
            let from = match self.block.left.weights {
                DType::F32 => {
                    // Behind the end of the sum the last line stands in; the rows there are zero.
                    let line = f.add(&first, line);
                    let line = if k.is_multiple_of(DEPTH) { line } else { f.min(&line, &int(k as i64 - 1)) };
                    f.element(from, &line, (PANEL * 4) as i64)
                }
                _ => f.element(from, step, PANEL_BLOCK as i64),
            };
            let to = f.offset(stage, to);
            copy::start(f, (&to, 0), (&from, 0));
        }
    }

    fn operands(&self, f: &mut FunctionText, [first_row, warp_column, column]: [&Value; 3]) -> Operands {
        let weights = self.block.left.weights;
        let rows = f.scale(first_row, LINE as i64);
        let first_slot = f.scale(warp_column, (WARP_SLOTS * slot_bytes(weights)) as i64);
        let first_slot = f.add(&first_slot, &int((self.rows * LINE) as i64));
        let slots = (0..WARP_SLOTS)
            .map(|slot| {
                let slot = f.add(&first_slot, &int((slot * slot_bytes(weights)) as i64));
                if weights == DType::F32 {
                    let own = f.scale(column, 16);
                    let own = f.add(&slot, &own);
                    return [own.clone(), own];
                }
                let half = f.binary("lshr", column, &int(2));
                let in_half = f.binary("and", column, &int(3));
                let in_half = f.scale(&in_half, 16);
                let own = f.add(&slot, &in_half);
                [1024 + 64, 1024 - 64].map(|bytes| {
                    let half = f.scale(&half, bytes);
                    f.add(&own, &half)
                })
            })
            .collect();
        Operands { rows, slots }
    }

    /// Multiplies four k of a stage.
    fn multiply(
        &self,
        f: &mut FunctionText,
        operands: &Operands,
        stage: &Value,
        quad: &Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let rows = f.offset(stage, &operands.rows);
        let rows = f.element(&rows, quad, 16);
        let rows: Vec<Value> = (0..ROWS)
            .map(|row| {
                let address = f.offset(&rows, &int((row * ROW_STEP * LINE) as i64));
                f.load(F32.with_lanes(4), &address, 16)
            })
            .collect();
        let mut sums = sums.to_vec();
        for pair in 0..2 {
            let lines: Vec<[Vec<Value>; 2]> = operands
                .slots
                .iter()
                .map(|slot| match self.block.left.weights {
                    DType::F32 => {
                        let address = f.offset(stage, &slot[0]);
                        let address = f.element(&address, quad, (4 * PANEL * 4) as i64);
                        [0, 1].map(|odd| {
                            let address = f.offset(&address, &int((2 * pair + odd) * (PANEL * 4) as i64));
                            let line = f.load(F32.with_lanes(4), &address, 16);
                            (0..4).map(|column| f.extract(&line, column)).collect()
                        })
                    }
                    _ => {
                        let address = f.offset(stage, &slot[pair as usize]);
                        let address = f.element(&address, quad, 2 * 64);
                        let address = f.offset(&address, &int(pair * 64));
                        widened(f, &address)
                    }
                })
                .collect();
            for odd in 0..2 {
                for (row, (slot, lines)) in
                    (0..ROWS).flat_map(|row| lines.iter().enumerate().map(move |slot| (row, slot)))
                {
                    let x = f.extract(&rows[row], 2 * pair as usize + odd);
                    for column in 0..4 {
                        let sum = &mut sums[(row * WARP_SLOTS + slot) * 4 + column];
                        *sum = f.intrinsic("fma", &[x.clone(), lines[odd][column].clone(), sum.clone()]);
                    }
                }
            }
        }
        sums
    }
}

/// The two k of four columns of pairs in bf16.
fn widened(f: &mut FunctionText, address: &Value) -> [Vec<Value>; 2] {
    let pairs = f.load(I32.with_lanes(4), address, 16);
    [("shl", 16), ("and", -0x1_0000)].map(|(operation, by)| {
        (0..4)
            .map(|column| {
                let pair = f.extract(&pairs, column);
                let bits = f.binary(operation, &pair, &int_of(I32, by));
                f.cast("bitcast", &bits, F32)
            })
            .collect()
    })
}
