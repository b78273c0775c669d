//! Attention without matrix instructions: a warp per row and query head. Lanes are positions while scores are taken,
//! and elements of the head while values are summed; both in ascending order of positions, block by block.

use super::super::thread::{ALL_LANES, WARP, butterfly, from_lane};
use super::super::{DeviceContext, DeviceParams};
use super::{NO_MAXIMUM, exp2, sequence_of, warp_per_head};
use crate::kernel::attend::AttendRegion;
use crate::llvm::expression::round;
use crate::llvm::index::Index;
use crate::llvm::math::bf16_to_f32;
use crate::llvm::memory::{self, load_index};
use crate::llvm::step_args::{integer, pointer, step_input};
use crate::llvm::text::{F32, FunctionText, I16, I32, Value, float_of, int};
use llmc_ir::dtype::DType;
use llmc_ir::gpu::GpuStepArgs;
use llmc_ir::op::Attention;
use llmc_ir::plan::{KvLayout, StepInput, WeightLayout};
use llmc_ir::shape::TensorType;
use std::mem::offset_of;

const POSITIONS: i64 = super::POSITIONS as i64;

struct Plain<'a> {
    attention: Attention,
    kv: &'a KvLayout,
    ty: &'a TensorType,
    query: Value,
    cache: Value,
    output: Value,
    /// Lane of the warp, as `i64`.
    lane: Value,
    row: Value,
    head: Value,
}

/// Emits the kernel.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    let AttendRegion { attention, ty, query, cache } = AttendRegion::of(&context.kernel.region)?;
    let rows = ty.shape.0[0];
    warp_per_head(context, "attend", (rows, attention.heads), |context, f, params, [row, head, lane]| {
        let plain = Plain {
            attention,
            kv: context.kv,
            ty,
            query: params.inputs[query].clone(),
            cache: params.inputs[cache].clone(),
            output: params.outputs[0].clone(),
            lane: lane.clone(),
            row: row.clone(),
            head: head.clone(),
        };
        plain.emit_row(f, params)
    })
}

