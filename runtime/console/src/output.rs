//! Standard output and standard error, without panics when they are closed.

use crate::CliError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write, stderr, stdout};

/// Writes one line to stderr; whether anybody reads it does not matter.
pub fn note(line: &str) {
    let _ = writeln!(stderr().lock(), "{line}");
}

/// Writes text to stdout at once.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::stdout)
}

/// Writes a value to stdout as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(CliError::failure)?;
    print(&(text + "\n"))
}

/// Ends the line on a terminal, so that the shell's prompt starts on its own. A file or a pipe gets
/// the text alone.
pub fn end_line_on_terminal() -> Result<(), CliError> {
    if stdout().is_terminal() { print("\n") } else { Ok(()) }
}

/// A progress bar on stderr, invisible unless that is a terminal.
pub fn progress(length: u64, template: &str) -> ProgressBar {
    let target = match stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style)
}

/// The most memory that this process has had resident, in bytes (VmHWM of Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Tokens per second; nothing took no time.
pub fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}
