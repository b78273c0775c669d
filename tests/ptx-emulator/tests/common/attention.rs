//! Triton kernels of our own (`triton/kernels.py`): attention for prefill and decode, TF32 products, quantised weights.

use super::{
    Case, LaunchError, Memory, Module, Outcome, PADDING, Random, bf16, config, download16, download32, from_bf16,
    over_shapes, padded, random_bf16, timed, upload, upload16, upload32, worst,
};
use llmc_ptx_emulator::Argument;

pub const CASES: [Case; 4] = [
    Case { kernel: "flash", text: include_str!("../triton/flash_d64.sm80.ptx"), run: flash },
    Case { kernel: "paged", text: include_str!("../triton/paged_d64.sm80.ptx"), run: paged },
    Case { kernel: "f32mm", text: include_str!("../triton/f32mm.sm80.ptx"), run: tf32 },
    Case { kernel: "q8gemv", text: include_str!("../triton/q8gemv.sm80.ptx"), run: quantised },
];

/// Elements of a head.
const D: usize = 64;
/// The scale of the scores, for a softmax in powers of two.
const SCALE: f32 = 0.125 * std::f32::consts::LOG2_E;
/// The kernels round probabilities to bf16 before they weight the values.
const ATTENTION_SLACK: f64 = 4e-3;

fn value(bits: u16) -> f64 {
    f64::from(from_bf16(bits))
}

/// Attention of one query over `positions` keys and values.
fn attend(query: &[u16], positions: usize, key: impl Fn(usize) -> usize, keys: &[u16], values: &[u16]) -> Vec<f64> {
    let score = |position: usize| -> f64 {
        let at = key(position);
        (0..D).map(|d| value(query[d]) * value(keys[at + d])).sum::<f64>() * f64::from(SCALE)
    };
    let scores: Vec<f64> = (0..positions).map(score).collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp2()).collect();
    let sum: f64 = weights.iter().sum();
    (0..D)
        .map(|d| weights.iter().enumerate().map(|(at, weight)| weight * value(values[key(at) + d])).sum::<f64>() / sum)
        .collect()
}

fn flash(module: &Module) -> Result<Outcome, LaunchError> {
    // Inside of one block of queries (ending in each of its quarters), an exact number of blocks, a partial last block,
    // one that ends in the second half of what is copied ahead.
    over_shapes([7, 20, 40, 56, 64, 84, 100, 160], |tokens| flash_of(module, tokens))
}

fn flash_of(module: &Module, tokens: usize) -> Result<Outcome, LaunchError> {
    let (query_heads, heads) = (4, 2);
    let (stride, kv_stride) = (query_heads * D + 16, heads * D + 16);
    let mut random = Random(tokens as u64);
    let q: Vec<u16> = padded(tokens, query_heads * D, stride, &mut random);
    let [k, v] = [0; 2].map(|_| padded(tokens, heads * D, kv_stride, &mut random));
    // Larger scores, so that the running maximum matters.
    let q: Vec<u16> =
        q.into_iter().map(|bits| if bits == PADDING { bits } else { bf16(4.0 * from_bf16(bits)) }).collect();
    let mut memory = Memory::new();
    let pointers = [upload16(&mut memory, &q), upload16(&mut memory, &k), upload16(&mut memory, &v)];
    let output = memory.allocate(2 * (tokens * stride) as u64);
    let strides = [stride, kv_stride, kv_stride, stride, tokens].map(|value| Argument::from(value as i32));
    let arguments =
        [&pointers.map(Argument::from)[..], &[output.into()], &strides, &[SCALE.into(), 0u64.into(), 0u64.into()]]
            .concat();
    let mut launch = config(tokens.div_ceil(64) as u32, 128, 24576);
    launch.grid[1] = query_heads as u32;
    let (counters, seconds) = timed(module, "flash", launch, &arguments, &mut memory)?;
    let mut error = 0f64;
    for token in 0..tokens {
        let row = output + 2 * (token * stride) as u64;
        if memory.undefined_bytes(row, 2 * (query_heads * D) as u64).unwrap() > 0 {
            return Ok(Outcome { error: f64::INFINITY, counters, seconds });
        }
        let out = download16(&memory, row, query_heads * D);
        for head in 0..query_heads {
            let key = |position: usize| position * kv_stride + head / (query_heads / heads) * D;
            let wanted = attend(&q[token * stride + head * D..], token + 1, key, &k, &v);
            error = error.max(worst(&out[head * D..(head + 1) * D], &wanted, ATTENTION_SLACK));
        }
    }
    Ok(Outcome { error, counters, seconds })
}

