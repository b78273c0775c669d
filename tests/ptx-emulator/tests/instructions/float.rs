//! Single and double precision.

use crate::{check, d, f, one};

const NAN: u64 = 0x7fff_ffff;
const INFINITY: u64 = 0x7f80_0000;
/// The smallest subnormal single.
const TINY: u64 = 1;

#[test]
fn arithmetic_rounds_to_nearest() {
    let one_and_a_bit = f(1.0 + f32::EPSILON);
    check(&[
        ("add.f32 %r0, %r1, %r2;", &[f(0.1), f(0.2)], f(0.1 + 0.2)),
        ("add.rn.f32 %r0, %r1, %r2;", &[f(1.0), f(f32::EPSILON / 2.0)], f(1.0)),
        ("sub.f32 %r0, %r1, %r2;", &[INFINITY, INFINITY], NAN),
        ("mul.f32 %r0, %r1, %r2;", &[f(3.0), f(-0.5)], f(-1.5)),
        ("mul.f32 %r0, %r1, %r2;", &[f(1e-30), f(1e-10)], f(1e-40)),
        // A fused product keeps the bits that a rounded one loses.
        (
            "fma.rn.f32 %r0, %r1, %r1, %r2;",
            &[one_and_a_bit, f(-1.0)],
            f(f32::EPSILON * 2.0 + f32::EPSILON * f32::EPSILON),
        ),
        ("div.rn.f32 %r0, %r1, %r2;", &[f(1.0), f(3.0)], f(1.0 / 3.0)),
        ("div.full.f32 %r0, %r1, %r2;", &[f(10.0), f(4.0)], f(2.5)),
        ("div.approx.f32 %r0, %r1, %r2;", &[f(1.0), f(0.0)], INFINITY),
        ("sqrt.rn.f32 %r0, %r1;", &[f(2.0)], f(2f32.sqrt())),
        ("rcp.rn.f32 %r0, %r1;", &[f(3.0)], f(1.0 / 3.0)),
        ("neg.f32 %r0, %r1;", &[f(0.0)], f(-0.0)),
        ("abs.f32 %r0, %r1;", &[f(-2.0)], f(2.0)),
        ("copysign.f32 %r0, %r1, %r2;", &[f(-1.0), f(3.0)], f(-3.0)),
    ]);
}

#[test]
fn directed_roundings() {
    let half_bit = f(f32::EPSILON / 4.0);
    check(&[
        ("add.rz.f32 %r0, %r1, %r2;", &[f(1.0), half_bit], f(1.0)),
        ("add.rp.f32 %r0, %r1, %r2;", &[f(1.0), half_bit], f(1.0 + f32::EPSILON)),
        ("add.rm.f32 %r0, %r1, %r2;", &[f(-1.0), f(-1e-20)], f(-1.0 - f32::EPSILON)),
        ("mul.rz.f32 %r0, %r1, %r2;", &[f(1.0 + f32::EPSILON), f(1.0 + f32::EPSILON)], f(1.0 + 2.0 * f32::EPSILON)),
        ("mul.rp.f32 %r0, %r1, %r2;", &[f(1.0 + f32::EPSILON), f(1.0 + f32::EPSILON)], f(1.0 + 3.0 * f32::EPSILON)),
        ("fma.rz.f32 %r0, %r1, %r2, %r3;", &[f(1.0), f(-1.0), f(1e-20)], f(-1.0f32).wrapping_sub(1)),
        ("fma.rm.f32 %r0, %r1, %r2, %r3;", &[f(1.0), f(1.0), f(-1e-20)], f(1.0).wrapping_sub(1)),
    ]);
}

#[test]
fn subnormals_and_saturation() {
    check(&[
        ("add.f32 %r0, %r1, %r2;", &[TINY, TINY], 2),
        ("add.ftz.f32 %r0, %r1, %r2;", &[TINY, TINY], 0),
        ("mul.ftz.f32 %r0, %r1, %r2;", &[f(1e-30), f(-1e-10)], f(-0.0)),
        ("add.sat.f32 %r0, %r1, %r2;", &[f(0.7), f(0.7)], f(1.0)),
        ("add.sat.f32 %r0, %r1, %r2;", &[f(0.7), f(-1.0)], 0),
        ("mul.sat.f32 %r0, %r1, %r2;", &[INFINITY, 0], 0),
        ("fma.rn.sat.f32 %r0, %r1, %r2, %r3;", &[f(2.0), f(2.0), f(2.0)], f(1.0)),
        ("ex2.approx.ftz.f32 %r0, %r1;", &[f(-130.0)], 0),
        ("ex2.approx.f32 %r0, %r1;", &[f(-130.0)], f(2f32.powi(-130))),
        ("abs.ftz.f32 %r0, %r1;", &[TINY], 0),
    ]);
}

