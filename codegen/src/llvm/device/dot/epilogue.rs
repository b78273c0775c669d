//! The work on a block of results that lies in shared memory: warps take its rows, or groups of them, in turns.

use super::super::thread::{Threads, WARP};
use super::super::{DeviceContext, DeviceParams};
use super::{Epilogue, Section};
use crate::llvm::expression::Tile;
use crate::llvm::rows::{Columns, Outputs, Position, emit_group};
use crate::llvm::text::{F32, FunctionText, Value, int};

/// A block of results.
pub struct Results {
    /// Per product of the section, where they lie.
    pub tiles: Vec<Tile>,
    /// First row of the block, and how many of its rows there are.
    pub row: Value,
    pub count: Value,
    /// First column of the block.
    pub column: Value,
    /// The thread's warp and its lane.
    pub warp: Value,
    pub lane: Value,
    /// Warps of the block.
    pub warps: usize,
    /// Which part of the sum they are.
    pub part: Value,
}

/// Bytes between rows of `columns` results: 16 more than they take, so that rows two apart lie in other banks.
pub fn row_stride(columns: usize) -> usize {
    columns * 4 + 16
}

/// Emits the work; all threads of the block have written their results and met.
pub fn emit(
    f: &mut FunctionText,
    context: &mut DeviceContext<'_>,
    params: &DeviceParams,
    section: &Section<'_>,
    results: &Results,
) -> Result<(), String> {
    let after = f.add(&results.column, &int(section.columns as i64));
    let column_end = f.min(&after, &int(section.n as i64));
    match &section.epilogue {
        Epilogue::Keep { offset, part_bytes } => {
            let base = f.offset(&params.workspace, &int(*offset as i64));
            let base = f.element(&base, &results.part, *part_bytes as i64);
            keep(f, section, results, &column_end, &base);
            Ok(())
        }
        Epilogue::Part(part, domain) => {
            let whole = section.columns >= section.n;
            let (first, groups, width) = match domain.inner {
                Some(inner) => {
                    let first = f.binary("udiv", &results.column, &int(inner as i64));
                    let end = f.binary("udiv", &column_end, &int(inner as i64));
                    let groups = f.binary("sub nsw", &end, &first);
                    (first, groups, inner)
                }
                None => (int(0), int(1), section.columns),
            };
            let lanes = (width / WARP).next_power_of_two().clamp(1, 8);
            let team = Threads { member: results.lane.clone(), members: WARP, lanes, exchange: results.lane.clone() };
            let columns = match domain.inner {
                None if !whole => Columns::Span(results.column.clone(), column_end.clone()),
                _ => Columns::Groups(int(0), int(1)),
            };
            let kernel = context.kernel;
            let outputs = Outputs::of(kernel, part, &params.outputs, context.kv, &params.slots);
            let mut scope = context.scope(params);
            scope.tiles.extend(section.products.iter().map(|product| product.node).zip(results.tiles.iter().cloned()));
            let items = f.binary("mul nsw", &results.count, &groups);
            let mut result = Ok(());
            f.for_each(&results.warp, &items, results.warps as i64, |f, item| {
                let (row, group) = match domain.inner {
                    Some(_) => (f.binary("udiv", item, &groups), f.binary("urem", item, &groups)),
                    None => (item.clone(), int(0)),
                };
                let row = f.add(&results.row, &row);
                let group = f.add(&first, &group);
                let position = Position { domain, row: &row, group: &group, columns: &columns, team: &team };
                result = emit_group(f, &mut scope, &outputs, &position);
            });
            result
        }
    }
}

/// Copies results to f32 rows in the workspace.
fn keep(f: &mut FunctionText, section: &Section<'_>, results: &Results, column_end: &Value, base: &Value) {
    let tile = &results.tiles[0];
    f.for_each(&results.warp, &results.count, results.warps as i64, |f, item| {
        let from = f.element(&tile.base, item, tile.stride as i64);
        let row = f.add(&results.row, item);
        let to = f.element(base, &row, section.n as i64 * 4);
        let start = f.add(&results.column, &results.lane);
        f.for_each(&start, column_end, WARP as i64, |f, column| {
            let own = f.binary("sub nsw", column, &results.column);
            let address = f.element(&from, &own, 4);
            let value = tile.load(f, F32, &address, 4);
            let address = f.element(&to, column, 4);
            f.store(&value, &address, 4);
        });
    });
}
