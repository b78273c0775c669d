//! Products of bf16 weights where registers are few: a part of a panel is widened to f32 once, into working memory that
//! stays in the first-level cache, and all rows of the block are multiplied with that. In the inner kernel, columns in both
//! forms would take the registers of sums, and every block of rows would widen them again, and look up what is compressed.

use super::super::KernelContext;
use super::super::compressed::Plain;
use super::super::math::{bf16_pairs_to_f32, ints};
use super::super::multiply::{Shape, Start, TILE, Tiles, clear};
use super::super::text::{FunctionText, I64, PTR, Role, Value, int};
use super::Panels;
use crate::kernel::dot::{LeftOperand, PANEL, Products};
use llmc_ir::dtype::DType;

/// k that are widened at a time, at most. Half of them, the columns of one pass over the rows, take 16 KiB.
const LONGEST_PART: usize = 256;
/// Rows of a program at least. One or two are done when their weights have arrived, however they are
/// widened, and take a weight as it comes.
const FEWEST_ROWS: usize = 3;
/// Bytes of a panel per k in bf16.
const NARROW: usize = PANEL * 2;

/// Whether a region's weights are widened. This goes by the program; every sum has the same bits either way.
pub fn suit(context: &KernelContext<'_>, operand: &LeftOperand, products: &[Products]) -> bool {
    let mut products = products.iter().flat_map(|products| &products.products);
    context.registers.are_few
        && context.bounds.max_of(operand.rows) >= FEWEST_ROWS
        && products.any(|product| product.dtype == DType::BF16)
}

/// Working memory that the parts take, for sums of this length.
pub fn bytes(k: usize) -> usize {
    k.next_multiple_of(32).min(LONGEST_PART) * Plain::F32.bytes()
}

/// `C = A B` or `C += A B` for a panel of a weight, by its number, from block `first` of 32 k on. `shape` says how it would be
/// multiplied without working memory.
pub fn multiply_panel(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    memory: &Value,
    (weight, panel, first): (&Panels, &Value, &Value),
    [a, c]: [&Value; 2],
    (rows, shape): (&Value, &Shape),
) {
    if shape.start == Start::Zero {
        clear(f, c, shape.c_stride, PANEL, rows);
    }
    let part = shape.k.div_ceil(shape.k.div_ceil(LONGEST_PART)).next_multiple_of(32);
    let whole = int((shape.k / part) as i64);
    let mut multiply_part = |f: &mut FunctionText, number: &Value, k: usize| {
        let before = f.scale(number, part as i64 / 32);
        let block = f.add(first, &before);
        let a = f.element(a, number, (part * 4) as i64);
        let behind = f.add(&block, &int(k as i64 / 32));
        let next = weight.block(f, panel, &behind);
        if weight.is_compressed {
            // The turns of the products before have prefetched it.
            weight.unpack(f, context, (panel, &block), (Plain::F32, None), (k / 32, memory));
        } else {
            let widen = widen(context, k);
            let from = weight.block(f, panel, &block);
            f.call_local(&widen, &[from, memory.clone()]);
        }
        let layout = Tiles::Widened { narrow_line: weight.block_bytes() * TILE / PANEL / 32 };
        let shape = Shape { k, layout, ahead: None, start: Start::Memory, ..shape.clone() };
        let multiply = context.multiplies.get(context.module, context.registers, &shape);
        let [next, from] = [&next, memory].map(|address| f.cast("ptrtoint", address, I64));
        let ahead = f.binary("sub", &next, &from);
        f.call_local(&multiply, &[a, memory.clone(), c.clone(), rows.clone(), ahead]);
    };
    f.for_each(&int(0), &whole, 1, |f, number| multiply_part(f, number, part));
    let rest = shape.k % part;
    if rest > 0 {
        multiply_part(f, &whole, rest);
    }
}

/// The name of a function `(from: ptr, to: ptr)` that widens `k` of a panel into `[k][32 rows]`, emitted on first use.
fn widen(context: &mut KernelContext<'_>, k: usize) -> String {
    let name = format!("widen_k{k}");
    if !context.multiplies.is_new(&name) {
        return name;
    }
    let (mut f, values) = FunctionText::new(Role::Kernel, &name, &[(PTR, "from"), (PTR, "to")]);
    let [from, to] = values.try_into().expect("two parameters");
    let wide = Plain::F32.bytes();
    f.for_each(&int(0), &int((k / 32) as i64), 1, |f, block| {
        let from = f.element(&from, block, (32 * NARROW) as i64);
        let to = f.element(&to, block, (32 * wide) as i64);
        // In the order in which they lie in memory.
        f.for_each(&int(0), &int((PANEL / TILE) as i64), 1, |f, tile| {
            let from = f.element(&from, tile, 1024);
            let to = f.element(&to, tile, (TILE * 4) as i64);
            f.for_each(&int(0), &int(16), 1, |f, pair| {
                let from = f.element(&from, pair, 64);
                let to = f.element(&to, pair, (2 * wide) as i64);
                let line = f.load(ints(TILE), &from, 64);
                for (number, value) in bf16_pairs_to_f32(f, &line).iter().enumerate() {
                    let to = f.offset(&to, &int((number * wide) as i64));
                    f.store(value, &to, 64);
                }
            });
        });
    });
    context.module.add(f.finish());
    name
}
