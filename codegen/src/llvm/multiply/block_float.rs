//! Register blocks in block floating point: integers are multiplied (VPMADDWD, 16 of them at once where a multiply-add of f32 takes 8).
//!
//! The sum of a block of k is exact ([`llmc_ir::block_float`]). It is made f32, scaled by the powers of two of its row and its column,
//! and added to the sum of the blocks before by one multiply-add.

use super::super::block_float::{LENGTH, NUMBERS, PANEL_BLOCK, ROW_BLOCK, TILE_BLOCK};
use super::super::math::{floats, fma, ints};
use super::super::text::{F32, FunctionText, I16, I32, Value, int, int_of};
use super::block::{Ahead, Block};
use super::{LINE, TILE};

/// Pairs of k that a turn of the loop takes.
const TURNS: usize = 2;

impl Block<'_> {
    /// Adds the products to C, for addresses of A, B and C.
    pub fn emit_in_blocks(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], ahead: &Ahead) {
        let blocks = int(self.shape.k.div_ceil(LENGTH) as i64);
        f.fold(&int(0), &blocks, 1, std::slice::from_ref(&ahead.from), |f, block, from| {
            let a = f.element(a, block, ROW_BLOCK as i64);
            let b = f.element(b, block, PANEL_BLOCK as i64);
            let mut first = vec![from[0].clone()];
            first.resize(1 + self.rows * self.tiles, int_of(ints(TILE), 0));
            let last = f.fold(&int(0), &int((LENGTH / 2) as i64), TURNS as i64, &first, |f, pair, before| {
                let a = f.element(&a, pair, 4);
                let b = f.element(&b, pair, LINE);
                let (mut from, mut sums) = (before[0].clone(), before[1..].to_vec());
                for turn in 0..TURNS as i64 {
                    ahead.fetch_at(f, &from);
                    from = f.offset(&from, &ahead.step);
                    let a = f.offset(&a, &int(4 * turn));
                    let b = f.offset(&b, &int(LINE * turn));
                    self.add_integers(f, [&a, &b], &mut sums);
                }
                [vec![from], sums].concat()
            });
            self.add_block(f, [&a, &b, c], &last[1..]);
            vec![last[0].clone()]
        });
    }

    /// Adds the products of a pair of k to sums of integers.
    fn add_integers(&self, f: &mut FunctionText, [a, b]: [&Value; 2], sums: &mut [Value]) {
        let lines: Vec<Value> = (0..self.tiles).map(|tile| Block::line(f, ints(TILE), b, tile * TILE_BLOCK)).collect();
        for (row, sums) in sums.chunks_mut(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride) as i64));
            let x = f.load(I32, &at, 4);
            let x = f.splat(&x, TILE);
            for (sum, line) in sums.iter_mut().zip(&lines) {
                let products = pair_products(f, &x, line);
                *sum = f.binary("add", sum, &products);
            }
        }
    }

    /// Adds sums of a block, scaled, to C.
    fn add_block(&self, f: &mut FunctionText, [a, b, c]: [&Value; 3], sums: &[Value]) {
        let of_columns = |tile| Block::line(f, floats(TILE), b, tile * TILE_BLOCK + NUMBERS);
        let of_columns: Vec<Value> = (0..self.tiles).map(of_columns).collect();
        for (row, sums) in sums.chunks(self.tiles).enumerate() {
            let at = f.offset(a, &int((row * self.shape.a_stride + 2 * LENGTH) as i64));
            let of_row = f.load(F32, &at, 4);
            let of_row = f.splat(&of_row, TILE);
            for (tile, (sum, of_columns)) in sums.iter().zip(&of_columns).enumerate() {
                let at = self.sum_at(f, c, row, tile);
                // Not kept from the block before: registers are for the sums of one.
                let before = f.load_anew(floats(TILE), &at, 64);
                let sum = f.cast("sitofp", sum, floats(TILE));
                let power = f.binary("fmul", &of_row, of_columns);
                let after = fma(f, self.registers.fma, &sum, &power, &before);
                f.store(&after, &at, 64);
            }
        }
    }
}

/// Sums of two products each, of pairs of whole numbers.
fn pair_products(f: &mut FunctionText, x: &Value, line: &Value) -> Value {
    let [x, line] = [x, line].map(|all| f.cast("bitcast", all, I16.with_lanes(2 * TILE)));
    f.in_parts([&x, &line], 16, |f, operands| {
        f.call("llvm.x86.avx2.pmadd.wd", Some(ints(8)), &operands).expect("it has a result")
    })
}
