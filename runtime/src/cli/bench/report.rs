//! Bench results as a table for people and as rows for programs.

use super::Test;
use super::floor::{Bound, Floor, Means, Products, Rates};
use llmc_artifact::Artifact;
use llmc_limits::median;
use llmrt::executor::Executor;
use serde::Serialize;

/// What was measured on.
pub struct Facts {
    model: String,
    bytes: u64,
    parameters: u64,
    target: String,
    /// `None` on a GPU.
    threads: Option<usize>,
}

/// A test with the tokens per second of each repetition.
pub struct Outcome {
    /// The test.
    pub test: Test,
    /// In the order of measurement, at least one.
    pub values: Vec<f64>,
    /// `None`: nothing is known of the machine.
    pub floor: Option<Floor>,
}

impl Outcome {
    /// The part of the floor's tokens per second that was reached.
    fn of_floor(&self) -> Option<f64> {
        self.floor.map(|floor| median(&self.values) / floor.tokens_per_second)
    }
}

/// The machine, as it was between the tests.
pub struct MachineFacts {
    /// Medians of the rounds.
    pub rates: Rates,
    means: Means,
    rounds: usize,
}

impl MachineFacts {
    /// Of at least one round.
    pub fn new(means: Means, rounds: &[Rates]) -> Self {
        let of_rounds = |rate: &dyn Fn(&Rates) -> f64| median(&rounds.iter().map(rate).collect::<Vec<_>>());
        let products = |of_round: fn(&Rates) -> Products| {
            let fastest = rounds.iter().map(of_round).reduce(Products::or);
            Products {
                flops: of_rounds(&|rates| of_round(rates).flops),
                by: fastest.map_or("nothing", |found| found.by),
            }
        };
        let [products, in_blocks] = [|rates: &Rates| rates.products, |rates: &Rates| rates.in_blocks].map(products);
        let rates = Rates { bytes: of_rounds(&|rates| rates.bytes), products, in_blocks };
        MachineFacts { rates, means, rounds: rounds.len() }
    }

    fn describe(&self) -> String {
        let Rates { bytes, products, in_blocks } = self.rates;
        let by = |Products { flops, by }: Products| format!("by {by} at {:.0} Gop/s", flops / 1e9);
        let in_blocks =
            if in_blocks.by == products.by { String::new() } else { format!(" and, in blocks, {}", by(in_blocks)) };
        format!(
            "reads of {:.2} GB at {:.1} GB/s, products {}{in_blocks}, measured between the tests (medians of {})",
            self.means.bytes as f64 / 1e9,
            bytes / 1e9,
            by(products),
            self.rounds,
        )
    }
}

/// An element of the array that `--json` prints.
#[derive(Serialize)]
pub struct Row {
    test: String,
    prompt: usize,
    generate: usize,
    depth: usize,
    batch: usize,
    threads: Option<usize>,
    median: f64,
    values: Vec<f64>,
    unit: &'static str,
    /// `null` on a GPU.
    floor: Option<RowFloor>,
}

/// How far from the machine's limits a test is.
#[derive(Serialize)]
pub struct RowFloor {
    tokens_per_second: f64,
    reached: f64,
    bound: Bound,
    machine: String,
}

impl Facts {
    /// Collects them.
    pub fn new(artifact: &Artifact, executor: &Executor) -> Self {
        let plan = &artifact.manifest().plan;
        Facts {
            model: format!("{} {}", plan.model.architecture, plan.model.dtype),
            bytes: artifact.size_bytes(),
            parameters: plan.model.parameters,
            target: executor.target().to_owned(),
            threads: executor.threads(),
        }
    }
}

/// The rows for `--json`.
pub fn rows(facts: &Facts, machine: Option<&MachineFacts>, outcomes: &[Outcome]) -> Vec<Row> {
    let row = |outcome: &Outcome| {
        let (prompt, generate, depth) = match outcome.test {
            Test::Prefill { tokens } => (tokens, 0, 0),
            Test::Decode { tokens, depth, .. } => (0, tokens, depth),
        };
        Row {
            test: outcome.test.name(),
            prompt,
            generate,
            depth,
            batch: outcome.test.sequences(),
            threads: facts.threads,
            median: median(&outcome.values),
            values: outcome.values.clone(),
            unit: "tokens/s",
            floor: outcome.floor.zip(machine).map(|(floor, machine)| RowFloor {
                tokens_per_second: floor.tokens_per_second,
                reached: median(&outcome.values) / floor.tokens_per_second,
                bound: floor.bound,
                machine: machine.describe(),
            }),
        }
    };
    outcomes.iter().map(row).collect()
}

