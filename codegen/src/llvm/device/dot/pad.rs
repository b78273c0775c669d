//! Rows of bf16 copied into the workspace with zeros up to whole blocks of a panel, for sums whose length is no multiple
//! of it: then no product needs to know where a row ends.

use super::super::matrix::PANEL;
use super::super::thread::{WARP, special_wide};
use super::super::{DeviceContext, Geometry, blocks};
use super::{Left, RowsIn};
use crate::llvm::step_args::size;
use crate::llvm::text::{I16, int, int_of};

/// Emits the kernel and lets `left` be the copy.
pub fn emit(context: &mut DeviceContext<'_>, left: &mut Left) -> Result<(), String> {
    let padded = left.k.next_multiple_of(PANEL);
    if left.stride == padded {
        return Ok(());
    }
    let offset = context.reserve(context.bounds.max_of(left.rows) * padded * 2);
    let geometry = Geometry { blocks: blocks(left.rows, 1, 1)?, threads: WARP, shared_bytes: 0 };
    context.launch("pad", &geometry, |_, f, params| {
        let rows = size(f, &params.args, left.rows)?;
        let row = special_wide(f, "ctaid.x");
        let lane = special_wide(f, "tid.x");
        let inside = f.compare("icmp slt", &row, &rows);
        let from = left.row(f, params, &row)?;
        f.when(&inside, |f| {
            let to = f.offset(&params.workspace, &int(offset as i64));
            let to = f.element(&to, &row, padded as i64 * 2);
            f.for_each(&lane, &int(padded as i64), WARP as i64, |f, column| {
                let last = f.min(column, &int(left.k as i64 - 1));
                let address = f.element(&from, &last, 2);
                let value = f.load(I16, &address, 2);
                let inside = f.compare("icmp slt", column, &int(left.k as i64));
                let value = f.select(&inside, &value, &int_of(I16, 0));
                let address = f.element(&to, column, 2);
                f.store(&value, &address, 2);
            });
        });
        Ok(())
    })?;
    left.stride = padded;
    left.rows_in = RowsIn::Workspace(offset);
    Ok(())
}
