//! The commands of `llmrt`; [`llmc_console`] says what goes where and which exit codes there are.

mod bench;
mod chat;
mod eval;
mod load;
mod options;
mod reply;
mod run;
mod verify;

use clap::{Parser, Subcommand};
use llmc_console::{exit_code, signals};
use std::process::ExitCode;
use std::time::Instant;

/// Runs models that llmc has compiled.
#[derive(Debug, Parser)]
#[command(name = "llmrt", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Example:\n  llmrt run model.llmc -p \"What is the boiling point of water?\"")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArguments>),
    Chat(Box<chat::ChatArguments>),
    Eval(eval::EvalArguments),
    Verify(verify::VerifyArguments),
    Bench(bench::BenchArguments),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let started = Instant::now();
    signals::report_file_size_limit();
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments, started),
        Command::Chat(arguments) => chat::chat(&arguments, started),
        Command::Eval(arguments) => eval::eval(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
    };
    exit_code(outcome)
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
            assert!(after.contains(&format!("llmrt {}", command.get_name())), "{}", command.get_name());
        }
    }
}
