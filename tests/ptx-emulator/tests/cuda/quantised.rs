//! Products with weights of 8 and of 4 bits.

use super::common::{Random, bf16, download16, download32, from_bf16, random_bf16, upload, upload16, upload32};
use super::{assert_close, floats, from_half, half, half_power, quantised, random_floats, run_of, upload_floats};
use llmc_ptx_emulator::{Argument, LaunchConfig, Memory};

const PTX: [&str; 2] = [include_str!("quantised.sm80.ptx"), include_str!("quantised.sm90.ptx")];

fn random_bytes(count: usize, random: &mut Random) -> Vec<u8> {
    (0..count).map(|_| (random.bits() >> 20) as u8).collect()
}

#[test]
fn rows_become_bytes() {
    let (rows, columns) = (3, 333);
    let x = random_bf16(rows * columns, &mut Random(1));
    for ptx in PTX {
        let mut memory = Memory::new();
        let x_at = upload16(&mut memory, &x);
        let (y_at, scales_at) = (memory.allocate((rows * columns) as u64), memory.allocate(4 * rows as u64));
        let arguments = [x_at.into(), y_at.into(), scales_at.into(), (columns as i32).into()];
        run_of(ptx, "quantise", LaunchConfig::new([rows as u32, 1, 1], [96, 1, 1], 0), &arguments, &mut memory);
        let scales = floats(&memory, scales_at, rows);
        for (row, x) in x.chunks(columns).enumerate() {
            let largest = x.iter().map(|&x| from_bf16(x).abs()).fold(0.0, f32::max);
            assert_eq!(scales[row], largest / 127.0);
            let y = memory.read(y_at + (row * columns) as u64, columns as u64).unwrap();
            for (&x, &y) in x.iter().zip(y) {
                assert_eq!(f32::from(y as i8), (from_bf16(x) / scales[row]).round_ties_even());
            }
        }
    }
}

#[test]
fn bytes_times_bytes() {
    let (rows, columns) = (7, 16 * 75);
    let mut random = Random(2);
    let (w, x) = (random_bytes(rows * columns, &mut random), random_bytes(columns, &mut random));
    let scales: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32 / 8.0).collect();
    for ptx in PTX {
        let mut memory = Memory::new();
        let (w_at, x_at) = (upload(&mut memory, &w), upload(&mut memory, &x));
        let (w_scales, x_scale) = (upload_floats(&mut memory, &scales), upload_floats(&mut memory, &[0.25]));
        let y_at = memory.allocate(2 * rows as u64);
        let pointers = [w_at, x_at, w_scales, x_scale, y_at].map(Argument::from);
        let arguments = [&pointers[..], &[(columns as i32).into()]].concat();
        let config = LaunchConfig::new([rows as u32, 1, 1], [64, 1, 1], 0);
        let counters = run_of(ptx, "gemv_w8a8", config, &arguments, &mut memory);
        assert!(counters.instructions["dp4a.s32"] > 0);
        for (row, &y) in download16(&memory, y_at, rows).iter().enumerate() {
            let dot: i32 =
                w[row * columns..].iter().zip(&x).map(|(&w, &x)| i32::from(w as i8) * i32::from(x as i8)).sum();
            assert_eq!(y, bf16(dot as f32 * scales[row] * 0.25));
        }
    }
}

/// Nibbles of words, lowest first.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(|byte| [byte & 15, byte >> 4])
}

#[test]
fn four_bits_as_halves() {
    let (rows, columns) = (5, 32 * 21);
    let mut random = Random(3);
    let w = random_bytes(rows * columns / 2, &mut random);
    let groups: Vec<[f32; 2]> =
        (0..rows * columns / 32).map(|at| [1.0 / f32::from(1u16 << (at % 5 + 1)), (at % 16) as f32]).collect();
    let x: Vec<u16> = random_floats(columns, &mut random).into_iter().map(half).collect();
    for ptx in PTX {
        let mut memory = Memory::new();
        let w_at = upload(&mut memory, &w);
        let groups_at = upload16(&mut memory, &groups.iter().flatten().copied().map(half).collect::<Vec<_>>());
        let (x_at, y_at) = (upload16(&mut memory, &x), memory.allocate(4 * rows as u64));
        let arguments = [w_at.into(), groups_at.into(), x_at.into(), y_at.into(), (columns as i32).into()];
        run_of(ptx, "gemv_w4_half", LaunchConfig::new([rows as u32, 1, 1], [64, 1, 1], 0), &arguments, &mut memory);
        for (row, &y) in floats(&memory, y_at, rows).iter().enumerate() {
            let w = nibbles(&w[row * columns / 2..(row + 1) * columns / 2]).enumerate();
            let (mut wanted, mut size) = (0.0, 0.0);
            for (column, nibble) in w {
                let [scale, zero] = groups[row * columns / 32 + column / 32];
                let product = f64::from((f32::from(nibble) - zero) * scale * from_half(x[column]));
                wanted += product;
                size += product.abs();
            }
            // Four terms of each sum are added up in half precision.
            assert!((f64::from(y) - wanted).abs() < size / 2048.0, "row {row}: {y} instead of {wanted}");
        }
    }
}