impl Plain<'_> {
    fn emit_row(&self, f: &mut FunctionText, params: &DeviceParams) -> Result<(), String> {
        let Attention { heads, kv_heads, window, .. } = self.attention;
        let head_dim = self.kv.head_dim;
        let positions = step_input(f, &params.args, StepInput::Positions);
        let tables = pointer(f, &params.args, offset_of!(GpuStepArgs, block_tables));
        let stride = integer(f, &params.args, offset_of!(GpuStepArgs, block_table_stride));
        let sequence = sequence_of(f, params, &self.row);
        let table = f.binary("mul nsw", &sequence, &stride);
        let table = f.element(&tables, &table, 4);
        let own = load_index(f, &positions, &self.row);
        // The first position that the row sees, and the blocks from there on.
        let oldest = match window {
            Some(window) => {
                let oldest = f.add(&own, &int(1 - window as i64));
                f.max(&oldest, &int(0))
            }
            None => int(0),
        };
        let first = f.binary("sdiv", &oldest, &int(POSITIONS));
        let last = f.binary("sdiv", &own, &int(POSITIONS));
        let end = f.add(&last, &int(1));
        let kv_head = f.binary("udiv", &self.head, &int((heads / kv_heads) as i64));
        let parts = head_dim.div_ceil(WARP);
        let mut initial = vec![float_of(F32, NO_MAXIMUM), float_of(F32, 0.0)];
        initial.extend(vec![float_of(F32, 0.0); parts]);
        let mut result = Ok(());
        let state = f.fold(&first, &end, 1, &initial, |f, block, state| {
            let place = load_index(f, &table, block);
            let base = f.element(&self.cache, &place, self.kv.block_bytes() as i64);
            let keys = f.element(&base, &kv_head, 2 * self.kv.half_bytes() as i64);
            let values = f.offset(&keys, &int(self.kv.half_bytes() as i64));
            let start = f.scale(block, POSITIONS);
            let position = f.add(&start, &self.lane);
            let not_later = f.compare("icmp sle", &position, &own);
            let not_older = f.compare("icmp sge", &position, &oldest);
            let seen = f.binary("and", &not_later, &not_older);
            match self.block(f, state, [&keys, &values], &seen) {
                Ok(next) => next,
                Err(error) => {
                    result = Err(error);
                    state.to_vec()
                }
            }
        });
        result?;
        let mut result = Ok(());
        for (part, sum) in state[2..].iter().enumerate() {
            let dim = f.add(&self.lane, &int((part * WARP) as i64));
            let inside = f.compare("icmp slt", &dim, &int(head_dim as i64));
            f.when(&inside, |f| {
                let value = f.binary("fdiv", sum, &state[1]);
                let value = round(f, self.ty.dtype, value);
                let at = self.element(f, &dim);
                result = memory::store(f, &value, &self.output, self.ty, &at);
            });
        }
        result
    }

    /// Index of an element of the row's head.
    fn element(&self, f: &mut FunctionText, dim: &Value) -> [Index; 2] {
        let column = f.scale(&self.head, self.kv.head_dim as i64);
        [Index::Scalar(self.row.clone()), Index::Scalar(f.add(&column, dim))]
    }

    /// Folds the 32 positions of a block into maximum, sum and weighted values.
    fn block(
        &self,
        f: &mut FunctionText,
        state: &[Value],
        [keys, values]: [&Value; 2],
        seen: &Value,
    ) -> Result<Vec<Value>, String> {
        let head_dim = self.kv.head_dim as i64;
        let mut result = Ok(());
        let score = f.fold(&int(0), &int(head_dim), 1, &[float_of(F32, 0.0)], |f, dim, score| {
            let at = self.element(f, dim);
            let query = memory::load(f, &self.query, self.ty, WeightLayout::RowMajor, &at, 1);
            let key = self.key(f, keys, dim);
            match query {
                Ok(query) => vec![f.intrinsic("fma", &[query, key, score[0].clone()])],
                Err(error) => {
                    result = Err(error);
                    score.to_vec()
                }
            }
        });
        result?;
        let scale = self.attention.scale.get() * std::f64::consts::LOG2_E;
        let score = f.binary("fmul", &score[0], &float_of(F32, scale));
        let score = f.select(seen, &score, &float_of(F32, NO_MAXIMUM));
        let largest = butterfly(f, &score, &ALL_LANES, |f, a, b| f.intrinsic("maxnum", &[a.clone(), b.clone()]));
        let maximum = f.intrinsic("maxnum", &[state[0].clone(), largest]);
        let weight = exp2_below(f, &score, &maximum);
        let weight = f.select(seen, &weight, &float_of(F32, 0.0));
        let factor = exp2_below(f, &state[0], &maximum);
        let total = butterfly(f, &weight, &ALL_LANES, |f, a, b| f.binary("fadd", a, b));
        let sum = f.intrinsic("fma", &[state[1].clone(), factor.clone(), total]);
        let mut next = vec![maximum, sum];
        for sum in &state[2..] {
            next.push(f.binary("fmul", sum, &factor));
        }
        let sums = f.fold(&int(0), &int(POSITIONS), 1, &next[2..], |f, position, sums| {
            let lane = f.cast("trunc", position, I32);
            let weight = from_lane(f, &weight, &lane);
            let used = f.compare("fcmp ogt", &weight, &float_of(F32, 0.0));
            let terms = sums.iter().enumerate().map(|(part, sum)| {
                let dim = f.add(&self.lane, &int((part * WARP) as i64));
                let value = self.value(f, values, position, &dim);
                // What was never written need not be a number.
                let value = f.select(&used, &value, &float_of(F32, 0.0));
                f.intrinsic("fma", &[weight.clone(), value, sum.clone()])
            });
            terms.collect()
        });
        next.truncate(2);
        next.extend(sums);
        Ok(next)
    }

    /// The element of this lane's position's key.
    fn key(&self, f: &mut FunctionText, keys: &Value, dim: &Value) -> Value {
        let padded = self.kv.padded_head_dim() as i64;
        let (tile, column) = (f.binary("lshr", &self.lane, &int(4)), f.binary("and", &self.lane, &int(15)));
        match self.kv.dtype {
            DType::F32 => self.load(f, keys, &[(tile, padded * 64), (dim.clone(), 64), (column, 4)]),
            _ => {
                let (group, in_group) = (f.binary("lshr", dim, &int(5)), f.binary("and", dim, &int(31)));
                let (pair, odd) = (f.binary("lshr", &in_group, &int(1)), f.binary("and", dim, &int(1)));
                self.load(f, keys, &[(tile, padded * 32), (group, 1024), (pair, 64), (column, 4), (odd, 2)])
            }
        }
    }

    /// An element of a position's value.
    fn value(&self, f: &mut FunctionText, values: &Value, position: &Value, dim: &Value) -> Value {
        let (group, column) = (f.binary("lshr", dim, &int(4)), f.binary("and", dim, &int(15)));
        match self.kv.dtype {
            DType::F32 => self.load(f, values, &[(group, POSITIONS * 64), (position.clone(), 64), (column, 4)]),
            _ => {
                let (pair, odd) = (f.binary("lshr", position, &int(1)), f.binary("and", position, &int(1)));
                self.load(f, values, &[(group, 1024), (pair, 64), (column, 4), (odd, 2)])
            }
        }
    }

    fn load(&self, f: &mut FunctionText, base: &Value, terms: &[(Value, i64)]) -> Value {
        let address = terms.iter().fold(base.clone(), |address, (index, bytes)| f.element(&address, index, *bytes));
        match self.kv.dtype {
            DType::F32 => f.load(F32, &address, 4),
            _ => {
                let bits = f.load(I16, &address, 2);
                bf16_to_f32(f, &bits)
            }
        }
    }
}

/// `2^(x - maximum)`.
fn exp2_below(f: &mut FunctionText, x: &Value, maximum: &Value) -> Value {
    let lowered = f.binary("fsub", x, maximum);
    exp2(f, &lowered)
}
