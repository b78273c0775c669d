//! 16-bit floats, alone and in pairs.

use crate::check;

// bf16 values.
const ONE: u64 = 0x3f80;
const TWO: u64 = 0x4000;
const THREE: u64 = 0x4040;
// f16 values.
const H_ONE: u64 = 0x3c00;
const H_TWO: u64 = 0x4000;
const H_THREE: u64 = 0x4200;
const H_MAX: u64 = 0x7bff;

fn pair(high: u64, low: u64) -> u64 {
    high << 16 | low
}

#[test]
fn scalars() {
    check(&[
        ("add.f16 %h0, %h1, %h2;", &[H_ONE, H_TWO], H_THREE),
        ("sub.f16 %h0, %h1, %h2;", &[H_ONE, H_TWO], 0xbc00),
        ("mul.rn.f16 %h0, %h1, %h2;", &[H_MAX, H_TWO], 0x7c00),
        ("fma.rn.f16 %h0, %h1, %h2, %h3;", &[H_ONE, H_TWO, H_ONE], H_THREE),
        // 2048 + 1 is a tie that goes to the even 2048; the fused sum of 2048 + 1 + something more does not.
        ("add.f16 %h0, %h1, %h2;", &[0x6800, H_ONE], 0x6800),
        ("fma.rn.f16 %h0, %h1, %h2, %h3;", &[0x3c01, H_ONE, 0x6800], 0x6801),
        ("fma.rn.bf16 %h0, %h1, %h2, %h3;", &[ONE, TWO, ONE], THREE),
        ("max.bf16 %h0, %h1, %h2;", &[ONE, 0xc000], ONE),
        ("min.f16 %h0, %h1, %h2;", &[0x7e00, H_ONE], H_ONE),
        ("max.NaN.f16 %h0, %h1, %h2;", &[0x7e00, H_ONE], 0x7fff),
        ("neg.bf16 %h0, %h1;", &[ONE], 0xbf80),
        ("abs.f16 %h0, %h1;", &[0xbc00], H_ONE),
        ("add.ftz.f16 %h0, %h1, %h2;", &[0x0001, 0x0001], 0),
        ("add.sat.f16 %h0, %h1, %h2;", &[H_ONE, H_ONE], H_ONE),
        ("ex2.approx.f16 %h0, %h1;", &[H_ONE], H_TWO),
        ("tanh.approx.bf16 %h0, %h1;", &[0x42c8], ONE),
        ("setp.lt.f16 %p0, %h1, %h2;", &[H_ONE, H_TWO], 1),
        ("setp.gt.bf16 %p0, %h1, %h2;", &[ONE, TWO], 0),
        ("fma.rn.relu.bf16 %h0, %h1, %h2, %h3;", &[ONE, 0xc000, ONE], 0),
    ]);
}

#[test]
fn pairs_keep_their_halves_apart() {
    check(&[
        ("add.f16x2 %r0, %r1, %r2;", &[pair(H_ONE, H_TWO), pair(H_TWO, H_ONE)], pair(H_THREE, H_THREE)),
        ("mul.bf16x2 %r0, %r1, %r2;", &[pair(ONE, TWO), pair(THREE, ONE)], pair(THREE, TWO)),
        ("fma.rn.bf16x2 %r0, %r1, %r2, %r3;", &[pair(ONE, TWO), pair(TWO, ONE), pair(ONE, ONE)], pair(THREE, THREE)),
        ("max.bf16x2 %r0, %r1, %r2;", &[pair(ONE, TWO), pair(TWO, ONE)], pair(TWO, TWO)),
        ("neg.f16x2 %r0, %r1;", &[pair(H_ONE, H_TWO)], pair(0xbc00, 0xc000)),
    ]);
}

#[test]
fn comparisons_become_ones() {
    let values: &[u64] = &[pair(H_ONE, H_TWO), pair(H_TWO, H_ONE)];
    check(&[
        ("set.lt.f16x2.f16x2 %r0, %r1, %r2;", values, pair(H_ONE, 0)),
        ("set.gt.u32.f16 %r0, %h1, %h2;", values, 0xffff_ffff),
        ("set.ge.f16.f16 %h0, %h1, %h2;", values, H_ONE),
        ("set.ne.bf16x2.bf16x2 %r0, %r1, %r2;", &[pair(ONE, TWO), pair(ONE, ONE)], pair(0, ONE)),
        ("set.nan.f16x2.f16x2 %r0, %r1, %r1;", &[pair(0x7e00, H_ONE)], pair(H_ONE, 0)),
        ("set.gt.ftz.f16x2.f16x2 %r0, %r1, %r2;", &[pair(1, H_ONE), 0], pair(0, H_ONE)),
        ("set.eq.u16.f16 %h0, %h1, %h2;", &[H_ONE, H_ONE], 0xffff),
    ]);
}
