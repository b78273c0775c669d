//! Products of many rows: a block of rows times a block of columns on matrix units, fed from shared memory through a
//! pipeline of asynchronous copies.
//!
//! A stage holds [`Shape::depth`] of k: rows as they lie in memory, and of each panel whole blocks as they lie in memory.
//! In both the 16-byte pieces of a line are permuted by an exclusive or, so that neither copies nor loads ever meet in a
//! bank: a row's piece c is at `c ^ (row / 2 % 4)` (at `c ^ (row % 8)` where it has 8), and of a panel's k pair p the
//! piece c at `c ^ 2 * (p / 2 % 2)`.
//!
//! The weights are the left operand of the matrix instruction: its four registers must follow each other, and are two
//! 8-byte loads of neighbouring columns. Rows are the right one, whose two registers one `ldmatrix` loads.

use super::super::copy;
use super::super::matrix::{self, COLUMNS as MMA_COLUMNS, DEPTH, PANEL, PANEL_BLOCK, ROWS as MMA_ROWS};
use super::super::thread::{WARP, barrier, special, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::epilogue::{Results, emit as emit_epilogue, row_stride};
use super::{Left, Section};
use crate::llvm::expression::Tile;
use crate::llvm::step_args::size;
use crate::llvm::text::{F32, FunctionText, I32, I64, Value, float_of, int};

/// Columns of a block, of all its products together.
pub const COLUMNS: usize = SLOTS * PANEL;
/// Panels of a block.
const SLOTS: usize = 4;
/// Warps of a block, along rows and along columns.
const WARPS: [usize; 2] = [2, 2];
const THREADS: usize = WARPS[0] * WARPS[1] * WARP;
const SLOTS_PER_WARP: usize = SLOTS / WARPS[1];

/// How a block works.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Rows of a block.
    rows: usize,
    /// Elements of the sum per stage: 32 or 64.
    depth: usize,
    /// Stages that shared memory holds.
    stages: usize,
}

impl Shape {
    fn row_bytes(&self) -> usize {
        self.depth * 2
    }

    fn left_bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// Bytes of a panel in a stage.
    fn slot_bytes(&self) -> usize {
        self.depth / PANEL * PANEL_BLOCK
    }

    fn stage_bytes(&self) -> usize {
        self.left_bytes() + SLOTS * self.slot_bytes()
    }

    /// Products of 8 rows per warp.
    fn row_tiles(&self) -> usize {
        self.rows / WARPS[0] / MMA_COLUMNS
    }
}

/// Where the next stage is copied from and to.
struct Copies {
    /// Per 16-byte piece of this thread in a stage, and its offset from a common address.
    sources: Vec<(Value, i64)>,
    /// Byte offsets of the pieces' places in a stage: the thread's own part, and the rest.
    left: Value,
    slots: Value,
}

/// Where a warp reads a stage, from its start.
struct Operands {
    /// Per 16 k.
    left: Vec<Value>,
    slots: Value,
}

/// Emits the kernel.
pub fn emit(context: &mut DeviceContext<'_>, left: &Left, sections: &[Section<'_>]) -> Result<(), String> {
    let rows = if context.bounds.max_of(left.rows) <= 64 { 64 } else { 128 };
    let k = left.k.next_multiple_of(PANEL);
    let (depth, stages) = if k.is_multiple_of(64) { (64, 2) } else { (32, 4) };
    let shape = Shape { rows, depth, stages };
    let column_blocks: usize = sections.iter().map(Section::blocks).sum();
    let results = |section: &Section<'_>| section.products.len() * rows * row_stride(section.columns);
    let results = sections.iter().map(results).max().ok_or("a region without outputs")?;
    let shared_bytes = results.max(shape.stages * shape.stage_bytes());
    let geometry = Geometry { blocks: blocks(left.rows, rows, column_blocks)?, threads: THREADS, shared_bytes };
    context.launch("tile", &geometry, |context, f, params| {
        let all = size(f, &params.args, left.rows)?;
        // Blocks of the same columns follow each other, so that weights come from memory once.
        let block = special(f, "ctaid.x");
        let rounded = f.add(&all, &int(rows as i64 - 1));
        let row_blocks = f.binary("udiv", &rounded, &int(rows as i64));
        let row_blocks = f.max(&row_blocks, &int(1));
        let row_blocks = f.cast("trunc", &row_blocks, I32);
        let [column_block, row_block] = ["udiv", "urem"].map(|operation| {
            let number = f.binary(operation, &block, &row_blocks);
            f.cast("zext", &number, I64)
        });
        let row = f.scale(&row_block, rows as i64);
        let rest = f.binary("sub nsw", &all, &row);
        let count = f.min(&rest, &int(rows as i64));
        let some_rows = f.compare("icmp sgt", &count, &int(0));
        let some_columns = f.compare("icmp ult", &column_block, &int(column_blocks as i64));
        let any = f.binary("and", &some_rows, &some_columns);
        let mut result = Ok(());
        f.when(&any, |f| {
            let thread = special_wide(f, "tid.x");
            let multiply = Multiply { shape, left, sections, column_block, row, count, thread };
            result = multiply.emit(f, context, params);
        });
        result
    })
}

