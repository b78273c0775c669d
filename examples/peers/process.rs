//! Commands, how long they take from start to exit, and how much memory they come to hold.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs a command that succeeds and returns what it writes to stdout.
pub fn output(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let notes = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = notes.lines().rev().take(3).collect();
        return Err(format!("{command:?}: {}: {}", output.status, last.join(" / ")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Seconds from start to exit, and the most memory in MB that was resident at once.
pub fn whole_run(command: &mut Command) -> Result<(f64, f64), Box<dyn Error>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut status = 0;
    // SAFETY: numbers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is this process's own and not waited for elsewhere; both results are valid places to write to.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    let seconds = started.elapsed().as_secs_f64();
    if waited < 0 || status != 0 {
        return Err(format!("{command:?} fails").into());
    }
    Ok((seconds, usage.ru_maxrss as f64 * 1024.0 / 1e6))
}
