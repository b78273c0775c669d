//! PTX that NVRTC made of CUDA C (the `.cu` files here) runs and gives the numbers of references in double precision.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod cooperation;
mod quantised;

use common::{Random, bf16, download16, download32, from_bf16, random_bf16, upload, upload16, upload32};
use llmc_ptx_emulator::{Argument, Counters, LaunchConfig, Memory, Module, launch};

fn run(kernel: &str, config: LaunchConfig, arguments: &[Argument], memory: &mut Memory) -> Counters {
    run_of(include_str!("kernels.sm80.ptx"), kernel, config, arguments, memory)
}

fn run_of(ptx: &str, kernel: &str, config: LaunchConfig, arguments: &[Argument], memory: &mut Memory) -> Counters {
    let module = Module::parse(ptx).unwrap_or_else(|error| panic!("{error}"));
    let config = LaunchConfig { instruction_limit: 1_000_000, ..config };
    launch(&module, kernel, config, arguments, memory).unwrap_or_else(|error| panic!("{error}"))
}

fn upload_floats(memory: &mut Memory, values: &[f32]) -> u64 {
    upload32(memory, &values.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
}

fn floats(memory: &Memory, address: u64, count: usize) -> Vec<f32> {
    assert_eq!(memory.undefined_bytes(address, 4 * count as u64).unwrap(), 0);
    download32(memory, address, count).into_iter().map(f32::from_bits).collect()
}

fn random_floats(count: usize, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| random.unit()).collect()
}

fn assert_close(got: f32, wanted: f64, tolerance: f64) {
    assert!((f64::from(got) - wanted).abs() <= tolerance * wanted.abs().max(1e-3), "{got} instead of {wanted}");
}

#[test]
fn rms_norm() {
    let (rows, columns) = (2, 777);
    let mut random = Random(1);
    let (x, w) = (random_floats(rows * columns, &mut random), random_floats(columns, &mut random));
    for threads in [32, 256] {
        let mut memory = Memory::new();
        let (x_at, w_at) = (upload_floats(&mut memory, &x), upload_floats(&mut memory, &w));
        let y_at = memory.allocate(4 * (rows * columns) as u64);
        let arguments = [x_at.into(), w_at.into(), y_at.into(), (columns as i32).into(), 1e-6f32.into()];
        run("rms_norm", LaunchConfig::new([rows as u32, 1, 1], [threads, 1, 1], 0), &arguments, &mut memory);
        let y = floats(&memory, y_at, rows * columns);
        for (at, &y) in y.iter().enumerate() {
            let row = &x[at / columns * columns..][..columns];
            let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / columns as f64;
            assert_close(y, f64::from(x[at]) / (mean + 1e-6).sqrt() * f64::from(w[at % columns]), 1e-5);
        }
    }
}

/// Half-precision 2^-k.
fn half_power(k: u16) -> u16 {
    (15 - k) << 10
}

/// Blocks of 32 signed bytes with a half-precision scale; returns bytes and values.
fn quantised(blocks: usize, random: &mut Random) -> (Vec<u8>, Vec<f64>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        let k = (random.bits() % 8) as u16;
        bytes.extend(half_power(k).to_le_bytes());
        for _ in 0..32 {
            let value = (random.bits() >> 20) as i8;
            bytes.push(value as u8);
            values.push(f64::from(value) * f64::from(k).exp2().recip());
        }
    }
    (bytes, values)
}

#[test]
fn quantised_matrix_times_vector() {
    let (rows, blocks) = (10, 13);
    let mut random = Random(2);
    let (w, w_values) = quantised(rows * blocks, &mut random);
    let (x, x_values) = quantised(blocks, &mut random);
    let mut memory = Memory::new();
    let (w_at, x_at) = (upload(&mut memory, &w), upload(&mut memory, &x));
    let y_at = memory.allocate(4 * rows as u64);
    let arguments = [w_at.into(), x_at.into(), y_at.into(), (rows as i32).into(), (blocks as i32).into()];
    let counters = run("q8_gemv", LaunchConfig::new([3, 1, 1], [32, 4, 1], 0), &arguments, &mut memory);
    for (row, &y) in floats(&memory, y_at, rows).iter().enumerate() {
        let wanted: f64 = w_values[row * 32 * blocks..].iter().zip(&x_values).map(|(w, x)| w * x).sum();
        assert_close(y, wanted, 1e-5);
    }
    assert!(counters.instructions["dp4a.s32"] > 0);
}

