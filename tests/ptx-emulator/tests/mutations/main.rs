//! Does the checker find defects? Seeded ones in foreign PTX, with a record of those that were found (`snapshots`).

#[path = "../common/mod.rs"]
mod common;
mod equivalent;

use std::collections::BTreeMap;
use std::fmt::Write;

use common::{CASES, attention};
use equivalent::{EQUIVALENT, MISSED};
use llmc_ptx_emulator::Module;
use llmc_ptx_emulator::mutate::{mutants, sample};

/// Defects of one kind per kernel that every test run tries.
const PER_KIND: usize = 12;

#[test]
fn seeded_defects_are_found() {
    insta::assert_snapshot!("sample", record(PER_KIND));
}

/// All of them; `cargo test -p llmc-ptx-emulator --test mutations -- --ignored` takes about a minute.
#[test]
#[ignore = "takes a minute; the sample above is part of it"]
fn all_seeded_defects_are_found() {
    insta::assert_snapshot!("all", record(usize::MAX));
}

/// Runs the defects and counts, by kind, those that were found, that are known to be missed, and that are known to be none.
fn record(per_kind: usize) -> String {
    let mut kinds: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut surprises = Vec::new();
    let [flash, ..] = attention::CASES;
    for case in CASES.into_iter().chain([flash]) {
        let sound = Module::parse(case.text).unwrap();
        assert!((case.run)(&sound).is_ok_and(|outcome| outcome.error < 1.0), "{} without a defect", case.kernel);
        for mutant in sample(mutants(case.text), per_kind) {
            let line = mutant.lines.start + 1;
            let module = Module::parse(&mutant.apply(case.text))
                .unwrap_or_else(|error| panic!("{} at line {line}: {}: {error}", mutant.kind, mutant.text));
            let found = (case.run)(&module).map_or(true, |outcome| outcome.error >= 1.0);
            let this = (case.kernel, line, mutant.kind);
            let none = EQUIVALENT.iter().any(|&(kernel, at, kind, _)| (kernel, at, kind) == this);
            if found == (none || MISSED.contains(&this)) {
                surprises.push(format!("{} {line}: {}: {} (found: {found})", case.kernel, mutant.kind, mutant.text));
            }
            let count = kinds.entry(mutant.kind).or_default();
            count[0] += usize::from(found);
            count[1] += usize::from(!found && !none);
            count[2] += usize::from(!found && none);
        }
    }
    assert!(surprises.is_empty(), "not as the lists in `equivalent` say:\n{}", surprises.join("\n"));
    let mut text = String::from("found missed none\n");
    let mut totals = [0; 3];
    for (kind, count) in kinds {
        writeln!(text, "{:5} {:6} {:4} {kind}", count[0], count[1], count[2]).unwrap();
        totals = [0, 1, 2].map(|at| totals[at] + count[at]);
    }
    let [found, missed, none] = totals;
    writeln!(text, "{found:5} {missed:6} {none:4} of all: {:.1} %", 100.0 * found as f64 / (found + missed) as f64)
        .unwrap();
    text
}
