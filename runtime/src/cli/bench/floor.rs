//! The floor under a test's time: what its steps must read and multiply, over what this machine reads and multiplies at
//! most. That is measured here and now, in the same rounds as the tests, because machines are shared and drift.

use super::Test;
use llmc_artifact::HostCode;
use llmc_ir::dim::Bindings;
use llmc_ir::dtype::DType;
use llmc_ir::plan::Plan;
use llmc_limits::{Hardware, Kernel, Limit, Line, available, buffer, shares, together};
use llmrt::executor::Executor;
use serde::Serialize;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Seconds that a measurement takes at least: the clock and the start of threads do not matter in them.
const SECONDS: f64 = 0.02;

/// Times that a buffer is read before, and again while the clock runs.
const WARM_PASSES: usize = 4;

/// Times that a loop of products runs: threads that have just started may share a CPU for a while.
const TRIALS: usize = 3;

/// What the machine did at most in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes per second, read by all threads.
    pub bytes: f64,
    /// Products of the model's type.
    pub products: Products,
    /// The fastest that products in block floating point can be.
    pub in_blocks: Products,
}

/// Products by the instructions that multiplied fastest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Products {
    /// Operations per second, all threads together.
    pub flops: f64,
    /// Which instructions those are.
    pub by: &'static str,
}

impl Products {
    const NONE: Products = Products { flops: 0.0, by: "nothing" };

    /// The faster of two.
    pub fn or(self, other: Products) -> Products {
        if other.flops > self.flops { other } else { self }
    }
}

/// How the machine is measured.
#[derive(Clone, Debug)]
pub struct Means {
    /// Bytes that are read.
    pub bytes: u64,
}

/// What is measured, by a thread of its own, which exists before steps bind threads to CPUs: threads that it starts may
/// run anywhere.
pub struct Surveyor {
    ask: Sender<()>,
    answers: Receiver<Rates>,
    means: Receiver<Means>,
}

impl Surveyor {
    /// Starts the thread. It measures a buffer of the size of the model's weights, or as much as half of what is free,
    /// and the instructions that the code for `target` may use.
    pub fn start(plan: &Plan, target: &HostCode, threads: usize) -> Surveyor {
        let weights = plan.programs.iter().map(|program| program.work.weight_bytes).max().unwrap_or(0);
        let free = Hardware::here().free_memory.map_or(u64::MAX, |bytes| bytes / 2);
        let bytes = weights.clamp(1, free.max(1));
        let features: Vec<String> = target.cpu_features.clone();
        let mut limits = vec![if plan.model.dtype == DType::F32 { Limit::F32Products } else { Limit::Bf16Products }];
        let has_blocks = plan.programs.iter().any(|program| program.work.block_float_flops_per_token > 0);
        limits.extend(has_blocks.then_some(Limit::BlockFloatProducts));
        let (ask, asked) = channel::<()>();
        let (answer, answers) = channel();
        let (tell, means) = channel();
        std::thread::spawn(move || {
            let (kernels, _) = available(&|feature| features.iter().any(|known| known.replace('_', "-") == feature));
            let mut survey = Survey::new(&kernels, &limits, bytes, threads);
            let _ = tell.send(survey.means());
            while asked.recv().is_ok() && answer.send(survey.measure()).is_ok() {}
        });
        Surveyor { ask, answers, means }
    }

    /// Measures once. `None`: the thread has died.
    pub fn rates(&self) -> Option<Rates> {
        self.ask.send(()).ok()?;
        self.answers.recv().ok()
    }

    /// How; to be asked once.
    pub fn means(&self) -> Option<Means> {
        self.means.recv().ok()
    }
}

/// What is measured on.
struct Survey {
    memory: Box<[Line]>,
    panels: Vec<Box<[Line]>>,
    reads: Vec<(Kernel, usize)>,
    products: Vec<(Kernel, usize)>,
}

impl Survey {
    fn new(kernels: &[Kernel], limits: &[Limit], bytes: u64, threads: usize) -> Survey {
        let panel = Hardware::here().first_level as u64 / 2;
        let panels = (0..threads).map(|_| buffer(panel, 1)).collect();
        let of = |limit: Limit| kernels.iter().filter(move |kernel| kernel.limit == limit).map(|&kernel| (kernel, 1));
        let reads = of(Limit::Reads).collect();
        let products = limits.iter().flat_map(|&limit| of(limit)).collect();
        let mut survey = Survey { memory: buffer(bytes, threads), panels, reads, products };
        survey.calibrate();
        survey
    }

    /// Finds out how often each loop has to run.
    fn calibrate(&mut self) {
        for index in 0..self.reads.len() {
            self.reads[index].1 = passes(|passes| self.read(index, passes).0);
        }
        for index in 0..self.products.len() {
            self.products[index].1 = passes(|passes| self.multiply(index, passes).0);
        }
    }

    fn means(&self) -> Means {
        Means { bytes: size_of_val(&*self.memory) as u64 }
    }

