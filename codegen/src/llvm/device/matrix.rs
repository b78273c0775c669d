//! The matrix instruction m16n8k16 on bf16 and its operands in registers.
//!
//! With `g = lane / 4` and `t = lane % 4` a lane holds of A the pairs (row `g` or `g + 8`, k pair `t` or `t + 4`), of B
//! the pairs (k pair `t` or `t + 4`, column `g`), of C the elements (row `g` or `g + 8`, columns `2t` and `2t + 1`).
//!
//! Panels of weights and blocks of the KV cache hold 32-bit pairs of k, four columns of 16 side by side: one 16-byte load
//! at columns `4g..4g + 4` gives a lane the pairs of four products of 8 columns, if product j has the columns `4g + j`.
//! Then the lane's results of all four products are the 8 columns from `8t` on. Which k pairs go to which t is free as
//! long as both operands agree.

use crate::llvm::text::{F32, FunctionText, I32, Scalar, Ty, Value, int, int_of};

/// Rows of A in one instruction.
pub const ROWS: usize = 16;
/// Columns of B in one instruction.
pub const COLUMNS: usize = 8;
/// Elements of a sum in one instruction.
pub const DEPTH: usize = 16;
/// Columns of a panel of weights, and positions of a block of the cache.
pub const PANEL: usize = crate::kernel::dot::PANEL;
/// Bytes of 32 k of a panel.
pub const PANEL_BLOCK: usize = PANEL * PANEL * 2;

/// `C + A B`. A is (row g, pair t), (g + 8, t), (g, t + 4), (g + 8, t + 4); B is (pair t, column g), (t + 4, g).
pub fn multiply(f: &mut FunctionText, a: [&Value; 4], b: [&Value; 2], c: &[Value]) -> Vec<Value> {
    let mut arguments: Vec<Value> = a.into_iter().chain(b).cloned().collect();
    arguments.extend(c.iter().cloned());
    f.call_many("llvm.nvvm.mma.m16n8k16.row.col.bf16", F32, 4, &arguments)
}

/// Four 8 x 8 matrices from shared memory: every eight lanes give the addresses of the rows of one, and every lane gets of
/// each matrix the elements `2t` and `2t + 1` of row g.
pub fn load_matrices(f: &mut FunctionText, address: &Value) -> Vec<Value> {
    f.call_many("llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3", I32, 4, std::slice::from_ref(address))
}

/// The left operand of 16 columns of a panel and 16 k from shared memory, its pieces permuted: row g of the instruction
/// is column `2g` and row `g + 8` column `2g + 1`. `address` is of the first k pair, at [`place_of_columns`].
pub fn load_columns(f: &mut FunctionText, address: &Value) -> Vec<Value> {
    let next = f.offset(address, &int(4 * 64));
    let pairs = [address, &next].map(|address| f.load(I32.with_lanes(2), address, 8));
    pairs.iter().flat_map(|pair| [0, 1].map(|lane| f.extract(pair, lane))).collect()
}

/// Where a lane reads for [`load_columns`], from the first k pair: pair t, columns `2g` and `2g + 1`, in pieces that are
/// permuted by an exclusive or of their number with twice the second bit of the pair's.
pub fn place_of_columns(f: &mut FunctionText, g: &Value, t: &Value) -> Value {
    let pair = f.scale(t, 64);
    let columns = f.scale(g, 8);
    let place = f.add(&pair, &columns);
    let bit = f.binary("lshr", t, &int(1));
    let bit = f.scale(&bit, 32);
    f.binary("xor", &place, &bit)
}

/// Whether what is loaded may be written while the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It may.
    Written,
    /// It may not: weights.
    Constant,
}

/// Four 32-bit pairs that lie side by side.
pub fn load_pairs(f: &mut FunctionText, address: &Value, lifetime: Lifetime) -> Vec<Value> {
    let ty = I32.with_lanes(4);
    let vector = match lifetime {
        Lifetime::Written => f.load(ty, address, 16),
        Lifetime::Constant => f.load_constant(ty, address, 16),
    };
    (0..4).map(|lane| f.extract(&vector, lane)).collect()
}

/// Where a lane's numbers g and t put it in a block of a panel, in bytes: columns `4g..4g + 4`, first k pair
/// `pair * t` (the lane's others follow at 64 bytes each).
pub fn place_in_block(f: &mut FunctionText, g: &Value, t: &Value, pair: i64) -> Value {
    let tile = f.binary("lshr", g, &int(2));
    let column = f.binary("and", g, &int(3));
    let place = f.scale(&tile, 1024);
    let columns = f.scale(&column, 16);
    let place = f.add(&place, &columns);
    let pairs = f.scale(t, 64 * pair);
    f.add(&place, &pairs)
}

/// Two floats rounded to bf16, the first in the lower half.
pub fn pack(f: &mut FunctionText, low: &Value, high: &Value) -> Value {
    let ty = Ty { scalar: Scalar::BF16, lanes: 2 };
    let pair = f.call("llvm.nvvm.ff2bf16x2.rn", Some(ty), &[high.clone(), low.clone()]);
    f.cast("bitcast", &pair.expect("the intrinsic returns a value"), I32)
}

/// Two floats as sums of two bf16, to within 2^-16 of each: the pair of the rounded ones, and that of what rounding lost.
pub fn pack_in_parts(f: &mut FunctionText, low: &Value, high: &Value) -> [Value; 2] {
    let rounded = pack(f, low, high);
    let bits = [f.binary("shl", &rounded, &int_of(I32, 16)), f.binary("and", &rounded, &int_of(I32, -65536))];
    let [low, high] = [low, high]
        .into_iter()
        .zip(bits)
        .map(|(value, bits)| {
            let rounded = f.cast("bitcast", &bits, F32);
            f.binary("fsub", value, &rounded)
        })
        .collect::<Vec<_>>()
        .try_into()
        .expect("two of two");
    let lost = pack(f, &low, &high);
    [rounded, lost]
}

/// Stores four 32-bit values at a multiple of 16 bytes.
pub fn store_four(f: &mut FunctionText, values: [&Value; 4], address: &Value) {
    let mut vector = Value { text: "poison".into(), ty: values[0].ty.with_lanes(4) };
    for (lane, value) in values.into_iter().enumerate() {
        vector = f.insert(&vector, value, lane);
    }
    f.store(&vector, address, 16);
}
