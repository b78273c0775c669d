//! Modules: functions, and the list of calls that makes up a step. Layers are rolled: all layers of
//! one kind are calls of one function under different scopes.

use crate::dim::Bounds;
use crate::graph::{Graph, NodeId};
use crate::machine::Processor;
use crate::shape::Type;

/// A named parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name, without `%`.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// A graph with parameters and results.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name, without `@`.
    pub name: String,
    /// What callers pass; `Op::Input { index }` refers to these.
    pub params: Vec<Param>,
    /// The computation.
    pub graph: Graph,
    /// What callers receive.
    pub results: Vec<NodeId>,
}

/// One call in a step. Values between calls have names and may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the function.
    pub function: String,
    /// Prefix of its weights' names, such as `model.layers.3.`; may be empty.
    pub scope: String,
    /// What each parameter receives.
    pub arguments: Vec<Argument>,
    /// Names under which the results are known to later calls.
    pub results: Vec<String>,
}

/// What a call passes for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The value of that name, made by an earlier call.
    Value(String),
    /// The KV cache of a layer. The cache is state: calls see what earlier ones wrote.
    Kv(usize),
}

/// A model, or one specialisation of it: functions and the calls of a step, in order. The value named
/// [`LOGITS`] is the result of the step.
#[derive(Clone, Debug)]
pub struct Module {
    /// The architecture's name.
    pub name: String,
    /// Functions, each name once.
    pub functions: Vec<Function>,
    /// The step.
    pub calls: Vec<Call>,
}

/// A module and what its steps may be assumed to be like.
#[derive(Clone, Debug)]
pub struct SpecializedModule {
    /// The program's name: `decode`, `prefill`, ...
    pub name: String,
    /// What runs it.
    pub processor: Processor,
    /// The steps that it can run.
    pub bounds: Bounds,
    /// What a step computes.
    pub module: Module,
}

/// Name of the value that a step is run for: `f32[samples, vocab]`.
pub const LOGITS: &str = "logits";

impl Module {
    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// The full checkpoint key of a weight that a call under `scope` names.
    pub fn weight_key(scope: &str, name: &str) -> String {
        match name.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{scope}{name}"),
        }
    }
}
