//! Logic, shifts, bit fields, byte permutation.

use crate::check;

#[test]
fn logic_and_counts() {
    check(&[
        ("and.b32 %r0, %r1, %r2;", &[0xff00_ff00, 0x0ff0_0ff0], 0x0f00_0f00),
        ("or.b16 %h0, %h1, %h2;", &[0xff00, 0x0ff0], 0xfff0),
        ("xor.b64 %rd0, %rd1, %rd2;", &[u64::MAX, 1], u64::MAX - 1),
        ("not.b32 %r0, %r1;", &[0xffff_0000], 0xffff),
        ("not.b16 %h0, %h1;", &[0xff00], 0xff),
        ("not.b64 %rd0, %rd1;", &[0], u64::MAX),
        ("cnot.b32 %r0, %r1;", &[0], 1),
        ("cnot.b32 %r0, %r1;", &[7], 0),
        ("popc.b32 %r0, %r1;", &[0xf0f0_0001], 9),
        ("popc.b64 %r0, %rd1;", &[u64::MAX], 64),
        ("clz.b32 %r0, %r1;", &[0x0000_8000], 16),
        ("clz.b32 %r0, %r1;", &[0], 32),
        ("clz.b64 %r0, %rd1;", &[1], 63),
        ("brev.b32 %r0, %r1;", &[0x1], 0x8000_0000),
        ("bfind.u32 %r0, %r1;", &[0x0001_0000], 16),
        ("bfind.u32 %r0, %r1;", &[0], 0xffff_ffff),
        ("bfind.s32 %r0, %r1;", &[0xffff_fffe], 0),
        ("bfind.s32 %r0, %r1;", &[0xffff_ffff], 0xffff_ffff),
        ("bfind.shiftamt.u32 %r0, %r1;", &[0x0001_0000], 15),
        ("bfind.u64 %r0, %rd1;", &[1 << 40], 40),
    ]);
}

#[test]
fn three_input_logic_follows_its_table() {
    // The table of an expression is the expression over 0xf0, 0xcc and 0xaa.
    let (a, b, c) = (0x1234_5678u64, 0x9abc_def0u64, 0x0f1e_2d3cu64);
    check(&[
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x80;", &[a, b, c], a & b & c),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xfe;", &[a, b, c], a | b | c),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", &[a, b, c], a ^ b ^ c),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xea;", &[a, b, c], (a & b) | c),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xe4;", &[a, b, c], (c & a) | (!c & b) & 0xffff_ffff),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x0f;", &[a, b, c], !a & 0xffff_ffff),
    ]);
}

#[test]
fn shifts_clamp_their_amount() {
    check(&[
        ("shl.b32 %r0, %r1, %r2;", &[1, 31], 0x8000_0000),
        ("shl.b32 %r0, %r1, %r2;", &[1, 32], 0),
        ("shr.u32 %r0, %r1, %r2;", &[0x8000_0000, 31], 1),
        ("shr.u32 %r0, %r1, %r2;", &[0x8000_0000, 40], 0),
        ("shr.s32 %r0, %r1, %r2;", &[0x8000_0000, 4], 0xf800_0000),
        ("shr.s32 %r0, %r1, %r2;", &[0x8000_0000, 99], 0xffff_ffff),
        ("shl.b16 %h0, %h1, %r2;", &[0xffff, 8], 0xff00),
        ("shl.b16 %h0, %h1, %r2;", &[0xffff, 16], 0),
        ("shr.s16 %h0, %h1, %r2;", &[0x8000, 20], 0xffff),
        ("shr.u16 %h0, %h1, %r2;", &[0x8000, 15], 1),
        ("shl.b64 %rd0, %rd1, %r2;", &[1, 63], 1 << 63),
        ("shl.b64 %rd0, %rd1, %r2;", &[1, 64], 0),
        ("shr.s64 %rd0, %rd1, %r2;", &[1 << 63, 70], u64::MAX),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 0x1, 1], 3),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 0x1, 33], 3),
        ("shf.l.clamp.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 0x1, 33], 0x8000_0000),
        ("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 0x1, 1], 0xc000_0000),
        ("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 0x1, 32], 1),
    ]);
}

