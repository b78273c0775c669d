//! What the tests share: random numbers, 16-bit floats, device buffers, and the Triton kernels with their references.

#![allow(dead_code, reason = "each test binary uses a part")]

use llmc_ptx_emulator::{Argument, Counters, LaunchConfig, LaunchError, Memory, Module, launch};

/// A small generator of random numbers.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }
}

/// The nearest bf16.
pub fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Random bf16 values in [-1, 1).
pub fn random_bf16(count: usize, random: &mut Random) -> Vec<u16> {
    (0..count).map(|_| bf16(random.unit())).collect()
}

/// Uploads 16-bit values.
pub fn upload16(memory: &mut Memory, values: &[u16]) -> u64 {
    upload(memory, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

pub fn upload32(memory: &mut Memory, values: &[u32]) -> u64 {
    upload(memory, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

pub fn upload(memory: &mut Memory, bytes: &[u8]) -> u64 {
    let address = memory.allocate(bytes.len() as u64);
    memory.write(address, bytes).unwrap();
    address
}

/// Downloads 16-bit values, all of which have to have been written.
pub fn download16(memory: &Memory, address: u64, count: usize) -> Vec<u16> {
    assert_eq!(memory.undefined_bytes(address, 2 * count as u64).unwrap(), 0, "outputs that nobody wrote");
    let bytes = memory.read(address, 2 * count as u64).unwrap();
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

pub fn download32(memory: &Memory, address: u64, count: usize) -> Vec<u32> {
    let bytes = memory.read(address, 4 * count as u64).unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A Triton kernel with a shape, inputs and a double-precision reference.
pub struct Case {
    pub kernel: &'static str,
    pub text: &'static str,
    pub run: fn(&Module) -> Result<Outcome, LaunchError>,
}

/// Largest error over the outputs, in units of what bf16 can resolve there plus the sums' own rounding; and the counts.
pub struct Outcome {
    pub error: f64,
    pub counters: Counters,
    /// Processor time of the launch.
    pub seconds: f64,
}

fn timed(
    module: &Module,
    kernel: &str,
    config: LaunchConfig,
    arguments: &[Argument],
    memory: &mut Memory,
) -> Result<(Counters, f64), LaunchError> {
    let start = processor_seconds();
    let counters = launch(module, kernel, config, arguments, memory)?;
    Ok((counters, processor_seconds() - start))
}

/// What this thread has used of a processor so far, which other load does not disturb; zero where the system does not tell.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

pub const CASES: [Case; 3] = [
    Case { kernel: "matmul", text: include_str!("../triton/matmul_128x128x32_w4_s4.sm80.ptx"), run: matmul },
    Case { kernel: "gemv", text: include_str!("../triton/gemv_bn4_bk1024_w4.sm80.ptx"), run: gemv },
    Case { kernel: "rmsnorm", text: include_str!("../triton/rmsnorm_4096_w8.sm80.ptx"), run: rmsnorm },
];

/// Warp instructions that no case comes near.
const LIMIT: u64 = 400_000;

fn config(grid: u32, block: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { instruction_limit: LIMIT, ..LaunchConfig::new([grid, 1, 1], [block, 1, 1], shared) }
}

/// The largest error relative to a tolerance of half a unit in the last place of bf16 plus `slack`.
fn worst(outputs: &[u16], reference: &[f64], slack: f64) -> f64 {
    let errors = outputs.iter().zip(reference).map(|(&output, &wanted)| {
        let error = (f64::from(from_bf16(output)) - wanted).abs();
        let relative = error / (wanted.abs() / 256.0 + slack);
        if relative.is_nan() { f64::INFINITY } else { relative }
    });
    errors.fold(0.0, f64::max)
}

/// Rows, columns, depth: edges in every direction, and more tiles of the depth than pipeline stages.
const MATMUL: (usize, usize, usize) = (208, 144, 240);

fn matmul(module: &Module) -> Result<Outcome, LaunchError> {
    matmul_shape(module, MATMUL)
}

pub fn matmul_shape(module: &Module, (m, n, k): (usize, usize, usize)) -> Result<Outcome, LaunchError> {
    let mut random = Random(1);
    let (a, b) = (random_bf16(m * k, &mut random), random_bf16(k * n, &mut random));
    let mut memory = Memory::new();
    let (a_at, b_at) = (upload16(&mut memory, &a), upload16(&mut memory, &b));
    let c_at = memory.allocate(2 * (m * n) as u64);
    let arguments: Vec<Argument> = [a_at, b_at, c_at]
        .map(Argument::from)
        .into_iter()
        .chain([m, n, k, k, n, n].map(|value| Argument::from(value as i32)))
        .chain([0u64, 0].map(Argument::from))
        .collect();
    let grid = (m.div_ceil(128) * n.div_ceil(128)) as u32;
    let config = LaunchConfig { instruction_limit: 50_000_000, ..config(grid, 128, 49152) };
    let config = if (m, n, k) == MATMUL { LaunchConfig { instruction_limit: LIMIT, ..config } } else { config };
    let (counters, seconds) = timed(module, "matmul", config, &arguments, &mut memory)?;
    let [a, b] = [a, b].map(|values| values.into_iter().map(|value| f64::from(from_bf16(value))).collect::<Vec<_>>());
    let reference: Vec<f64> =
        (0..m * n).map(|at| (0..k).map(|depth| a[at / n * k + depth] * b[depth * n + at % n]).sum()).collect();
    let error = if memory.undefined_bytes(c_at, 2 * (m * n) as u64).unwrap() > 0 {
        f64::INFINITY
    } else {
        worst(&download16(&memory, c_at, m * n), &reference, 1e-4)
    };
    Ok(Outcome { error, counters, seconds })
}

fn gemv(module: &Module) -> Result<Outcome, LaunchError> {
    // One row less than the grid covers, three steps of the loop.
    let (n, k) = (15, 3072);
    let mut random = Random(2);
    let (w, x) = (random_bf16(16 * k, &mut random), random_bf16(k, &mut random));
    let mut memory = Memory::new();
    let (w_at, x_at) = (upload16(&mut memory, &w), upload16(&mut memory, &x));
    let y_at = memory.allocate(2 * n as u64);
    let arguments = [
        w_at.into(),
        x_at.into(),
        y_at.into(),
        (n as i32).into(),
        (k as i32).into(),
        (k as i32).into(),
        0u64.into(),
        0u64.into(),
    ];
    let (counters, seconds) = timed(module, "gemv", config(4, 128, 64), &arguments, &mut memory)?;
    let dot = |row: usize| -> f64 {
        (0..k).map(|at| f64::from(from_bf16(w[row * k + at])) * f64::from(from_bf16(x[at]))).sum()
    };
    let reference: Vec<f64> = (0..n).map(dot).collect();
    if memory.undefined_bytes(y_at, 2 * n as u64).unwrap() > 0 {
        return Ok(Outcome { error: f64::INFINITY, counters, seconds });
    }
    Ok(Outcome { error: worst(&download16(&memory, y_at, n), &reference, 1e-4), counters, seconds })
}

fn rmsnorm(module: &Module) -> Result<Outcome, LaunchError> {
    // Ends inside of the second vector of some threads' half of the row.
    let (rows, n, stride) = (3, 3000, 3008);
    let mut random = Random(3);
    let (x, w) = (random_bf16(rows * stride, &mut random), random_bf16(stride, &mut random));
    let mut memory = Memory::new();
    let (x_at, w_at) = (upload16(&mut memory, &x), upload16(&mut memory, &w[..n]));
    let y_at = memory.allocate(2 * (rows * stride) as u64);
    let epsilon = 1e-5f32;
    let arguments = [
        x_at.into(),
        w_at.into(),
        y_at.into(),
        (stride as i32).into(),
        (n as i32).into(),
        epsilon.into(),
        0u64.into(),
        0u64.into(),
    ];
    let (counters, seconds) = timed(module, "rmsnorm", config(rows as u32, 256, 32), &arguments, &mut memory)?;
    let mut error = 0f64;
    for row in 0..rows {
        let value = |at: usize| f64::from(from_bf16(x[row * stride + at]));
        let scale =
            ((0..n).map(|at| value(at) * value(at)).sum::<f64>() / n as f64 + f64::from(epsilon)).sqrt().recip();
        let reference: Vec<f64> = (0..n).map(|at| value(at) * scale * f64::from(from_bf16(w[at]))).collect();
        let at = y_at + 2 * (row * stride) as u64;
        let padding = memory.undefined_bytes(at + 2 * n as u64, 2 * (stride - n) as u64).unwrap();
        if memory.undefined_bytes(at, 2 * n as u64).unwrap() > 0 || padding != 2 * (stride - n) as u64 {
            return Ok(Outcome { error: f64::INFINITY, counters, seconds });
        }
        error = error.max(worst(&download16(&memory, at, n), &reference, 1e-5));
    }
    Ok(Outcome { error, counters, seconds })
}
