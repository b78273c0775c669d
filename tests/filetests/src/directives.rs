//! What a file asks for, in the comments before its input.

use llmc_passes::phase::Phase;

/// Everything that a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directives {
    /// What to do with the input.
    pub action: Action,
    /// The one program to show.
    pub program: Option<String>,
    /// The one function to show.
    pub function: Option<String>,
}

/// What to do with the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run passes by name.
    Passes(Vec<String>),
    /// Run the pipeline up to a phase.
    StopAfter(Phase),
    /// Check it.
    Verify,
}

impl Directives {
    /// Reads the comment lines at the start of `input`.
    pub fn parse(input: &str) -> Result<Directives, String> {
        let comments = input.lines().map_while(|line| line.strip_prefix("//").map(str::trim));
        let (mut actions, mut program, mut function) = (Vec::new(), None, None);
        for comment in comments {
            let (word, value) = comment.split_once(':').map_or((comment, ""), |(word, value)| (word, value.trim()));
            match word {
                "passes" => actions.push(Action::Passes(value.split(',').map(|name| name.trim().to_owned()).collect())),
                "stop-after" => actions.push(Action::StopAfter(value.parse().map_err(|error| format!("{error}"))?)),
                "verify" if value.is_empty() => actions.push(Action::Verify),
                "program" => program = Some(value.to_owned()),
                "function" => function = Some(value.to_owned()),
                _ => {}
            }
        }
        match <[Action; 1]>::try_from(actions) {
            Ok([action]) => Ok(Directives { action, program, function }),
            Err(actions) => Err(format!(
                "expected one line `// passes: ...`, `// stop-after: ...` or `// verify` before the input, found {}",
                actions.len()
            )),
        }
    }
}
