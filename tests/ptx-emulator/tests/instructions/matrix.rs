//! Matrix instructions against matrices written out element by element, fragments as the ISA's figures describe them.

use crate::common::{Random, download32, upload32};
use crate::{HEAD, REGISTERS};
use llmc_ptx_emulator::{Argument, LaunchConfig, Memory, Module, launch};

/// Loads `counts` registers per lane from three buffers, executes the instruction on `{a}`, `{b}`, `{c}`, returns the registers of `{d}`.
fn mma(instruction: &str, registers: [&[[u32; 32]]; 3], results: usize) -> Vec<[u32; 32]> {
    let mut memory = Memory::new();
    let mut text =
        format!("{HEAD}.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{ {REGISTERS}");
    text += ".reg .b32 %a<8>; .reg .b32 %b<8>; .reg .b32 %c<8>; .reg .b32 %d<8>; mul.wide.u32 %rd9, %r9, 4;";
    let mut arguments: Vec<Argument> = Vec::new();
    let vector = |name: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|at| format!("%{name}{at}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    for (name, values) in ["a", "b", "c"].iter().zip(registers) {
        arguments.push(upload32(&mut memory, &values.concat()).into());
        text += &format!("ld.param.u64 %rd1, [{name}]; add.s64 %rd1, %rd1, %rd9;");
        for at in 0..values.len() {
            text += &format!("ld.global.u32 %{name}{at}, [%rd1+{}];", 128 * at);
        }
    }
    let output = memory.allocate(128 * results as u64);
    arguments.push(output.into());
    let operands = [("d", results), ("a", registers[0].len()), ("b", registers[1].len()), ("c", registers[2].len())];
    let operands: Vec<String> = operands.iter().map(|(name, count)| vector(name, *count)).collect();
    text += &format!("{instruction} {}; ld.param.u64 %rd1, [d]; add.s64 %rd1, %rd1, %rd9;", operands.join(", "));
    for at in 0..results {
        text += &format!("st.global.u32 [%rd1+{}], %d{at};", 128 * at);
    }
    let module = Module::parse(&(text + "ret; }")).unwrap();
    launch(&module, "k", LaunchConfig::new([1, 1, 1], [32, 1, 1], 0), &arguments, &mut memory).unwrap();
    download32(&memory, output, 32 * results).chunks(32).map(|lanes| lanes.try_into().unwrap()).collect()
}

/// Packs elements `fragment(lane, i)` of `bits` bits, `per_lane` of them, low to high.
fn pack(bits: u32, per_lane: usize, fragment: impl Fn(usize, usize) -> u32) -> Vec<[u32; 32]> {
    let each = (32 / bits) as usize;
    (0..per_lane / each)
        .map(|register| {
            std::array::from_fn(|lane| {
                (0..each).fold(0, |word, i| word | fragment(lane, register * each + i) << (bits as usize * i))
            })
        })
        .collect()
}

/// Random small integers in the given format, with their values: sums of their products are exact.
fn elements(count: usize, random: &mut Random, encode: fn(i32) -> u32) -> (Vec<u32>, Vec<f64>) {
    let values: Vec<i32> = (0..count).map(|_| (random.bits() >> 40) as i32 % 8 - 3).collect();
    (values.iter().map(|&value| encode(value)).collect(), values.iter().map(|&value| f64::from(value)).collect())
}

fn bf16(value: i32) -> u32 {
    (value as f32).to_bits() >> 16
}

fn tf32(value: i32) -> u32 {
    (value as f32).to_bits()
}

fn f16(value: i32) -> u32 {
    let table = [0xc400, 0xc200, 0xc000, 0xbc00, 0, 0x3c00, 0x4000, 0x4200, 0x4400];
    table[(value + 4) as usize]
}

fn s8(value: i32) -> u32 {
    value as u32 & 0xff
}

fn e4m3(value: i32) -> u32 {
    let table = [0xc8, 0xc4, 0xc0, 0xb8, 0, 0x38, 0x40, 0x44, 0x48];
    table[(value + 4) as usize]
}

