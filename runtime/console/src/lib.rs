//! llmc-console: how `llmc` and `llmrt` speak to a terminal and to scripts.
//!
//! What was asked for goes to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage or
//! unusable input. A reader that closes our stdout early has what it wanted: that is a success.

mod error;
pub mod output;
pub mod signals;

pub use error::CliError;

use std::process::ExitCode;

/// Reports how a command ended and turns it into the process's exit code.
pub fn exit_code(outcome: Result<(), CliError>) -> ExitCode {
    let (message, code) = match outcome {
        Ok(()) | Err(CliError::BrokenPipe) => return ExitCode::SUCCESS,
        Err(CliError::Failure(message)) => (message, 1),
        Err(CliError::Usage(message)) => (message, 2),
    };
    output::note(&format!("error: {message}"));
    ExitCode::from(code)
}
