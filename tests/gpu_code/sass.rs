//! What NVIDIA's assembler makes of PTX: registers and spills of each kernel, and the instructions of its hot loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The assembler and the disassembler, where `./x test` puts them.
pub struct Tools {
    ptxas: PathBuf,
    nvdisasm: PathBuf,
}

/// A kernel as the device would run it.
#[derive(Debug)]
pub struct Kernel {
    pub name: String,
    /// Registers per thread.
    pub registers: usize,
    /// Instructions of the innermost loop with most matrix instructions, then most multiply-adds in units of 64, then most loads, then fewest
    /// instructions.
    pub hot: Vec<String>,
}

/// What a kernel needs of an architecture.
#[derive(Debug)]
pub struct Needs {
    pub name: String,
    /// Bytes that it stores and loads again because there are too few registers.
    pub spilled: usize,
    /// Bytes of shared memory that it declares itself, beside those that come with a launch.
    pub shared: usize,
}

impl Tools {
    /// The tools, if they are there.
    pub fn find() -> Option<Tools> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/cuda/bin");
        let [ptxas, nvdisasm] = ["ptxas", "nvdisasm"].map(|name| directory.join(name));
        (ptxas.exists() && nvdisasm.exists()).then_some(Tools { ptxas, nvdisasm })
    }

    /// Assembles PTX for an architecture.
    pub fn assemble(&self, ptx: &str, architecture: &str) -> Vec<Kernel> {
        let (report, listing) = self.run(ptx, architecture, Listing::Wanted);
        let mut hot = hot_loops(&listing);
        let kernels = entries(&report).map(|(name, entry)| {
            let hot = hot.remove(&name).unwrap_or_default();
            Kernel { name, registers: number_before(entry, " registers"), hot }
        });
        kernels.collect()
    }

    /// What each kernel needs of an architecture.
    pub fn needs(&self, ptx: &str, architecture: &str) -> Vec<Needs> {
        let (report, _) = self.run(ptx, architecture, Listing::Unwanted);
        let bytes = ["stores", "loads"].map(|what| format!(" bytes spill {what}"));
        let spilled = |entry| bytes.iter().map(|text| number_before(entry, text)).sum();
        let shared = |entry: &str| if entry.contains(" bytes smem") { number_before(entry, " bytes smem") } else { 0 };
        let needs =
            entries(&report).map(|(name, entry)| Needs { name, spilled: spilled(entry), shared: shared(entry) });
        needs.collect()
    }

    /// The assembler's report and, if it is wanted, the listing of what it made.
    fn run(&self, ptx: &str, architecture: &str, listing: Listing) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let [source, object] = ["code.ptx", "code.cubin"].map(|name| directory.path().join(name));
        std::fs::write(&source, ptx).unwrap();
        let architecture_flag = format!("-arch={architecture}");
        let mut command = Command::new(&self.ptxas);
        let output = command.args([&architecture_flag, "-v", "-o"]).arg(&object).arg(&source).output().unwrap();
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{architecture}: {report}");
        if matches!(listing, Listing::Unwanted) {
            return (report, String::new());
        }
        let output = Command::new(&self.nvdisasm).arg("-c").arg(&object).output().unwrap();
        (report, String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether what was assembled is taken apart again.
enum Listing {
    Wanted,
    Unwanted,
}

/// What a report says of each kernel.
fn entries(report: &str) -> impl Iterator<Item = (String, &str)> {
    let entries = report.split("Compiling entry function '").skip(1);
    entries.map(|entry| (entry.split('\'').next().unwrap().to_owned(), entry))
}

/// The number in front of the first `text`.
fn number_before(report: &str, text: &str) -> usize {
    let before = report.split(text).next().unwrap();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number before `{text}` in {report}"))
}

/// The hot loop of each function of a listing.
fn hot_loops(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for function in listing.split("\n.text.").skip(1) {
        let (name, body) = function.split_once(':').unwrap();
        let mut instructions: Vec<String> = Vec::new();
        let mut labels = BTreeMap::new();
        for line in body.lines() {
            let line = line.trim();
            if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with(".L_x")) {
                labels.insert(label.to_owned(), instructions.len());
            } else if let Some((_, text)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/"))
                && let Some((instruction, _)) = text.split_once(';')
            {
                let instruction = instruction.trim();
                if !instruction.starts_with("@!PT ") && instruction != "NOP" {
                    instructions.push(instruction.to_owned());
                }
            }
        }
        let loops: Vec<(usize, usize)> = (0..instructions.len())
            .filter_map(|end| {
                let label = instructions[end].contains("BRA").then(|| instructions[end].split('`').nth(1)).flatten()?;
                let start = *labels.get(label.trim_matches(['(', ')']))?;
                (start < end).then_some((start, end))
            })
            .collect();
        let innermost = loops
            .iter()
            .filter(|&&(start, end)| !loops.iter().any(|&(a, b)| (a, b) != (start, end) && start <= a && b <= end));
        let hottest = innermost.max_by_key(|&&(start, end)| {
            let body = &instructions[start..=end];
            let loads = count(body, "LDG") + count(body, "LDGSTS");
            (count(body, "HMMA"), count(body, "FFMA") / 64, loads, std::cmp::Reverse(body.len()))
        });
        if let Some(&(start, end)) = hottest {
            found.insert(name.to_owned(), instructions[start..=end].to_vec());
        }
    }
    found
}

/// An instruction's name with its modifiers, without its guard.
fn operation(instruction: &str) -> &str {
    let mut words = instruction.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first.starts_with('@') { words.next().unwrap_or_default() } else { first }
}

/// How many instructions have that name, whatever the modifiers.
pub fn count(instructions: &[String], name: &str) -> usize {
    instructions.iter().filter(|instruction| operation(instruction).split('.').next() == Some(name)).count()
}

/// How many of these have the modifier.
pub fn count_with(instructions: &[String], name: &str, modifier: &str) -> usize {
    let all = instructions.iter().map(|instruction| operation(instruction));
    all.filter(|operation| {
        let mut parts = operation.split('.');
        parts.next() == Some(name) && parts.any(|part| part == modifier)
    })
    .count()
}
