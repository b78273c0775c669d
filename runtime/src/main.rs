//! llmrt: runs what llmc compiles.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
