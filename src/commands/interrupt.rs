//! Ctrl-C: the first asks the command to stop, which leaves no partial file; the second ends the process.

use llmc_console::CliError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell expects of a process that SIGINT ended: 128 + 2.
const EXIT_CODE: i32 = 130;

/// Installs the handler; the flag becomes true at the first Ctrl-C.
pub fn install() -> Result<Arc<AtomicBool>, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE);
        }
    })
    .map_err(|error| CliError::Failure(format!("cannot handle Ctrl-C: {error}")))?;
    Ok(flag)
}
