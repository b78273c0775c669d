//! Threads of a device: their numbers, and how they speak to each other.

use crate::llvm::expression::combine;
use crate::llvm::rows::Team;
use crate::llvm::text::{F32, FunctionText, I32, I64, Value, int, int_of};
use llmc_ir::op::ReduceOp;

/// Threads of a warp.
pub const WARP: usize = 32;
/// Elements of a row that a thread takes at a time: as f32 what one load takes, so that a warp's loads fill sectors.
pub const LANES: usize = 4;
const ALL: i64 = -1;

/// A special register, such as `tid.x`, as `i32`.
pub fn special(f: &mut FunctionText, name: &str) -> Value {
    f.call(&format!("llvm.nvvm.read.ptx.sreg.{name}"), Some(I32), &[]).expect("registers have values")
}

/// A special register as `i64`.
pub fn special_wide(f: &mut FunctionText, name: &str) -> Value {
    let value = special(f, name);
    f.cast("zext", &value, I64)
}

/// Waits until all threads of the block have arrived.
pub fn barrier(f: &mut FunctionText) {
    f.call("llvm.nvvm.barrier0", None, &[]);
}

/// Waits until all lanes of the warp have arrived.
pub fn warp_barrier(f: &mut FunctionText) {
    f.call("llvm.nvvm.bar.warp.sync", None, &[int_of(I32, ALL)]);
}

/// The value of the lane whose number differs in the bits of `mask`.
pub fn from_partner(f: &mut FunctionText, value: &Value, mask: i64) -> Value {
    let arguments = [int_of(I32, ALL), value.clone(), int_of(I32, mask), int_of(I32, 31)];
    f.call("llvm.nvvm.shfl.sync.bfly.f32", Some(F32), &arguments).expect("shuffles return a value")
}

/// The value of a lane.
pub fn from_lane(f: &mut FunctionText, value: &Value, lane: &Value) -> Value {
    let arguments = [int_of(I32, ALL), value.clone(), lane.clone(), int_of(I32, 31)];
    f.call("llvm.nvvm.shfl.sync.idx.f32", Some(F32), &arguments).expect("shuffles return a value")
}

/// Combines the values of lanes whose numbers differ in bits of `masks`; all get the same result.
pub fn butterfly(
    f: &mut FunctionText,
    value: &Value,
    masks: &[i64],
    mut combine: impl FnMut(&mut FunctionText, &Value, &Value) -> Value,
) -> Value {
    masks.iter().fold(value.clone(), |value, &mask| {
        let other = from_partner(f, &value, mask);
        combine(f, &value, &other)
    })
}

/// All bits of a lane's number.
pub const ALL_LANES: [i64; 5] = [16, 8, 4, 2, 1];

/// Threads that share a row: one warp, or a whole block.
pub struct Threads {
    /// The thread's number among them, as `i64`.
    pub member: Value,
    /// How many they are, a multiple of [`WARP`].
    pub members: usize,
    /// Lanes of the vectors that each takes.
    pub lanes: usize,
    /// For a block, shared memory of 4 bytes per warp.
    pub exchange: Value,
}

impl Threads {
    /// Shared memory that so many threads exchange values through.
    pub fn exchange_bytes(members: usize) -> usize {
        members / WARP * 4
    }
}

impl Team for Threads {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn member(&self) -> Option<(Value, usize)> {
        Some((self.member.clone(), self.members))
    }

    fn combine(&self, f: &mut FunctionText, op: ReduceOp, value: Value) -> Value {
        let value = butterfly(f, &value, &ALL_LANES, |f, a, b| combine(f, op, a, b));
        if self.members == WARP {
            return value;
        }
        let warp = f.binary("lshr", &self.member, &int(5));
        let own = f.element(&self.exchange, &warp, 4);
        // Every lane of a warp has the same bits.
        let lane = f.binary("and", &self.member, &int(31));
        let first = f.compare("icmp eq", &lane, &int(0));
        f.when(&first, |f| f.store(&value, &own, 4));
        barrier(f);
        let parts: Vec<Value> = (0..self.members / WARP)
            .map(|warp| {
                let from = f.offset(&self.exchange, &int(4 * warp as i64));
                f.load(F32, &from, 4)
            })
            .collect();
        let total = parts[1..].iter().fold(parts[0].clone(), |total, part| combine(f, op, &total, part));
        barrier(f);
        total
    }
}