/// Row and column of element `i` of a lane's A fragment, after the ISA's tables for each shape.
fn a_place(bits: u32, k: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (bits, k) {
        (16, 8) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        (16, _) => {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            (row, thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
        }
        (32, 4) => (if i == 0 { group } else { group + 8 }, thread),
        (32, _) => (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 }),
        (_, 16) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        _ => {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            (row, thread * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
        }
    }
}

fn b_place(bits: u32, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match bits {
        16 => (thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, group),
        32 => (if i == 0 { thread } else { thread + 4 }, group),
        _ => (thread * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, group),
    }
}

fn c_place(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn check(name: &str, k: usize, bits: u32, encode: fn(i32) -> u32, accumulator: fn(i32) -> u32) {
    let mut random = Random(k as u64 + u64::from(bits));
    let (a, a_values) = elements(16 * k, &mut random, encode);
    let (b, b_values) = elements(k * 8, &mut random, encode);
    let (c, c_values) = elements(16 * 8, &mut random, accumulator);
    let a = pack(bits, 16 * k / 32, |lane, i| {
        let (row, column) = a_place(bits, k, lane, i);
        a[row * k + column]
    });
    let b = pack(bits, 8 * k / 32, |lane, i| {
        let (row, column) = b_place(bits, lane, i);
        b[row * 8 + column]
    });
    let c_bits = if accumulator(1) == f16(1) { 16 } else { 32 };
    let c = pack(c_bits, 4, |lane, i| {
        let (row, column) = c_place(lane, i);
        c[row * 8 + column]
    });
    let out = mma(&format!("mma.sync.aligned.m16n8k{k}.row.col.{name}"), [&a, &b, &c], c.len());
    let result = |lane: usize, i: usize| match c_bits {
        32 => out[i][lane],
        _ => out[i / 2][lane] >> (16 * (i % 2)) & 0xffff,
    };
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = c_place(lane, i);
            let sum: f64 = (0..k).map(|at| a_values[row * k + at] * b_values[at * 8 + column]).sum();
            let expected = (c_values[row * 8 + column] + sum) as i32;
            let got = result(lane, i);
            let value = match accumulator(1) {
                0x3f80_0000 => f32::from_bits(got) as i32,
                1 => got as i32,
                _ => half(got),
            };
            assert_eq!(value, expected, "{name} k {k}: row {row}, column {column}");
        }
    }
}

/// An integral half-precision value.
fn half(bits: u32) -> i32 {
    let exponent = (bits >> 10 & 31) as i32 - 15;
    if bits & 0x7fff == 0 {
        return 0;
    }
    let magnitude = f64::from(1024 + (bits & 1023)) * f64::from(exponent - 10).exp2();
    if bits >> 15 == 1 { -magnitude as i32 } else { magnitude as i32 }
}

#[test]
fn products_of_every_shape_and_type() {
    for k in [8, 16] {
        check("f32.bf16.bf16.f32", k, 16, bf16, tf32);
        check("f32.f16.f16.f32", k, 16, f16, tf32);
        check("f16.f16.f16.f16", k, 16, f16, f16);
    }
    for k in [4, 8] {
        check("f32.tf32.tf32.f32", k, 32, tf32, tf32);
    }
    for k in [16, 32] {
        check("s32.s8.s8.s32", k, 8, s8, |value| value as u32);
    }
    check("f32.e4m3.e4m3.f32", 32, 8, e4m3, tf32);
}

#[test]
fn unsigned_bytes_and_clamping() {
    let ones = |count: usize, word: u32| vec![[word; 32]; count];
    let d = mma(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32",
        [&ones(4, 0xffff_ffff), &ones(2, 0xffff_ffff), &ones(4, 1)],
        4,
    );
    assert_eq!(d[0][0] as i32, -255 * 32 + 1);
    let c = ones(4, 0x7fff_fff0);
    let operands = [&ones(4, 0x0101_0101)[..], &ones(2, 0x0101_0101)[..], &c[..]];
    assert_eq!(mma("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32", operands, 4)[2][9], 0x7fff_ffff);
    assert_eq!(mma("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", operands, 4)[2][9], 0x8000_0010);
}