#[test]
fn softmax() {
    let (rows, columns) = (3, 500);
    let x: Vec<f32> = random_floats(rows * columns, &mut Random(3)).iter().map(|x| 20.0 * x).collect();
    let mut memory = Memory::new();
    let x_at = upload_floats(&mut memory, &x);
    let y_at = memory.allocate(4 * (rows * columns) as u64);
    let arguments = [x_at.into(), y_at.into(), (columns as i32).into()];
    let config = LaunchConfig::new([rows as u32, 1, 1], [128, 1, 1], 4 * columns as u32);
    let counters = run("softmax", config, &arguments, &mut memory);
    assert_eq!(counters.barriers, 3 * rows as u64);
    for (row, y) in floats(&memory, y_at, rows * columns).chunks(columns).enumerate() {
        let x = &x[row * columns..][..columns];
        let best = f64::from(x.iter().copied().fold(f32::MIN, f32::max));
        let sum: f64 = x.iter().map(|&x| (f64::from(x) - best).exp()).sum();
        for (y, x) in y.iter().zip(x) {
            assert!((f64::from(*y) - (f64::from(*x) - best).exp() / sum).abs() < 1e-6);
        }
    }
}

#[test]
fn rotary_embedding() {
    let (tokens, heads, dim, base) = (3, 2, 48, 10000f32);
    let x = random_bf16(tokens * heads * dim, &mut Random(4));
    // The last position needs the exact reduction of large angles.
    let positions = [0, 5, 200_000];
    let mut memory = Memory::new();
    let (x_at, positions_at) = (upload16(&mut memory, &x), upload32(&mut memory, &positions));
    let arguments = [x_at.into(), positions_at.into(), (heads as i32).into(), (dim as i32).into(), base.into()];
    let config = LaunchConfig::new([tokens as u32, heads as u32, 1], [32, 1, 1], 0);
    run("rope", config, &arguments, &mut memory);
    let y = download16(&memory, x_at, x.len());
    for (at, &got) in y.iter().enumerate() {
        let (token, i) = (at / (heads * dim), at % dim);
        let pair = i % (dim / 2);
        // The frequency is a single in the kernel, so the angle's error grows with the position.
        let frequency = f64::from(base).powf(-2.0 * pair as f64 / dim as f64);
        let angle = f64::from(positions[token]) * frequency;
        let (low, high) = (at - i + pair, at - i + pair + dim / 2);
        let [a, b] = [low, high].map(|at| f64::from(from_bf16(x[at])));
        let wanted = if i < dim / 2 { a * angle.cos() - b * angle.sin() } else { a * angle.sin() + b * angle.cos() };
        let slack = angle * 3e-7 + 1e-5;
        let error = (f64::from(from_bf16(got)) - wanted).abs();
        assert!(error < wanted.abs() / 256.0 + slack, "token {token}, {i}: {error}");
    }
}

#[test]
fn packed_bf16_matrix_times_vector() {
    let (rows, columns) = (5, 8 * 75);
    let mut random = Random(5);
    let (w, x) = (random_bf16(rows * columns, &mut random), random_bf16(columns, &mut random));
    let mut memory = Memory::new();
    let (w_at, x_at) = (upload16(&mut memory, &w), upload16(&mut memory, &x));
    let y_at = memory.allocate(2 * rows as u64);
    let arguments = [w_at.into(), x_at.into(), y_at.into(), (columns as i32 / 8).into()];
    run("bf16_gemv", LaunchConfig::new([rows as u32, 1, 1], [32, 1, 1], 0), &arguments, &mut memory);
    for (row, &y) in download16(&memory, y_at, rows).iter().enumerate() {
        let dot = |at: usize| f64::from(from_bf16(w[row * columns + at])) * f64::from(from_bf16(x[at]));
        let wanted: f64 = (0..columns).map(dot).sum();
        assert!((f64::from(from_bf16(y)) - wanted).abs() < wanted.abs() / 256.0 + 1e-4);
    }
}

#[test]
fn position_of_the_largest() {
    let mut x = random_floats(1000, &mut Random(6));
    for places in [vec![999], vec![0], vec![500, 37, 900]] {
        for &place in &places {
            x[place] = 2.0;
        }
        let mut memory = Memory::new();
        let x_at = upload_floats(&mut memory, &x);
        let best_at = memory.allocate(4);
        let arguments = [x_at.into(), best_at.into(), 1000i32.into()];
        run("argmax", LaunchConfig::new([1, 1, 1], [192, 1, 1], 0), &arguments, &mut memory);
        assert_eq!(download32(&memory, best_at, 1), [*places.iter().min().unwrap() as u32]);
        for place in places {
            x[place] = 0.0;
        }
    }
}

