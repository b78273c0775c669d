//! The commands of `llmc`; [`llmc_console`] says what goes where and which exit codes there are.

mod calibrate;
mod compile;
mod explain;
mod import;
mod inspect;
mod interrupt;
mod machine;
mod opt;
mod shapes;

use clap::{Parser, Subcommand};
use llmc_console::{exit_code, signals};
use std::process::ExitCode;

/// Compiles language models ahead of time; llmrt runs what comes out.
#[derive(Debug, Parser)]
#[command(name = "llmc", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Example:\n  llmc compile SmolLM2-135M-Instruct/model.safetensors -o smollm2.llmc")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(Box<compile::CompileArguments>),
    Opt(opt::OptArguments),
    Inspect(inspect::InspectArguments),
    Explain(explain::ExplainArguments),
    Import(import::ImportArguments),
    Calibrate(calibrate::CalibrateArguments),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    signals::report_file_size_limit();
    exit_code(match Arguments::parse().command {
        Command::Compile(arguments) => compile::compile(&arguments),
        Command::Opt(arguments) => opt::opt(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Import(arguments) => import::import(&arguments),
        Command::Calibrate(arguments) => calibrate::calibrate(&arguments),
    })
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_has_an_example() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("llmc {}", command.get_name())), "{}", command.get_name());
        }
    }
}