#[test]
fn four_bits_times_bytes() {
    let (rows, blocks) = (9, 13);
    let mut random = Random(4);
    let (mut w, mut w_values) = (Vec::new(), Vec::new());
    for at in 0..rows * blocks {
        let k = (at % 6) as u16;
        let bytes = random_bytes(16, &mut random);
        let value = |nibble: u8| f64::from(i16::from(nibble) - 8) / f64::from(1u16 << k);
        w_values.extend(bytes.iter().map(|byte| value(byte & 15)));
        w_values.extend(bytes.iter().map(|byte| value(byte >> 4)));
        w.extend(half_power(k).to_le_bytes());
        w.extend(bytes);
    }
    let (x, x_values) = quantised(blocks, &mut random);
    // With the sum of the block's values behind the scale.
    let x: Vec<u8> = x
        .chunks(34)
        .zip(x_values.chunks(32))
        .flat_map(|(block, values)| {
            let sum = half(values.iter().sum::<f64>() as f32);
            [&block[..2], &sum.to_le_bytes(), &block[2..]].concat()
        })
        .collect();
    for ptx in PTX {
        let mut memory = Memory::new();
        let (w_at, x_at) = (upload(&mut memory, &w), upload(&mut memory, &x));
        let y_at = memory.allocate(4 * rows as u64);
        let arguments = [w_at.into(), x_at.into(), y_at.into(), (rows as i32).into(), (blocks as i32).into()];
        let counters = run_of(ptx, "gemv_w4a8", LaunchConfig::new([3, 1, 1], [32, 4, 1], 0), &arguments, &mut memory);
        assert!(counters.instructions["dp4a.s32"] > 0);
        for (row, &y) in floats(&memory, y_at, rows).iter().enumerate() {
            let terms = w_values[row * 32 * blocks..].iter().zip(&x_values).map(|(w, x)| w * x);
            let (wanted, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            // Sums of blocks of x are halves.
            assert!((f64::from(y) - wanted).abs() < size / 1024.0, "row {row}: {y} instead of {wanted}");
        }
    }
}

#[test]
fn four_bits_through_a_table() {
    const LEVELS: [f32; 16] =
        [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];
    let (rows, columns) = (4, 8 * 37);
    let mut random = Random(6);
    let (w, x) = (random_bytes(rows * columns / 2, &mut random), random_bf16(columns, &mut random));
    for ptx in PTX {
        let mut memory = Memory::new();
        let (w_at, x_at) = (upload(&mut memory, &w), upload16(&mut memory, &x));
        let y_at = memory.allocate(4 * rows as u64);
        let arguments = [w_at.into(), x_at.into(), y_at.into(), (columns as i32).into()];
        let config = LaunchConfig::new([rows as u32, 1, 1], [32, 1, 1], 0);
        let counters = run_of(ptx, "gemv_table", config, &arguments, &mut memory);
        assert!(counters.instructions["prmt.b32"] > 0);
        for (row, &y) in floats(&memory, y_at, rows).iter().enumerate() {
            let w = nibbles(&w[row * columns / 2..]).map(|nibble| LEVELS[usize::from(nibble)]);
            let products = w.zip(&x).map(|(w, &x)| f64::from(from_bf16(bf16(w * from_bf16(x)))));
            assert_close(y, products.sum(), 1e-4);
        }
    }
}

#[test]
fn tiles_of_bytes() {
    let (columns, k) = (24, 96);
    let mut random = Random(7);
    let (a, b) = (random_bytes(16 * k, &mut random), random_bytes(columns * k, &mut random));
    for ptx in PTX {
        let mut memory = Memory::new();
        let (a_at, b_at) = (upload(&mut memory, &a), upload(&mut memory, &b));
        let c_at = upload32(&mut memory, &vec![0; 16 * columns]);
        let arguments = [a_at.into(), b_at.into(), c_at.into(), (columns as i32).into(), (k as i32).into()];
        run_of(ptx, "mma_s8", LaunchConfig::new([3, 1, 1], [32, 1, 1], 0), &arguments, &mut memory);
        for (at, &c) in download32(&memory, c_at, 16 * columns).iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let terms = a[row * k..][..k].iter().zip(&b[column * k..][..k]);
            assert_eq!(c as i32, terms.map(|(&a, &b)| i32::from(a as i8) * i32::from(b as i8)).sum::<i32>());
        }
    }
}