#[test]
fn odds_and_ends() {
    let count = 300;
    let mut random = Random(7);
    let x: Vec<u32> = (0..count).map(|_| random.bits() as u32).collect();
    let mut memory = Memory::new();
    let x_at = upload32(&mut memory, &x);
    let histogram_at = upload32(&mut memory, &[0; 16]);
    let (y_at, h_at) = (memory.allocate(8 * count as u64), memory.allocate(4 * count as u64));
    let arguments = [x_at.into(), histogram_at.into(), y_at.into(), h_at.into(), (count as i32).into()];
    run("odds", LaunchConfig::new([1, 1, 1], [96, 1, 1], 0), &arguments, &mut memory);
    let mut histogram = [0; 16];
    let (y, h) = (download32(&memory, y_at, 2 * count), download32(&memory, h_at, count));
    for (at, &v) in x.iter().enumerate() {
        let bytes = (u64::from(!v) << 32 | u64::from(v)).to_le_bytes();
        let r = match v % 7 {
            0 => v.wrapping_mul(3),
            1 => v.count_ones(),
            2 => v.leading_zeros(),
            3 => v.reverse_bits(),
            4 => ((u64::from(v) * 0x9e37_79b9) >> 32) as u32,
            // The low word shifted left takes in the upper bits of the other.
            5 => ((u64::from(!v) << 32 | u64::from(v)) << (v & 31) >> 32) as u32,
            _ => u32::from_le_bytes([bytes[7], bytes[4], bytes[6], bytes[2]]),
        };
        histogram[(r.wrapping_add((v % 8).wrapping_mul(v)) % 16) as usize] += 1;
        let wanted =
            (0x0123_4567_89ab_cdef + u64::from(r)) / u64::from(v | 1) + (u64::from(v) << 32) % u64::from(r | 1);
        assert_eq!(u64::from(y[2 * at + 1]) << 32 | u64::from(y[2 * at]), wanted, "of {v:#x}");
        // a * 0.5 + 2a and -2b + 2b, exact in half precision.
        let low = f32::from((v % 100) as u16) * 2.5;
        assert_eq!(h[at] & 0xffff, u32::from(half(low)), "of {v:#x}");
        assert_eq!(h[at] >> 16 & 0x7fff, 0);
    }
    assert_eq!(download32(&memory, histogram_at, 16), histogram);
}

/// The nearest half of a single in the range of normal ones, or zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13;
    // Smaller ones become zero.
    let finite = rounded.saturating_sub(112 << 10);
    (if finite < 1 << 10 { 0 } else { finite } | bits >> 16 & 0x8000) as u16
}

/// A half that is finite.
fn from_half(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * 112f32.exp2();
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Random halves in [-1, 1).
fn random_halves(count: usize, random: &mut Random) -> Vec<u16> {
    (0..count).map(|_| half(random.unit())).collect()
}

#[test]
fn formats_of_the_tests_themselves() {
    assert_eq!(from_bf16(bf16(1.5)), 1.5);
    for (value, bits) in [(1.0, 0x3c00), (-1.5, 0xbe00), (0.0, 0), (65504.0, 0x7bff), (0.333_251_95, 0x3555)] {
        assert_eq!((half(value), from_half(bits)), (bits, value));
    }
}

#[test]
fn device_functions() {
    let (threads, n) = (64, 5);
    let x: Vec<f32> = random_floats(threads, &mut Random(8)).iter().map(|x| 3.0 * x).collect();
    let mut memory = Memory::new();
    let (x_at, y_at) = (upload_floats(&mut memory, &x), memory.allocate(16 * threads as u64));
    let config = LaunchConfig::new([1, 1, 1], [threads as u32, 1, 1], 0);
    let module = Module::parse(include_str!("functions.sm80.ptx")).unwrap();
    let arguments = [x_at.into(), y_at.into(), (n as i32).into()];
    launch(&module, "functions", config, &arguments, &mut memory).unwrap_or_else(|error| panic!("{error}"));
    let horner = |x: f32, terms: usize, limit: f32| {
        let mut sum = 0.0;
        for term in 0..terms {
            sum = x.mul_add(sum, term as f32);
            if sum > limit {
                return limit;
            }
        }
        sum
    };
    for (thread, got) in floats(&memory, y_at, 4 * threads).chunks(4).enumerate() {
        let first = if x[thread] > 0.0 { horner(x[thread], thread % 7, 20.0) } else { -1.0 };
        let values: Vec<f32> = (0..n).map(|at| horner(x[(thread + at) % threads], 3, 1e30)).collect();
        let sum = values.iter().fold(0.0, |sum: f32, y| sum + y);
        let squares = values.iter().fold(0.0, |sum: f32, y| y.mul_add(*y, sum));
        assert_eq!(got, [first, sum, squares, n as f32], "thread {thread}");
    }
}