fn paged(module: &Module) -> Result<Outcome, LaunchError> {
    // Contexts that end in the first slot of a block, in the middle of one, and with one.
    over_shapes([[1, 37, 64], [16, 17, 100]], |lengths| paged_of(module, lengths))
}

fn paged_of(module: &Module, lengths: [usize; 3]) -> Result<Outcome, LaunchError> {
    let (query_heads, heads, page, table_width) = (6, 2, 16, 8);
    let blocks = lengths.len() * table_width;
    let mut random = Random(9);
    let q: Vec<u16> = random_bf16(lengths.len() * query_heads * D, &mut random)
        .into_iter()
        .map(|bits| bf16(4.0 * from_bf16(bits)))
        .collect();
    // Every table entry is a block of its own, in an order that looks random; entries beyond a context name no block at all.
    let block_of = |sequence: usize, index: usize| (7 * (sequence * table_width + index) + 3) % blocks;
    let slot = heads * D;
    let mut caches = [vec![PADDING; blocks * page * slot], vec![PADDING; blocks * page * slot]];
    let mut table = vec![1 << 20; blocks];
    for (sequence, &length) in lengths.iter().enumerate() {
        for position in 0..length {
            let block = block_of(sequence, position / page);
            table[sequence * table_width + position / page] = block as u32;
            let at = (block * page + position % page) * slot;
            for cache in &mut caches {
                cache[at..at + slot].copy_from_slice(&random_bf16(slot, &mut random));
            }
        }
    }
    let mut memory = Memory::new();
    let pointers = [upload16(&mut memory, &q), upload16(&mut memory, &caches[0]), upload16(&mut memory, &caches[1])];
    let output = memory.allocate(2 * q.len() as u64);
    let table = upload32(&mut memory, &table);
    let lens = upload32(&mut memory, &lengths.map(|length| length as u32));
    let rest: [Argument; 7] =
        [output.into(), table.into(), lens.into(), SCALE.into(), (table_width as i32).into(), 0u64.into(), 0u64.into()];
    let arguments = [&pointers.map(Argument::from)[..], &rest].concat();
    let mut launch = config(lengths.len() as u32, 128, 6660);
    launch.grid[1] = heads as u32;
    let (counters, seconds) = timed(module, "paged", launch, &arguments, &mut memory)?;
    if memory.undefined_bytes(output, 2 * q.len() as u64).unwrap() > 0 {
        return Ok(Outcome { error: f64::INFINITY, counters, seconds });
    }
    let out = download16(&memory, output, q.len());
    let mut error = 0f64;
    for (sequence, &length) in lengths.iter().enumerate() {
        for head in 0..query_heads {
            let key = |position: usize| {
                (block_of(sequence, position / page) * page + position % page) * slot + head / (query_heads / heads) * D
            };
            let at = (sequence * query_heads + head) * D;
            let wanted = attend(&q[at..], length, key, &caches[0], &caches[1]);
            error = error.max(worst(&out[at..at + D], &wanted, ATTENTION_SLACK));
        }
    }
    Ok(Outcome { error, counters, seconds })
}