    fn measure(&mut self) -> Rates {
        // Decode reads the same weights step after step, so what caches keep of such a buffer counts: it is read before.
        let mut bytes: f64 = 0.0;
        for index in 0..self.reads.len() {
            let passes = WARM_PASSES.max(self.reads[index].1);
            self.read(index, passes);
            bytes = bytes.max(self.read(index, passes).1);
        }
        // All of them every time: one that others interrupted once must not stay out for good.
        let mut rates = Rates { bytes, products: Products::NONE, in_blocks: Products::NONE };
        for index in 0..self.products.len() {
            let (kernel, passes) = self.products[index];
            let trials = (0..TRIALS).map(|_| self.multiply(index, passes).1);
            let found = Products { flops: trials.fold(0.0, f64::max), by: kernel.name };
            if kernel.limit != Limit::BlockFloatProducts {
                rates.products = rates.products.or(found);
            }
            rates.in_blocks = rates.in_blocks.or(found);
        }
        rates
    }

    /// Seconds, and the rate.
    fn read(&mut self, index: usize, passes: usize) -> (f64, f64) {
        let (kernel, threads) = (self.reads[index].0, self.panels.len());
        rate(together(shares(&mut self.memory, threads), |share| kernel.run(share, passes)))
    }

    fn multiply(&mut self, index: usize, passes: usize) -> (f64, f64) {
        let kernel = self.products[index].0;
        rate(together(self.panels.iter_mut().collect(), |panel| kernel.run(panel, passes)))
    }
}

/// A clock may be coarse, and rates are divided by.
fn rate((seconds, done): (f64, f64)) -> (f64, f64) {
    (seconds, done / seconds.max(1e-9))
}

/// Repetitions that take [`SECONDS`].
fn passes(mut seconds: impl FnMut(usize) -> f64) -> usize {
    let mut passes = 1;
    loop {
        let missing = SECONDS / seconds(passes).max(1e-9);
        if missing <= 2.0 || passes >= 1 << 40 {
            return (passes as f64 * missing).ceil().max(1.0) as usize;
        }
        // A few repetitions say little about many.
        passes = (passes as f64 * missing.min(16.0) / 1.5).ceil() as usize;
    }
}

/// How fast a test could be, and what would keep it from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// What bounds most of its time.
    pub bound: Bound,
}

/// A limit of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Reading memory.
    Reads,
    /// Multiplying.
    Products,
}

impl Bound {
    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Reads => "reads",
            Bound::Products => "products",
        }
    }
}

/// The floor of a test: each of its steps takes as long as its bytes or its operations take, whichever is more.
pub fn floor(test: Test, executor: &Executor, rates: Rates) -> Floor {
    let mut seconds = [0.0, 0.0];
    let mut add = |sizes: Bindings, contexts: &[usize], positions: std::ops::Range<usize>| {
        let Some(work) = executor.work_for(&sizes) else { return };
        let reading = work.bytes(contexts.iter().copied()) / rates.bytes;
        let flops = match contexts.len() {
            1 => work.flops(positions, sizes.samples),
            _ => work.flops(contexts.iter().map(|context| context - 1), sizes.samples),
        };
        let in_blocks = (work.block_float_flops_per_token * sizes.tokens as u64) as f64;
        let multiplying = (flops - in_blocks) / rates.products.flops + in_blocks / rates.in_blocks.flops;
        seconds[usize::from(multiplying > reading)] += reading.max(multiplying);
    };
    match test {
        Test::Prefill { tokens } => {
            let chunk = executor.max_step_tokens();
            for start in (0..tokens).step_by(chunk.max(1)) {
                let end = (start + chunk).min(tokens);
                let samples = usize::from(end == tokens);
                add(Bindings { tokens: end - start, samples, sequences: 1, context: end }, &[end], start..end);
            }
        }
        Test::Decode { tokens, depth, batch } => {
            for position in depth..depth + tokens {
                let sizes = Bindings { tokens: batch, samples: batch, sequences: batch, context: position + 1 };
                add(sizes, &vec![position + 1; batch], position..position + 1);
            }
        }
    }
    let [reading, multiplying] = seconds;
    let bound = if multiplying > reading { Bound::Products } else { Bound::Reads };
    Floor { tokens_per_second: test.counted() as f64 / (reading + multiplying), bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_measures_what_it_says() {
        let (kernels, _) = available(&|_| false);
        let mut survey = Survey::new(&kernels, &[Limit::F32Products], 1 << 20, 2);
        assert_eq!(survey.means().bytes, 1 << 20);
        let rates = survey.measure();
        assert_eq!(rates.products, rates.in_blocks);
        let Products { flops, by } = rates.products;
        assert_eq!(by, "plain code");
        assert!(rates.bytes > 0.0 && flops > 0.0 && rates.bytes.is_finite() && flops.is_finite());
    }

    #[test]
    fn repetitions_grow_until_the_clock_does_not_matter() {
        assert!((1000..=1001).contains(&passes(|passes| passes as f64 * SECONDS / 1000.0)));
        assert_eq!(passes(|_| 1.0), 1);
    }
}
