//! The built binaries, run as a user would.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A call of `llmc`.
pub fn llmc() -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_llmc")))
}

/// A call of `llmrt`.
pub fn llmrt() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    command(PATH.get_or_init(find_llmrt))
}

/// Without what the developer has configured, a calibrated machine in particular: there is nothing in that directory.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .env("XDG_CONFIG_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-configuration"));
    command
}

fn find_llmrt() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_llmc")).with_file_name("llmrt");
    assert_current(&path, "llmrt");
    path
}

/// Another package's binary or library, which Cargo does not build for these tests alone, is there if the whole workspace
/// is tested, and must not be left over from older sources.
pub fn assert_current(path: &Path, package: &str) {
    let advice = format!("run `./x test`, or build it with `cargo build -p {package}` before these tests");
    let built = match path.metadata().and_then(|metadata| metadata.modified()) {
        Ok(time) => time,
        Err(error) => panic!("{}: {error}; {advice}", path.display()),
    };
    // Written by Cargo: `<binary>: <source> <source> ...`
    let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    let sources = sources.split_once(':').map_or("", |(_, sources)| sources);
    for source in sources.split_whitespace() {
        let changed = std::fs::metadata(source).and_then(|metadata| metadata.modified());
        assert!(changed.is_ok_and(|time| time <= built), "{} is older than {source}; {advice}", path.display());
    }
}

/// Runs a command that succeeds and returns what it writes to stdout.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The object or array that a command prints with `--json`.
#[track_caller]
pub fn json(command: &mut Command) -> Value {
    let text = succeeds(command.arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?}: {error} in {text}"))
}

/// Runs a command that fails as it should: exit code 1 or 2, nothing on stdout, and one line on stderr after the
/// warnings. Returns that line.
#[track_caller]
pub fn fails(command: &mut Command) -> String {
    let output = run(command);
    let notes = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command:?}: {:?} {notes}", output.status);
    assert!(output.stdout.is_empty(), "{command:?}: {}", text(&output.stdout));
    let lines: Vec<&str> = notes.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert!(matches!(lines[..], [line] if line.starts_with("error: ")), "{command:?}: {notes}");
    lines[0].to_owned()
}

/// Runs a command that fails, and looks for `parts` in what it says.
#[track_caller]
pub fn fails_saying(command: &mut Command, parts: &[&str]) {
    let message = fails(command);
    for part in parts {
        assert!(message.contains(part), "{command:?}: `{part}` is not in: {message}");
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// UTF-8 without exception: the programs write nothing else.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `llmc compile CHECKPOINT -o OUTPUT`.
pub fn compile(checkpoint: impl AsRef<OsStr>, output: impl AsRef<OsStr>) -> Command {
    let mut command = llmc();
    command.arg("compile").arg(checkpoint).arg("-o").arg(output);
    command
}

/// Token ids as `--prompt-ids` takes them.
pub fn id_list(ids: &[u32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The unsigned numbers of a JSON array.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}
