//! The rows of a dot's left operand: where they come from, and the form in which the inner kernel reads them.

use super::super::block_float;
use super::super::math::Fma;
use super::super::multiply::LeftForm;
use super::super::rows::{Columns, LANES, Outputs, emit_rows};
use super::super::text::{FunctionText, I16, Value, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::tiles::Parts;
use super::{Blocking, tiles};
use crate::kernel::dot::ComputedRows;
use llmc_ir::dtype::DType;

/// How far ahead rows are prefetched while they are copied, in bytes.
const COPY_AHEAD: i64 = 2 << 10;

/// Where the inner kernel reads the left operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Where it lies: it is f32, and no weight has more k than it.
    InPlace,
    /// In working memory: f32 rows of f32 or bf16, with zeros to the end of a block of k.
    Copied(DType),
    /// In working memory: bf16 rows with zeros to the end of a block of k.
    Pairs,
    /// In working memory: rows of whole numbers in blocks of k ([`block_float`]).
    Blocks,
    /// In working memory: bf16 tiles of 16 rows and 32 k, with zeros to the end of a tile of k, a part of the sum after the
    /// other.
    Tiles(Parts),
}

impl Left {
    /// How the inner kernel of vector instructions reads it.
    pub fn form(self) -> LeftForm {
        match self {
            Left::InPlace | Left::Copied(_) => LeftForm::Wide,
            Left::Pairs | Left::Blocks | Left::Tiles(_) => LeftForm::Pairs,
        }
    }

    /// The address of element `k` of a row, which begins a block.
    pub fn at(self, f: &mut FunctionText, row: &Value, k: &Value) -> Value {
        match self {
            Left::Blocks => {
                let block = f.binary("sdiv", k, &int(block_float::LENGTH as i64));
                f.element(row, &block, block_float::ROW_BLOCK as i64)
            }
            _ => f.element(row, k, self.form().bytes() as i64),
        }
    }

    /// Bytes of `k` elements of a row: whole blocks, or what a block begins with.
    pub fn row_bytes(self, k: usize) -> usize {
        match self {
            Left::Blocks => k.div_ceil(block_float::LENGTH) * block_float::ROW_BLOCK,
            _ => k * self.form().bytes(),
        }
    }
}

/// The rows of the left operand.
pub struct LeftRows<'b> {
    pub blocking: &'b Blocking,
    pub dtype: DType,
    pub source: Source<'b>,
    /// The thread's working memory for copies.
    pub copy: Value,
    /// How many there are in the step.
    pub rows: Value,
    /// Rows of each block but the last.
    pub row_block: Value,
}

/// Where rows of the left operand come from.
pub enum Source<'b> {
    /// From memory: the address of the first one.
    Memory(Value),
    /// A thread computes those of a block, into working memory of its own at that address.
    Computed(&'b ComputedRows, Value),
}

impl LeftRows<'_> {
    /// The first row of a block, how many there are, and where the inner kernel reads them.
    pub fn block(
        &self,
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        row_block: &Value,
    ) -> Result<(Value, Value, Value), String> {
        let blocking = self.blocking;
        let row = f.binary("mul nsw", row_block, &self.row_block);
        let left = f.binary("sub nsw", &self.rows, &row);
        let count = f.min(&left, &self.row_block);
        let row_bytes = (blocking.k * self.dtype.bytes()) as i64;
        let from = match &self.source {
            Source::Memory(address) => f.element(address, &row, row_bytes),
            Source::Computed(computed, address) => {
                compute_rows(f, context, params, computed, address, (&row, &count))?;
                address.clone()
            }
        };
        let a = match blocking.left {
            Left::InPlace => from,
            Left::Copied(_) | Left::Pairs => {
                copy_rows(f, blocking, &from, &self.copy, &count);
                self.copy.clone()
            }
            Left::Blocks => {
                make_blocks(f, context.registers.fma, blocking, [&from, &self.copy], &count);
                self.copy.clone()
            }
            Left::Tiles(parts) => {
                tiles::pack_rows(f, (blocking, parts), &from, &self.copy, &count);
                self.copy.clone()
            }
        };
        Ok((row, count, a))
    }
}