/// One block at work.
struct Multiply<'a> {
    shape: Shape,
    left: &'a Left,
    sections: &'a [Section<'a>],
    /// Among those of all sections.
    column_block: Value,
    row: Value,
    count: Value,
    thread: Value,
}

impl Multiply<'_> {
    fn emit(&self, f: &mut FunctionText, context: &mut DeviceContext<'_>, params: &DeviceParams) -> Result<(), String> {
        let shared = f.shared_memory();
        let warp = f.binary("lshr", &self.thread, &int(5));
        let lane = f.binary("and", &self.thread, &int(31));
        let warp_row = f.binary("lshr", &warp, &int(1));
        let warp_column = f.binary("and", &warp, &int(1));
        let sums = self.sum(f, params, &shared, [&warp_row, &warp_column, &lane])?;
        // The results take the place of the stages, into which nothing is on its way any more: the last steps start no copies.
        barrier(f);
        let (g, t) = (f.binary("lshr", &lane, &int(2)), f.binary("and", &lane, &int(3)));
        let mut result = Ok(());
        self.for_sections(f, |f, section, own| {
            let stride = row_stride(section.columns);
            let panels = section.panels();
            let tile_bytes = self.shape.rows * stride;
            for slot in 0..SLOTS_PER_WARP {
                let number = f.scale(&warp_column, SLOTS_PER_WARP as i64);
                let number = f.add(&number, &int(slot as i64));
                let used = f.compare("icmp ult", &number, &int((section.products.len() * panels) as i64));
                f.when(&used, |f| {
                    let dot = f.binary("udiv", &number, &int(panels as i64));
                    let panel = f.binary("urem", &number, &int(panels as i64));
                    let to = f.element(&shared, &dot, tile_bytes as i64);
                    let to = f.element(&to, &panel, (PANEL * 4) as i64);
                    let row = f.scale(&warp_row, (self.shape.rows / WARPS[0]) as i64);
                    let own = f.scale(&t, 2);
                    let row = f.add(&row, &own);
                    let to = f.element(&to, &row, stride as i64);
                    let to = f.element(&to, &g, 8);
                    for (half, tile) in
                        (0..2).flat_map(|half| (0..self.shape.row_tiles()).map(move |tile| (half, tile)))
                    {
                        // Of two neighbouring columns each, the rows 2t and 2t + 1.
                        let at = ((slot * 2 + half) * self.shape.row_tiles() + tile) * 4;
                        for odd in 0..2 {
                            let place = (tile * MMA_COLUMNS + odd) * stride + half * 64;
                            let to = f.offset(&to, &int(place as i64));
                            store_two(f, [&sums[at + odd], &sums[at + 2 + odd]], &to);
                        }
                    }
                });
            }
            barrier(f);
            let column = f.scale(own, section.columns as i64);
            let tiles = (0..section.products.len()).map(|dot| Tile {
                base: f.offset(&shared, &int((dot * tile_bytes) as i64)),
                row: self.row.clone(),
                column: column.clone(),
                stride,
                summands: 1,
                summand_stride: 0,
            });
            let results = Results {
                tiles: tiles.collect(),
                row: self.row.clone(),
                count: self.count.clone(),
                column: column.clone(),
                warp: warp.clone(),
                lane: lane.clone(),
                warps: THREADS / WARP,
            };
            let emitted = emit_epilogue(f, context, params, section, &results);
            result = std::mem::replace(&mut result, Ok(())).and(emitted);
        });
        result
    }

    /// Code for each section, run by blocks of its own; `body` gets the number of the block among those.
    fn for_sections(&self, f: &mut FunctionText, mut body: impl FnMut(&mut FunctionText, &Section<'_>, &Value)) {
        let mut first = 0;
        for section in self.sections {
            let own = f.add(&self.column_block, &int(-first));
            let here = f.compare("icmp ult", &own, &int(section.blocks() as i64));
            f.when(&here, |f| body(f, section, &own));
            first += section.blocks() as i64;
        }
    }

    /// Address of the first k of each slot's panel: an address, and an offset from it that is the same for all blocks.
    fn slots(&self, f: &mut FunctionText, params: &DeviceParams) -> Vec<(Value, i64)> {
        let panel_bytes = (self.left.k.div_ceil(PANEL) * PANEL_BLOCK) as i64;
        let first_section = &self.sections[0];
        let (dots, panels) = (first_section.products.len(), first_section.panels());
        let alike = |section: &Section<'_>| {
            section.products.len() == dots
                && section.panels() == panels
                && dots * panels == SLOTS
                && section.n.div_ceil(PANEL).is_multiple_of(panels)
        };
        let regular = self.sections.iter().all(alike);
        let mut found: Vec<Option<Value>> = vec![None; if regular { dots } else { SLOTS }];
        let mut first = 0;
        for section in self.sections {
            let own = f.add(&self.column_block, &int(-first));
            let here = f.compare("icmp sge", &own, &int(0));
            let last = int(section.n.div_ceil(PANEL) as i64 - 1);
            for (index, address) in found.iter_mut().enumerate() {
                let slot = if regular { index * panels } else { index };
                let slot = slot.min(section.products.len() * section.panels() - 1);
                let (dot, panel) = (slot / section.panels(), slot % section.panels());
                let number = f.scale(&own, section.panels() as i64);
                let number = f.add(&number, &int(panel as i64));
                let number = f.min(&number, &last);
                let start = f.element(&params.inputs[section.products[dot].weight], &number, panel_bytes);
                *address = Some(match address.take() {
                    Some(before) => f.select(&here, &start, &before),
                    None => start,
                });
            }
            first += section.blocks() as i64;
        }
        let found: Vec<Value> = found.into_iter().flatten().collect();
        let place = |slot: usize| match regular {
            true => (found[slot / panels].clone(), (slot % panels) as i64 * panel_bytes),
            false => (found[slot].clone(), 0),
        };
        (0..SLOTS).map(place).collect()
    }

    /// What this thread copies: of the rows 16 bytes of every 32nd (16th) one, of each panel block its own 16 bytes.
    fn copies(&self, f: &mut FunctionText, params: &DeviceParams) -> Result<Copies, String> {
        let pieces = (self.shape.row_bytes() / copy::BYTES) as i64;
        let rows_at_once = THREADS as i64 / pieces;
        let row = f.binary("udiv", &self.thread, &int(pieces));
        let piece = f.binary("urem", &self.thread, &int(pieces));
        let last = f.add(&self.count, &int(-1));
        let mut sources = Vec::new();
        for turn in 0..self.shape.rows as i64 / rows_at_once {
            let row = f.add(&row, &int(turn * rows_at_once));
            let row = f.min(&row, &last);
            let row = f.add(&self.row, &row);
            let address = self.left.row(f, params, &row)?;
            sources.push((f.element(&address, &piece, copy::BYTES as i64), 0));
        }
        let own = f.scale(&self.thread, copy::BYTES as i64);
        for (address, offset) in self.slots(f, params) {
            let address = f.offset(&address, &own);
            for block in 0..self.shape.depth / PANEL {
                sources.push((address.clone(), offset + (block * PANEL_BLOCK) as i64));
            }
        }
        let left = f.scale(&row, self.shape.row_bytes() as i64);
        let swapped = self.row_swizzle(f, &row);
        let piece = f.binary("xor", &piece, &swapped);
        let piece = f.scale(&piece, copy::BYTES as i64);
        let left = f.add(&left, &piece);
        let bit = f.binary("lshr", &self.thread, &int(3));
        let bit = f.binary("and", &bit, &int(1));
        let bit = f.scale(&bit, 2);
        let slots = f.binary("xor", &self.thread, &bit);
        let slots = f.scale(&slots, copy::BYTES as i64);
        Ok(Copies { sources, left, slots })
    }

    /// What the numbers of a row's pieces are combined with.
    fn row_swizzle(&self, f: &mut FunctionText, row: &Value) -> Value {
        match self.shape.depth {
            32 => {
                let half = f.binary("lshr", row, &int(1));
                f.binary("and", &half, &int(3))
            }
            _ => f.binary("and", row, &int(7)),
        }
    }

    /// Starts the copies of one stage; returns the sources of the next.
    fn copy(&self, f: &mut FunctionText, copies: &Copies, sources: &[Value], stage: &Value) -> Vec<Value> {
        let pieces = self.shape.row_bytes() / copy::BYTES;
        let line = THREADS / pieces * self.shape.row_bytes();
        let left_turns = self.shape.left_bytes() / line;
        let left = f.offset(stage, &copies.left);
        let slots = f.offset(stage, &copies.slots);
        for (number, (source, offset)) in
            sources.iter().zip(copies.sources.iter().map(|(_, offset)| offset)).enumerate()
        {
            let to = match number.checked_sub(left_turns) {
                None => (&left, (number * line) as i64),
                Some(block) => (&slots, (self.shape.left_bytes() + block * PANEL_BLOCK) as i64),
            };
            copy::start(f, to, (source, *offset));
        }
        self.advance(f, sources, left_turns)
    }

    /// Sources one stage on. Those with the same address stay the same value.
    fn advance(&self, f: &mut FunctionText, sources: &[Value], left_turns: usize) -> Vec<Value> {
        let mut next: Vec<Value> = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let same = sources[..number].iter().position(|other| other == source);
            let bytes = if number < left_turns { self.shape.row_bytes() } else { self.shape.slot_bytes() };
            let value = match same {
                Some(other) => next[other].clone(),
                None => f.offset(source, &int(bytes as i64)),
            };
            next.push(value);
        }
        next
    }

    fn operands(&self, f: &mut FunctionText, [warp_row, warp_column, lane]: [&Value; 3]) -> Operands {
        // Lanes name the rows of four matrices: rows 0..8 with k 0..8 and 8..16, then rows 8..16.
        let low = f.binary("and", lane, &int(7));
        let high = f.binary("lshr", lane, &int(4));
        let high = f.scale(&high, 8);
        let row = f.add(&low, &high);
        let piece = f.binary("lshr", lane, &int(3));
        let piece = f.binary("and", &piece, &int(1));
        let swapped = self.row_swizzle(f, &row);
        let start = f.scale(&row, self.shape.row_bytes() as i64);
        let warp_start = f.scale(warp_row, (self.shape.left_bytes() / WARPS[0]) as i64);
        let start = f.add(&start, &warp_start);
        let left = (0..self.shape.depth / DEPTH)
            .map(|depth| {
                let piece = f.add(&piece, &int(2 * depth as i64));
                let piece = f.binary("xor", &piece, &swapped);
                let piece = f.scale(&piece, copy::BYTES as i64);
                f.add(&start, &piece)
            })
            .collect();
        let (g, t) = (f.binary("lshr", lane, &int(2)), f.binary("and", lane, &int(3)));
        let place = matrix::place_of_columns(f, &g, &t);
        let warp_start = f.scale(warp_column, (SLOTS_PER_WARP * self.shape.slot_bytes()) as i64);
        let place = f.add(&place, &warp_start);
        let slots = f.add(&place, &int(self.shape.left_bytes() as i64));
        Operands { left, slots }
    }

    /// Multiplies what a stage holds.
    fn multiply(&self, f: &mut FunctionText, operands: &Operands, stage: &Value, sums: &[Value]) -> Vec<Value> {
        let slots = f.offset(stage, &operands.slots);
        let mut sums = sums.to_vec();
        for (depth, left) in operands.left.iter().enumerate() {
            let left = f.offset(stage, left);
            let rows: Vec<Vec<Value>> = (0..self.shape.row_tiles() / 2)
                .map(|pair| {
                    let address = f.offset(&left, &int((pair * MMA_ROWS * self.shape.row_bytes()) as i64));
                    matrix::load_matrices(f, &address)
                })
                .collect();
            for (slot, half) in (0..SLOTS_PER_WARP).flat_map(|slot| [(slot, 0), (slot, 1)]) {
                let start = slot * self.shape.slot_bytes() + depth / 2 * PANEL_BLOCK + half * 1024 + depth % 2 * 512;
                let address = f.offset(&slots, &int(start as i64));
                let a = matrix::load_columns(f, &address);
                for tile in 0..self.shape.row_tiles() {
                    let at = ((slot * 2 + half) * self.shape.row_tiles() + tile) * 4;
                    let b = &rows[tile / 2][tile % 2 * 2..];
                    let next = matrix::multiply(f, [&a[0], &a[1], &a[2], &a[3]], [&b[0], &b[1]], &sums[at..at + 4]);
                    sums.splice(at..at + 4, next);
                }
            }
        }
        sums
    }

    /// The pipeline: `[slot][half of its columns][8 rows][4]` sums of this lane.
    fn sum(
        &self,
        f: &mut FunctionText,
        params: &DeviceParams,
        shared: &Value,
        place: [&Value; 3],
    ) -> Result<Vec<Value>, String> {
        let Shape { stages, depth, .. } = self.shape;
        let steps = self.left.k.next_multiple_of(PANEL) / depth;
        let ahead = stages - 1;
        let copies = self.copies(f, params)?;
        let operands = self.operands(f, place);
        let mut sources: Vec<Value> = copies.sources.iter().map(|(address, _)| address.clone()).collect();
        for stage in 0..ahead {
            if stage < steps {
                let to = f.offset(shared, &int((stage * self.shape.stage_bytes()) as i64));
                sources = self.copy(f, &copies, &sources, &to);
            }
            copy::commit(f);
        }
        let end = int((stages * self.shape.stage_bytes()) as i64);
        let stage_bytes = int(self.shape.stage_bytes() as i64);
        let following = |f: &mut FunctionText, stage: &Value| {
            let next = f.add(stage, &stage_bytes);
            let wraps = f.compare("icmp eq", &next, &end);
            f.select(&wraps, &int(0), &next)
        };
        // Distinct sources, the stages to read and to write, then the sums.
        let distinct: Vec<usize> = (0..sources.len()).filter(|&i| !sources[..i].contains(&sources[i])).collect();
        let index_of: Vec<usize> = sources
            .iter()
            .map(|source| distinct.iter().position(|&i| sources[i] == *source).expect("each is one of them"))
            .collect();
        let mut initial: Vec<Value> = distinct.iter().map(|&i| sources[i].clone()).collect();
        let carried_sources = initial.len();
        let write = int((ahead * self.shape.stage_bytes()) as i64);
        initial.extend([int(0), write]);
        initial.extend(vec![float_of(F32, 0.0); self.shape.row_tiles() * SLOTS_PER_WARP * 8]);
        let full = steps.saturating_sub(ahead) as i64;
        let state = f.fold(&int(0), &int(full), 1, &initial, |f, _, state| {
            copy::wait(f, stages - 2);
            barrier(f);
            let (read, write) = (&state[carried_sources], &state[carried_sources + 1]);
            let sources: Vec<Value> = index_of.iter().map(|&i| state[i].clone()).collect();
            let to = f.offset(shared, write);
            let next = self.copy(f, &copies, &sources, &to);
            copy::commit(f);
            let from = f.offset(shared, read);
            let sums = self.multiply(f, &operands, &from, &state[carried_sources + 2..]);
            let mut following_state: Vec<Value> = distinct.iter().map(|&i| next[i].clone()).collect();
            following_state.push(following(f, read));
            following_state.push(following(f, write));
            following_state.extend(sums);
            following_state
        });
        let tail: Vec<Value> =
            std::iter::once(&state[carried_sources]).chain(&state[carried_sources + 2..]).cloned().collect();
        let state = f.fold(&int(full), &int(steps as i64), 1, &tail, |f, _, state| {
            copy::wait(f, stages - 2);
            barrier(f);
            copy::commit(f);
            let from = f.offset(shared, &state[0]);
            let sums = self.multiply(f, &operands, &from, &state[1..]);
            let mut next = vec![following(f, &state[0])];
            next.extend(sums);
            next
        });
        Ok(state[1..].to_vec())
    }
}

/// Stores two floats at a multiple of 8 bytes.
fn store_two(f: &mut FunctionText, values: [&Value; 2], address: &Value) {
    let mut vector = Value { text: "poison".into(), ty: F32.with_lanes(2) };
    for (lane, value) in values.into_iter().enumerate() {
        vector = f.insert(&vector, value, lane);
    }
    f.store(&vector, address, 8);
}