#[test]
fn extrema_prefer_numbers_unless_told() {
    check(&[
        ("min.f32 %r0, %r1, %r2;", &[f(1.0), f(-2.0)], f(-2.0)),
        ("min.f32 %r0, %r1, %r2;", &[NAN, f(-2.0)], f(-2.0)),
        ("max.f32 %r0, %r1, %r2;", &[f(3.0), NAN], f(3.0)),
        ("max.f32 %r0, %r1, %r2;", &[NAN, 0xffc0_0000], NAN),
        ("max.NaN.f32 %r0, %r1, %r2;", &[f(3.0), NAN], NAN),
        ("min.NaN.f32 %r0, %r1, %r2;", &[f(3.0), f(4.0)], f(3.0)),
        ("min.f32 %r0, %r1, %r2;", &[f(0.0), f(-0.0)], f(-0.0)),
        ("max.f32 %r0, %r1, %r2;", &[f(-0.0), f(0.0)], f(0.0)),
    ]);
}

#[test]
fn functions_at_known_points() {
    check(&[
        ("ex2.approx.f32 %r0, %r1;", &[f(3.0)], f(8.0)),
        ("lg2.approx.f32 %r0, %r1;", &[f(8.0)], f(3.0)),
        ("lg2.approx.f32 %r0, %r1;", &[f(-1.0)], NAN),
        ("rsqrt.approx.f32 %r0, %r1;", &[f(16.0)], f(0.25)),
        ("rsqrt.approx.f32 %r0, %r1;", &[f(0.0)], INFINITY),
        ("rsqrt.approx.ftz.f32 %r0, %r1;", &[TINY], INFINITY),
        ("rcp.approx.ftz.f32 %r0, %r1;", &[f(-4.0)], f(-0.25)),
        ("sqrt.approx.f32 %r0, %r1;", &[f(-1.0)], NAN),
        ("sin.approx.f32 %r0, %r1;", &[f(0.0)], f(0.0)),
        ("cos.approx.f32 %r0, %r1;", &[f(0.0)], f(1.0)),
        ("tanh.approx.f32 %r0, %r1;", &[f(100.0)], f(1.0)),
    ]);
    let result = f32::from_bits(one("tanh.approx.f32 %r0, %r1;", &[f(0.5)]) as u32);
    assert!((result - 0.462_117_16).abs() < 1e-7);
}

#[test]
fn comparisons_with_nan() {
    check(&[
        ("setp.lt.f32 %p0, %r1, %r2;", &[f(1.0), f(2.0)], 1),
        ("setp.lt.f32 %p0, %r1, %r2;", &[NAN, f(2.0)], 0),
        ("setp.ltu.f32 %p0, %r1, %r2;", &[NAN, f(2.0)], 1),
        ("setp.ne.f32 %p0, %r1, %r2;", &[NAN, f(2.0)], 0),
        ("setp.neu.f32 %p0, %r1, %r2;", &[NAN, f(2.0)], 1),
        ("setp.equ.f32 %p0, %r1, %r2;", &[f(1.0), f(2.0)], 0),
        ("setp.num.f32 %p0, %r1, %r2;", &[f(1.0), f(2.0)], 1),
        ("setp.nan.f32 %p0, %r1, %r2;", &[f(1.0), NAN], 1),
        ("setp.eq.f32 %p0, %r1, %r2;", &[f(0.0), f(-0.0)], 1),
        ("setp.gt.ftz.f32 %p0, %r1, %r2;", &[TINY, f(0.0)], 0),
        ("setp.gt.f32 %p0, %r1, %r2;", &[TINY, f(0.0)], 1),
        ("setp.ge.f64 %p0, %rd1, %rd2;", &[d(2.0), d(2.0)], 1),
    ]);
}

