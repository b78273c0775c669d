//! Integer arithmetic.

use crate::check;

/// -x in 32 bits.
const fn n(value: u32) -> u64 {
    value.wrapping_neg() as u64
}

/// -x in 64 bits.
const fn m(value: u64) -> u64 {
    value.wrapping_neg()
}

#[test]
fn sums_and_differences_wrap_or_clamp() {
    check(&[
        ("add.s32 %r0, %r1, %r2;", &[0x7fff_ffff, 1], 0x8000_0000),
        ("add.sat.s32 %r0, %r1, %r2;", &[0x7fff_ffff, 1], 0x7fff_ffff),
        ("sub.sat.s32 %r0, %r1, %r2;", &[0x8000_0000, 1], 0x8000_0000),
        ("sub.u32 %r0, %r1, %r2;", &[3, 5], n(2)),
        ("add.s32 %r0, %r1, -7;", &[3], n(4)),
        ("add.u16 %h0, %h1, %h2;", &[0xffff, 2], 1),
        ("sub.s16 %h0, %h1, %h2;", &[0, 1], 0xffff),
        ("add.s64 %rd0, %rd1, %rd2;", &[0xffff_ffff, 1], 0x1_0000_0000),
        ("sub.s64 %rd0, %rd1, 1;", &[0], u64::MAX),
    ]);
}

#[test]
fn products_low_high_and_wide() {
    check(&[
        ("mul.lo.s32 %r0, %r1, %r2;", &[0x10001, 0x10001], 0x0002_0001),
        ("mul.hi.u32 %r0, %r1, %r2;", &[0xffff_ffff, 0xffff_ffff], 0xffff_fffe),
        ("mul.hi.s32 %r0, %r1, %r2;", &[n(1), n(1)], 0),
        ("mul.hi.s32 %r0, %r1, %r2;", &[n(2), 3], n(1)),
        ("mul.wide.s32 %rd0, %r1, %r2;", &[n(2), 3], m(6)),
        ("mul.wide.u32 %rd0, %r1, %r2;", &[0xffff_fffe, 3], 0x2_ffff_fffa),
        ("mul.wide.u16 %r0, %h1, %h2;", &[0xffff, 0xffff], 0xfffe_0001),
        ("mul.wide.s16 %r0, %h1, %h2;", &[0xffff, 0xffff], 1),
        ("mul.lo.u16 %h0, %h1, %h2;", &[0x101, 0x101], 0x201),
        ("mul.hi.u16 %h0, %h1, %h2;", &[0xffff, 0xffff], 0xfffe),
        ("mul.hi.s16 %h0, %h1, %h2;", &[0xfffe, 3], 0xffff),
        ("mul.hi.u64 %rd0, %rd1, %rd2;", &[u64::MAX, u64::MAX], u64::MAX - 1),
        ("mul.hi.s64 %rd0, %rd1, %rd2;", &[u64::MAX, 5], u64::MAX),
        ("mul.lo.s64 %rd0, %rd1, %rd2;", &[m(3), 7], m(21)),
        ("mul24.lo.s32 %r0, %r1, %r2;", &[0x00ff_ffff, 2], n(2)),
        ("mul24.lo.u32 %r0, %r1, %r2;", &[0xab00_0002, 3], 6),
    ]);
}

