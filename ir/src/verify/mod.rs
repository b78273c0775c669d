//! Checks whatever the types of this crate allow but the next pass could not take. Every violation is reported,
//! not only the first.

mod function;
mod region;
mod step;
#[cfg(test)]
mod tests;

use crate::dim::{Bounds, Promise};
use crate::module::{Module, Param};
use crate::region::FusedModule;
use crate::shape::Type;
use crate::text::{Document, is_name};
use std::collections::BTreeSet;
use std::fmt;

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The program it is in, if the document has several.
    pub program: Option<String>,
    /// The function, or `step`.
    pub function: String,
    /// The node by its printed name, the region, or the call; empty if it is about the whole function.
    pub node: String,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(program) = &self.program {
            write!(f, "program @{program}, ")?;
        }
        write!(f, "{}", self.function)?;
        if !self.node.is_empty() {
            write!(f, ", {}", self.node)?;
        }
        write!(f, ": {}; {}", self.message, self.help)
    }
}

/// All violations in a document; none means that it is sound.
pub fn verify(document: &Document) -> Vec<Diagnostic> {
    match document {
        Document::Module(module) => verify_module(module, Promise::None),
        Document::Specialized(programs) => programs
            .iter()
            .flat_map(|program| {
                in_program(&program.name, &program.bounds, verify_module(&program.module, program.bounds.promise()))
            })
            .collect(),
        Document::Fused(programs) => programs
            .iter()
            .flat_map(|program| {
                in_program(
                    &program.name,
                    &program.bounds,
                    verify_fused_module(&program.module, program.bounds.promise()),
                )
            })
            .collect(),
    }
}

/// All violations in a module whose steps keep a promise.
pub fn verify_module(module: &Module, promise: Promise) -> Vec<Diagnostic> {
    let mut report = Report::default();
    report.names("module", module.functions.iter().map(|function| function.name.as_str()), &module.name);
    for function in &module.functions {
        function::verify(function, &mut report);
    }
    let signatures: Vec<_> = module.functions.iter().map(step::Signature::of_function).collect();
    step::verify(&signatures, &module.calls, promise, &mut report);
    report.diagnostics
}

/// All violations in a module behind fusion whose steps keep a promise.
pub fn verify_fused_module(module: &FusedModule, promise: Promise) -> Vec<Diagnostic> {
    let mut report = Report::default();
    report.names("module", module.functions.iter().map(|function| function.name.as_str()), &module.name);
    for function in &module.functions {
        region::verify(function, &mut report);
    }
    let signatures: Vec<_> = module.functions.iter().map(step::Signature::of_fused_function).collect();
    step::verify(&signatures, &module.calls, promise, &mut report);
    report.diagnostics
}

/// Collects diagnostics.
#[derive(Default)]
struct Report {
    diagnostics: Vec<Diagnostic>,
    function: String,
}

impl Report {
    /// What follows is about this function.
    fn enter(&mut self, function: &str) {
        self.function = function.to_owned();
    }

    fn add(&mut self, node: impl Into<String>, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic {
            program: None,
            function: self.function.clone(),
            node: node.into(),
            message: message.into(),
            help: help.into(),
        });
    }

    fn names<'n>(&mut self, place: &str, functions: impl Iterator<Item = &'n str>, module: &str) {
        self.enter(place);
        self.name(module);
        self.distinct("functions", functions);
    }

    /// Reports a name that the text form cannot hold.
    fn name(&mut self, name: &str) {
        if !is_name(name) {
            let help = "use a letter or `_`, then letters, digits, `_`, `.`, `-` and `+`";
            self.add("", format!("`{name}` is no name"), help);
        }
    }

    /// Reports bad and repeated names.
    fn distinct<'n>(&mut self, what: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.name(name);
            if !seen.insert(name) {
                self.add("", format!("two {what} are named `{name}`"), "rename one of them");
            }
        }
    }

    fn params(&mut self, params: &[Param]) {
        self.distinct("parameters", params.iter().map(|param| param.name.as_str()));
    }

    /// Reports a cache that is returned.
    fn result_type(&mut self, node: &str, ty: &Type) {
        if let Type::Kv(_) = ty {
            let help = "leave it out: the cache is state, later calls see what was written";
            self.add(node, "a KV cache is returned", help);
        }
    }
}

fn in_program(name: &str, bounds: &Bounds, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let max = &bounds.max;
    let mut report = Report::default();
    report.enter("bounds");
    report.name(name);
    if bounds.one_token_per_sequence && (max.tokens != max.sequences || max.samples != max.sequences) {
        let found = format!("{} tokens, {} samples, {} sequences", max.tokens, max.samples, max.sequences);
        let help = "make the three limits equal or drop the promise";
        report.add("", format!("one token per sequence is promised, with limits of {found}"), help);
    }
    report.diagnostics.append(&mut diagnostics);
    for diagnostic in &mut report.diagnostics {
        diagnostic.program = Some(name.to_owned());
    }
    report.diagnostics
}
