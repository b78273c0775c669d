//! Where a chat's messages come from.

use llmc_console::CliError;
use llmc_console::output;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use std::io::{BufRead, IsTerminal, stdin, stdout};

/// A source of messages.
pub enum Lines {
    /// A terminal, with editing and a history.
    Terminal(Box<rustyline::Editor<(), MemHistory>>),
    /// A pipe or a file.
    Plain,
}

impl Lines {
    /// Asks with editing if both ends are a terminal.
    pub fn open() -> Result<Self, CliError> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(Lines::Plain);
        }
        let config = rustyline::Config::builder().auto_add_history(true).build();
        let editor = rustyline::Editor::with_history(config, MemHistory::new());
        let editor = editor.map_err(|error| CliError::Failure(format!("cannot use the terminal: {error}")))?;
        Ok(Lines::Terminal(Box::new(editor)))
    }

    /// The next message; `None` at the end.
    pub fn next(&mut self) -> Result<Option<String>, CliError> {
        let cannot = |error: &dyn std::fmt::Display| CliError::Failure(format!("cannot read the message: {error}"));
        match self {
            Lines::Terminal(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => output::note("(Ctrl-D or /exit leaves)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(cannot(&error)),
                }
            },
            Lines::Plain => {
                let mut line = String::new();
                let read = stdin().lock().read_line(&mut line).map_err(|error| cannot(&error))?;
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}
