//! llmc: compiles checkpoints for llmrt.

mod commands;

fn main() -> std::process::ExitCode {
    commands::main()
}
