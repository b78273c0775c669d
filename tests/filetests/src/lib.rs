//! Filetests: a `.tir` file holds an input, what to do with it, and what must come out.
//!
//! ```text
//! // What this file shows, in a sentence.
//! // passes: identities, dce
//!
//! func @f(%x: f32[tokens, 8]) -> (f32[tokens, 8]) {
//!   ...
//! }
//!
//! // ---- becomes
//!
//! func @f(%x: f32[tokens, 8]) -> (f32[tokens, 8]) {
//!   return %x
//! }
//! ```
//!
//! Directives are comment lines before the input:
//!
//! * `passes: a, b` runs these passes, in this order;
//! * `stop-after: fused` runs the pipeline up to a phase;
//! * `verify` shows what the verifier says of the input;
//! * `program: decode` shows one program of the result only;
//! * `function: layer` shows one function of the result only.
//!
//! The input is a document of any phase. Functions alone will do where what surrounds them does not matter: they get a
//! module and a step around them, which is not shown. Errors of any stage are results as well.
//!
//! `cargo test -p llmc-filetests -- --bless` writes what comes out into the files.

mod directives;
mod show;

use directives::{Action, Directives};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Argument, Call, Module};
use llmc_ir::plan::ModelFacts;
use llmc_ir::shape::Type;
use llmc_ir::text::{Document, parse};
use llmc_ir::verify::{Diagnostic, verify};
use llmc_passes::pass::{Context, State};
use llmc_passes::pipeline::{Options, run_pipeline};

/// The line between input and result starts with this.
const SEPARATOR: &str = "// ----";

/// Sizes that programs are made for, small enough to read.
const MAX_CONTEXT: usize = 64;
const MAX_BATCH: usize = 4;
const PREFILL_CHUNK: usize = 16;

/// A file's text up to and with the separator, and what is written behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'t> {
    /// Comments, directives and the input.
    pub input: &'t str,
    /// What must come out.
    pub expected: &'t str,
}

impl<'t> File<'t> {
    /// Takes a file apart.
    ///
    /// # Errors
    /// If there is no separator.
    pub fn parse(text: &'t str) -> Result<File<'t>, String> {
        let start = text.lines().take_while(|line| !line.starts_with(SEPARATOR)).map(|line| line.len() + 1).sum();
        let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) else {
            return Err(format!("there is no line that starts with `{SEPARATOR}`"));
        };
        let end = start + rest.find('\n').map_or(rest.len(), |end| end + 1);
        Ok(File { input: &text[..end], expected: &text[end..] })
    }

    /// The file as it would be if `result` were right.
    pub fn blessed(&self, result: &str) -> String {
        format!("{}\n\n{result}", self.input.trim_end())
    }

    /// Whether `result` is what must come out.
    pub fn matches(&self, result: &str) -> bool {
        self.expected.trim() == result.trim()
    }
}

/// What comes out of a file's input.
///
/// # Errors
/// If the file's directives make no sense. What the compiler says against the input is a result.
pub fn run(input: &str) -> Result<String, String> {
    let directives = Directives::parse(input)?;
    let bare = !input.lines().any(|line| line.starts_with("module @") || line.starts_with("fused module @"));
    let text = if bare { with_module(input) } else { input.to_owned() };
    let document = match parse(&text) {
        Ok(document) => document,
        Err(error) => return Ok(format!("error: {error}\n")),
    };
    let document = if bare { with_step(document) } else { document };
    let complaints = complaints(&document, bare);
    let output = match &directives.action {
        Action::Verify if complaints.is_empty() => return Ok("it is sound\n".into()),
        _ if !complaints.is_empty() => return Ok(complaints.iter().map(|line| format!("error: {line}\n")).collect()),
        Action::Verify => String::new(),
        Action::Passes(names) => {
            transformed(document, Options { only: Some(names.clone()), ..Options::default() }, bare)
        }
        Action::StopAfter(phase) => {
            transformed(document, Options { stop_after: Some(*phase), ..Options::default() }, bare)
        }
    };
    Ok(show::chosen(&output, &directives, bare))
}

/// Functions within a module.
fn with_module(input: &str) -> String {
    let start = input.lines().take_while(|line| !line.starts_with("func ")).map(|line| line.len() + 1).sum();
    let (before, functions) = input.split_at_checked(start).unwrap_or((input, ""));
    format!("{before}module @Test\n{functions}\nstep {{\n}}\n")
}

/// Calls of all functions, so that they are in use.
fn with_step(mut document: Document) -> Document {
    let modules: Vec<&mut Module> = match &mut document {
        Document::Module(module) => vec![module],
        Document::Specialized(programs) => programs.iter_mut().map(|program| &mut program.module).collect(),
        Document::Fused(_) => vec![],
    };
    for module in modules {
        module.calls = module
            .functions
            .iter()
            .map(|function| Call {
                function: function.name.clone(),
                scope: String::new(),
                arguments: function.params.iter().map(|param| argument(&param.name, &param.ty)).collect(),
                results: (0..function.results.len()).map(|index| format!("{}.{index}", function.name)).collect(),
            })
            .collect();
    }
    document
}

fn argument(name: &str, ty: &Type) -> Argument {
    match ty {
        Type::Kv(_) => Argument::Kv(0),
        Type::Tensor(_) => Argument::Value(name.to_owned()),
    }
}

/// What the verifier says, the invented step aside.
fn complaints(document: &Document, bare: bool) -> Vec<Diagnostic> {
    let mut complaints = verify(document);
    complaints.retain(|complaint| !(bare && complaint.function == "step"));
    complaints
}

fn transformed(document: Document, options: Options, bare: bool) -> String {
    let state = State::from(document);
    let facts = ModelFacts {
        architecture: state.name().to_owned(),
        dtype: DType::BF16,
        vocab: state.vocab().unwrap_or(0),
        hidden: 0,
        layers: 0,
        max_context: MAX_CONTEXT,
        max_batch: MAX_BATCH,
        parameters: 0,
    };
    let machine = Machine::named("host").expect("this machine is known");
    let context = Context { prefill_chunk: PREFILL_CHUNK, ..Context::new(facts, machine) };
    match run_pipeline(state, &context, &options, &mut []) {
        Err(error) => format!("error: {error}\n"),
        Ok((state, _)) => match state.document().map(|document| complaints(&document, bare)).unwrap_or_default() {
            complaints if complaints.is_empty() => state.text(),
            complaints => complaints.iter().map(|line| format!("error in the result: {line}\n")).collect(),
        },
    }
}
