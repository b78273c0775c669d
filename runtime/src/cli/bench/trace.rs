//! A recorded step for people: as events that Chrome and Perfetto draw, and as a table of where the time went.

use super::Test;
use llmc_ir::plan::{Goal, Launch, Operand, Plan, PlannedCall, Program, Search, StepInput};
use llmrt::device::Activity;
use llmrt::executor::{Executor, StepTrace};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Kernels that the table lists; the rest is one line.
const LISTED: usize = 12;

/// A step, and what its launches read.
pub struct TracedStep {
    name: String,
    program: String,
    trace: StepTrace,
    launches: Vec<LaunchFacts>,
}

/// One launch of the step.
struct LaunchFacts {
    kernel: String,
    /// Which call of the step it belongs to.
    call: usize,
    /// Bytes of weights and of the cache that it reads, all threads together.
    bytes: f64,
}

impl TracedStep {
    /// Of a test, whose sequences come to have those contexts in this step.
    pub fn new(test: Test, executor: &Executor, trace: StepTrace, contexts: &[usize]) -> Self {
        let plan = executor.plan();
        let program = &plan.programs[trace.program];
        let by_rounded = executor.greedy_goal(trace.program, contexts.len()) == Goal::Search;
        let search = program.search.as_ref().filter(|_| by_rounded);
        let launches = program.calls.iter().enumerate().flat_map(|(index, call)| {
            let launches = &program.functions[call.function].launches;
            launches.iter().enumerate().map(move |(number, launch)| {
                let is_searched = |search: &&Search| (search.function, search.launch) == (call.function, number);
                let rounded = search.filter(is_searched).and_then(|search| search.rounded);
                let rounded = rounded.and_then(|rounded| plan.weights.get(rounded.weight));
                let bytes = match rounded {
                    Some(weight) => weight.bytes as f64,
                    None => bytes(plan, program, call, launch, contexts),
                };
                LaunchFacts { kernel: launch.kernel.clone(), call: index, bytes }
            })
        });
        TracedStep { name: test.name(), program: program.name.clone(), launches: launches.collect(), trace }
    }

    /// Where the time went, as a table.
    pub fn summary(&self) -> String {
        let threads = self.trace.threads.len().max(1) as f64;
        let total = self.trace.seconds();
        let (mut by_kernel, mut waiting): (BTreeMap<&str, Total>, f64) = (BTreeMap::new(), 0.0);
        for launch in &self.launches {
            let kernel = by_kernel.entry(&launch.kernel).or_default();
            kernel.launches += 1;
            kernel.bytes += launch.bytes;
        }
        for span in self.trace.threads.iter().flatten() {
            let seconds = (span.end - span.start) / threads;
            match span.activity {
                Activity::Wait => waiting += seconds,
                Activity::Launch(launch) => {
                    if let Some(launch) = self.launches.get(launch) {
                        by_kernel.entry(&launch.kernel).or_default().seconds += seconds;
                    }
                }
            }
        }
        let mut kernels: Vec<(&str, Total)> = by_kernel.into_iter().collect();
        kernels.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        let mut rest = Total::default();
        for (_, kernel) in kernels.drain(LISTED.min(kernels.len())..) {
            rest.launches += kernel.launches;
            rest.seconds += kernel.seconds;
        }
        let line = |name: &str, launches: &str, seconds: f64, rate: &str| {
            let share = 100.0 * seconds / total.max(f64::MIN_POSITIVE);
            format!("  {name:<32} {launches:>8} {:>11.1} {share:>6.1} % {rate:>10}\n", 1e6 * seconds)
        };
        let mut text = format!(
            "{}: a step of {} took {:.3} ms\n  {:<32} {:>8} {:>11} {:>8} {:>10}\n",
            self.name,
            self.program,
            1e3 * total,
            "kernel",
            "launches",
            "us/thread",
            "share",
            "GB/s"
        );
        for (name, kernel) in &kernels {
            let rate = kernel.bytes / kernel.seconds.max(f64::MIN_POSITIVE) / 1e9;
            let rate = if kernel.bytes > 0.0 { format!("{rate:.1}") } else { String::new() };
            text += &line(name, &kernel.launches.to_string(), kernel.seconds, &rate);
        }
        if rest.launches > 0 {
            text += &line("(others)", &rest.launches.to_string(), rest.seconds, "");
        }
        text += &line("(waiting for other threads)", "", waiting, "");
        text += &format!("  calls of the system: {}\n", self.trace.system_calls);
        text
    }

    /// Its events; `process` tells it from other steps.
    fn events(&self, process: usize) -> impl Iterator<Item = Value> + '_ {
        let name = format!("{}: {} ({:.3} ms)", self.name, self.program, 1e3 * self.trace.seconds());
        let named = json!({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}});
        let spans = self.trace.threads.iter().enumerate().flat_map(move |(thread, spans)| {
            spans.iter().map(move |span| {
                let (name, arguments) = match span.activity {
                    Activity::Wait => ("wait", json!({})),
                    Activity::Launch(launch) => match self.launches.get(launch) {
                        Some(facts) => (
                            facts.kernel.as_str(),
                            json!({"launch": launch, "call": facts.call, "bytes of all threads": facts.bytes}),
                        ),
                        None => ("unknown", json!({"launch": launch})),
                    },
                };
                let (start, length) = (1e6 * span.start, 1e6 * (span.end - span.start));
                json!({
                    "ph": "X", "name": name, "cat": if name == "wait" { "wait" } else { "kernel" }, "pid": process,
                    "tid": thread, "ts": start, "dur": length, "args": arguments,
                })
            })
        });
        std::iter::once(named).chain(spans)
    }
}

#[derive(Default)]
struct Total {
    launches: usize,
    /// Of a thread, on average.
    seconds: f64,
    bytes: f64,
}

/// What a launch reads of weights and of the cache. Where token ids are looked up, the table does not count.
fn bytes(plan: &Plan, program: &Program, call: &PlannedCall, launch: &Launch, contexts: &[usize]) -> f64 {
    let looks_up = launch.inputs.contains(&Operand::Step { input: StepInput::TokenIds });
    let weights = launch.inputs.iter().filter_map(|operand| match operand {
        Operand::Weight { slot } if !looks_up => {
            plan.weights.get(*call.weights.get(*slot)?).map(|weight| weight.bytes as f64)
        }
        _ => None,
    });
    let reads_cache = launch.inputs.contains(&Operand::Kv) && !launch.outputs.contains(&Operand::Kv);
    let layers = plan.kv.layers.max(1) as f64;
    let cache = (program.work.bytes(contexts.iter().copied()) - program.work.weight_bytes as f64) / layers;
    weights.sum::<f64>() + if reads_cache { cache } else { 0.0 }
}

/// The file: an object in Chrome's trace event format, a process per step.
pub fn chrome(steps: &[TracedStep]) -> Value {
    let events: Vec<Value> = steps.iter().enumerate().flat_map(|(index, step)| step.events(index + 1)).collect();
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}
