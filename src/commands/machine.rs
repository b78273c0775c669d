//! `--machine`: the host as it was measured, a description that comes with the compiler, or one from a file.

use llmc::machine;
use llmc_console::CliError;
use llmc_ir::machine::Machine;

/// The machine that the flag means for this user.
pub fn read(name: &str) -> Result<Machine, CliError> {
    let config = machine::config_directory();
    machine::read(name, config.as_deref()).map_err(|error| CliError::Usage(format!("--machine {name}: {error}")))
}
