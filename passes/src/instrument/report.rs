//! Time and size of everything that ran. Every moment of a run belongs to exactly one entry, so that times add
//! up to the wall clock.

use crate::pass::{Pass, State};
use crate::phase::Phase;
use llmc_ir::graph::Graph;
use llmc_ir::op::Op;
use std::fmt;
use std::time::{Duration, Instant};

/// What a run of the pipeline did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Size of the input.
    pub input: Statistics,
    /// Time that instruments took before the first pass.
    pub before: Duration,
    /// The passes in the order they ran.
    pub passes: Vec<PassReport>,
    /// What passes found that people should know, a sentence each.
    pub notes: Vec<String>,
}

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassReport {
    /// The pass.
    pub name: &'static str,
    /// The phase that it is part of.
    pub phase: Phase,
    /// Time in the pass itself.
    pub time: Duration,
    /// Time that instruments took to look at its result.
    pub instruments: Duration,
    /// Size of what it received.
    pub before: Statistics,
    /// Size of what it made.
    pub after: Statistics,
}

/// The size of a state, summed over its programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Functions.
    pub functions: usize,
    /// Nodes in functions, or in the bodies of regions or kernels.
    pub nodes: usize,
    /// Dots among them.
    pub dots: usize,
    /// Regions, or kernels; 0 before fusion.
    pub regions: usize,
}

impl Statistics {
    /// Counts.
    pub fn of(state: &State) -> Statistics {
        let mut count = Statistics::default();
        for function in state.modules().iter().flat_map(|module| &module.functions) {
            count.functions += 1;
            count.add_graph(&function.graph);
        }
        match state {
            State::Module(_) | State::Programs(_) => {}
            State::Fused(programs) => {
                for function in programs.iter().flat_map(|program| &program.module.functions) {
                    count.functions += 1;
                    for region in &function.regions {
                        count.add_region(&region.body);
                    }
                }
            }
            State::Planned(planned) => {
                count.functions = planned.plan.programs.iter().map(|program| program.functions.len()).sum();
                for kernel in planned.kernels.iter().flatten() {
                    count.add_region(&kernel.region.body);
                }
            }
        }
        count
    }

    fn add_region(&mut self, body: &Graph) {
        self.regions += 1;
        self.add_graph(body);
    }

    fn add_graph(&mut self, graph: &Graph) {
        self.nodes += graph.len();
        self.dots += graph.topological().into_iter().filter(|&node| matches!(graph.op(node), Op::Dot { .. })).count();
    }
}

impl Report {
    pub(crate) fn add(&mut self, pass: &Pass, after: Statistics, time: Duration, instruments: Duration) {
        let before = self.passes.last().map_or(self.input, |last| last.after);
        self.passes.push(PassReport { name: pass.name, phase: pass.phase, time, instruments, before, after });
    }

    /// The wall clock of the run: the sum of all times in the report.
    pub fn total(&self) -> Duration {
        self.before + self.passes.iter().map(|pass| pass.time + pass.instruments).sum::<Duration>()
    }
}

/// A table: one line per pass.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let change = |before: usize, after: usize| {
            if before == after { format!("{after}") } else { format!("{before} -> {after}") }
        };
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 8]| {
            let [name, phase, time, instruments, functions, nodes, dots, regions] = cells;
            let text = format!(
                "{name:<12} {phase:<12} {time:>9} {instruments:>11}  {functions:<12} {nodes:<16} {dots:<12} {regions}"
            );
            writeln!(f, "{}", text.trim_end())
        };
        line(f, ["pass", "phase", "time/ms", "instruments", "functions", "nodes", "dots", "regions"])?;
        for pass in &self.passes {
            let (before, after) = (pass.before, pass.after);
            let cells = [
                pass.name,
                pass.phase.name(),
                &format!("{:.2}", milliseconds(pass.time)),
                &format!("{:.2}", milliseconds(pass.instruments)),
                &change(before.functions, after.functions),
                &change(before.nodes, after.nodes),
                &change(before.dots, after.dots),
                &change(before.regions, after.regions),
            ];
            line(f, cells)?;
        }
        writeln!(
            f,
            "total {:.2} ms, {:.2} before the first pass",
            milliseconds(self.total()),
            milliseconds(self.before)
        )
    }
}

/// Splits time into laps without gaps.
#[derive(Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// The first lap begins.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Ends a lap and begins the next at the same instant.
    pub fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}