/// Stores element numbers to shared memory as 8x8 matrices with rows of 16 bytes, loads them as `ldmatrix` does.
fn ldmatrix(count: usize, transpose: &str) -> Vec<[u32; 32]> {
    let names: Vec<String> = (0..count).map(|at| format!("%r{at}")).collect();
    let mut text = format!(
        "{HEAD}.shared .align 16 .b8 tile[512]; .visible .entry k(.param .u64 d) {{ {REGISTERS}
         // Lane l writes row l: elements 8l .. 8l + 7.
         shl.b32 %r10, %r9, 3; mov.u32 %r11, tile; mad.lo.u32 %r12, %r9, 16, %r11;"
    );
    for pair in 0..4 {
        text += &format!("add.u32 %r13, %r10, {}; add.u32 %r14, %r10, {};", 2 * pair, 2 * pair + 1);
        text += &format!("shl.b32 %r14, %r14, 16; or.b32 %r13, %r13, %r14; st.shared.u32 [%r12+{}], %r13;", 4 * pair);
    }
    text += &format!(
        "bar.sync 0; ldmatrix.sync.aligned.m8n8.x{count}{transpose}.shared.b16 {{{}}}, [%r12];",
        names.join(", ")
    );
    text += "ld.param.u64 %rd1, [d]; mad.wide.u32 %rd1, %r9, 4, %rd1;";
    for at in 0..count {
        text += &format!("st.global.u32 [%rd1+{}], %r{at};", 128 * at);
    }
    let module = Module::parse(&(text + "ret; }")).unwrap();
    let mut memory = Memory::new();
    let output = memory.allocate(128 * count as u64);
    let counters =
        launch(&module, "k", LaunchConfig::new([1, 1, 1], [32, 1, 1], 0), &[output.into()], &mut memory).unwrap();
    assert_eq!(counters.shared_loads.actual, count as u64);
    download32(&memory, output, 32 * count).chunks(32).map(|lanes| lanes.try_into().unwrap()).collect()
}

#[test]
fn matrices_are_loaded_by_rows_or_columns() {
    for count in [1, 2, 4] {
        for (register, lanes) in ldmatrix(count, "").iter().enumerate() {
            for (lane, &word) in lanes.iter().enumerate() {
                let first = (64 * register + 8 * (lane / 4) + 2 * (lane % 4)) as u32;
                assert_eq!(word, first | (first + 1) << 16);
            }
        }
        for (register, lanes) in ldmatrix(count, ".trans").iter().enumerate() {
            for (lane, &word) in lanes.iter().enumerate() {
                let first = (64 * register + 16 * (lane % 4) + lane / 4) as u32;
                assert_eq!(word, first | (first + 8) << 16);
            }
        }
    }
}

#[test]
fn stored_matrices_load_back() {
    for transpose in ["", ".trans"] {
        let body = format!(
            "{HEAD}.shared .align 16 .b8 tile[512]; .visible .entry k(.param .u64 d) {{ {REGISTERS}
             mov.u32 %r11, tile; mad.lo.u32 %r12, %r9, 16, %r11; add.u32 %r1, %r9, 1000; mul.lo.u32 %r2, %r9, 77777;
             stmatrix.sync.aligned.m8n8.x2{transpose}.shared.b16 [%r12], {{%r1, %r2}};
             ldmatrix.sync.aligned.m8n8.x2{transpose}.shared.b16 {{%r3, %r4}}, [%r12];
             setp.eq.u32 %p1, %r1, %r3; setp.eq.and.u32 %p1, %r2, %r4, %p1; selp.u32 %r0, 1, 0, %p1;
             ld.param.u64 %rd1, [d]; mad.wide.u32 %rd1, %r9, 4, %rd1; st.global.u32 [%rd1], %r0; ret; }}"
        );
        let module = Module::parse(&body).unwrap();
        let mut memory = Memory::new();
        let output = memory.allocate(128);
        launch(&module, "k", LaunchConfig::new([1, 1, 1], [32, 1, 1], 0), &[output.into()], &mut memory).unwrap();
        assert_eq!(download32(&memory, output, 32), [1; 32]);
    }
}
