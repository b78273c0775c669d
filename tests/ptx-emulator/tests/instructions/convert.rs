//! Conversions.

use crate::{check, d, f};

#[test]
fn between_integers() {
    check(&[
        ("cvt.s64.s32 %rd0, %r1;", &[0xffff_fffe], u64::MAX - 1),
        ("cvt.u64.u32 %rd0, %r1;", &[0xffff_fffe], 0xffff_fffe),
        ("cvt.u32.u64 %r0, %rd1;", &[0x5_0000_0007], 7),
        ("cvt.s32.s16 %r0, %h1;", &[0x8000], 0xffff_8000),
        ("cvt.u32.u16 %r0, %h1;", &[0x8000], 0x8000),
        ("cvt.s32.s8 %r0, %r1;", &[0x1ff], 0xffff_ffff),
        ("cvt.u32.u8 %r0, %r1;", &[0x1ff], 0xff),
        ("cvt.s16.s8 %h0, %h1;", &[0x80], 0xff80),
        ("cvt.u16.u32 %h0, %r1;", &[0x1_2345], 0x2345),
        // A result shorter than its register is extended by its own sign.
        ("cvt.s16.s32 %r0, %r1;", &[0x8000], 0xffff_8000),
        ("cvt.s8.s32 %h0, %r1;", &[0x80], 0xff80),
        ("cvt.sat.s8.s32 %r0, %r1;", &[1000], 127),
        ("cvt.sat.u8.s32 %r0, %r1;", &[0xffff_ffff], 0),
        ("cvt.sat.s32.s64 %r0, %rd1;", &[1 << 40], 0x7fff_ffff),
    ]);
}

#[test]
fn floats_to_integers_round_and_clamp() {
    check(&[
        ("cvt.rni.s32.f32 %r0, %r1;", &[f(2.5)], 2),
        ("cvt.rni.s32.f32 %r0, %r1;", &[f(3.5)], 4),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(-2.9)], 0xffff_fffe),
        ("cvt.rmi.s32.f32 %r0, %r1;", &[f(-2.1)], 0xffff_fffd),
        ("cvt.rpi.s32.f32 %r0, %r1;", &[f(2.1)], 3),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(1e20)], 0x7fff_ffff),
        ("cvt.rzi.u32.f32 %r0, %r1;", &[f(-5.0)], 0),
        ("cvt.rzi.s32.f32 %r0, %r1;", &[f(f32::NAN)], 0),
        ("cvt.rzi.s64.f64 %rd0, %rd1;", &[d(-3.7)], 3u64.wrapping_neg()),
        ("cvt.rzi.u16.f32 %h0, %r1;", &[f(70000.0)], 0xffff),
        ("cvt.rzi.s8.f32 %r0, %r1;", &[f(-200.0)], 0xffff_ff80),
        ("cvt.rzi.s32.f16 %r0, %h1;", &[0x4200], 3),
    ]);
}

#[test]
fn integers_to_floats_round() {
    check(&[
        ("cvt.rn.f32.s32 %r0, %r1;", &[0xffff_ffff], f(-1.0)),
        ("cvt.rn.f32.u32 %r0, %r1;", &[0xffff_ffff], f(4_294_967_296.0)),
        ("cvt.rz.f32.u32 %r0, %r1;", &[0xffff_ffff], f(4_294_967_040.0)),
        ("cvt.rn.f32.s32 %r0, %r1;", &[16_777_217], f(16_777_216.0)),
        ("cvt.rp.f32.s32 %r0, %r1;", &[16_777_217], f(16_777_218.0)),
        // A double in between must not turn this into a tie.
        ("cvt.rn.f32.u64 %r0, %rd1;", &[(1 << 60) + (1 << 36) + 1], f(((1u64 << 60) + (1 << 37)) as f32)),
        ("cvt.rn.f32.s8 %r0, %r1;", &[0x80], f(-128.0)),
        ("cvt.rn.f64.s64 %rd0, %rd1;", &[u64::MAX], d(-1.0)),
        ("cvt.rn.f16.s32 %h0, %r1;", &[3], 0x4200),
        ("cvt.rn.bf16.u32 %h0, %r1;", &[257], 0x4380),
    ]);
}

#[test]
fn between_floats() {
    check(&[
        ("cvt.f32.bf16 %r0, %h1;", &[0xc040], f(-3.0)),
        ("cvt.f32.f16 %r0, %h1;", &[0xc200], f(-3.0)),
        ("cvt.f32.f16 %r0, %h1;", &[0x0001], f(2f32.powi(-24))),
        ("cvt.f64.f32 %rd0, %r1;", &[f(0.1)], d(f64::from(0.1f32))),
        ("cvt.rn.f32.f64 %r0, %rd1;", &[d(0.1)], f(0.1)),
        ("cvt.rz.f32.f64 %r0, %rd1;", &[d(1.0 - 1e-12)], f(1.0).wrapping_sub(1)),
        ("cvt.rn.f16.f32 %h0, %r1;", &[f(65520.0)], 0x7c00),
        ("cvt.rz.f16.f32 %h0, %r1;", &[f(65520.0)], 0x7bff),
        ("cvt.rn.bf16.f32 %h0, %r1;", &[0x3f80_8000], 0x3f80),
        ("cvt.rn.bf16.f32 %h0, %r1;", &[0x3f81_8000], 0x3f82),
        ("cvt.rz.bf16.f32 %h0, %r1;", &[0x3f81_ffff], 0x3f81),
        ("cvt.rn.relu.bf16.f32 %h0, %r1;", &[f(-3.0)], 0),
        ("cvt.rna.tf32.f32 %r0, %r1;", &[0x3f80_1000], 0x3f80_2000),
        ("cvt.rni.f32.f32 %r0, %r1;", &[f(2.5)], f(2.0)),
        ("cvt.rpi.f32.f32 %r0, %r1;", &[f(2.1)], f(3.0)),
        ("cvt.sat.f32.f32 %r0, %r1;", &[f(2.0)], f(1.0)),
        ("cvt.ftz.f32.f32 %r0, %r1;", &[1], 0),
    ]);
}

#[test]
fn pairs_put_the_first_source_on_top() {
    check(&[
        ("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", &[f(1.0), f(2.0)], 0x3f80_4000),
        ("cvt.rn.f16x2.f32 %r0, %r1, %r2;", &[f(1.0), f(2.0)], 0x3c00_4000),
        ("cvt.rz.bf16x2.f32 %r0, %r1, %r2;", &[0x3f81_ffff, f(2.0)], 0x3f81_4000),
        ("cvt.rn.relu.bf16x2.f32 %r0, %r1, %r2;", &[f(-1.0), f(2.0)], 0x4000),
        ("cvt.rn.satfinite.e4m3x2.f32 %h0, %r1, %r2;", &[f(1000.0), f(1.0)], 0x7e38),
        ("cvt.rn.satfinite.e5m2x2.f32 %h0, %r1, %r2;", &[f(-1.0), f(2.0)], 0xbc40),
        ("cvt.rn.f16x2.e4m3x2 %r0, %h1;", &[0x3840], 0x3c00_4000),
    ]);
}