#[test]
fn bit_fields_at_their_edges() {
    check(&[
        ("bfe.u32 %r0, %r1, %r2, %r3;", &[0xabcd_1234, 8, 8], 0x12),
        ("bfe.s32 %r0, %r1, %r2, %r3;", &[0xabcd_8234, 8, 8], 0xffff_ff82),
        ("bfe.s32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 28, 8], 0xffff_fff8),
        ("bfe.u32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 28, 8], 8),
        ("bfe.s32 %r0, %r1, %r2, %r3;", &[0xffff_ffff, 3, 0], 0),
        ("bfe.s32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 40, 4], 0xffff_ffff),
        ("bfe.u32 %r0, %r1, %r2, %r3;", &[0xffff_ffff, 0, 32], 0xffff_ffff),
        // Only the low byte of position and length counts.
        ("bfe.u32 %r0, %r1, %r2, %r3;", &[0xabcd_1234, 0x108, 0x208], 0x12),
        ("bfe.u64 %rd0, %rd1, %r2, %r3;", &[0xabcd << 40, 40, 16], 0xabcd),
        ("bfe.s64 %rd0, %rd1, %r2, %r3;", &[0xabcd << 40, 40, 16], 0xffff_ffff_ffff_abcd),
        ("bfi.b32 %r0, %r1, %r2, %r3, %r4;", &[0xff, 0, 8, 4], 0xf00),
        ("bfi.b32 %r0, %r1, %r2, %r3, %r4;", &[0, 0xffff_ffff, 28, 8], 0x0fff_ffff),
        ("bfi.b32 %r0, %r1, %r2, %r3, %r4;", &[0xff, 0x55, 32, 8], 0x55),
        ("bfi.b32 %r0, %r1, %r2, %r3, %r4;", &[0xff, 0x55, 0, 0], 0x55),
        ("bfi.b64 %rd0, %rd1, %rd2, %r3, %r4;", &[1, 0, 63, 1], 1 << 63),
    ]);
}

#[test]
fn byte_permutation_in_all_modes() {
    // Bytes 0 to 3 of the pool come from a, 4 to 7 from b.
    let (a, b) = (0x3322_1100u64, 0x7766_55f4u64);
    check(&[
        ("prmt.b32 %r0, %r1, %r2, 0x3210;", &[a, b], a),
        ("prmt.b32 %r0, %r1, %r2, 0x7654;", &[a, b], b),
        ("prmt.b32 %r0, %r1, %r2, 0x0415;", &[a, b], 0x00f4_1155),
        // A selector's fourth bit replicates the sign of the byte.
        ("prmt.b32 %r0, %r1, %r2, 0xc80b;", &[a, b], 0xff00_0000),
        ("prmt.b32.f4e %r0, %r1, %r2, %r3;", &[a, b, 2], 0x55f4_3322),
        ("prmt.b32.b4e %r0, %r1, %r2, %r3;", &[a, b, 1], 0x6677_0011),
        ("prmt.b32.rc8 %r0, %r1, %r2, %r3;", &[a, b, 2], 0x2222_2222),
        ("prmt.b32.ecl %r0, %r1, %r2, %r3;", &[a, b, 1], 0x3322_1111),
        ("prmt.b32.ecr %r0, %r1, %r2, %r3;", &[a, b, 1], 0x1111_1100),
        ("prmt.b32.rc16 %r0, %r1, %r2, %r3;", &[a, b, 1], 0x3322_3322),
    ]);
}

#[test]
fn moves_pack_and_unpack_low_part_first() {
    check(&[
        ("mov.b32 %r0, {%h1, %h2};", &[0x1111, 0x2222], 0x2222_1111),
        ("mov.b32 {_, %h0}, %r1;", &[0x2222_1111], 0x2222),
        ("mov.b64 %rd0, {%r1, %r2};", &[1, 2], 0x2_0000_0001),
        ("mov.b64 {%r5, %r0}, %rd1;", &[0x2_0000_0001], 2),
        ("mov.b64 %rd0, {%h1, %h2, %h3, %h1};", &[1, 2, 3], 0x0001_0003_0002_0001),
        ("mov.b64 {%h5, %h6, %h0, %h7}, %rd1;", &[0x0004_0003_0002_0001], 3),
        ("mov.f32 %r0, 0f3F800000;", &[], 0x3f80_0000),
        ("mov.f32 %r0, 1.5;", &[], 0x3fc0_0000),
        ("mov.b32 %r0, -1;", &[], 0xffff_ffff),
        ("mov.u64 %rd0, 0xffffffffffffffff;", &[], u64::MAX),
        ("mov.pred %p0, 1;", &[], 1),
    ]);
}
