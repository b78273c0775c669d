//! Writes to the KV cache: lanes of a key or value row at a slot (`block * 32 + position % 32`), in [`KvLayout`]'s layout.
//!
//! A word of 32 bits holds two dims of a key, or one dim of the values of two positions. So lanes of a key are stored in
//! pairs, and those of a value as every other half of a line, where the CPU can leave out the others: they are another
//! token's.

use super::math::bf16_bits;
use super::text::{FunctionText, I32, Scalar, Value, int, int_of};
use llmc_ir::dtype::DType;
use llmc_ir::op::KvPart;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, KvLayout};

/// Which elements of a key or value row lanes are.
#[derive(Clone, Debug)]
pub struct RowPlace {
    /// The head, if it is known; else `first` is counted from the row's start, and lanes may be of several heads.
    pub head: Option<Value>,
    /// Position of the first lane in the head or row.
    pub first: Value,
    /// What that is a multiple of.
    pub align: usize,
}

/// bf16 of a tile's row: columns, or pairs.
const TILE: usize = 16;

/// Where a token's keys or values are.
struct Slot<'a> {
    layout: &'a KvLayout,
    part: KvPart,
    /// The part of the first head in the block.
    base: Value,
    /// Position in the block.
    position: Value,
}

/// Stores lanes. `kv` is the layer's part of block 0.
pub fn store(
    f: &mut FunctionText,
    (layout, part): (&KvLayout, KvPart),
    kv: &Value,
    slot: &Value,
    place: &RowPlace,
    value: &Value,
) {
    let positions = KV_BLOCK_POSITIONS as i64;
    let block = f.binary("sdiv", slot, &int(positions));
    let position = f.binary("srem", slot, &int(positions));
    let base = f.element(kv, &block, layout.block_bytes() as i64);
    let base = match part {
        KvPart::Key => base,
        KvPart::Value => f.offset(&base, &int(layout.half_bytes() as i64)),
    };
    let slot = Slot { layout, part, base, position };
    let lanes = value.ty.lanes;
    // Lanes of one head have one address, and the others follow from it.
    let of_one_head =
        place.head.is_some() || layout.head_dim.is_multiple_of(lanes) && place.align.is_multiple_of(lanes);
    let stored = if layout.dtype == DType::BF16 { bf16_bits(f, value) } else { value.clone() };
    if !of_one_head {
        for lane in 0..lanes {
            let column = f.add(&place.first, &int(lane as i64));
            let (head, dim) = in_head(f, layout, &column);
            let scalar = f.extract(&stored, lane);
            slot.store(f, &head, &dim, &scalar);
        }
        return;
    }
    let (head, first) = match &place.head {
        Some(head) => (head.clone(), place.first.clone()),
        None => in_head(f, layout, &place.first),
    };
    let is_bf16 = layout.dtype == DType::BF16;
    let is_line = part == KvPart::Value && lanes == TILE && place.align.is_multiple_of(TILE);
    if is_bf16 && is_line && f.instructions().store_some_halves {
        let address = slot.address(f, &head, &first);
        return slot.store_line(f, &address, &stored);
    }
    let is_paired = is_bf16 && part == KvPart::Key && lanes.is_multiple_of(2) && place.align.is_multiple_of(2);
    let (words, step) = match is_paired {
        true => (f.cast("bitcast", &stored, I32.with_lanes(lanes / 2)), 2),
        false => (stored, 1),
    };
    for lane in 0..words.ty.lanes {
        let dim = f.add(&first, &int((lane * step) as i64));
        let word = f.extract(&words, lane);
        slot.store(f, &head, &dim, &word);
    }
}

fn in_head(f: &mut FunctionText, layout: &KvLayout, column: &Value) -> (Value, Value) {
    let size = int(layout.head_dim as i64);
    (f.binary("sdiv", column, &size), f.binary("srem", column, &size))
}

impl Slot<'_> {
    fn store(&self, f: &mut FunctionText, head: &Value, dim: &Value, value: &Value) {
        let address = self.address(f, head, dim);
        let bytes = if value.ty.scalar == Scalar::I16 { 2 } else { 4 };
        f.store(value, &address, bytes);
    }

    /// Stores 16 consecutive dims of a value; `address` is the first one's.
    fn store_line(&self, f: &mut FunctionText, address: &Value, bits: &Value) {
        // The line begins at the even position's half, and the other position's are left out.
        let odd = mask(f, &self.position, 1);
        let line = f.element(address, &odd, -2);
        let odd = f.cast("trunc", &odd, I32);
        let words = f.cast("zext", bits, I32.with_lanes(TILE));
        let shift = f.binary("shl", &odd, &int_of(I32, 4));
        let shift = f.splat(&shift, TILE);
        let words = f.binary("shl", &words, &shift);
        let halves = f.cast("bitcast", &words, bits.ty.with_lanes(2 * TILE));
        let own = f.binary("shl", &int_of(I32, 0x5555_5555), &odd);
        let own = f.cast("bitcast", &own, bits.ty.with_scalar(Scalar::I1).with_lanes(2 * TILE));
        f.call("llvm.masked.store.v32i16.p0", None, &[halves, line, int_of(I32, 2), own]);
    }

    /// The address of one element.
    fn address(&self, f: &mut FunctionText, head: &Value, dim: &Value) -> Value {
        let Slot { layout, part, base, position } = self;
        let padded = layout.padded_head_dim();
        let base = f.element(base, head, 2 * layout.half_bytes() as i64);
        let (tile, row) = (shift_right(f, position, 4), mask(f, position, 15));
        let terms: Vec<(Value, i64)> = match (part, layout.dtype) {
            (KvPart::Key, DType::F32) => vec![(tile, padded as i64 * 64), (dim.clone(), 64), (row, 4)],
            (KvPart::Value, DType::F32) => {
                let (group, column) = (shift_right(f, dim, 4), mask(f, dim, 15));
                vec![(group, KV_BLOCK_POSITIONS as i64 * 64), (position.clone(), 64), (column, 4)]
            }
            (KvPart::Key, _) => {
                let (group, in_group) = (shift_right(f, dim, 5), mask(f, dim, 31));
                let (pair, odd) = (shift_right(f, &in_group, 1), mask(f, dim, 1));
                let tile_bytes = (padded / 32) as i64 * 1024;
                vec![(tile, tile_bytes), (group, 1024), (pair, 64), (row, 4), (odd, 2)]
            }
            (KvPart::Value, _) => {
                let (group, column) = (shift_right(f, dim, 4), mask(f, dim, 15));
                let (pair, odd) = (shift_right(f, position, 1), mask(f, position, 1));
                vec![(group, 1024), (pair, 64), (column, 4), (odd, 2)]
            }
        };
        terms.iter().fold(base, |address, (index, bytes)| f.element(&address, index, *bytes))
    }
}

fn shift_right(f: &mut FunctionText, value: &Value, bits: i64) -> Value {
    f.binary("ashr", value, &int(bits))
}

fn mask(f: &mut FunctionText, value: &Value, mask: i64) -> Value {
    f.binary("and", value, &int(mask))
}
