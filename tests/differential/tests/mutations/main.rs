//! Do these tests find defects in the compiler's own kernels? Seeded ones, with a record of those that were found.

mod equivalent;
mod subjects;

use equivalent::reason;
use llmc_ptx_emulator::Module;
use llmc_ptx_emulator::mutate::{Mutant, mutants, sample};
use std::collections::BTreeMap;
use std::fmt::Write;
use subjects::{SUBJECTS, Subject};

/// Defects of one kind per kernel that every test run tries.
const PER_KIND: usize = 4;

/// Found defects of those that are any, at least.
const RATE: f64 = 0.9;

#[test]
fn seeded_defects_are_found() {
    record(PER_KIND);
}

/// More of them: `cargo test -p llmc-differential --test mutations -- --ignored` takes some minutes.
#[test]
#[ignore = "takes minutes; asserts the same of more defects, and keeps the record"]
fn more_seeded_defects_are_found() {
    insta::assert_snapshot!("record", record(6 * PER_KIND));
}

/// How many of the defects of a kind, or in a kernel, were found, were missed, and are none.
type Counts = BTreeMap<String, [usize; 3]>;

/// Runs the defects, so many of each kind in each kernel.
fn record(per_kind: usize) -> String {
    let (mut kernels, mut kinds) = (Counts::new(), Counts::new());
    let mut missed = Vec::new();
    for subject in SUBJECTS {
        for Outcome { symbol, mutant, found, reason } in run(subject, per_kind) {
            let outcome = match (found, reason) {
                (true, _) => 0,
                (false, None) => 1,
                (false, Some(_)) => 2,
            };
            kernels.entry(symbol.clone()).or_default()[outcome] += 1;
            kinds.entry(mutant.kind.to_owned()).or_default()[outcome] += 1;
            if outcome == 1 {
                missed.push(format!("{symbol} {}: {}: {}", mutant.lines.start + 1, mutant.kind, mutant.before));
            }
        }
    }
    let mut text = String::from("found missed none\n");
    let line = |text: &mut String, [found, missed, none]: [usize; 3], name: &str| {
        writeln!(text, "{found:5} {missed:6} {none:4} {name}").unwrap();
    };
    let mut totals = [0; 3];
    for (kind, counts) in &kinds {
        line(&mut text, *counts, kind);
        totals = [0, 1, 2].map(|at| totals[at] + counts[at]);
    }
    text += "\n";
    kernels.iter().for_each(|(kernel, counts)| line(&mut text, *counts, kernel));
    let rate = totals[0] as f64 / (totals[0] + totals[1]) as f64;
    writeln!(text, "\n{:5} {:6} {:4} of all: {:.1} %", totals[0], totals[1], totals[2], 100.0 * rate).unwrap();
    assert!(rate >= RATE, "too few are found:\n{text}{}", missed.join("\n"));
    text
}

/// One defect.
struct Outcome {
    symbol: String,
    mutant: Mutant,
    found: bool,
    /// Why it is none.
    reason: Option<&'static str>,
}

/// Tries the defects of a subject's kernels.
fn run(subject: &Subject, per_kind: usize) -> Vec<Outcome> {
    let (mut device, trials) = (subject.prepare)();
    let counters = device.counters();
    let ptx = device.ptx().to_owned();
    let mut outcomes = Vec::new();
    for &(program, kernel) in subject.kernels {
        let program_index = device.plan.programs.iter().position(|planned| planned.name == program);
        let program_index = program_index.unwrap_or_else(|| panic!("there is no program {program}"));
        let symbol = format!("{program}__{kernel}");
        let text = kernel_text(&ptx, &symbol);
        let sound = counters.get(&symbol).unwrap_or_else(|| panic!("no step ran {symbol}"));
        let limit = 20 * sound.warp_instructions + 100_000;
        for mutant in sample(mutants(&text), per_kind) {
            let module = Module::parse(&mutant.apply(&text))
                .unwrap_or_else(|error| panic!("{} of {}: {error}: {}", mutant.kind, symbol, mutant.text));
            device.replace(&symbol, Some((module, limit)));
            let found =
                trials.iter().filter(|trial| trial.program == program_index).any(|trial| trial.check(&device).is_err());
            device.replace(&symbol, None);
            let before = text.lines().take(mutant.lines.start).last().unwrap_or_default();
            let reason = reason(&symbol, &mutant, before);
            outcomes.push(Outcome { symbol: symbol.clone(), mutant, found, reason });
        }
    }
    outcomes
}

/// One kernel of a text, with what is declared outside of all.
fn kernel_text(ptx: &str, symbol: &str) -> String {
    const ENTRY: &str = ".visible .entry ";
    let mut kernel = None;
    let (mut declared, mut rest) = (String::new(), ptx);
    while let Some(start) = rest.find(ENTRY) {
        let (before, from) = rest.split_at(start);
        let (text, behind) = from.split_at(from.find("\n}").unwrap() + 2);
        declared += before;
        rest = behind;
        if text[ENTRY.len()..].starts_with(&format!("{symbol}(")) {
            kernel = Some(text);
        }
    }
    let kernel = kernel.unwrap_or_else(|| panic!("there is no kernel {symbol}"));
    format!("{declared}{rest}{kernel}\n")
}
