//! Threads of a block at work together: groups, scans, atomics, pipelines.

use super::common::{Random, bf16, download16, download32, from_bf16, random_bf16, upload16, upload32};
use super::{floats, from_half, half, random_floats, run_of, upload_floats};
use llmc_ptx_emulator::{LaunchConfig, Memory};

const PTX: [&str; 2] = [include_str!("cooperation.sm80.ptx"), include_str!("cooperation.sm90.ptx")];

#[test]
fn norm_of_a_sum() {
    let (rows, columns) = (7, 8 * 37);
    let mut random = Random(1);
    let [before, x, w] = [rows, rows, 1].map(|rows| random_bf16(rows * columns, &mut random));
    for ptx in PTX {
        let mut memory = Memory::new();
        let [before_at, x_at, w_at] = [&before, &x, &w].map(|values| upload16(&mut memory, values));
        let y_at = memory.allocate(2 * x.len() as u64);
        let sizes = [rows, columns].map(|value| (value as i32).into());
        let pointers = [before_at, x_at, w_at, y_at].map(Into::into);
        let arguments = [&pointers[..], &sizes, &[1e-5f32.into()]].concat();
        run_of(ptx, "add_norm", LaunchConfig::new([2, 1, 1], [64, 1, 1], 0), &arguments, &mut memory);
        let sums: Vec<u16> = before.iter().zip(&x).map(|(&a, &b)| bf16(from_bf16(a) + from_bf16(b))).collect();
        assert_eq!(download16(&memory, before_at, sums.len()), sums);
        for (row, y) in download16(&memory, y_at, x.len()).chunks(columns).enumerate() {
            let sums = sums[row * columns..][..columns].iter().map(|&sum| f64::from(from_bf16(sum)));
            let scale = (sums.clone().map(|x| x * x).sum::<f64>() / columns as f64 + 1e-5).sqrt().recip();
            for ((&y, sum), &w) in y.iter().zip(sums).zip(&w) {
                let wanted = sum * scale * f64::from(from_bf16(w));
                assert!((f64::from(from_bf16(y)) - wanted).abs() <= wanted.abs() / 256.0 + 1e-6, "{y} {wanted}");
            }
        }
    }
}

#[test]
fn the_largest_in_order() {
    let (rows, columns, k) = (2, 500, 9);
    let x = random_floats(rows * columns, &mut Random(2));
    for ptx in PTX {
        let mut memory = Memory::new();
        let x_at = upload_floats(&mut memory, &x);
        let [values_at, places_at] = [0; 2].map(|_| memory.allocate(4 * (rows * k) as u64));
        let sizes = [columns, k].map(|value| (value as i32).into());
        let arguments = [&[x_at.into(), values_at.into(), places_at.into()][..], &sizes].concat();
        run_of(ptx, "top_k", LaunchConfig::new([rows as u32, 1, 1], [96, 1, 1], 0), &arguments, &mut memory);
        let (values, places) = (floats(&memory, values_at, rows * k), download32(&memory, places_at, rows * k));
        for (row, x) in x.chunks(columns).enumerate() {
            let mut order: Vec<usize> = (0..columns).collect();
            order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
            for (at, &place) in order[..k].iter().enumerate() {
                assert_eq!((values[row * k + at], places[row * k + at]), (x[place], place as u32));
            }
        }
    }
}

#[test]
fn tokens_by_expert() {
    let tokens = 203;
    let mut random = Random(3);
    let experts: Vec<u32> = (0..tokens).map(|_| (random.bits() >> 33) as u32 % 7 * 5).collect();
    for ptx in PTX {
        let mut memory = Memory::new();
        let experts_at = upload32(&mut memory, &experts);
        let (starts_at, order_at) = (memory.allocate(4 * 32), memory.allocate(4 * tokens as u64));
        let arguments = [experts_at.into(), (tokens as i32).into(), starts_at.into(), order_at.into()];
        run_of(ptx, "sort_by_expert", LaunchConfig::new([1, 1, 1], [64, 1, 1], 0), &arguments, &mut memory);
        let (starts, order) = (download32(&memory, starts_at, 32), download32(&memory, order_at, tokens));
        let mut seen = order.clone();
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(at, &token)| at as u32 == token));
        for (expert, &start) in starts.iter().enumerate() {
            assert_eq!(start as usize, experts.iter().filter(|&&other| (other as usize) < expert).count());
        }
        assert!(order.windows(2).all(|pair| experts[pair[0] as usize] <= experts[pair[1] as usize]));
    }
}

#[test]
fn a_sum_over_blocks() {
    let x = random_floats(4 * 1000, &mut Random(4));
    for ptx in PTX {
        let mut memory = Memory::new();
        let x_at = upload_floats(&mut memory, &x);
        let (parts_at, y_at) = (memory.allocate(4 * 5), memory.allocate(4));
        let arguments = [x_at.into(), parts_at.into(), y_at.into(), 1000i32.into()];
        // Twice: the last block leaves the counter as it was.
        for _ in 0..2 {
            run_of(ptx, "grid_sum", LaunchConfig::new([5, 1, 1], [96, 1, 1], 0), &arguments, &mut memory);
            let wanted: f64 = x.iter().map(|&x| f64::from(x)).sum();
            assert!((f64::from(floats(&memory, y_at, 1)[0]) - wanted).abs() < 1e-3);
        }
    }
}

#[test]
fn softmax_through_a_pipeline() {
    for columns in [6, 128, 500] {
        let rows = 3;
        let mut random = Random(5);
        let x: Vec<u16> = (0..rows * columns).map(|_| half(4.0 * random.unit())).collect();
        for ptx in PTX {
            let mut memory = Memory::new();
            let (x_at, y_at) = (upload16(&mut memory, &x), memory.allocate(2 * x.len() as u64));
            let arguments = [x_at.into(), y_at.into(), (columns as i32).into()];
            let config = LaunchConfig::new([rows as u32, 1, 1], [64, 1, 1], 0);
            let counters = run_of(ptx, "piped_softmax", config, &arguments, &mut memory);
            assert!(counters.instructions["cp.async"] > 0);
            for (row, y) in download16(&memory, y_at, x.len()).chunks(columns).enumerate() {
                let x: Vec<f64> = x[row * columns..][..columns].iter().map(|&x| f64::from(from_half(x))).collect();
                let best = x.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = x.iter().map(|x| (x - best).exp()).sum();
                for (&y, x) in y.iter().zip(&x) {
                    let wanted = (x - best).exp() / sum;
                    // Differences, powers and inverses are halves.
                    assert!((f64::from(from_half(y)) - wanted).abs() < wanted / 100.0 + 1e-4, "{y} {wanted}");
                }
            }
        }
    }
}
