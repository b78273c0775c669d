//! What ends a command early, by exit code.

use std::fmt::Display;
use std::io;

/// Why a command stopped.
#[derive(Debug)]
pub enum CliError {
    /// The user can mend it by calling differently: exit code 2.
    Usage(String),
    /// Something failed: exit code 1.
    Failure(String),
    /// Nobody reads our output any more: not an error.
    BrokenPipe,
}

impl CliError {
    /// Wrong usage or unusable input.
    pub fn usage(message: impl Display) -> Self {
        CliError::Usage(message.to_string())
    }

    /// A failure at run time.
    pub fn failure(message: impl Display) -> Self {
        CliError::Failure(message.to_string())
    }

    /// An error of writing to stdout.
    pub fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => CliError::Failure(format!("cannot write to standard output: {error}")),
        }
    }
}
