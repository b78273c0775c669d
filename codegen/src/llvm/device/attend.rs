//! Attention over the paged KV cache: which kernel does it, and what all of them need.

mod decode;
mod flash;
mod plain;

use super::thread::{WARP, special_wide};
use super::{DeviceContext, DeviceParams, Geometry, blocks, matrix};
use crate::kernel::attend::{AttendRegion, NO_MAXIMUM};
use crate::llvm::memory::load_index;
use crate::llvm::step_args::{integer, pointer, size};
use crate::llvm::text::{F32, FunctionText, GLOBAL, I16, I32, I64, Value, int, int_of};
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::gpu::GpuStepArgs;
use llmc_ir::op::Attention;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use std::mem::offset_of;

/// Positions of a block of the cache.
const POSITIONS: usize = KV_BLOCK_POSITIONS;

/// Blocks that a multiprocessor must have registers for. Left to itself the assembler spills for the sake of more warps.
const RESIDENT: Option<u32> = Some(1);

/// Sizes and places of a region's attention.
struct Attend {
    attention: Attention,
    dtype: DType,
    rows: Dim,
    head_dim: usize,
    /// `head_dim` in whole tiles of the cache.
    padded: usize,
    /// Bytes of one head's keys in a block of the cache, and of a block.
    half_bytes: usize,
    block_bytes: usize,
    query: Value,
    cache: Value,
    output: Value,
}

/// Emits the kernels of an attend region.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    let attend = Attend::of(context)?;
    match (attend.dtype, context.bounds.one_token_per_sequence) {
        (DType::BF16, true) if decode::takes(&attend) => decode::emit(context, &attend),
        (DType::BF16, false) if flash::takes(&attend) => flash::emit(context, &attend),
        _ => plain::emit(context),
    }
}

impl Attend {
    fn of(context: &DeviceContext<'_>) -> Result<Attend, String> {
        let AttendRegion { attention, ty, query, cache } = AttendRegion::of(&context.kernel.region)?;
        let parameter = |name: String| Value { text: name, ty: GLOBAL };
        Ok(Attend {
            attention,
            dtype: if ty.dtype == context.kv.dtype { ty.dtype } else { DType::F32 },
            rows: ty.shape.0[0],
            head_dim: context.kv.head_dim,
            padded: context.kv.padded_head_dim(),
            half_bytes: context.kv.half_bytes(),
            block_bytes: context.kv.block_bytes(),
            query: parameter(format!("%in{query}")),
            cache: parameter(format!("%in{cache}")),
            output: parameter("%out0".to_owned()),
        })
    }

    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.attention.heads / self.attention.kv_heads
    }

    /// Address of the first element of a query head of a token, in the queries or in the output, both bf16.
    fn head_address(&self, f: &mut FunctionText, base: &Value, token: &Value, kv_head: &Value, head: &Value) -> Value {
        let first = f.scale(kv_head, self.group() as i64);
        let head = f.add(&first, head);
        let row = f.scale(token, self.attention.heads as i64);
        let row = f.add(&row, &head);
        f.element(base, &row, self.head_dim as i64 * 2)
    }

    /// Stores elements `2g` and `2g + 1` of each 16 of a head.
    fn store_pairs(&self, f: &mut FunctionText, to: &Value, g: &Value, elements: &[[Value; 2]]) {
        let place = f.scale(g, 4);
        let to = f.offset(to, &place);
        for (tile, [low, high]) in elements.iter().enumerate() {
            let first = f.scale(g, 2);
            let first = f.add(&first, &int(16 * tile as i64));
            let pair = matrix::pack(f, low, high);
            let to = f.offset(&to, &int(32 * tile as i64));
            if self.head_dim.is_multiple_of(2) {
                let inside = f.compare("icmp slt", &first, &int(self.head_dim as i64));
                if 16 * (tile + 1) <= self.head_dim {
                    f.store(&pair, &to, 4);
                } else {
                    f.when(&inside, |f| f.store(&pair, &to, 4));
                }
                continue;
            }
            for half in 0..2 {
                let dim = f.add(&first, &int(half));
                let inside = f.compare("icmp slt", &dim, &int(self.head_dim as i64));
                f.when(&inside, |f| {
                    let bits = f.binary("lshr", &pair, &int_of(I32, 16 * half));
                    let bits = f.cast("trunc", &bits, I16);
                    let to = f.offset(&to, &int(2 * half));
                    f.store(&bits, &to, 2);
                });
            }
        }
    }
}

/// Launches warps of 32 threads, one for each row and query head; `body` gets both and the lane.
fn warp_per_head(
    context: &mut DeviceContext<'_>,
    stage: &str,
    (rows, heads): (Dim, usize),
    body: impl FnOnce(&mut DeviceContext<'_>, &mut FunctionText, &DeviceParams, [&Value; 3]) -> Result<(), String>,
) -> Result<(), String> {
    const WARPS: usize = 4;
    let beside = heads.div_ceil(WARPS);
    let geometry =
        Geometry { blocks: blocks(rows, 1, beside)?, threads: WARPS * WARP, shared_bytes: 0, resident: None };
    context.launch(stage, &geometry, |context, f, params| {
        let rows = size(f, &params.args, rows)?;
        let block = special_wide(f, "ctaid.x");
        let thread = special_wide(f, "tid.x");
        let row = f.binary("udiv", &block, &int(beside as i64));
        let number = f.binary("urem", &block, &int(beside as i64));
        let warp = f.binary("lshr", &thread, &int(5));
        let lane = f.binary("and", &thread, &int(31));
        let head = f.scale(&number, WARPS as i64);
        let head = f.add(&head, &warp);
        let row_exists = f.compare("icmp slt", &row, &rows);
        let head_exists = f.compare("icmp slt", &head, &int(heads as i64));
        let exists = f.binary("and", &row_exists, &head_exists);
        let mut result = Ok(());
        f.when(&exists, |f| result = body(context, f, params, [&row, &head, &lane]));
        result
    })
}

/// Number of the sequence that a row belongs to: as many as start after the first one, up to the row.
fn sequence_of(f: &mut FunctionText, params: &DeviceParams, row: &Value) -> Value {
    let sequences = integer(f, &params.args, offset_of!(GpuStepArgs, sequences));
    let starts = pointer(f, &params.args, offset_of!(GpuStepArgs, sequence_starts));
    let counts = f.fold(&int(1), &sequences, 1, &[int(0)], |f, sequence, count| {
        let start = load_index(f, &starts, sequence);
        let begun = f.compare("icmp sle", &start, row);
        let begun = f.cast("zext", &begun, I64);
        vec![f.add(&count[0], &begun)]
    });
    counts[0].clone()
}

/// `2^x` by the device's own instruction: 2 units in the last place, and 0 below 2^-126.
fn exp2(f: &mut FunctionText, x: &Value) -> Value {
    let arguments = std::slice::from_ref(x);
    f.call("llvm.nvvm.ex2.approx.ftz.f", Some(F32), arguments).expect("the intrinsic returns a value")
}
