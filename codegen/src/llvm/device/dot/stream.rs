//! Products of few rows, bound by reading weights: every warp reads its own panel's part straight into registers, many
//! bytes at a time, and no two warps read the same.
//!
//! Warps of a block share out its panels and, per panel, the sum: a warp's share is a range of k. The partial results meet
//! in shared memory and are added in ascending order of k. Ranges follow from shapes alone. Where sums are in parts, a
//! block has one of them, and another kernel adds the parts.
//!
//! For bf16 the weights are the left operand of the matrix instruction (16 of them) and 8 rows of activations the right
//! one; a row that is missing repeats the last one and is not stored. For f32 lanes take 4 columns and a quarter of each
//! 16 k, and add up in the end.

use super::super::matrix::{self, COLUMNS, Lifetime, PANEL, PANEL_BLOCK};
use super::super::thread::{WARP, from_partner, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::epilogue::{Results, emit as emit_epilogue, row_stride};
use super::{Left, RowsIn, Section, prologue};
use crate::llvm::expression::Tile;
use crate::llvm::step_args::size;
use crate::llvm::text::{F32, FunctionText, Value, float_of, int, int_of};
use llmc_ir::dtype::DType;

/// Panels times products that a block may have.
const MOST_JOBS: usize = 8;
/// Warps of a block at least, and at most.
const WARPS: [usize; 2] = [8, 16];
/// Blocks of 32 k whose loads are in flight together.
const IN_FLIGHT: usize = 2;
/// Warps that keep a large device busy.
const ENOUGH_WARPS: usize = 132 * 16;
/// Rows of a block in bf16, at most: more would need more registers than loads under way leave.
const MOST_ROWS: usize = 2 * COLUMNS;
/// Rows of a block in f32.
const F32_ROWS: usize = 8;

/// The most columns of a block for that many products.
pub fn most_columns(dots: usize) -> usize {
    MOST_JOBS / dots * PANEL
}

/// What the parts of the kernel share.
struct Stream<'a> {
    left: &'a Left,
    warps: usize,
    rows: usize,
    /// Blocks of 32 k of the whole sum.
    k_blocks: usize,
    /// Which part of the sum the block has.
    part: Value,
    /// Blocks of 32 k of a part but for the last one.
    part_blocks: usize,
    /// Address of the block's first row of the left operand.
    base: Value,
    /// First row of the block, and how many there are from it on.
    row: Value,
    count: Value,
    warp: Value,
    lane: Value,
    shared: Value,
}

/// Emits the kernel. `parts` are the lengths of the parts of the sum.
pub fn emit(
    context: &mut DeviceContext<'_>,
    left: &Left,
    sections: &[Section<'_>],
    parts: &[usize],
) -> Result<(), String> {
    let most_rows = context.bounds.max_of(left.rows);
    let rows = match left.dtype {
        DType::F32 => most_rows.clamp(1, F32_ROWS),
        _ => most_rows.next_multiple_of(COLUMNS).clamp(COLUMNS, MOST_ROWS),
    };
    let column_blocks: usize = sections.iter().map(Section::blocks).sum();
    let jobs = |section: &Section<'_>| section.products.len() * section.panels();
    let most_jobs = sections.iter().map(jobs).max().ok_or("a region without outputs")?;
    let [least, most] = WARPS;
    // In f32, and for many rows, a thread needs more registers than there are for more warps.
    let narrow = left.dtype != DType::F32 && rows <= COLUMNS;
    let few_blocks = column_blocks * parts.len() * least < ENOUGH_WARPS && narrow;
    let wanted = if few_blocks { most } else { least };
    let warps = (wanted / most_jobs).max(1) * most_jobs;
    let k_blocks = left.k.div_ceil(PANEL);
    let part_blocks = parts.first().map_or(k_blocks, |part| part.div_ceil(PANEL));
    let shared = |section: &Section<'_>| {
        splits(section, warps, part_blocks) * section.products.len() * rows * row_stride(section.columns)
    };
    let result_bytes = sections.iter().map(shared).max().unwrap_or(0);
    let threads = warps * WARP;
    let shared_bytes = result_bytes + prologue::shared_bytes(context, left, threads);
    // Left to itself the assembler spills for the sake of more warps than loads under way need.
    let resident = match left.dtype {
        DType::F32 => (rows > 1).then_some(1),
        _ if warps == most => Some(1),
        _ => (rows > COLUMNS).then_some(2),
    };
    let geometry =
        Geometry { blocks: blocks(left.rows, rows, column_blocks * parts.len())?, threads, shared_bytes, resident };
    context.launch("stream", &geometry, |context, f, params| {
        let all = size(f, &params.args, left.rows)?;
        let block = special_wide(f, "ctaid.x");
        let thread = special_wide(f, "tid.x");
        let mut share_out = |all: Value, by: usize| match by {
            1 => (all, int(0)),
            _ => (f.binary("udiv", &all, &int(by as i64)), f.binary("urem", &all, &int(by as i64))),
        };
        let (rest, part) = share_out(block, parts.len());
        let (row_block, column_block) = share_out(rest, column_blocks);
        let row = f.scale(&row_block, rows as i64);
        let rest = f.binary("sub nsw", &all, &row);
        let count = f.min(&rest, &int(rows as i64));
        let warp = f.binary("lshr", &thread, &int(5));
        let lane = f.binary("and", &thread, &int(31));
        let shared = f.shared_memory();
        let any = f.compare("icmp sgt", &count, &int(0));
        let mut result = Ok(());
        f.when(&any, |f| {
            let base = match &left.rows_in {
                RowsIn::Block(computed) => {
                    let to = f.offset(&shared, &int(result_bytes as i64));
                    let of = (left, computed);
                    result = prologue::compute(f, context, params, of, (&thread, threads), (&row, &count), &to);
                    to
                }
                _ => match left.row(f, params, &row) {
                    Ok(base) => base,
                    Err(error) => {
                        result = Err(error);
                        return;
                    }
                },
            };
            let stream =
                Stream { left, warps, rows, k_blocks, part, part_blocks, base, row, count, warp, lane, shared };
            let mut first = 0;
            for section in sections {
                let own = f.add(&column_block, &int(-first));
                let here = f.compare("icmp ult", &own, &int(section.blocks() as i64));
                f.when(&here, |f| {
                    let emitted = stream.emit_section(f, context, params, section, &own);
                    result = std::mem::replace(&mut result, Ok(())).and(emitted);
                });
                first += section.blocks() as i64;
            }
        });
        result
    })
}

