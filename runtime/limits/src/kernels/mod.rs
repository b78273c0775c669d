//! What is measured: loops of a few instructions over a buffer, by what they need of the CPU.
//!
//! They are written in assembly, so that a rate is that of the instructions and not of a compiler's profile.

#[macro_use]
mod over_lines;
mod amx;
mod avx2;
mod avx512;
mod portable;

pub use amx::TILES;
use serde::Serialize;

/// A cache line. Buffers consist of them, so that every vector load is aligned.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub [f32; 16]);

impl Line {
    /// Both the f32 and the pairs of bf16 that it holds are about a half: nothing that loops compute with it is
    /// denormal, infinite or not a number.
    pub const FILLED: Line = Line([f32::from_bits(0x3f01_3f03); 16]);
}

/// What loops compute with beside the buffer.
static OWN: Line = Line::FILLED;

/// What of a machine a loop comes up against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Reading memory: bytes per second.
    Reads,
    /// Products of f32 matrices: operations per second, a multiply-add being two.
    F32Products,
    /// Products of bf16 matrices with sums in f32.
    Bf16Products,
    /// Products of bf16 matrices in block floating point, of integers of 16 bits: those alone, without making them of bf16 or
    /// making f32 of their sums.
    BlockFloatProducts,
    /// Products of 8-bit integer matrices with 32-bit sums.
    Int8Products,
    /// Multiplications, additions and comparisons of f32, element by element.
    Elementwise,
    /// All threads waiting for each other: seconds.
    Barrier,
}

impl Limit {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Reads => "reads",
            Limit::F32Products => "f32 products",
            Limit::Bf16Products => "bf16 products",
            Limit::BlockFloatProducts => "block float products",
            Limit::Int8Products => "int8 products",
            Limit::Elementwise => "elementwise",
            Limit::Barrier => "barrier",
        }
    }
}

/// A loop that this CPU can run; [`available`] is where they come from.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What it measures.
    pub limit: Limit,
    /// The instructions that it is made of.
    pub name: &'static str,
    /// Features that the CPU must have, as LLVM names them.
    needs: &'static [&'static str],
    /// Lines that one turn of the loop takes.
    step: usize,
    /// Bytes read or operations done per line.
    work: f64,
    /// Goes over the lines so many times.
    run: unsafe fn(lines: &mut [Line], passes: usize),
}

impl Kernel {
    /// Goes over `lines` so many times, and returns the bytes read or operations done. What fills no whole turn of the
    /// loop is left out.
    pub fn run(&self, lines: &mut [Line], passes: usize) -> f64 {
        let whole = lines.len() - lines.len() % self.step;
        if whole == 0 || passes == 0 {
            return 0.0;
        }
        // SAFETY: kernels are handed out only where the CPU has the features that they need and the kernel permits their
        // registers; both counts are positive, and the lines are whole turns of the loop.
        unsafe { (self.run)(&mut lines[..whole], passes) };
        self.work * whole as f64 * passes as f64
    }
}

/// The kernels that this machine's CPU can run, which has all the features, named as LLVM does, that `has` says yes to;
/// and why others are not among them, a sentence each.
pub fn available(has: &dyn Fn(&str) -> bool) -> (Vec<Kernel>, Vec<String>) {
    let has = |feature: &&str| has(feature);
    let mut kernels = portable::KERNELS.to_vec();
    let mut skipped = Vec::new();
    for (unit, of_unit) in [("AVX2", avx2::KERNELS), ("AVX-512", avx512::KERNELS), ("AMX", amx::KERNELS)] {
        let (can_run, cannot): (Vec<Kernel>, Vec<Kernel>) =
            of_unit.iter().partition(|kernel| kernel.needs.iter().all(has));
        let mut missing: Vec<&str> = cannot.iter().flat_map(|kernel| kernel.needs).copied().collect();
        missing.retain(|feature| !has(feature));
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            skipped.push(format!("{unit}: this CPU has no {}", missing.join(", ")));
        }
        match unit {
            "AMX" if !can_run.is_empty() => match amx::ask_for_tiles() {
                Ok(()) => kernels.extend(can_run),
                Err(error) => skipped.push(format!("AMX: the system does not permit its registers: {error}")),
            },
            _ => kernels.extend(can_run),
        }
    }
    // The plain loops are for CPUs that have nothing better.
    let better = |kernel: &Kernel| kernels.iter().any(|other| other.limit == kernel.limit && !other.needs.is_empty());
    let kernels = kernels.iter().filter(|kernel| !kernel.needs.is_empty() || !better(kernel)).copied().collect();
    (kernels, skipped)
}
