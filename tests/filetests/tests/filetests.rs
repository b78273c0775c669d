//! Runs every file below `cases`. Arguments: `--bless` writes results into the files, a word selects files by path.

use llmc_filetests::{File, run};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bless = arguments.iter().any(|argument| argument == "--bless");
    // Other flags are those of cargo's own harness.
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let (mut passed, mut blessed, mut failed) = (0, 0, Vec::new());
    for path in paths {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        if !words.is_empty() && !words.iter().any(|word| name.contains(*word)) {
            continue;
        }
        match check(&path, bless) {
            Ok(Outcome::Same) => passed += 1,
            Ok(Outcome::Blessed) => {
                println!("blessed {name}");
                blessed += 1;
            }
            Err(message) => failed.push(format!("{name}: {message}")),
        }
    }
    for failure in &failed {
        println!("FAILED {failure}");
    }
    println!("filetests: {passed} passed, {blessed} blessed, {} failed", failed.len());
    if failed.is_empty() && passed + blessed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Outcome {
    Same,
    Blessed,
}

fn check(path: &Path, bless: bool) -> Result<Outcome, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file = File::parse(&text)?;
    let result = run(file.input)?;
    if file.matches(&result) {
        return Ok(Outcome::Same);
    }
    if bless {
        std::fs::write(path, file.blessed(&result)).map_err(|error| error.to_string())?;
        return Ok(Outcome::Blessed);
    }
    let (expected, found) = (file.expected.trim(), result.trim());
    let same = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").trim().to_owned();
    Err(format!(
        "line {} of the result is\n  {}\nbut should be\n  {}\nThe whole result:\n{found}\n\
         If it is right, run cargo test -p llmc-filetests -- --bless\n",
        same + 1,
        line(found),
        line(expected)
    ))
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).expect("the cases are beside the tests");
    for path in entries.map(|entry| entry.expect("a readable directory").path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "tir") {
            paths.push(path);
        }
    }
}
