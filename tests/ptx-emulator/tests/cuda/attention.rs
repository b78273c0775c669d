//! Attention: fragments by hand, a paged cache, and the matrix API of CUDA C.

use super::common::{Random, download16, from_bf16, random_bf16, upload16, upload32};
use super::{floats, from_half, random_halves, run_of};
use llmc_ptx_emulator::{LaunchConfig, Memory};

const PTX: &str = include_str!("attention.sm80.ptx");
/// Elements of a head.
const D: usize = 64;

/// Attention of one query over keys and values; `scale` makes scores exponents of 2.
fn attend(query: &[f32], keys: &[&[f32]], values: &[&[f32]], scale: f64) -> Vec<f64> {
    let dot = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(|key| dot(key)).collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp2()).collect();
    let sum: f64 = weights.iter().sum();
    let element =
        |d: usize| weights.iter().zip(values).map(|(weight, value)| weight * f64::from(value[d])).sum::<f64>();
    (0..D).map(|d| element(d) / sum).collect()
}

#[test]
fn flash_attention() {
    let (heads, kv_heads, scale) = (4, 2, 0.3f32);
    // Inside of one block, a whole one, several, and windows that begin inside of a block of keys.
    for (tokens, window) in [(5, 1000), (64, 1000), (150, 1000), (150, 40), (131, 1)] {
        let mut random = Random(tokens as u64);
        let q = random_bf16(tokens * heads * D, &mut random);
        let [k, v] = [0; 2].map(|_| random_bf16(tokens * kv_heads * D, &mut random));
        let mut memory = Memory::new();
        let inputs = [&q, &k, &v].map(|values| upload16(&mut memory, values).into());
        let o_at = memory.allocate(2 * q.len() as u64);
        let sizes = [tokens, heads, kv_heads, window].map(|value| (value as i32).into());
        let arguments = [&inputs[..], &[o_at.into()], &sizes, &[scale.into()]].concat();
        let grid = [tokens.div_ceil(64) as u32, heads as u32, 1];
        let counters = run_of(PTX, "flash", LaunchConfig::new(grid, [128, 1, 1], 0), &arguments, &mut memory);
        assert!(counters.instructions["mma.m16n8k16"] > 0 && counters.instructions["ldmatrix.x4"] > 0);
        let o = download16(&memory, o_at, q.len());
        let [q, k, v] = [q, k, v].map(|values| values.into_iter().map(from_bf16).collect::<Vec<_>>());
        for (row, got) in o.chunks(D).enumerate() {
            let (token, head) = (row / heads, row % heads);
            let seen = (token + 1).saturating_sub(window)..token + 1;
            let [keys, values] = [&k, &v].map(|rows| {
                let at = |position: usize| &rows[(position * kv_heads + head / (heads / kv_heads)) * D..][..D];
                seen.clone().map(at).collect::<Vec<&[f32]>>()
            });
            let wanted = attend(&q[row * D..][..D], &keys, &values, f64::from(scale));
            for (&got, wanted) in got.iter().zip(wanted) {
                // Weights and results are rounded to bf16.
                let error = (f64::from(from_bf16(got)) - wanted).abs();
                assert!(error < wanted.abs() / 128.0 + 4e-3, "{tokens} tokens, window {window}, row {row}: {error}");
            }
        }
    }
}

#[test]
fn paged_attention() {
    let (heads, kv_heads, page, table_width, scale) = (6, 2, 16, 8, 0.2f32);
    let lengths = [1, 16, 37, 100];
    let blocks = lengths.len() * table_width;
    let mut random = Random(11);
    let q = random_halves(lengths.len() * heads * D, &mut random);
    // What no context has is NaN, and what no context needs of a table names no block.
    let mut cache = vec![0x7e00; blocks * 2 * kv_heads * page * D];
    let mut table = vec![1 << 20; blocks];
    let place = |sequence: usize, position: usize, part: usize, head: usize| {
        let block = (7 * (sequence * table_width + position / page) + 3) % blocks;
        (block, (((block * 2 + part) * kv_heads + head) * page + position % page) * D)
    };
    for (sequence, &length) in lengths.iter().enumerate() {
        for position in 0..length {
            for (part, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (block, at) = place(sequence, position, part, head);
                table[sequence * table_width + position / page] = block as u32;
                cache[at..at + D].copy_from_slice(&random_halves(D, &mut random));
            }
        }
    }
    let mut memory = Memory::new();
    let (q_at, cache_at) = (upload16(&mut memory, &q), upload16(&mut memory, &cache));
    let o_at = memory.allocate(2 * q.len() as u64);
    let (table_at, lengths_at) =
        (upload32(&mut memory, &table), upload32(&mut memory, &lengths.map(|length| length as u32)));
    let pointers = [q_at, cache_at, o_at, table_at, lengths_at].map(Into::into);
    let sizes = [table_width, heads, kv_heads].map(|value| (value as i32).into());
    let arguments = [&pointers[..], &sizes, &[scale.into()]].concat();
    let grid = [heads as u32, lengths.len() as u32, 1];
    let counters = run_of(PTX, "paged", LaunchConfig::new(grid, [128, 1, 1], 0), &arguments, &mut memory);
    assert!(counters.instructions["shfl.sync"] > 0);
    let o = download16(&memory, o_at, q.len());
    let [q, cache] = [q, cache].map(|values| values.into_iter().map(from_half).collect::<Vec<_>>());
    for (row, got) in o.chunks(D).enumerate() {
        let (sequence, head) = (row / heads, row % heads);
        let [keys, values] = [0, 1].map(|part| {
            let at = |position| &cache[place(sequence, position, part, head / (heads / kv_heads)).1..][..D];
            (0..lengths[sequence]).map(at).collect::<Vec<&[f32]>>()
        });
        let scale = f64::from(scale) * std::f64::consts::LOG2_E;
        for (&got, wanted) in got.iter().zip(attend(&q[row * D..][..D], &keys, &values, scale)) {
            assert!((f64::from(from_half(got)) - wanted).abs() < wanted.abs() / 1024.0 + 1e-6, "row {row}: {wanted}");
        }
    }
}

#[test]
fn attention_through_the_matrix_api() {
    let (keys, scale) = (48, 0.25f32);
    let mut random = Random(5);
    let [q, k, v] = [16, keys, keys].map(|rows| random_halves(rows * D, &mut random));
    let mut memory = Memory::new();
    let inputs = [&q, &k, &v].map(|values| upload16(&mut memory, values).into());
    let o_at = memory.allocate(4 * q.len() as u64);
    let arguments = [&inputs[..], &[o_at.into(), (keys as i32).into(), scale.into()]].concat();
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1], 16 * keys as u32 * 6);
    let counters = run_of(PTX, "whole_rows", config, &arguments, &mut memory);
    // Scores and results: 3 and 4 tiles of 4 and 3 steps.
    assert_eq!((counters.instructions["wmma.mma"], counters.mma_flops), (24, 24 * 2 * 16 * 16 * 16));
    let [q, k, v] = [q, k, v].map(|values| values.into_iter().map(from_half).collect::<Vec<_>>());
    let [k, v] = [&k, &v].map(|rows| rows.chunks(D).collect::<Vec<_>>());
    for (row, got) in floats(&memory, o_at, q.len()).chunks(D).enumerate() {
        for (&got, wanted) in got.iter().zip(attend(&q[row * D..][..D], &k, &v, f64::from(scale))) {
            // Weights are rounded to half precision.
            assert!((f64::from(got) - wanted).abs() < 1e-3, "row {row}: {got} instead of {wanted}");
        }
    }
}
