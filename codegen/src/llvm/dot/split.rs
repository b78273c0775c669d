//! Sums that are split: work items are parts of the sum as well as columns, so that few columns keep many cores busy. Parts
//! wait in the shared workspace; behind a barrier they are added in ascending order of k.
//!
//! Where a sum is cut follows from its length alone, so results depend neither on the number of threads nor on other rows.

use super::super::KernelContext;
use super::super::KernelParams;
use super::super::math::floats;
use super::super::multiply::Start;
use super::super::rows::LANES;
use super::super::step_args::{barrier, share};
use super::super::text::{FunctionText, Value, int};
use super::{LeftRows, RowSpan, Section, SumPart, emit_epilogue, multiply_part, panels};
use llmc_ir::op::DotMethod;

/// Emits the kernel's body behind the choice of blocks.
pub fn emit(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    left: &LeftRows<'_>,
    sections: &[Section<'_>],
    row_blocks: &Value,
) -> Result<(), String> {
    let rows = left.blocking.rows;
    let parts = DotMethod::sum_parts(left.blocking.k).len();
    let mut workspace = 0;
    let mut result = Ok(());
    let offsets: Vec<usize> = sections
        .iter()
        .map(|section| {
            let offset = workspace;
            workspace += section.blocks() * parts * section.products.len() * rows * section.c_stride;
            offset
        })
        .collect();
    context.workspace_bytes = context.workspace_bytes.max(workspace);
    // Readers of what was in the workspace before have passed the barrier at the end of their kernel, or this one.
    barrier(f, &params.args, &params.physical_thread);
    f.for_each(&int(0), row_blocks, 1, |f, row_block| {
        let (row, count, a) = match left.block(f, context, params, row_block) {
            Ok(block) => block,
            Err(error) => {
                result = Err(error);
                return;
            }
        };
        for (section, offset) in sections.iter().zip(&offsets) {
            let items = int((section.blocks() * parts) as i64);
            let (first, last) = share(f, &items, &params.thread, &params.threads);
            f.for_each(&first, &last, 1, |f, item| {
                let to = partial(f, params, section, rows, *offset, item);
                emit_parts(f, context, params, left, section, [&a, &to], &count, item);
            });
        }
        barrier(f, &params.args, &params.physical_thread);
        for (section, offset) in sections.iter().zip(&offsets) {
            let (first, last) = share(f, &int(section.blocks() as i64), &params.thread, &params.threads);
            f.for_each(&first, &last, 1, |f, column_block| {
                let item = f.scale(column_block, parts as i64);
                let from = partial(f, params, section, rows, *offset, &item);
                for (number, tile) in section.tiles.iter().enumerate() {
                    let from = f.offset(&from, &int((number * rows * section.c_stride) as i64));
                    add_parts(f, section, rows, parts, [&from, tile], &count);
                }
                let end = f.add(&row, &count);
                let rows = RowSpan { block: &row, start: &row, end: &end };
                let epilogue = emit_epilogue(f, context, params, section, rows, column_block);
                result = std::mem::replace(&mut result, Ok(())).and(epilogue);
            });
        }
        barrier(f, &params.args, &params.physical_thread);
    });
    result
}

/// Where the results of an item lie: one block per dot.
fn partial(
    f: &mut FunctionText,
    params: &KernelParams,
    section: &Section<'_>,
    rows: usize,
    offset: usize,
    item: &Value,
) -> Value {
    let workspace = f.offset(&params.workspace, &int(offset as i64));
    f.element(&workspace, item, (section.products.len() * rows * section.c_stride) as i64)
}

/// The products of one block of columns and one part of the sum. All parts are as long as the first but the last one.
#[allow(clippy::too_many_arguments)]
fn emit_parts(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    left: &LeftRows<'_>,
    section: &Section<'_>,
    [a, to]: [&Value; 2],
    count: &Value,
    item: &Value,
) {
    let lengths = DotMethod::sum_parts(left.blocking.k);
    let parts = lengths.len();
    let column_block = f.binary("sdiv", item, &int(parts as i64));
    let part = f.binary("srem", item, &int(parts as i64));
    let start = f.scale(&part, lengths[0] as i64);
    let is_last = f.compare("icmp eq", &part, &int(parts as i64 - 1));
    let is_inner = f.compare("icmp ne", &part, &int(parts as i64 - 1));
    for (number, product) in section.products.iter().enumerate() {
        let weight = panels(params, left.blocking, product);
        let c = f.offset(to, &int((number * left.blocking.rows * section.c_stride) as i64));
        // Rows of a packed weight may be longer than the sum: zeros to the end of a block of k.
        let last = weight.k - (parts - 1) * lengths[0];
        for (condition, length) in [(&is_inner, lengths[0]), (&is_last, last)] {
            f.when(condition, |f| {
                let blocking = left.blocking;
                let part = SumPart { start: start.clone(), length, sums: Start::Zero };
                multiply_part(f, context, blocking, section, &weight, [a, &c], count, (&column_block, part));
            });
        }
    }
}

/// Adds the parts of a block in ascending order.
fn add_parts(
    f: &mut FunctionText,
    section: &Section<'_>,
    rows: usize,
    parts: usize,
    [from, to]: [&Value; 2],
    count: &Value,
) {
    let next = int((section.products.len() * rows * section.c_stride) as i64);
    f.for_each(&int(0), count, 1, |f, row| {
        let [from, to] = [from, to].map(|block| f.element(block, row, section.c_stride as i64));
        f.for_each(&int(0), &int(section.columns as i64), LANES as i64, |f, column| {
            let mut address = f.element(&from, column, 4);
            let mut sum = f.load(floats(LANES), &address, 64);
            for _ in 1..parts {
                address = f.offset(&address, &next);
                let part = f.load(floats(LANES), &address, 64);
                sum = f.binary("fadd", &sum, &part);
            }
            let to = f.element(&to, column, 4);
            f.store(&sum, &to, 64);
        });
    });
}
