//! `llmc calibrate`: what this machine can do at most, measured, for the cost model.
//!
//! | file | idea |
//! |---|---|
//! | [`llmc_limits`] | loops of a few instructions, and threads that run them together |
//! | `describe` | measurements become a [`Machine`](llmc_ir::machine::Machine) |
//!
//! Every round measures everything once, so that a slow moment of the machine hits all alike; medians of rounds count.

mod describe;

pub use describe::describe;
pub use llmc_limits::{Hardware, Limit};

use llmc_codegen::host::HostTarget;
use llmc_limits::{Kernel, Line, Meeting, available, buffer, median, shares, together};
use serde::Serialize;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Times that everything is measured.
    pub rounds: usize,
    /// Seconds that a measurement takes at least.
    pub seconds: f64,
    /// Bytes of the buffer that is read as memory; `None`: several times as many as the largest cache has.
    pub memory_bytes: Option<u64>,
    /// Bytes of a model's weights, whose reading is then what counts.
    pub model_bytes: Option<u64>,
}

/// Seconds of a measurement that the clock and the start of threads do not matter in.
pub const SECONDS: f64 = 0.01;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The CPU as it calls itself.
    pub cpu: String,
    /// The CPU as `--target` knows it.
    pub target: String,
    /// Threads that share the machine.
    pub threads: usize,
    /// Everything, in the order in which it was measured.
    pub measurements: Vec<Measurement>,
    /// What could not be measured, a sentence each.
    pub skipped: Vec<String>,
}

/// One thing, measured in every round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// What it comes up against.
    pub limit: Limit,
    /// By which means.
    pub how: &'static str,
    /// Where operands come from.
    pub place: Place,
    /// Bytes of operands, of all threads together.
    pub bytes: u64,
    /// Threads.
    pub threads: usize,
    /// The middle of `values`.
    pub median: f64,
    /// Per second of all threads together, or seconds of a barrier; one of each round.
    pub values: Vec<f64>,
}

impl Measurement {
    /// Whether most rounds did worse than the best one by a quarter and more: something else had the machine.
    pub fn is_disturbed(&self) -> bool {
        let best = match self.limit {
            Limit::Barrier => self.values.iter().map(|seconds| 1.0 / seconds).fold(0.0, f64::max) * self.median,
            Limit::Reads
            | Limit::F32Products
            | Limit::Bf16Products
            | Limit::BlockFloatProducts
            | Limit::Int8Products
            | Limit::Elementwise => self.values.iter().copied().fold(0.0, f64::max) / self.median,
        };
        best >= 1.25
    }
}

/// Where operands come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Each core's first-level cache.
    FirstLevel,
    /// Each core's second-level cache.
    SecondLevel,
    /// Memory, or what cache a model of the given size finds itself in.
    Memory,
    /// There are none.
    Nowhere,
}

/// Why nothing was measured.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrateError {
    /// Buffers do not fit.
    #[error("reading {bytes} bytes takes as much memory, but only {free} bytes are free; give --bytes a smaller size")]
    Memory {
        /// What is needed.
        bytes: u64,
        /// What there is.
        free: u64,
    },
    /// Nobody wants the result any more.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// Measures. `progress` hears how many measurements are done and how many there will be; as soon as it returns `false`,