#[test]
fn double_precision() {
    check(&[
        ("add.f64 %rd0, %rd1, %rd2;", &[d(0.1), d(0.2)], d(0.1 + 0.2)),
        ("mul.f64 %rd0, %rd1, %rd2;", &[d(1.5), d(-2.0)], d(-3.0)),
        ("fma.rn.f64 %rd0, %rd1, %rd2, %rd3;", &[d(0.1), d(10.0), d(-1.0)], d(0.1f64.mul_add(10.0, -1.0))),
        ("div.rn.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(3.0)], d(1.0 / 3.0)),
        ("sqrt.rn.f64 %rd0, %rd1;", &[d(2.0)], d(2f64.sqrt())),
        ("max.f64 %rd0, %rd1, %rd2;", &[d(f64::NAN), d(3.0)], d(3.0)),
        ("neg.f64 %rd0, %rd1;", &[d(3.0)], d(-3.0)),
        ("abs.f64 %rd0, %rd1;", &[d(-3.0)], d(3.0)),
        ("sub.f64 %rd0, %rd1, 0d3FF0000000000000;", &[d(3.0)], d(2.0)),
    ]);
}

#[test]
fn directed_roundings_of_doubles_quotients_and_roots() {
    let next = |value: f64| (d(value.next_down()), d(value), d(value.next_up()));
    // 1/3 and 0.1 + 0.2 lie above and below their nearest doubles.
    let (_, third, above) = next(1.0 / 3.0);
    check(&[
        ("div.rz.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(3.0)], third),
        ("div.rp.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(3.0)], above),
        ("div.rm.f64 %rd0, %rd1, %rd2;", &[d(-1.0), d(3.0)], above | 1 << 63),
        ("rcp.rp.f64 %rd0, %rd1;", &[d(3.0)], above),
        ("add.rm.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(1e-30)], d(1.0)),
        ("add.rp.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(1e-30)], d(1f64.next_up())),
        ("sub.rz.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(1e-30)], d(1f64.next_down())),
        ("add.rp.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(2.0)], d(3.0)),
        ("mul.rz.f64 %rd0, %rd1, %rd2;", &[d(0.1), d(3.0)], d((0.1f64 * 3.0).next_down())),
        ("mul.rp.f64 %rd0, %rd1, %rd2;", &[d(0.1), d(3.0)], d(0.1 * 3.0)),
        ("sqrt.rm.f64 %rd0, %rd1;", &[d(2.0)], d(2f64.sqrt().next_down())),
        ("sqrt.rp.f64 %rd0, %rd1;", &[d(2.0)], d(2f64.sqrt())),
        ("sqrt.rp.f64 %rd0, %rd1;", &[d(4.0)], d(2.0)),
        ("fma.rp.f64 %rd0, %rd1, %rd2, %rd3;", &[d(1.0), d(1.0), d(1e-40)], d(1f64.next_up())),
        ("fma.rz.f64 %rd0, %rd1, %rd2, %rd3;", &[d(1.0), d(1.0), d(-1e-40)], d(1f64.next_down())),
        ("mul.rz.f64 %rd0, %rd1, %rd2;", &[d(1e300), d(1e300)], d(f64::MAX)),
        ("mul.rm.f64 %rd0, %rd1, %rd2;", &[d(1e300), d(-1e300)], d(f64::NEG_INFINITY)),
        ("div.rz.f64 %rd0, %rd1, %rd2;", &[d(1.0), d(0.0)], d(f64::INFINITY)),
        ("div.rz.f32 %r0, %r1, %r2;", &[f(2.0), f(3.0)], f((2.0f32 / 3.0).next_down())),
        ("div.rp.f32 %r0, %r1, %r2;", &[f(2.0), f(3.0)], f(2.0 / 3.0)),
        ("sqrt.rm.f32 %r0, %r1;", &[f(3.0)], f(3f32.sqrt())),
        ("sqrt.rp.f32 %r0, %r1;", &[f(3.0)], f(3f32.sqrt().next_up())),
        ("rcp.rp.f32 %r0, %r1;", &[f(10.0)], f(0.1)),
        ("rcp.rm.f32 %r0, %r1;", &[f(10.0)], f(0.1f32.next_down())),
    ]);
}

#[test]
fn pairs_and_three_operands() {
    let pair = |low: f32, high: f32| f(high) << 32 | f(low);
    check(&[
        ("add.rn.f32x2 %rd0, %rd1, %rd2;", &[pair(1.0, 2.0), pair(0.5, -3.0)], pair(1.5, -1.0)),
        ("sub.f32x2 %rd0, %rd1, %rd2;", &[pair(1.0, 2.0), pair(0.5, -3.0)], pair(0.5, 5.0)),
        ("mul.f32x2 %rd0, %rd1, %rd2;", &[pair(1.0, 2.0), pair(0.5, -3.0)], pair(0.5, -6.0)),
        ("fma.rn.f32x2 %rd0, %rd1, %rd2, %rd3;", &[pair(1.0, 2.0), pair(0.5, -3.0), pair(1.0, 1.0)], pair(1.5, -5.0)),
        ("add.rz.f32x2 %rd0, %rd1, %rd2;", &[pair(1.0, 1.0), pair(-1e-10, 1e-10)], pair(1f32.next_down(), 1.0)),
        ("max.f32 %r0, %r1, %r2, %r3;", &[f(1.0), f(5.0), f(3.0)], f(5.0)),
        ("min.f32 %r0, %r1, %r2, %r3;", &[f(2.0), f(5.0), f(1.0)], f(1.0)),
        ("max.f32 %r0, %r1, %r2, %r3;", &[NAN, f(5.0), f(7.0)], f(7.0)),
        ("max.NaN.f32 %r0, %r1, %r2, %r3;", &[f(1.0), NAN, f(3.0)], NAN),
    ]);
}