/// A Markdown table, aligned for a terminal, and what its floors come from.
pub fn table(facts: &Facts, machine: Option<&MachineFacts>, outcomes: &[Outcome]) -> String {
    let header = ["model", "size", "params", "target", "threads", "test", "t/s", "min .. max", "of floor"];
    let header = header.map(str::to_owned);
    let mut lines = vec![header];
    for outcome in outcomes {
        let min = outcome.values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = outcome.values.iter().copied().fold(0.0, f64::max);
        lines.push([
            facts.model.clone(),
            format!("{:.2} MiB", facts.bytes as f64 / f64::from(1 << 20)),
            format!("{:.2} M", facts.parameters as f64 / 1e6),
            facts.target.clone(),
            facts.threads.map_or("-".to_owned(), |threads| threads.to_string()),
            outcome.test.name(),
            format!("{:.2}", median(&outcome.values)),
            format!("{min:.2} .. {max:.2}"),
            match (outcome.floor, outcome.of_floor()) {
                (Some(floor), Some(part)) => format!("{:.1} % ({})", 100.0 * part, floor.bound.name()),
                _ => "-".to_owned(),
            },
        ]);
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            match is_text(column) {
                true => out.push_str(&format!("| {cell:<width$} ")),
                false => out.push_str(&format!("| {cell:>width$} ")),
            }
        }
        out.push_str("|\n");
        if index == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let end = if is_text(column) { "-" } else { ":" };
                out.push_str(&format!("| {}{end} ", "-".repeat(width - 1)));
            }
            out.push_str("|\n");
        }
    }
    if let Some(machine) = machine {
        out.push_str(&format!("\nfloor: {}\n", machine.describe()));
    }
    out
}

fn is_text(column: usize) -> bool {
    matches!(column, 0 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let facts = Facts {
            model: "LlamaForCausalLM bf16".to_owned(),
            bytes: 270_000_000,
            parameters: 134_515_008,
            target: "native:x".to_owned(),
            threads: Some(2),
        };
        let outcomes = [
            Outcome {
                test: Test::Prefill { tokens: 512 },
                values: vec![2000.0, 1000.0, 1500.0],
                floor: Some(Floor { tokens_per_second: 2000.0, bound: Bound::Products }),
            },
            Outcome {
                test: Test::Decode { tokens: 128, depth: 1024, batch: 8 },
                values: vec![100.0, 50.0],
                floor: Some(Floor { tokens_per_second: 100.0, bound: Bound::Reads }),
            },
        ];
        let means = Means { bytes: 270_000_000 };
        let rates = |bytes: f64, flops: f64, in_blocks: f64| {
            let [products, in_blocks] =
                [(flops, "a loop"), (in_blocks, "another")].map(|(flops, by)| Products { flops, by });
            Rates { bytes, products, in_blocks }
        };
        let machine = MachineFacts::new(means, &[rates(2e10, 3e11, 6e11), rates(3e10, 5e11, 8e11)]);
        let expected = "\
| model                 |       size |   params | target   | threads |              test |     t/s |         min .. max |          of floor |
| --------------------- | ---------: | -------: | -------- | ------: | ----------------: | ------: | -----------------: | ----------------: |
| LlamaForCausalLM bf16 | 257.49 MiB | 134.52 M | native:x |       2 |             pp512 | 1500.00 | 1000.00 .. 2000.00 | 75.0 % (products) |
| LlamaForCausalLM bf16 | 257.49 MiB | 134.52 M | native:x |       2 | tg128 @ d1024 x 8 |   75.00 |    50.00 .. 100.00 |    75.0 % (reads) |

floor: reads of 0.27 GB at 25.0 GB/s, products by a loop at 400 Gop/s and, in blocks, by another at 700 Gop/s, measured between the tests (medians of 2)
";
        assert_eq!(table(&facts, Some(&machine), &outcomes), expected);
        let on_a_gpu = Outcome { floor: None, ..outcomes.into_iter().next_back().unwrap() };
        assert!(table(&facts, None, std::slice::from_ref(&on_a_gpu)).ends_with("|        - |\n"));
        let rows = rows(&facts, None, &[on_a_gpu]);
        assert_eq!(
            serde_json::to_string(&rows[0]).unwrap(),
            "{\"test\":\"tg128 @ d1024 x 8\",\"prompt\":0,\"generate\":128,\"depth\":1024,\"batch\":8,\
             \"threads\":2,\"median\":75.0,\"values\":[100.0,50.0],\"unit\":\"tokens/s\",\"floor\":null}"
        );
    }
}