#[test]
fn multiply_add() {
    check(&[
        ("mad.lo.s32 %r0, %r1, %r2, %r3;", &[n(2), 3, 10], 4),
        ("mad.hi.u32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 4, 1], 3),
        ("mad.hi.s32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 4, 1], n(1)),
        ("mad.wide.s32 %rd0, %r1, %r2, %rd3;", &[n(1), 4, 1], m(3)),
        ("mad.wide.u32 %rd0, %r1, %r2, %rd3;", &[n(1), 4, 1], 0x3_ffff_fffd),
        ("mad.wide.u16 %r0, %h1, %h2, %r3;", &[0xffff, 2, 5], 0x2_0003),
        ("mad.wide.s16 %r0, %h1, %h2, %r3;", &[0xffff, 2, 5], 3),
        ("mad.lo.u16 %h0, %h1, %h2, %h3;", &[0xffff, 2, 5], 3),
        ("mad.lo.s64 %rd0, %rd1, %rd2, %rd3;", &[m(2), 3, 7], 1),
        ("sad.u32 %r0, %r1, %r2, %r3;", &[3, 10, 100], 107),
        ("sad.s32 %r0, %r1, %r2, %r3;", &[n(3), 10, 100], 113),
    ]);
}

#[test]
fn division_truncates_and_survives_zero() {
    check(&[
        ("div.s32 %r0, %r1, %r2;", &[n(7), 2], n(3)),
        ("rem.s32 %r0, %r1, %r2;", &[n(7), 2], n(1)),
        ("rem.s32 %r0, %r1, %r2;", &[7, n(2)], 1),
        ("div.u32 %r0, %r1, %r2;", &[n(7), 2], 0x7fff_fffc),
        ("rem.u32 %r0, %r1, %r2;", &[10, 4], 2),
        ("div.s16 %h0, %h1, %h2;", &[0xfff9, 2], 0xfffd),
        ("div.s64 %rd0, %rd1, %rd2;", &[m(9), 2], m(4)),
        ("rem.u64 %rd0, %rd1, %rd2;", &[u64::MAX, 10], 5),
    ]);
}

#[test]
fn extrema_signs_and_magnitudes() {
    check(&[
        ("min.s32 %r0, %r1, %r2;", &[n(1), 1], n(1)),
        ("min.u32 %r0, %r1, %r2;", &[n(1), 1], 1),
        ("max.s32 %r0, %r1, %r2;", &[n(1), 1], 1),
        ("max.u32 %r0, %r1, %r2;", &[n(1), 1], n(1)),
        ("max.s16 %h0, %h1, %h2;", &[0xffff, 1], 1),
        ("min.u16 %h0, %h1, %h2;", &[0xffff, 1], 1),
        ("max.s64 %rd0, %rd1, %rd2;", &[m(1), 1], 1),
        ("min.u64 %rd0, %rd1, %rd2;", &[m(1), 1], 1),
        ("neg.s32 %r0, %r1;", &[5], n(5)),
        ("neg.s16 %h0, %h1;", &[5], 0xfffb),
        ("abs.s32 %r0, %r1;", &[n(5)], 5),
        ("abs.s16 %h0, %h1;", &[0xfffb], 5),
        ("abs.s64 %rd0, %rd1;", &[m(5)], 5),
    ]);
}

#[test]
fn carries_chain() {
    let add = "add.cc.u32 %r4, %r1, %r2; addc.cc.u32 %r5, %r3, 0; addc.u32 %r0, 0, 0;";
    check(&[
        (add, &[0xffff_ffff, 1, 0xffff_ffff], 1),
        (add, &[0xffff_ffff, 0, 0xffff_ffff], 0),
        ("sub.cc.u32 %r4, %r1, %r2; subc.u32 %r0, %r3, 0;", &[1, 2, 10], 9),
        ("sub.cc.u32 %r4, %r1, %r2; subc.u32 %r0, %r3, 0;", &[2, 2, 10], 10),
        ("mad.lo.cc.u32 %r4, %r1, %r2, %r3; madc.hi.u32 %r0, %r1, %r2, 5;", &[0xffff_ffff, 2, 3], 7),
        ("mad.lo.cc.u32 %r4, %r1, %r2, %r3; madc.hi.u32 %r0, %r1, %r2, 5;", &[0xffff_ffff, 2, 1], 6),
        ("add.cc.u64 %rd4, %rd1, %rd2; addc.u64 %rd0, 0, 0;", &[u64::MAX, 1], 1),
    ]);
}

#[test]
fn dot_products_of_bytes() {
    check(&[
        ("dp4a.s32.s32 %r0, %r1, %r2, %r3;", &[0xff02_03fe, 0x0405_06ff, 100], 100 - 4 + 10 + 18 + 2),
        ("dp4a.u32.u32 %r0, %r1, %r2, %r3;", &[0xff01_0101, 0x0201_0101, 1], 510 + 3 + 1),
        ("dp4a.u32.s32 %r0, %r1, %r2, %r3;", &[0xff00_0000, 0xff00_0000, 0], n(255)),
        ("dp2a.lo.s32.s32 %r0, %r1, %r2, %r3;", &[0xffff_0100, 0x0909_02ff, 0], n(256 + 2)),
        ("dp2a.hi.u32.u32 %r0, %r1, %r2, %r3;", &[0x0002_0100, 0x0304_0000, 0], 4 * 256 + 6),
    ]);
}

#[test]
fn comparisons_by_sign_and_width() {
    check(&[
        ("setp.lt.s32 %p0, %r1, %r2;", &[n(1), 0], 1),
        ("setp.lt.u32 %p0, %r1, %r2;", &[n(1), 0], 0),
        ("setp.hi.u32 %p0, %r1, %r2;", &[n(1), 0], 1),
        ("setp.ge.s16 %p0, %h1, %h2;", &[0xffff, 0], 0),
        ("setp.ge.u16 %p0, %h1, %h2;", &[0xffff, 0], 1),
        ("setp.eq.b32 %p0, %r1, 5;", &[5], 1),
        ("setp.ne.s64 %p0, %rd1, %rd2;", &[1 << 40, 0], 1),
        ("setp.gt.s64 %p0, %rd1, %rd2;", &[m(1), 0], 0),
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.and.s32 %p0, %r2, 2, %p1;", &[1, 2], 1),
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.and.s32 %p0, %r2, 2, !%p1;", &[1, 2], 0),
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.xor.s32 %p0, %r2, 2, %p1;", &[1, 3], 1),
        // The second destination combines the comparison's negation.
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.and.s32 %p2|%p0, %r2, 2, %p1;", &[1, 3], 1),
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.and.s32 %p2|%p0, %r2, 2, %p1;", &[0, 3], 0),
        ("setp.lt.s32 _|%p0, %r1, %r2;", &[1, 2], 0),
        ("set.lt.u32.s32 %r0, %r1, %r2;", &[n(1), 0], 0xffff_ffff),
        ("set.lt.f32.s32 %r0, %r1, %r2;", &[n(1), 0], 0x3f80_0000),
        ("setp.eq.s32 %p1, %r1, 1; selp.b32 %r0, %r2, %r3, %p1;", &[1, 20, 30], 20),
        ("setp.eq.s32 %p1, %r1, 1; selp.b64 %rd0, %rd2, %rd3, %p1;", &[2, 20, 30], 30),
        ("setp.eq.s32 %p1, %r1, 1; not.pred %p0, %p1;", &[1], 0),
        ("setp.eq.s32 %p1, %r1, 1; setp.eq.s32 %p2, %r2, 1; xor.pred %p0, %p1, %p2;", &[1, 0], 1),
    ]);
}

#[test]
fn pairs_and_clamps_at_zero() {
    check(&[
        ("add.u16x2 %r0, %r1, %r2;", &[0xffff_0001, 0x0001_0002], 0x0000_0003),
        ("add.s16x2 %r0, %r1, %r2;", &[0x7fff_ffff, 0x0001_0001], 0x8000_0000),
        ("min.u16x2 %r0, %r1, %r2;", &[0xffff_0001, 0x0001_0002], 0x0001_0001),
        ("min.s16x2 %r0, %r1, %r2;", &[0xffff_0001, 0x0001_0002], 0xffff_0001),
        ("max.s16x2 %r0, %r1, %r2;", &[0xffff_0001, 0x0001_0002], 0x0001_0002),
        ("min.relu.s16x2 %r0, %r1, %r2;", &[0xffff_0001, 0x0001_0002], 0x0000_0001),
        ("max.relu.s32 %r0, %r1, %r2;", &[n(5), n(7)], 0),
        ("min.relu.s32 %r0, %r1, %r2;", &[5, 7], 5),
    ]);
}

#[test]
fn video_instructions() {
    check(&[
        ("vabsdiff4.u32.u32.u32 %r0, %r1, %r2, %r3;", &[0x01ff_0005, 0x02fe_0309, 0], 0x0101_0304),
        ("vabsdiff4.u32.u32.u32.add %r0, %r1, %r2, %r3;", &[0x01ff_0005, 0x02fe_0309, 100], 109),
        ("vabsdiff4.u32.s32.s32.add %r0, %r1, %r2, %r3;", &[0xff, 0x01, 0], 2),
        ("vabsdiff2.u32.u32.u32.add %r0, %r1, %r2, %r3;", &[0x0100_0005, 0x00ff_0007, 0], 3),
        ("vadd4.u32.u32.u32 %r0, %r1, %r2, %r3;", &[0xff01_0000, 0x0201_0000, 0], 0x0102_0000),
        ("vadd4.u32.u32.u32.sat %r0, %r1, %r2, %r3;", &[0xff01_0000, 0x0201_0000, 0], 0xff02_0000),
        ("vsub2.s32.s32.s32.sat %r0, %r1, %r2, %r3;", &[0x8000_0005, 0x0001_0007, 0], 0x8000_fffe),
        ("vmin4.s32.s32.s32 %r0, %r1, %r2, %r3;", &[0xff01_8005, 0x0102_0709, 0], 0xff01_8005),
        ("vmax4.u32.u32.u32 %r0, %r1, %r2, %r3;", &[0xff01_8005, 0x0102_0709, 0], 0xff02_8009),
        ("vavrg4.u32.u32.u32 %r0, %r1, %r2, %r3;", &[0x0001_ff02, 0x0102_ff04, 0], 0x0102_ff03),
    ]);
}
