//! Rows that a region computes before it multiplies them: by every block of the product for itself, where they are few and
//! short, or once by a kernel before it.

use super::super::matrix::PANEL;
use super::super::thread::{LANES, Threads, WARP, barrier};
use super::super::{DeviceContext, DeviceParams, rows};
use super::{Left, RowsIn};
use crate::kernel::dot::ComputedRows;
use crate::llvm::rows::{Columns, Outputs, Position, emit_group};
use crate::llvm::text::{F32, FunctionText, I16, Value, float_of, int, int_of};
use llmc_ir::dtype::DType;

/// Bytes of rows that a block may keep in its shared memory beside its results.
const MOST_BYTES: usize = 16 << 10;

/// Decides where computed rows lie; emits the kernel that puts them into the workspace if blocks should not compute them.
pub fn emit(context: &mut DeviceContext<'_>, left: &mut Left, streams: bool) -> Result<(), String> {
    let RowsIn::Block(computed) = &left.rows_in else { return Ok(()) };
    let stride = left.k.next_multiple_of(PANEL);
    let most_rows = context.bounds.max_of(left.rows);
    if streams && most_rows * stride * left.dtype.bytes() <= MOST_BYTES {
        left.stride = stride;
        return Ok(());
    }
    let offset = context.reserve(most_rows * left.row_bytes());
    rows::emit_part(context, &computed.part, "prologue", |f, params| {
        let to = f.offset(&params.workspace, &int(offset as i64));
        rows::Ends { tiles: Vec::new(), outputs: vec![(computed.node, to)] }
    })?;
    left.rows_in = RowsIn::Workspace(offset);
    Ok(())
}

/// Shared memory that a block of so many threads needs for its own rows and to compute them; 0 if it computes none.
pub fn shared_bytes(context: &DeviceContext<'_>, left: &Left, threads: usize) -> usize {
    match left.rows_in {
        RowsIn::Block(_) => context.bounds.max_of(left.rows) * left.row_bytes() + Threads::exchange_bytes(threads),
        _ => 0,
    }
}

/// Computes the block's rows `row..row + count` into shared memory from `to` on and waits for them. All threads of the
/// block take part.
pub fn compute(
    f: &mut FunctionText,
    context: &mut DeviceContext<'_>,
    params: &DeviceParams,
    (left, computed): (&Left, &ComputedRows),
    (thread, threads): (&Value, usize),
    (row, count): (&Value, &Value),
    to: &Value,
) -> Result<(), String> {
    let bytes = left.dtype.bytes();
    let most_rows = context.bounds.max_of(left.rows);
    let exchange = f.offset(to, &int((most_rows * left.row_bytes()) as i64));
    // One row belongs to all threads, of several each warp takes some.
    let (first, step, team) = match most_rows {
        1 => (int(0), 1, Threads { member: thread.clone(), members: threads, lanes: LANES, exchange }),
        _ => {
            let member = f.binary("and", thread, &int(WARP as i64 - 1));
            let team = Threads { member, members: WARP, lanes: LANES, exchange };
            (f.binary("lshr", thread, &int(5)), threads / WARP, team)
        }
    };
    let kv = context.kv;
    let mut scope = context.scope(params);
    let mut result = Ok(());
    f.for_each(&first, count, step as i64, |f, local| {
        let row = f.add(row, local);
        let own = f.element(to, local, left.row_bytes() as i64);
        let outputs = Outputs::of_computed(computed, &own, &row, kv, &params.slots);
        f.for_each(&int(0), &int(computed.domain.groups as i64), 1, |f, group| {
            let columns = Columns::Groups(int(0), int(1));
            let position = Position { domain: &computed.domain, row: &row, group, columns: &columns, team: &team };
            result = emit_group(f, &mut scope, &outputs, &position);
        });
        if left.stride > left.k {
            let column = f.add(&team.member, &int(left.k as i64));
            let behind = f.compare("icmp slt", &column, &int(left.stride as i64));
            f.when(&behind, |f| {
                let address = f.element(&own, &column, bytes as i64);
                let zero = if left.dtype == DType::F32 { float_of(F32, 0.0) } else { int_of(I16, 0) };
                f.store(&zero, &address, bytes);
            });
        }
    });
    barrier(f);
    result
}
