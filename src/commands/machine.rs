//! `--machine`: a description that comes with the compiler, or one from a file.

use llmc_console::CliError;
use llmc_ir::machine::Machine;
use std::path::Path;

/// The machine that a flag names: a file if it looks like one.
pub fn read(name: &str) -> Result<Machine, CliError> {
    if !name.contains(['/', '.']) {
        return Machine::named(name).map_err(CliError::usage);
    }
    let wrong = |error: String| CliError::Usage(format!("--machine {}: {error}", Path::new(name).display()));
    let text = std::fs::read_to_string(name).map_err(|error| wrong(error.to_string()))?;
    Machine::parse(&text).map_err(wrong)
}
