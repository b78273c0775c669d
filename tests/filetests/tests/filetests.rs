//! Runs every file below `cases`. Arguments: `--bless` writes results into the files, a word selects files by path;
//! `--list` and `--exact` are as in cargo's own harness, so that nextest can run files one by one.

use llmc_filetests::{File, run};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    // `--format terse`: the only flag with a value that comes along.
    let words = arguments.iter().filter(|argument| !argument.starts_with('-') && *argument != "terse");
    let words: Vec<&String> = words.collect();
    let wanted = |name: &str| {
        let fits = |word: &&String| if flag("--exact") { name == word.as_str() } else { name.contains(word.as_str()) };
        words.is_empty() || words.iter().any(fits)
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let cases = cases(&root).into_iter().filter(|(name, _)| wanted(name) && !flag("--ignored"));
    if flag("--list") {
        cases.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut blessed, mut failed) = (0, 0, 0);
    for (name, path) in cases {
        match check(&path, flag("--bless")) {
            Ok(Outcome::Same) => passed += 1,
            Ok(Outcome::Blessed) => {
                println!("blessed {name}");
                blessed += 1;
            }
            Err(message) => {
                println!("FAILED {name}: {message}");
                failed += 1;
            }
        }
    }
    println!("filetests: {passed} passed, {blessed} blessed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// All files by their paths below `root`, in order.
fn cases(root: &Path) -> Vec<(String, PathBuf)> {
    let mut paths = Vec::new();
    collect(root, &mut paths);
    paths.sort();
    let named = |path: PathBuf| (path.strip_prefix(root).unwrap_or(&path).display().to_string(), path);
    paths.into_iter().map(named).collect()
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
