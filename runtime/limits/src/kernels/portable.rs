//! Plain loops, for CPUs without AVX2. How fast they are depends on how this program was compiled.

use super::{Kernel, Limit, Line};
use std::hint::black_box;

/// Rows of a product that share what is read of the other matrix.
const ROWS: usize = 4;

pub const KERNELS: &[Kernel] = &[
    Kernel { limit: Limit::Reads, name: "plain code", needs: &[], step: 1, work: 64.0, run: reads },
    Kernel {
        limit: Limit::F32Products,
        name: "plain code",
        needs: &[],
        step: 1,
        work: (2 * ROWS * 16) as f64,
        run: products,
    },
    Kernel {
        limit: Limit::Bf16Products,
        name: "widened plain code",
        needs: &[],
        step: 1,
        work: (2 * ROWS * 32) as f64,
        run: widened,
    },
    Kernel { limit: Limit::Elementwise, name: "plain code", needs: &[], step: 1, work: 64.0, run: elementwise },
];

fn reads(lines: &mut [Line], passes: usize) {
    for _ in 0..passes {
        let mut all = 0u32;
        for line in black_box(&*lines) {
            all = line.0.iter().fold(all, |all, value| all | value.to_bits());
        }
        black_box(all);
    }
}

fn products(lines: &mut [Line], passes: usize) {
    let rows = black_box([0.5f32; ROWS]);
    let mut sums = [[0f32; 16]; ROWS];
    for _ in 0..passes {
        for line in &*lines {
            accumulate(&mut sums, &rows, &line.0);
        }
    }
    black_box(sums);
}

fn widened(lines: &mut [Line], passes: usize) {
    let rows = black_box([0.5f32; ROWS]);
    let mut sums = [[0f32; 16]; ROWS];
    for _ in 0..passes {
        for line in &*lines {
            accumulate(&mut sums, &rows, &line.0.map(|pair| f32::from_bits(pair.to_bits() << 16)));
            accumulate(&mut sums, &rows, &line.0.map(|pair| f32::from_bits(pair.to_bits() & 0xffff_0000)));
        }
    }
    black_box(sums);
}

fn accumulate(sums: &mut [[f32; 16]; ROWS], rows: &[f32; ROWS], columns: &[f32; 16]) {
    for (sums, row) in sums.iter_mut().zip(rows) {
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum += row * column;
        }
    }
}

fn elementwise(lines: &mut [Line], passes: usize) {
    let [factor, summand, least, most] = black_box([0.5f32, 0.25, 0.125, 4.0]);
    for _ in 0..passes {
        for line in black_box(&mut *lines) {
            for value in &mut line.0 {
                *value = (*value * factor + summand).max(least).min(most);
            }
        }
    }
}
