//! The kernel that finds the likeliest tokens, on the PTX emulator: what the host finds, for rows of any length.

use llmc_ptx_emulator::{Argument, LaunchConfig, Memory, Module, launch};
use llmrt::sampler::argmax;

const PTX: &str = include_str!("../src/device/cuda/likeliest.ptx");

/// The ids that the kernel finds in rows of equal length.
fn likeliest(rows: &[Vec<f32>]) -> Vec<i32> {
    let module = Module::parse(PTX).unwrap();
    let mut memory = Memory::new();
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|logit| logit.to_le_bytes()).collect();
    let logits = memory.allocate(bytes.len() as u64);
    memory.write(logits, &bytes).unwrap();
    let ids = memory.allocate(4 * rows.len() as u64);
    let arguments = [logits, ids, rows[0].len() as u64].map(Argument::from);
    let config = LaunchConfig::new([rows.len() as u32, 1, 1], [1024, 1, 1], 0);
    launch(&module, "likeliest", config, &arguments, &mut memory).unwrap();
    let found = memory.read(ids, 4 * rows.len() as u64).unwrap();
    found.chunks(4).map(|id| i32::from_le_bytes(id.try_into().unwrap())).collect()
}

/// A row of numbers that repeat often.
fn row(length: usize, seed: usize) -> Vec<f32> {
    (0..length).map(|index| ((index * 7919 + seed * 104_729) % 61) as f32 - 70.0).collect()
}

#[test]
fn the_first_of_the_largest_is_found() {
    for length in [1, 2, 31, 32, 33, 384, 1000, 1024, 1025, 4095, 4096, 4097, 9000] {
        let mut rows: Vec<Vec<f32>> = (0..3).map(|seed| row(length, seed)).collect();
        // The largest one only, at both ends, and the smallest there are.
        rows[0][length - 1] = 1.0;
        rows.push(vec![f32::MIN; length]);
        let expected: Vec<i32> = rows.iter().map(|row| argmax(row) as i32).collect();
        assert_eq!(likeliest(&rows), expected, "rows of {length}");
    }
}

#[test]
fn rows_that_are_not_finite_have_none() {
    for (length, at) in [(1, 0), (40, 39), (5000, 4999), (5000, 1024)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows: Vec<Vec<f32>> = (0..3).map(|seed| row(length, seed)).collect();
            rows[1][at] = value;
            let expected = [argmax(&rows[0]) as i32, -1, argmax(&rows[2]) as i32];
            assert_eq!(likeliest(&rows), expected, "{value} at {at} of {length}");
        }
    }
}
