//! What is kept of a product's columns in place of them, because nobody wants all: the largest of each row, or some of the largest.
//!
//! Every thread keeps its own, lane by lane and with the columns' numbers, in the work behind the product. So a step writes a few
//! bytes per row and thread instead of all columns, and nobody reads those again.

use super::super::math::{floats, ints};
use super::super::multiply::TILE;
use super::super::step_args::size;
use super::super::text::{FunctionText, I32, Value, float_of, int, int_of};
use super::super::{KernelContext, KernelParams};
use super::candidates::Candidates;
use super::largest::Largest;
use super::{RowSpan, Section};
use crate::kernel::dot::left_operand;
use llmc_ir::plan::Goal;

/// A token that is behind all others.
pub const NO_TOKEN: i64 = i32::MAX as i64;

/// What a kernel keeps.
#[derive(Clone)]
pub enum Kept {
    /// The largest column of each row.
    Largest(Largest),
    /// Some of the largest.
    Candidates(Candidates),
}

impl Kept {
    /// What a goal wants, unless that is all columns or takes a kernel of its own.
    pub fn of(
        f: &mut FunctionText,
        context: &mut KernelContext<'_>,
        params: &KernelParams,
        goal: Goal,
    ) -> Result<Option<Kept>, String> {
        if matches!(goal, Goal::Logits | Goal::Search) {
            return Ok(None);
        }
        let operand = left_operand(&context.kernel.region)?;
        let rows = size(f, &params.args, operand.rows)?;
        Ok(Some(match goal {
            Goal::Candidates => Kept::Candidates(Candidates::new(context, params, &rows)?),
            _ => {
                let most_rows = context.bounds.max_of(operand.rows);
                Kept::Largest(Largest::new(f, context, params, (&rows, most_rows))?)
            }
        }))
    }

    /// Forgets all columns.
    pub fn reset(&self, f: &mut FunctionText) {
        match self {
            Kept::Largest(largest) => largest.reset(f),
            Kept::Candidates(candidates) => candidates.reset(f),
        }
    }

    /// Writes what is not written yet.
    pub fn finish(&self, f: &mut FunctionText, params: &KernelParams) {
        match self {
            Kept::Largest(largest) => largest.finish(f, params),
            Kept::Candidates(_) => {}
        }
    }

    /// Looks at some rows of a block of columns, where they lie as the product left them.
    pub fn keep_block(&self, f: &mut FunctionText, section: &Section<'_>, rows: RowSpan<'_>, column_block: &Value) {
        let first = f.scale(column_block, section.columns as i64);
        let behind = f.add(&first, &int(section.columns as i64));
        let end = f.min(&behind, &int(section.n as i64));
        f.for_each(rows.start, rows.end, 1, |f, row| {
            let in_block = f.binary("sub nsw", row, rows.block);
            let values = f.element(&section.tiles[0], &in_block, section.c_stride as i64);
            f.for_each(&first, &end, TILE as i64, |f, column| {
                let in_block = f.binary("sub nsw", column, &first);
                let at = f.element(&values, &in_block, 4);
                let logits = f.load(floats(TILE), &at, 64);
                match self {
                    Kept::Largest(largest) => largest.keep(f, row, column, &logits),
                    Kept::Candidates(candidates) => candidates.keep(f, row, column, &logits),
                }
            });
        });
    }
}

/// The rows of a product of which something is kept, and where that goes.
#[derive(Clone)]
pub struct KeptRows {
    /// Number of columns.
    pub columns: usize,
    /// Number of rows.
    rows: Value,
    /// `[threads, rows]`.
    output: Value,
}

impl KeptRows {
    /// Of a step with so many rows.
    pub fn new(context: &KernelContext<'_>, params: &KernelParams, rows: &Value) -> Result<KeptRows, String> {
        let output = context.kernel.region.outputs[0];
        let ty = context.kernel.region.body.ty(output).as_tensor().ok_or("logits are a tensor")?;
        let columns = ty.shape.0[1].as_fixed().ok_or("a weight has fixed sizes")?;
        Ok(KeptRows { columns, rows: rows.clone(), output: params.outputs[0].clone() })
    }

    /// Visits the rows.
    pub fn for_each(&self, f: &mut FunctionText, body: impl FnOnce(&mut FunctionText, &Value)) {
        f.for_each(&int(0), &self.rows, 1, body);
    }

    /// The address of what a thread writes of a row, so many bytes.
    pub fn output(&self, f: &mut FunctionText, thread: &Value, row: &Value, bytes: usize) -> Value {
        let before = f.binary("mul nsw", thread, &self.rows);
        let number = f.add(&before, row);
        f.element(&self.output, &number, bytes as i64)
    }

    /// 16 columns as they count, from `first` on, and their numbers: one that is not finite as the largest, and as token -1; one
    /// that does not exist as none.
    pub fn columns(&self, f: &mut FunctionText, first: &Value, logits: &Value) -> [Value; 2] {
        let columns = column_numbers(f, first);
        let exists = f.compare("icmp slt", &columns, &int_of(ints(TILE), self.columns as i64));
        let size = f.intrinsic("fabs", std::slice::from_ref(logits));
        let is_finite = f.compare("fcmp olt", &size, &float_of(floats(TILE), f64::INFINITY));
        let logits = f.select(&is_finite, logits, &float_of(floats(TILE), f64::INFINITY));
        let columns = f.select(&is_finite, &columns, &int_of(ints(TILE), -1));
        [f.select(&exists, &logits, &float_of(floats(TILE), f64::NEG_INFINITY)), columns]
    }
}

/// 16 columns from `first` on.
pub fn column_numbers(f: &mut FunctionText, first: &Value) -> Value {
    let first = f.cast("trunc", first, I32);
    let first = f.splat(&first, TILE);
    let lanes = f.lane_numbers(ints(TILE));
    f.binary("add", &first, &lanes)
}
