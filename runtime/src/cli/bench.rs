//! `llmrt bench`: tokens per second of prefill and decode, in the style of llama-bench.

mod floor;
mod measure;
mod report;
mod trace;

use super::load;
use super::options::ModelFlags;
use clap::Args;
use floor::{Rates, Surveyor};
use llmc_artifact::{Artifact, check_writable, write_file};
use llmc_console::{CliError, output};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, ModelFacts};
use llmrt::device::host::WeightPlace;
use llmrt::executor::Executor;
use measure::Bench;
use report::{Facts, MachineFacts, Outcome};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use trace::TracedStep;

/// Measure prefill and decode speed.
///
/// Prefill reads that many random tokens into an empty context. Decode takes that many greedy steps
/// after each depth and for each batch size, on random tokens too; its rate counts the tokens of all
/// sequences. Warm-up is not counted, and the repetitions of all tests take turns, so that a slow
/// moment hits all.
///
/// On the CPU each result stands beside its floor: what its steps must read (weights once, keys and values) and multiply,
/// over what the machine reads from a buffer of that size and multiplies at most, measured in the same rounds.
///
/// With --trace, one step of each test is run again and recorded, and where its time went is said on stderr.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  llmrt bench model.llmc -p 512,2048 -n 128 --depth 0,1024 --batch 1,8 -r 5
  llmrt bench model.llmc -n 16 --depth 1024 --trace trace.json")]
pub struct BenchArguments {
    #[command(flatten)]
    model: ModelFlags,
    /// Prefill lengths; 0 leaves prefill out
    #[arg(short = 'p', value_name = "TOKENS", value_delimiter = ',', default_value = "512")]
    prompt: Vec<usize>,
    /// Tokens to decode; 0 leaves decode out
    #[arg(short = 'n', value_name = "TOKENS", value_delimiter = ',', default_value = "128")]
    generate: Vec<usize>,
    /// Tokens in the context before decoding starts
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "SEQUENCES", value_delimiter = ',', default_value = "1")]
    batch: Vec<NonZeroUsize>,
    /// Repetitions
    #[arg(short = 'r', value_name = "N", default_value = "5")]
    repetitions: NonZeroUsize,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Write what each thread does in one step of each test to this file, for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Reading a prompt.
    Prefill {
        /// Its length.
        tokens: usize,
    },
    /// Generating.
    Decode {
        /// Tokens per sequence.
        tokens: usize,
        /// Tokens before them.
        depth: usize,
        /// Sequences.
        batch: usize,
    },
}

impl Test {
    /// A name like llama-bench's: `pp512`, `tg128`, `tg128 @ d1024 x 8`.
    fn name(self) -> String {
        match self {
            Test::Prefill { tokens } => format!("pp{tokens}"),
            Test::Decode { tokens, depth, batch } => {
                let depth = if depth > 0 { format!(" @ d{depth}") } else { String::new() };
                let batch = if batch > 1 { format!(" x {batch}") } else { String::new() };
                format!("tg{tokens}{depth}{batch}")
            }
        }
    }

    /// Sequences that take part.
    fn sequences(self) -> usize {
        match self {
            Test::Prefill { .. } => 1,
            Test::Decode { batch, .. } => batch,
        }
    }

    /// Positions that each sequence comes to have.
    fn positions(self) -> usize {
        match self {
            Test::Prefill { tokens } => tokens,
            Test::Decode { tokens, depth, .. } => depth.saturating_add(tokens),
        }
    }

    /// Tokens that the rate counts.
    fn counted(self) -> usize {
        match self {
            Test::Prefill { tokens } => tokens,
            Test::Decode { tokens, batch, .. } => tokens.saturating_mul(batch),
        }
    }

    /// What limits of the model the test exceeds.
    fn check(self, model: &ModelFacts) -> Result<(), CliError> {
        let exceeds = |what: &str, has: usize, limit: usize| {
            Err(CliError::Usage(format!("test {} takes {has} {what}, but the model allows {limit}", self.name())))
        };
        if self.positions() > model.max_context {
            return exceeds("positions", self.positions(), model.max_context);
        }
        if self.sequences() > model.max_batch {
            return exceeds("sequences at once", self.sequences(), model.max_batch);
        }
        Ok(())
    }
}

