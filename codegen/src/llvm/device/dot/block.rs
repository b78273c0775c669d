//! Blocks of many rows and four panels: which rows and columns a block takes, and what becomes of its results.

use super::super::matrix::PANEL;
use super::super::thread::{WARP, barrier, special, special_wide};
use super::super::{DeviceContext, DeviceParams, Geometry, blocks};
use super::epilogue::{Results, emit as emit_epilogue, row_stride};
use super::{Left, Section};
use crate::llvm::expression::Tile;
use crate::llvm::step_args::size;
use crate::llvm::text::{FunctionText, I32, I64, Value, int};

/// Panels of a block, each of some product: its slots.
pub const SLOTS: usize = 4;
/// Columns of a block, of all its products together.
pub const COLUMNS: usize = SLOTS * PANEL;

/// One block at work.
pub struct Block<'a> {
    pub left: &'a Left,
    sections: &'a [Section<'a>],
    /// Among those of all sections.
    column_block: Value,
    /// First row, and how many there are from it on, at most those of the block.
    pub row: Value,
    pub count: Value,
    pub thread: Value,
}

/// Emits a kernel of blocks of so many rows, threads and bytes of shared memory. `body` is run by those that have something
/// to do.
pub fn launch(
    context: &mut DeviceContext<'_>,
    stage: &str,
    (left, sections): (&Left, &[Section<'_>]),
    [rows, threads, shared_bytes]: [usize; 3],
    body: impl FnOnce(Block<'_>, &mut FunctionText, &mut DeviceContext<'_>, &DeviceParams) -> Result<(), String>,
) -> Result<(), String> {
    let column_blocks: usize = sections.iter().map(Section::blocks).sum();
    let geometry = Geometry { blocks: blocks(left.rows, rows, column_blocks)?, threads, shared_bytes, resident: None };
    context.launch(stage, &geometry, |context, f, params| {
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
            let block = Block { left, sections, column_block, row, count, thread };
            result = body(block, f, context, params);
        });
        result
    })
}

/// Where the results of a block's slots go.
pub struct ResultSlots<'a> {
    section: &'a Section<'a>,
    shared: &'a Value,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Bytes of a product's results.
    tile_bytes: usize,
}

impl ResultSlots<'_> {
    /// Code for a slot if the section has it; `body` gets the address of its first row's first column.
    pub fn with(&self, f: &mut FunctionText, slot: &Value, body: impl FnOnce(&mut FunctionText, &Value)) {
        let panels = self.section.panels();
        let used = f.compare("icmp ult", slot, &int((self.section.products.len() * panels) as i64));
        f.when(&used, |f| {
            let dot = f.binary("udiv", slot, &int(panels as i64));
            let panel = f.binary("urem", slot, &int(panels as i64));
            let to = f.element(self.shared, &dot, self.tile_bytes as i64);
            let to = f.element(&to, &panel, (PANEL * 4) as i64);
            body(f, &to);
        });
    }
}

impl Block<'_> {
    /// Stores results to shared memory as `store` says and does the work behind them. Takes the rows and threads of a
    /// block.
    pub fn finish(
        &self,
        f: &mut FunctionText,
        context: &mut DeviceContext<'_>,
        params: &DeviceParams,
        [rows, threads]: [usize; 2],
        mut store: impl FnMut(&mut FunctionText, &ResultSlots<'_>),
    ) -> Result<(), String> {
        let shared = f.shared_memory();
        let warp = f.binary("lshr", &self.thread, &int(5));
        let lane = f.binary("and", &self.thread, &int(31));
        let mut result = Ok(());
        self.for_sections(f, |f, section, own| {
            let stride = row_stride(section.columns);
            let tile_bytes = rows * stride;
            store(f, &ResultSlots { section, shared: &shared, stride, tile_bytes });
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
                warps: threads / WARP,
                part: int(0),
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

    /// Address of the first k of each slot's panel, given a panel's bytes: an address, and an offset from it that is the
    /// same for all blocks.
    pub fn slots(&self, f: &mut FunctionText, params: &DeviceParams, panel_bytes: i64) -> Vec<(Value, i64)> {
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
}