fn tf32(module: &Module) -> Result<Outcome, LaunchError> {
    over_shapes([(32, 32, 32), (64, 96, 96)], |(m, n, k)| {
        let mut random = Random(k as u64);
        // bf16 values have no digits that TF32 would drop.
        let (a, b) = (random_bf16(m * k, &mut random), random_bf16(k * n, &mut random));
        let mut memory = Memory::new();
        let widen = |values: &[u16]| values.iter().map(|&bits| u32::from(bits) << 16).collect::<Vec<_>>();
        let pointers =
            [upload32(&mut memory, &widen(&a)), upload32(&mut memory, &widen(&b)), memory.allocate(4 * (m * n) as u64)];
        let sizes = [m, n, k].map(|value| Argument::from(value as i32));
        let arguments = [&pointers.map(Argument::from)[..], &sizes, &[0u64.into(), 0u64.into()]].concat();
        let mut launch = config((m / 32) as u32, 128, 16384);
        launch.grid[1] = (n / 32) as u32;
        let (counters, seconds) = timed(module, "f32mm", launch, &arguments, &mut memory)?;
        let wanted = |at: usize| -> f64 {
            (0..k).map(|depth| value(a[at / n * k + depth]) * value(b[depth * n + at % n])).sum()
        };
        let out = download32(&memory, pointers[2], m * n);
        let error = |(at, bits): (usize, &u32)| (f64::from(f32::from_bits(*bits)) - wanted(at)).abs() / 1e-5;
        let error =
            out.iter().enumerate().map(error).fold(0.0, |most: f64, error| if error <= most { most } else { error });
        Ok(Outcome { error: if error.is_nan() { f64::INFINITY } else { error }, counters, seconds })
    })
}

/// A half-precision value.
fn from_f16(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * (-24f64).exp2(),
        31 => f64::NAN,
        _ => (1024.0 + fraction) * f64::from(exponent - 25).exp2(),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn quantised(module: &Module) -> Result<Outcome, LaunchError> {
    // Two rows of the second block are beyond the matrix.
    let (n, k) = (6, 512);
    let mut random = Random(12);
    let rows = 8;
    let w: Vec<u8> = (0..rows * k).map(|_| (random.bits() >> 30) as u8).collect();
    // Random signs, exponents and fractions of numbers between 2^-7 and 2.
    let mut halves = |count: usize, exponents: u64| -> Vec<u16> {
        let half =
            |bits: u64| ((bits >> 8 & 1) << 15 | (8 + (bits >> 16) % exponents) << 10 | bits >> 32 & 0x3ff) as u16;
        (0..count).map(|_| half(random.bits())).collect()
    };
    let (scales, x) = (halves(rows * k / 32, 4), halves(k, 8));
    let mut memory = Memory::new();
    let pointers = [
        upload(&mut memory, &w),
        upload16(&mut memory, &scales),
        upload16(&mut memory, &x),
        memory.allocate(2 * n as u64),
    ];
    let sizes = [n, k].map(|value| Argument::from(value as i32));
    let arguments = [&pointers.map(Argument::from)[..], &sizes, &[0u64.into(), 0u64.into()]].concat();
    let (counters, seconds) = timed(module, "q8gemv", config(2, 128, 1024), &arguments, &mut memory)?;
    if memory.undefined_bytes(pointers[3], 2 * n as u64).unwrap() > 0 {
        return Ok(Outcome { error: f64::INFINITY, counters, seconds });
    }
    let mut error = 0f64;
    for (row, bits) in download16(&memory, pointers[3], n).into_iter().enumerate() {
        let term =
            |at: usize| f64::from(w[row * k + at] as i8) * from_f16(scales[row * k / 32 + at / 32]) * from_f16(x[at]);
        let wanted: f64 = (0..k).map(term).sum();
        let relative = (from_f16(bits) - wanted).abs() / (wanted.abs() / 2048.0 + 1e-3);
        error = if relative <= error { error } else { relative };
    }
    Ok(Outcome { error: if error.is_nan() { f64::INFINITY } else { error }, counters, seconds })
}
