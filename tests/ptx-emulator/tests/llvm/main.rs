//! PTX that LLVM 19 made of IR (`loop.ll`) gives bit for bit what the IR says. LLVM puts a loop's head behind its body.

#[path = "../common/mod.rs"]
mod common;

use common::{Random, bf16, download32, upload32};
use llmc_ptx_emulator::{LaunchConfig, Memory, Module, launch};

const THREADS: usize = 256;

#[test]
fn a_loop_with_everything() {
    let module = Module::parse(include_str!("loop.sm80.ptx")).unwrap();
    let (mut random, count) = (Random(5), 40);
    let input: Vec<f32> = (0..count).map(|_| random.unit()).collect();
    let mut memory = Memory::new();
    let words: Vec<u32> = input.iter().map(|value| value.to_bits()).collect();
    let (from, to) = (upload32(&mut memory, &words), memory.allocate(4 * THREADS as u64));
    let config = LaunchConfig::new([1, 1, 1], [THREADS as u32, 1, 1], 0);
    let arguments = [from.into(), to.into(), (count as i32).into()];
    launch(&module, "k", config, &arguments, &mut memory).unwrap_or_else(|error| panic!("{error}"));

    let step = |quad: &[f32]| if quad[0] > quad[3] { f64::from(quad[0]).exp2() as f32 } else { quad[3] * 3.0 };
    let sums: Vec<f32> =
        (0..THREADS).map(|t| input.chunks(4).fold(0.0, |sum: f32, quad| step(quad).mul_add(t as f32, sum))).collect();
    // The local array holds every eighth element's step; the last write to its first place counts.
    let kept = (0..count).step_by(8).map(|at| step(&input[at..at + 4])).next_back().unwrap();
    let crossed = |t: usize| sums[t ^ 37];
    for (t, &word) in download32(&memory, to, THREADS).iter().enumerate() {
        let warp = t / 32 * 32..t / 32 * 32 + 32;
        let total = warp.fold(0u32, |sum, at| sum.wrapping_add(crossed(at ^ 3).to_bits()));
        let halves = u32::from(bf16(crossed(t))).wrapping_add(total) ^ u32::from(f16(crossed(t)));
        assert_eq!(word, halves.wrapping_add(kept.to_bits()), "thread {t}");
    }
}

/// The nearest half-precision value of a number that is normal in half precision, or zero.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff == 0 {
        return (bits >> 16) as u16;
    }
    let rounded = (bits & 0x7fff_ffff) - (112 << 23) + 0xfff + (bits >> 13 & 1);
    (bits >> 16 & 0x8000 | rounded >> 13) as u16
}
