//! Seeded defects: small changes of PTX text, each what a bug in a code generator could have made.
//!
//! What is tested by them is not the kernel but whoever checks it: a defect that changes what a kernel does must be found.

mod changes;

use std::collections::BTreeMap;
use std::ops::Range;

/// One changed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What kind of defect it is.
    pub kind: &'static str,
    /// The lines that the statement takes, from 0.
    pub lines: Range<usize>,
    /// What was there, on one line.
    pub before: String,
    /// What is there instead.
    pub text: String,
}

impl Mutant {
    /// The whole PTX with this change. All other lines keep their numbers.
    pub fn apply(&self, original: &str) -> String {
        let changed = original.lines().enumerate().map(|(at, line)| match at {
            _ if at == self.lines.start => self.text.as_str(),
            _ if self.lines.contains(&at) => "",
            _ => line,
        });
        changed.collect::<Vec<_>>().join("\n")
    }
}

/// The defects of all kinds that a kernel's text has room for, in the order of the text.
pub fn mutants(original: &str) -> Vec<Mutant> {
    let mut list = Vec::new();
    for (lines, statement) in statements(original) {
        for (kind, text) in changes::of(&statement) {
            list.push(Mutant { kind, lines: lines.clone(), before: statement.clone(), text });
        }
    }
    list
}

/// At most `count` of each kind, spread over the text.
pub fn sample(mutants: Vec<Mutant>, count: usize) -> Vec<Mutant> {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for mutant in &mutants {
        *totals.entry(mutant.kind).or_default() += 1;
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let keep = |mutant: &Mutant| {
        let at = seen.entry(mutant.kind).or_default();
        *at += 1;
        (*at - 1).is_multiple_of(totals[mutant.kind].div_ceil(count))
    };
    mutants.into_iter().filter(keep).collect()
}

/// Statements with the lines they take. Some compilers spread one over several lines, which ends in `;`.
fn statements(original: &str) -> Vec<(Range<usize>, String)> {
    let mut list: Vec<(Range<usize>, String)> = Vec::new();
    let mut open = false;
    for (at, line) in original.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default().trim();
        match list.last_mut() {
            Some((lines, statement)) if open => {
                lines.end = at + 1;
                *statement = format!("{statement} {line}");
            }
            _ => list.push((at..at + 1, line.to_owned())),
        }
        // Directives, labels and braces are no statements; what begins as one goes on until its semicolon.
        let begins = open || line.starts_with('@') || line.starts_with(|first: char| first.is_ascii_lowercase());
        open = begins && !line.ends_with(';');
    }
    list
}
