//! `--machine`: the host as it was measured, a description that comes with the compiler, or one from a file.

use llmc::machine;
use llmc_console::CliError;
use llmc_ir::machine::{Machine, Machines};

/// The machine that the flag means for this user.
pub fn read(name: &str) -> Result<Machine, CliError> {
    let config = machine::config_directory();
    machine::read(name, config.as_deref()).map_err(|error| CliError::Usage(format!("--machine {name}: {error}")))
}

/// The machines that names mean, one for each kind of processor at most.
pub fn read_all(names: &[String]) -> Result<Machines, CliError> {
    together(read_each(names)?)
}

/// The machine that each name means.
pub fn read_each(names: &[String]) -> Result<Vec<Machine>, CliError> {
    names.iter().map(|name| read(name)).collect()
}

/// Machines of which there may be one for each kind of processor.
pub fn together(machines: Vec<Machine>) -> Result<Machines, CliError> {
    Machines::new(machines).map_err(|error| CliError::Usage(format!("--machine: {error}")))
}
