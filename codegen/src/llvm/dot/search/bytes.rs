//! Products of 8-bit numbers: rounded weights, which have no sign, with parts of rows, which have one.

use super::super::super::math::ints;
use super::super::super::multiply::TILE;
use super::super::super::text::{FunctionText, I8, I16, I32, Value, int_of};
use crate::host::ByteProducts;

/// Bytes of 16 sums' weights for 4 k.
const LINE: usize = 4 * TILE;

/// Adds the products of 4 k of a row, which lie at `x`, with lines of weights to a sum for each line.
pub fn add_products(
    f: &mut FunctionText,
    products: ByteProducts,
    x: &Value,
    lines: &[Value; 2],
    sums: &[Value],
) -> Vec<Value> {
    let x = f.load(I32, x, 4);
    let x = f.splat(&x, TILE);
    let lines = sums.iter().zip(lines);
    match products {
        ByteProducts::Fused => lines.map(|(sum, line)| fused(f, sum, line, &x)).collect(),
        ByteProducts::InPairs(bytes) => lines.map(|(sum, line)| in_pairs(f, bytes, [sum, line, &x])).collect(),
    }
}

fn fused(f: &mut FunctionText, sum: &Value, line: &Value, x: &Value) -> Value {
    let operands = [sum.clone(), line.clone(), x.clone()];
    f.call("llvm.x86.avx512.vpdpbusd.512", Some(ints(TILE)), &operands).expect("it has a result")
}

/// Elements of `x` do not exceed [`ByteProducts::largest`]: no sum of two products saturates.
fn in_pairs(f: &mut FunctionText, bytes: usize, [sum, line, x]: [&Value; 3]) -> Value {
    let (pairs, fours) = match bytes {
        64 => ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
        _ => ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    };
    let [line, x] = [line, x].map(|all| f.cast("bitcast", all, I8.with_lanes(LINE)));
    let ones = int_of(I16.with_lanes(bytes / 2), 1);
    let products = f.in_parts([&line, &x], bytes, |f, operands| {
        let pairs = f.call(pairs, Some(ones.ty), &operands).expect("it has a result");
        f.call(fours, Some(ints(bytes / 4)), &[pairs, ones.clone()]).expect("it has a result")
    });
    f.binary("add", sum, &products)
}
