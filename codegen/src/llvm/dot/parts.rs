//! Products of bf16 weights where registers are few: a panel is taken in parts that stay in the first-level cache while all blocks of
//! rows meet them. What is compressed is looked up once, into working memory; blocks widen what they read.

use super::super::KernelContext;
use super::super::block_float;
use super::super::compressed::PLAIN_BLOCK;
use super::super::multiply::{Distance, Shape, Start, TILE, Tiles, clear};
use super::super::text::{FunctionText, I64, Value, int};
use super::left::Left;
use super::{Blocking, PART_UNIT, Panels};
use crate::kernel::dot::{LeftOperand, PANEL, Products};
use llmc_ir::dtype::DType;

/// k of a part, at most.
const LONGEST_PART: usize = 256;
/// Rows of a program at least. One or two are done when their weights have arrived, and take a weight as it comes.
const FEWEST_ROWS: usize = 3;
/// Bytes of a panel per k in bf16.
const BYTES: usize = PANEL * 2;

/// Whether a region's weights are taken in parts. This goes by the program; every sum has the same bits either way.
pub fn suit(context: &KernelContext<'_>, operand: &LeftOperand, products: &[Products]) -> bool {
    let mut products = products.iter().flat_map(|products| &products.products);
    context.registers.are_few
        && context.bounds.max_of(operand.rows) >= FEWEST_ROWS
        && products.any(|product| product.dtype == DType::BF16)
}

/// Working memory that a part takes, for sums of this length.
pub fn bytes(k: usize) -> usize {
    k.next_multiple_of(32).min(LONGEST_PART) * BYTES
}

/// The same where parts become blocks of whole numbers, one by one behind what is looked up.
pub fn bytes_of_blocks(k: usize) -> usize {
    let blocks = k.min(LONGEST_PART).div_ceil(block_float::LENGTH);
    blocks * block_float::PANEL_BLOCK + block_float::HALVES * PLAIN_BLOCK
}

/// `C = A B` or `C += A B` for a panel of a weight, by its number, from block `first` of 32 k on. `shape` says how it would be
/// multiplied as a whole.
pub fn multiply_panel(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    blocking: &Blocking,
    (weight, panel, first): (&Panels, &Value, &Value),
    [a, c]: [&Value; 2],
    (rows, shape): (&Value, &Shape),
) {
    if shape.start == Start::Zero {
        clear(f, c, shape.c_stride, PANEL, rows);
    }
    let part = shape.k.div_ceil(shape.k.div_ceil(LONGEST_PART)).next_multiple_of(PART_UNIT);
    let whole = int((shape.k / part) as i64);
    let mut multiply_part = |f: &mut FunctionText, number: &Value, k: usize| {
        let before = f.scale(number, part as i64 / 32);
        let block = f.add(first, &before);
        let a = f.element(a, number, blocking.left.row_bytes(part) as i64);
        let behind = f.add(&block, &int(k as i64 / 32));
        let next = weight.block(f, panel, &behind);
        let (from, layout) = match (blocking.left, &blocking.unpacked) {
            (Left::Blocks, Some(memory)) => {
                make_blocks(f, context, weight, (panel, &block), (k, memory));
                (memory.clone(), Tiles::Blocks)
            }
            (_, memory) => (plain(f, context, weight, (panel, &block), (k / 32, memory.as_ref())), Tiles::PACKED),
        };
        let ahead = Distance::OfTurns { line: weight.block_bytes() * TILE / PANEL / 16 };
        let shape = Shape { k, layout, ahead, start: Start::Memory, ..shape.clone() };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        let [to, at] = [&next, &from].map(|address| f.cast("ptrtoint", address, I64));
        let ahead = f.binary("sub", &to, &at);
        f.call_local(&multiply, &[a, from, c.clone(), rows.clone(), ahead]);
    };
    f.for_each(&int(0), &whole, 1, |f, number| multiply_part(f, number, part));
    let rest = shape.k % part;
    if rest > 0 {
        multiply_part(f, &whole, rest);
    }
}

/// Where some blocks of 32 k of a panel are plain, from block `first` on: in memory for that, once they are looked up, if they are
/// compressed.
fn plain(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    weight: &Panels,
    (panel, first): (&Value, &Value),
    (blocks, memory): (usize, Option<&Value>),
) -> Value {
    match memory {
        Some(memory) if weight.is_compressed => {
            // The turns of the products before have prefetched it.
            weight.unpack(f, context, (panel, first), None, (blocks, memory));
            memory.clone()
        }
        _ => weight.block(f, panel, first),
    }
}

/// Makes blocks of whole numbers of `k` of a panel, from block `first` of 32 k on, and where to. What is compressed is looked up
/// behind them.
fn make_blocks(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    weight: &Panels,
    (panel, first): (&Value, &Value),
    (k, to): (usize, &Value),
) {
    let make = block_float::make_panel_block(context.multiplies, context.module, context.registers.fma);
    let blocks = k.div_ceil(block_float::LENGTH);
    let memory = f.offset(to, &int((blocks * block_float::PANEL_BLOCK) as i64));
    let mut make_block = |f: &mut FunctionText, number: &Value, halves: usize| {
        let before = f.scale(number, block_float::HALVES as i64);
        let block = f.add(first, &before);
        let from = plain(f, context, weight, (panel, &block), (halves, Some(&memory)));
        let to = f.element(to, number, block_float::PANEL_BLOCK as i64);
        f.call_local(&make, &[from, to, int(halves as i64)]);
    };
    let whole = int((k / block_float::LENGTH) as i64);
    f.for_each(&int(0), &whole, 1, |f, number| make_block(f, number, block_float::HALVES));
    if !k.is_multiple_of(block_float::LENGTH) {
        make_block(f, &whole, 1);
    }
}
