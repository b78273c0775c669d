//! `llmc compile --shapes-only`: what the passes would make of a model whose weights are not there.

use super::compile::{CompileArguments, failed};
use super::explain::write_page;
use llmc::compile::Request;
use llmc::shapes::{Outcome, Shapes};
use llmc_console::{CliError, output};

/// Runs the passes on the shapes and prints what came of it.
pub fn study(arguments: &CompileArguments, request: &Request) -> Result<(), CliError> {
    if let Some(path) = arguments.output.as_ref().filter(|path| path.extension().is_none_or(|end| end != "html")) {
        return Err(CliError::Usage(format!(
            "--shapes-only has no weights to write into {}: leave out -o, give it a name that ends in .html for the page of \
             `llmc explain`, or compile the checkpoint",
            path.display()
        )));
    }
    let shapes = Shapes::load(&arguments.checkpoint, arguments.dtype).map_err(failed)?;
    shapes.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    match shapes.study(request).map_err(failed)? {
        Outcome::Stopped(text) => output::print(&text),
        Outcome::Planned(study) if arguments.output.is_some() => {
            arguments.output.iter().try_for_each(|path| write_page(&study.report, path))
        }
        Outcome::Planned(study) if arguments.json => output::print_json(&study.report),
        Outcome::Planned(study) => output::print(&study.text().map_err(CliError::failure)?),
    }
}