/// How many warps share a part of a panel's sum.
fn splits(section: &Section<'_>, warps: usize, part_blocks: usize) -> usize {
    (warps / (section.products.len() * section.panels())).min(part_blocks)
}

impl Stream<'_> {
    fn emit_section(
        &self,
        f: &mut FunctionText,
        context: &mut DeviceContext<'_>,
        params: &DeviceParams,
        section: &Section<'_>,
        column_block: &Value,
    ) -> Result<(), String> {
        let splits = splits(section, self.warps, self.part_blocks);
        let panels = section.panels();
        let stride = row_stride(section.columns);
        let summand_stride = self.rows * stride;
        // Warps: product, then panel, then part of the sum.
        let split = f.binary("urem", &self.warp, &int(splits as i64));
        let job = f.binary("udiv", &self.warp, &int(splits as i64));
        let panel = f.binary("urem", &job, &int(panels as i64));
        let dot = f.binary("udiv", &job, &int(panels as i64));
        let first_panel = f.scale(column_block, panels as i64);
        let number = f.add(&first_panel, &panel);
        let first = f.scale(&self.part, self.part_blocks as i64);
        let rest = f.binary("sub nsw", &int(self.k_blocks as i64), &first);
        let own = f.min(&rest, &int(self.part_blocks as i64));
        let [start, end] = [0, 1].map(|next| {
            let split = f.add(&split, &int(next));
            let scaled = f.binary("mul nsw", &split, &own);
            let share = f.binary("udiv", &scaled, &int(splits as i64));
            f.add(&first, &share)
        });
        let mut weights = params.inputs[section.products[0].weight].clone();
        for (index, product) in section.products.iter().enumerate().skip(1) {
            let here = f.compare("icmp eq", &dot, &int(index as i64));
            weights = f.select(&here, &params.inputs[product.weight], &weights);
        }
        let panel_bytes = match self.left.weights {
            DType::F32 => self.left.k * PANEL * 4,
            _ => self.k_blocks * PANEL_BLOCK,
        };
        let weights = f.element(&weights, &number, panel_bytes as i64);
        let to = f.element(&self.shared, &dot, (splits * summand_stride) as i64);
        let to = f.element(&to, &split, summand_stride as i64);
        let to = f.element(&to, &panel, (PANEL * 4) as i64);
        let exists = f.compare("icmp ult", &number, &int(section.n.div_ceil(PANEL) as i64));
        let busy = f.compare("icmp ult", &dot, &int(section.products.len() as i64));
        let exists = f.binary("and", &exists, &busy);
        f.when(&exists, |f| match self.left.dtype {
            DType::F32 => self.sum_f32(f, &weights, [&start, &end], &to, stride),
            _ => self.sum_bf16(f, &weights, [&start, &end], &to, stride),
        });
        super::super::thread::barrier(f);
        let column = f.scale(column_block, section.columns as i64);
        let tiles = (0..section.products.len()).map(|dot| Tile {
            base: f.offset(&self.shared, &int((dot * splits * summand_stride) as i64)),
            row: self.row.clone(),
            column: column.clone(),
            stride,
            summands: splits,
            summand_stride,
        });
        let results = Results {
            tiles: tiles.collect(),
            row: self.row.clone(),
            count: self.count.clone(),
            column: column.clone(),
            warp: self.warp.clone(),
            lane: self.lane.clone(),
            warps: self.warps,
            part: self.part.clone(),
        };
        emit_epilogue(f, context, params, section, &results)
    }

    /// Address of a row of the block, or of the last one there is.
    fn row_address(&self, f: &mut FunctionText, row: &Value) -> Value {
        let last = f.add(&self.count, &int(-1));
        let row = f.min(row, &last);
        f.element(&self.base, &row, self.left.row_bytes() as i64)
    }

    /// The sum over blocks `start..end` of k: a lane's k pairs are `4t..4t + 4` of each block, for weights and rows.
    fn sum_bf16(&self, f: &mut FunctionText, weights: &Value, [start, end]: [&Value; 2], to: &Value, stride: usize) {
        let (g, t) = (f.binary("lshr", &self.lane, &int(2)), f.binary("and", &self.lane, &int(3)));
        let place = matrix::place_in_block(f, &g, &t, 4);
        let weights = f.offset(weights, &place);
        let tiles = self.rows / COLUMNS;
        let rows: Vec<Value> = (0..tiles)
            .map(|tile| {
                let row = f.add(&g, &int((tile * COLUMNS) as i64));
                let address = self.row_address(f, &row);
                f.element(&address, &t, 16)
            })
            .collect();
        // Per 8 rows two products of 16 columns each.
        let zeros = vec![float_of(F32, 0.0); tiles * 8];
        let blocks = |f: &mut FunctionText, from: &Value, to: &Value, count: usize, sums: &[Value]| {
            f.fold(from, to, count as i64, sums, |f, block, sums| {
                let weights = f.element(&weights, block, PANEL_BLOCK as i64);
                let mut loaded = Vec::new();
                for next in 0..count {
                    let pairs: Vec<Vec<Value>> = (0..4)
                        .map(|pair| {
                            let address = f.offset(&weights, &int((next * PANEL_BLOCK + pair * 64) as i64));
                            matrix::load_pairs(f, &address, Lifetime::Constant)
                        })
                        .collect();
                    loaded.push(pairs);
                }
                let mut sums = sums.to_vec();
                for (next, pairs) in loaded.iter().enumerate() {
                    for (tile, row) in rows.iter().enumerate() {
                        let row = f.element(row, block, (PANEL * 2) as i64);
                        let row = f.offset(&row, &int((next * PANEL * 2) as i64));
                        let x = matrix::load_pairs(f, &row, Lifetime::Written);
                        for (depth, half) in [0, 2].into_iter().flat_map(|depth| [(depth, 0), (depth, 1)]) {
                            let (low, high) = (&pairs[depth], &pairs[depth + 1]);
                            let a = [&low[2 * half], &low[2 * half + 1], &high[2 * half], &high[2 * half + 1]];
                            let at = tile * 8 + half * 4;
                            let next = matrix::multiply(f, a, [&x[depth], &x[depth + 1]], &sums[at..at + 4]);
                            sums.splice(at..at + 4, next);
                        }
                    }
                }
                sums
            })
        };
        let count = f.binary("sub nsw", end, start);
        let whole = f.binary("and", &count, &int(-(IN_FLIGHT as i64)));
        let middle = f.add(start, &whole);
        let sums = blocks(f, start, &middle, IN_FLIGHT, &zeros);
        let sums = blocks(f, &middle, end, 1, &sums);
        // A lane has the columns 4g..4g + 4 of rows 2t and 2t + 1.
        let to = f.element(to, &g, 16);
        for tile in 0..tiles {
            for odd in 0..2 {
                let row = f.scale(&t, 2);
                let row = f.add(&row, &int((tile * COLUMNS + odd) as i64));
                let address = f.element(&to, &row, stride as i64);
                let at = tile * 8 + odd;
                matrix::store_four(f, [&sums[at], &sums[at + 2], &sums[at + 4], &sums[at + 6]], &address);
            }
        }
    }

    /// The same for f32: a lane takes columns `4 * (lane % 8)` and on, and the quarter `lane / 8` of each 16 k.
    fn sum_f32(&self, f: &mut FunctionText, weights: &Value, [start, end]: [&Value; 2], to: &Value, stride: usize) {
        let (quarter, column) = (f.binary("lshr", &self.lane, &int(3)), f.binary("and", &self.lane, &int(7)));
        let narrow = self.left.weights == DType::BF16;
        let weights = if narrow {
            // Columns 4 * column and on of a block's pairs: two tiles of 16 columns.
            let tile = f.binary("lshr", &column, &int(2));
            let tile = f.element(weights, &tile, (PANEL_BLOCK / 2) as i64);
            let in_tile = f.binary("and", &column, &int(3));
            f.element(&tile, &in_tile, 16)
        } else {
            f.element(weights, &column, 16)
        };
        let rows: Vec<Value> = (0..self.rows).map(|row| self.row_address(f, &int(row as i64))).collect();
        let k = self.left.k;
        let whole_blocks = int((k / PANEL) as i64);
        let zeros = vec![float_of(F32, 0.0); self.rows * 4];
        let own = f.scale(&quarter, 4);
        let block = |f: &mut FunctionText, block: &Value, sums: &[Value], partial: Option<usize>| {
            let first = f.scale(block, PANEL as i64);
            let first = f.add(&first, &own);
            let mut sums = sums.to_vec();
            for half in 0..2 {
                let at = f.add(&first, &int(16 * half));
                // Behind the end of the sum the last element stands in, times zero.
                let places: Vec<Value> = (0..4)
                    .map(|i| {
                        let place = f.add(&at, &int(i));
                        if partial.is_some() { f.min(&place, &int(k as i64 - 1)) } else { place }
                    })
                    .collect();
                let lines: Vec<Vec<Value>> = if narrow {
                    let block = f.element(&weights, block, PANEL_BLOCK as i64);
                    let pairs = f.scale(&quarter, 2);
                    let pairs = f.add(&pairs, &int(8 * half));
                    let block = f.element(&block, &pairs, 64);
                    widened_pairs(f, &block)
                } else {
                    let load = |place: &Value| {
                        let address = f.element(&weights, place, (PANEL * 4) as i64);
                        let line = f.load_constant(F32.with_lanes(4), &address, 16);
                        (0..4).map(|column| f.extract(&line, column)).collect()
                    };
                    places.iter().map(load).collect()
                };
                for (number, row) in rows.iter().enumerate() {
                    let address = f.element(row, &at, 4);
                    let vector =
                        (partial.is_none() && k.is_multiple_of(4)).then(|| f.load(F32.with_lanes(4), &address, 16));
                    for i in 0..4 {
                        let x = match &vector {
                            Some(vector) => f.extract(vector, i),
                            None => {
                                let address = f.element(row, &places[i], 4);
                                f.load(F32, &address, 4)
                            }
                        };
                        let x = match partial {
                            Some(_) => {
                                let place = f.add(&at, &int(i as i64));
                                let inside = f.compare("icmp slt", &place, &int(k as i64));
                                f.select(&inside, &x, &float_of(F32, 0.0))
                            }
                            None => x,
                        };
                        for j in 0..4 {
                            let sum = &mut sums[number * 4 + j];
                            *sum = f.intrinsic("fma", &[x.clone(), lines[i][j].clone(), sum.clone()]);
                        }
                    }
                }
            }
            sums
        };
        let last_whole = f.min(end, &whole_blocks);
        let mut sums = f.fold(start, &last_whole, 1, &zeros, |f, number, sums| block(f, number, sums, None));
        if !k.is_multiple_of(PANEL) {
            let from = f.max(start, &whole_blocks);
            sums = f.fold(&from, end, 1, &sums, |f, number, sums| block(f, number, sums, Some(k % PANEL)));
        }
        let sums: Vec<Value> = sums
            .iter()
            .map(|sum| {
                [8, 16].into_iter().fold(sum.clone(), |sum, mask| {
                    let other = from_partner(f, &sum, mask);
                    f.binary("fadd", &sum, &other)
                })
            })
            .collect();
        let to = f.element(to, &column, 16);
        let first = f.compare("icmp eq", &quarter, &int(0));
        f.when(&first, |f| {
            for (row, four) in sums.chunks_exact(4).enumerate() {
                let address = f.offset(&to, &int((row * stride) as i64));
                matrix::store_four(f, [&four[0], &four[1], &four[2], &four[3]], &address);
            }
        });
    }
}

/// Four k of four columns as f32, from two lines of pairs of bf16.
fn widened_pairs(f: &mut FunctionText, address: &Value) -> Vec<Vec<Value>> {
    let mut lines = Vec::new();
    for pair in 0..2 {
        let address = f.offset(address, &int(64 * pair));
        let pairs = matrix::load_pairs(f, &address, Lifetime::Constant);
        let even = |pair: &Value, f: &mut FunctionText| {
            let bits = f.binary("shl", pair, &int_of(pair.ty, 16));
            f.cast("bitcast", &bits, F32)
        };
        let odd = |pair: &Value, f: &mut FunctionText| {
            let bits = f.binary("and", pair, &int_of(pair.ty, -0x1_0000));
            f.cast("bitcast", &bits, F32)
        };
        lines.push(pairs.iter().map(|pair| even(pair, f)).collect());
        lines.push(pairs.iter().map(|pair| odd(pair, f)).collect());
    }
    lines
}
