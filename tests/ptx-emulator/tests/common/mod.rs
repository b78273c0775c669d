//! What the tests share: random numbers, 16-bit floats, device buffers, and the Triton kernels with their references.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod attention;

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

fn config(grid: u32, block: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { instruction_limit: LIMIT, ..LaunchConfig::new([grid, 1, 1], [block, 1, 1], shared) }
}

/// Warp instructions that no case comes near.
const LIMIT: u64 = 1_000_000;

/// The largest error relative to a tolerance of half a unit in the last place of bf16 plus `slack`.
fn worst(outputs: &[u16], reference: &[f64], slack: f64) -> f64 {
    let errors = outputs.iter().zip(reference).map(|(&output, &wanted)| {
        let error = (f64::from(from_bf16(output)) - wanted).abs();
        let relative = error / (wanted.abs() / 256.0 + slack);
        if relative.is_nan() { f64::INFINITY } else { relative }
    });
    errors.fold(0.0, f64::max)
}

/// The last launch's counts with the largest error of all.
fn over_shapes<S>(
    shapes: impl IntoIterator<Item = S>,
    run: impl Fn(S) -> Result<Outcome, LaunchError>,
) -> Result<Outcome, LaunchError> {
    let mut all: Option<Outcome> = None;
    for shape in shapes {
        let outcome = run(shape)?;
        if outcome.error >= 1.0 {
            return Ok(outcome);
        }
        all = Some(Outcome { error: outcome.error.max(all.map_or(0.0, |before| before.error)), ..outcome });
    }
    Ok(all.expect("a shape"))
}

/// A bf16 NaN: what lies between the rows of a matrix, where nothing should look.
const PADDING: u16 = 0x7fc0;

/// Random rows of `width` with padding up to `stride`.
fn padded(rows: usize, width: usize, stride: usize, random: &mut Random) -> Vec<u16> {
    (0..rows * stride).map(|at| if at % stride < width { bf16(random.unit()) } else { PADDING }).collect()
}

fn matmul(module: &Module) -> Result<Outcome, LaunchError> {
    // All extents are multiples of 16, which the kernel was specialised for. Fewer steps of k than stages of the pipeline, as many,
    // and more; every edge of the rows that the stores guard; tiles in several rows and groups of rows; all of it at once.
    let depths = [(16, 48), (16, 64), (32, 80), (48, 96), (16, 112)].map(|(m, k)| (m, 16, k));
    let rows = (1..=8).map(|sixteenths| (16 * sixteenths, 16, 16));
    let large = [(256, 144, 16), (1168, 128, 16), (1168, 144, 16), (208, 144, 240)];
    over_shapes(depths.into_iter().chain(rows).chain(large), |shape| matmul_shape(module, shape))
}

pub fn matmul_shape(module: &Module, (m, n, k): (usize, usize, usize)) -> Result<Outcome, LaunchError> {
    let mut random = Random((m + n + k) as u64);
    let (a_stride, b_stride) = if m * n * k < 10_000_000 { (k + 16, n + 16) } else { (k, n) };
    let (a, b) = (padded(m, k, a_stride, &mut random), padded(k, n, b_stride, &mut random));
    let mut memory = Memory::new();
    let (a_at, b_at) = (upload16(&mut memory, &a), upload16(&mut memory, &b));
    let c_at = memory.allocate(2 * (m * n) as u64);
    let arguments: Vec<Argument> = [a_at, b_at, c_at]
        .map(Argument::from)
        .into_iter()
        .chain([m, n, k, a_stride, b_stride, n].map(|value| Argument::from(value as i32)))
        .chain([0u64, 0].map(Argument::from))
        .collect();
    let grid = (m.div_ceil(128) * n.div_ceil(128)) as u32;
    let (counters, seconds) = timed(module, "matmul", config(grid, 128, 49152), &arguments, &mut memory)?;
    if memory.undefined_bytes(c_at, 2 * (m * n) as u64).unwrap() > 0 {
        return Ok(Outcome { error: f64::INFINITY, counters, seconds });
    }
    let [a, b] = [a, b].map(|values| values.into_iter().map(|value| f64::from(from_bf16(value))).collect::<Vec<_>>());
    let mut reference = vec![0.0; m * n];
    for row in 0..m {
        for depth in 0..k {
            let left = a[row * a_stride + depth];
            for column in 0..n {
                reference[row * n + column] += left * b[depth * b_stride + column];
            }
        }
    }
    Ok(Outcome { error: worst(&download16(&memory, c_at, m * n), &reference, 1e-4), counters, seconds })
}

fn gemv(module: &Module) -> Result<Outcome, LaunchError> {
    // One row less than the grid covers, one and three steps of the loop.
    over_shapes([(3, 1024), (15, 3072)], |shape| gemv_shape(module, shape))
}

fn gemv_shape(module: &Module, (n, k): (usize, usize)) -> Result<Outcome, LaunchError> {
    let mut random = Random(2);
    let (w, x) = (random_bf16(n.next_multiple_of(4) * k, &mut random), random_bf16(k, &mut random));
    let mut memory = Memory::new();
    let (w_at, x_at) = (upload16(&mut memory, &w), upload16(&mut memory, &x));
    let y_at = memory.allocate(2 * n as u64);
    let sizes = [n, k, k].map(|value| Argument::from(value as i32));
    let pointers = [w_at, x_at, y_at].map(Argument::from);
    let arguments = [&pointers[..], &sizes[..], &[0u64.into(), 0u64.into()]].concat();
    let grid = n.div_ceil(4) as u32;
    let (counters, seconds) = timed(module, "gemv", config(grid, 128, 64), &arguments, &mut memory)?;
    if memory.undefined_bytes(y_at, 2 * n as u64).unwrap() > 0 {
        return Ok(Outcome { error: f64::INFINITY, counters, seconds });
    }
    let dot = |row: usize| -> f64 {
        (0..k).map(|at| f64::from(from_bf16(w[row * k + at])) * f64::from(from_bf16(x[at]))).sum()
    };
    let reference: Vec<f64> = (0..n).map(dot).collect();
    Ok(Outcome { error: worst(&download16(&memory, y_at, n), &reference, 1e-4), counters, seconds })
}

fn rmsnorm(module: &Module) -> Result<Outcome, LaunchError> {
    // The row ends in the first and in the second half of what a block covers.
    over_shapes([(2, 1000), (3, 3000)], |shape| rmsnorm_shape(module, shape))
}

fn rmsnorm_shape(module: &Module, (rows, n): (usize, usize)) -> Result<Outcome, LaunchError> {
    let stride = n + 8;
    let mut random = Random(3);
    let (x, w) = (padded(rows, n, stride, &mut random), random_bf16(n, &mut random));
    let mut memory = Memory::new();
    let (x_at, w_at) = (upload16(&mut memory, &x), upload16(&mut memory, &w));
    let y_at = memory.allocate(2 * (rows * stride) as u64);
    let epsilon = 1e-5f32;
    let pointers = [x_at, w_at, y_at].map(Argument::from);
    let sizes = [stride, n].map(|value| Argument::from(value as i32));
    let arguments = [&pointers[..], &sizes[..], &[epsilon.into(), 0u64.into(), 0u64.into()]].concat();
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