/// Computes `count` rows from `row` on, packed one behind the other from `to` on.
fn compute_rows(
    f: &mut FunctionText,
    context: &mut KernelContext<'_>,
    params: &KernelParams,
    computed: &ComputedRows,
    to: &Value,
    (row, count): (&Value, &Value),
) -> Result<(), String> {
    let outputs = Outputs::of_computed(computed, to, row, context.kv, &params.slots);
    let end = f.add(row, count);
    let columns = Columns::Groups(int(0), int(computed.domain.groups as i64));
    let mut scope = context.scope(params);
    emit_rows(f, &mut scope, &computed.domain, &outputs, (row, &end), &columns)
}

/// Makes rows of bf16 blocks of whole numbers in working memory, with zeros to the end of the last one.
fn make_blocks(f: &mut FunctionText, kind: Fma, blocking: &Blocking, [from, to]: [&Value; 2], count: &Value) {
    let whole = blocking.k / block_float::LENGTH;
    f.for_each(&int(0), count, 1, |f, row| {
        let from = f.element(from, row, (blocking.k * 2) as i64);
        let to = f.element(to, row, blocking.a_stride as i64);
        f.for_each(&int(0), &int(whole as i64), 1, |f, block| {
            let from = f.element(&from, block, (2 * block_float::LENGTH) as i64);
            let to = f.element(&to, block, block_float::ROW_BLOCK as i64);
            block_float::make_row_block(f, kind, &from, &to);
        });
        let rest = blocking.k % block_float::LENGTH;
        if rest > 0 {
            // In place of its numbers until they are made of it.
            let from = f.offset(&from, &int((whole * block_float::LENGTH * 2) as i64));
            let to = f.offset(&to, &int((whole * block_float::ROW_BLOCK) as i64));
            f.store(&int_of(I16.with_lanes(block_float::LENGTH), 0), &to, 4);
            copy_elements(f, &from, &to, rest);
            block_float::make_row_block(f, kind, &to, &to);
        }
    });
}

/// Copies elements of bf16 one by one, where they fill no vector.
pub fn copy_elements(f: &mut FunctionText, from: &Value, to: &Value, count: usize) {
    f.for_each(&int(0), &int(count as i64), 1, |f, k| {
        let [from, to] = [from, to].map(|base| f.element(base, k, 2));
        let element = f.load(I16, &from, 2);
        f.store(&element, &to, 2);
    });
}

/// Copies rows into working memory as f32, or as bf16 for pairs, padded with zeros to whole blocks of k. Other threads have
/// just written most of them, and their caches answer late.
fn copy_rows(f: &mut FunctionText, blocking: &Blocking, from: &Value, to: &Value, count: &Value) {
    let dtype = if let Left::Copied(dtype) = blocking.left { dtype } else { DType::BF16 };
    let form = blocking.left.form();
    let to_bytes = form.bytes();
    let lanes = LANES * 4 / to_bytes;
    let whole = blocking.k / lanes * lanes;
    f.for_each(&int(0), count, 1, |f, row| {
        let from = f.element(from, row, (blocking.k * dtype.bytes()) as i64);
        let to = f.element(to, row, blocking.a_stride as i64);
        for (start, end, lanes) in [(0, whole, lanes), (whole, blocking.k, 1)] {
            if start == end {
                continue;
            }
            f.for_each(&int(start as i64), &int(end as i64), lanes as i64, |f, column| {
                let address = f.element(&from, column, dtype.bytes() as i64);
                if lanes > 1 {
                    let ahead = f.offset(&address, &int(COPY_AHEAD));
                    f.prefetch_to_second_level(&ahead);
                }
                let value = form.load(f, dtype, &address, lanes);
                let address = f.element(&to, column, to_bytes as i64);
                f.store(&value, &address, to_bytes);
            });
        }
        for column in blocking.k..blocking.k.next_multiple_of(32) {
            let address = f.offset(&to, &int((column * to_bytes) as i64));
            f.store(&form.zero(1), &address, to_bytes);
        }
    });
}