/// that is the end.
///
/// # Errors
/// If there is not enough memory, or `progress` said so.
pub fn calibrate(
    hardware: &Hardware,
    effort: &Effort,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Calibration, CalibrateError> {
    let sizes = buffer_sizes(hardware, effort)?;
    let native = HostTarget::named("native").ok();
    let (kernels, skipped) = available(&|feature| native.as_ref().is_some_and(|native| native.has(feature)));
    let buffers = sizes.iter().map(|&bytes| buffer(bytes, hardware.threads)).collect();
    let panels = (0..hardware.threads).map(|_| buffer(hardware.second_level as u64 / 2, 1)).collect();
    let mut bench = Bench { buffers, panels };
    let mut tasks = tasks(hardware, &kernels, sizes.len());
    let rounds = effort.rounds.max(1);
    let total = (tasks.len() * (rounds + 1)) as u64;
    let mut done = 0;
    let mut going_on = || {
        done += 1;
        if progress(done, total) { Ok(()) } else { Err(CalibrateError::Interrupted) }
    };
    for task in &mut tasks {
        task.passes = bench.passes(task, effort.seconds);
        going_on()?;
    }
    let mut values = vec![Vec::new(); tasks.len()];
    for _ in 0..rounds {
        for (task, values) in tasks.iter().zip(&mut values) {
            values.push(bench.measure(task));
            going_on()?;
        }
    }
    let measurements = tasks.iter().zip(values).map(|(task, values)| bench.measurement(task, values)).collect();
    let target = native.map_or_else(|| "native".to_owned(), |native| native.name);
    Ok(Calibration { cpu: hardware.cpu.clone(), target, threads: hardware.threads, measurements, skipped })
}

/// The least that is read as memory, and how many times the largest cache that is.
const LEAST_MEMORY: u64 = 512 << 20;
const CACHES_OF_MEMORY: u64 = 4;

/// Bytes of each buffer to read: the model's, if that is given, and one that fits no cache.
fn buffer_sizes(hardware: &Hardware, effort: &Effort) -> Result<Vec<u64>, CalibrateError> {
    let free = hardware.free_memory.unwrap_or(u64::MAX);
    let large = (CACHES_OF_MEMORY * hardware.largest_cache as u64).max(LEAST_MEMORY).min(free / 2);
    let mut sizes = vec![effort.memory_bytes.unwrap_or(large)];
    match effort.model_bytes {
        Some(bytes) if bytes < sizes[0] => sizes.insert(0, bytes),
        Some(bytes) => sizes = vec![bytes],
        None => {}
    }
    match sizes.iter().fold(0, |sum: u64, &bytes| sum.saturating_add(bytes)) {
        // Something is left for everyone else.
        bytes if bytes > free / 10 * 9 => Err(CalibrateError::Memory { bytes, free }),
        _ => Ok(sizes),
    }
}

/// What is measured at once.
#[derive(Clone, Copy, Debug)]
struct Task {
    work: Work,
    threads: usize,
    /// Repetitions of it.
    passes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Each thread goes over so many lines of its own panel.
    Panel(Kernel, Place, usize),
    /// All threads together go over a buffer.
    Buffer(Kernel, usize),
    /// All threads meet.
    Meet,
}

fn tasks(hardware: &Hardware, kernels: &[Kernel], buffers: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let all = hardware.threads;
    for buffer in 0..buffers {
        for threads in some_threads(all) {
            let reads = kernels.iter().filter(|kernel| kernel.limit == Limit::Reads);
            tasks.extend(reads.map(|&kernel| Task { work: Work::Buffer(kernel, buffer), threads, passes: 1 }));
        }
    }
    for &kernel in kernels.iter().filter(|kernel| kernel.limit != Limit::Reads) {
        // Half of a cache, so that nothing else in it matters.
        let places = [(Place::FirstLevel, hardware.first_level), (Place::SecondLevel, hardware.second_level)];
        tasks.extend(places.map(|(place, bytes)| {
            let work = Work::Panel(kernel, place, bytes / 2 / size_of::<Line>());
            Task { work, threads: all, passes: 1 }
        }));
    }
    tasks.push(Task { work: Work::Meet, threads: all, passes: 1 });
    tasks
}

/// 1, 2, 4 and so on, and all.
fn some_threads(all: usize) -> Vec<usize> {
    let mut some: Vec<usize> = (0..).map(|power| 1 << power).take_while(|&threads| threads < all).collect();
    some.push(all);
    some
}

/// What is measured on.
struct Bench {
    /// Memory to read.
    buffers: Vec<Box<[Line]>>,
    /// Each thread's half of a second-level cache.
    panels: Vec<Box<[Line]>>,
}

/// Runs that tell how long some work takes.
const TRIALS: usize = 3;

impl Bench {
    /// Seconds, and what was done in them.
    fn run(&mut self, task: &Task) -> (f64, f64) {
        let Task { work, threads, passes } = *task;
        match work {
            Work::Panel(kernel, _, lines) => {
                let panels = self.panels.iter_mut().take(threads);
                let panels = panels.map(|panel| {
                    let lines = lines.min(panel.len());
                    &mut panel[..lines]
                });
                together(panels.collect(), |panel| kernel.run(panel, passes))
            }
            Work::Buffer(kernel, buffer) => {
                together(shares(&mut self.buffers[buffer], threads), |share| kernel.run(share, passes))
            }
            Work::Meet => {
                let meeting = Meeting::new(threads);
                together((0..threads).collect(), |thread| {
                    (0..passes).for_each(|_| meeting.meet(thread));
                    0.0
                })
            }
        }
    }

    /// Repetitions that take long enough.
    fn passes(&mut self, task: &Task, seconds: f64) -> usize {
        let mut passes = 1;
        loop {
            // The fastest of a few: one that others interrupted would pass for long work.
            let runs = (0..TRIALS).map(|_| self.run(&Task { passes, ..*task }).0);
            let taken = runs.fold(f64::INFINITY, f64::min);
            let missing = seconds / taken.max(1e-9);
            if missing <= 4.0 || passes >= 1 << 40 {
                return (passes as f64 * missing).ceil().max(1.0) as usize;
            }
            // A few repetitions say little about many.
            passes = (passes as f64 * missing.min(16.0) / 2.0).ceil() as usize;
        }
    }

    fn measure(&mut self, task: &Task) -> f64 {
        let (seconds, done) = self.run(task);
        // A clock may be coarse, and rates are divided by.
        let seconds = seconds.max(1e-9);
        match task.work {
            Work::Meet => seconds / task.passes as f64,
            Work::Panel(..) | Work::Buffer(..) => done / seconds,
        }
    }

    fn measurement(&self, task: &Task, values: Vec<f64>) -> Measurement {
        let bytes = |lines: usize| (lines * size_of::<Line>()) as u64;
        let (limit, how, place, bytes) = match task.work {
            Work::Panel(kernel, place, lines) => (kernel.limit, kernel.name, place, task.threads as u64 * bytes(lines)),
            Work::Buffer(kernel, buffer) => {
                (kernel.limit, kernel.name, Place::Memory, bytes(self.buffers[buffer].len()))
            }
            Work::Meet => (Limit::Barrier, "spinning", Place::Nowhere, 0),
        };
        Measurement { limit, how, place, bytes, threads: task.threads, median: median(&values), values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbances_show_in_most_rounds() {
        let is_disturbed = |limit: Limit, values: [f64; 4]| {
            let (how, place) = ("", Place::Nowhere);
            let median = median(&values);
            Measurement { limit, how, place, bytes: 0, threads: 1, median, values: values.to_vec() }.is_disturbed()
        };
        assert!(!is_disturbed(Limit::Reads, [10.0, 9.0, 9.5, 1.0]));
        assert!(is_disturbed(Limit::Reads, [10.0, 7.0, 7.5, 8.5]));
        assert!(!is_disturbed(Limit::Barrier, [1e-7, 1.1e-7, 1.2e-7, 9e-5]));
        assert!(is_disturbed(Limit::Barrier, [1e-7, 2e-7, 1.1e-7, 9e-5]));
    }
}