/// Runs the command.
pub fn bench(arguments: &BenchArguments) -> Result<(), CliError> {
    let tests = tests(arguments);
    if tests.is_empty() {
        return Err(CliError::usage("nothing to measure: -p and -n are both 0"));
    }
    if let Some(path) = &arguments.trace {
        check_writable(path).map_err(CliError::failure)?;
    }
    let artifact = load::open_artifact(&arguments.model)?;
    let model = &artifact.manifest().plan.model;
    tests.iter().try_for_each(|test| test.check(model))?;
    let sequences = tests.iter().map(|test| test.sequences()).max().unwrap_or(1);
    let blocks = tests.iter().map(|test| test.positions().div_ceil(KV_BLOCK_POSITIONS)).max().unwrap_or(1);
    // Memory is taken only where it is used; an executor wants room for one full context.
    let room = (sequences * blocks).max(load::one_context(&artifact.manifest().plan));
    let executor = load::executor(&artifact, &arguments.model, WeightPlace::Auto, room)?;
    let facts = Facts::new(&artifact, &executor);
    // Before the first step, which binds this thread to a CPU.
    let surveyor = surveyor(&artifact, &executor);
    // And when it is ready, so that steps do not disturb it.
    let means = surveyor.as_ref().and_then(Surveyor::means);
    let mut bench = Bench::new(executor, sequences, blocks);
    let repetitions = arguments.repetitions.get();
    let bar = output::progress(((repetitions + 1) * tests.len()) as u64, "{msg} {pos}/{len} {wide_bar} {eta}");
    for &test in &tests {
        bar.set_message(format!("warm-up {}", test.name()));
        bench.warm_up(test)?;
        bar.inc(1);
    }
    let mut outcomes: Vec<Outcome> =
        tests.iter().map(|&test| Outcome { test, values: Vec::new(), floor: None }).collect();
    let mut rates: Vec<Rates> = Vec::new();
    for _ in 0..repetitions {
        rates.extend(surveyor.as_ref().and_then(Surveyor::rates));
        for outcome in &mut outcomes {
            bar.set_message(outcome.test.name());
            outcome.values.push(bench.rate(outcome.test)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let machine = means.filter(|_| !rates.is_empty()).map(|means| MachineFacts::new(means, &rates));
    for outcome in &mut outcomes {
        outcome.floor = machine.as_ref().map(|machine| floor::floor(outcome.test, bench.executor(), machine.rates));
    }
    if let Some(path) = &arguments.trace {
        trace(path, &tests, &mut bench)?;
    }
    match arguments.json {
        true => output::print_json(&report::rows(&facts, machine.as_ref(), &outcomes)),
        false => output::print(&report::table(&facts, machine.as_ref(), &outcomes)),
    }
}

/// Writes a step of each test to a file, and says on stderr where their time went.
fn trace(path: &Path, tests: &[Test], bench: &mut Bench) -> Result<(), CliError> {
    let mut steps = Vec::new();
    for &test in tests {
        let Some((trace, sizes)) = bench.trace(test)? else {
            return Err(CliError::usage("--trace needs steps that run on the CPU: give --device host"));
        };
        steps.push(TracedStep::new(test, bench.executor(), trace, &sizes));
    }
    write_file(path, trace::chrome(&steps).to_string().as_bytes()).map_err(CliError::failure)?;
    for step in &steps {
        output::note(&step.summary());
    }
    output::note(&format!("{}: open it with chrome://tracing or ui.perfetto.dev", path.display()));
    Ok(())
}

/// Who measures the machine; `None`: steps run on a GPU, whose limits are not measured.
fn surveyor(artifact: &Artifact, executor: &Executor) -> Option<Surveyor> {
    let manifest = artifact.manifest();
    let target = manifest.targets.iter().find(|target| target.name == executor.target())?;
    Some(Surveyor::start(&manifest.plan, target, executor.threads()?))
}

fn tests(arguments: &BenchArguments) -> Vec<Test> {
    let prefill = arguments.prompt.iter().map(|&tokens| Test::Prefill { tokens });
    let decode = arguments.depth.iter().flat_map(|&depth| {
        arguments.batch.iter().flat_map(move |batch| {
            arguments.generate.iter().map(move |&tokens| Test::Decode { tokens, depth, batch: batch.get() })
        })
    });
    prefill.chain(decode).filter(|test| test.counted() > 0).collect()
}
