//! Runs functions and the calls of a step.

use super::graph::{Environment, run};
use super::value::{KvState, Tensor, Value};
use super::{EvalError, Mode, StepInputs, Weights};
use crate::graph::{Graph, NodeId};
use crate::module::{Argument, Call, Function, LOGITS, Module};
use crate::op::Op;
use crate::text::NodeNames;
use std::collections::BTreeMap;

/// Runs one function; weights are looked up by the names in it. Arguments that are KV caches are replaced by what
/// they hold afterwards.
pub fn eval_function(
    function: &Function,
    args: &mut [Value],
    weights: &Weights<'_>,
    step: &StepInputs,
    mode: Mode,
) -> Result<Vec<Value>, EvalError> {
    let environment = Environment::new(step, weights, mode)?;
    let place = format!("function @{}", function.name);
    check_count(&place, function.params.len(), args.len())?;
    let written = written_caches(&function.graph);
    let mut wanted = function.results.clone();
    wanted.extend(written.values());
    let names = NodeNames::of_function(function);
    let mut results =
        run(&function.graph, args, &wanted, &names, &environment).map_err(|error| error.within(&place))?;
    let caches = results.split_off(function.results.len());
    for (&param, cache) in written.keys().zip(caches) {
        args[param] = cache;
    }
    Ok(results)
}

/// Runs a step of a module; weights are looked up by checkpoint key. The result is the logits, `[samples, vocab]`.
pub fn eval_module(
    module: &Module,
    weights: &Weights<'_>,
    state: &mut KvState,
    step: &StepInputs,
    mode: Mode,
) -> Result<Tensor, EvalError> {
    run_calls(&module.calls, state, |call, args| {
        let function = module.function(&call.function).ok_or_else(|| no_function(&call.function))?;
        eval_function(function, args, &|name| weights(&Module::weight_key(&call.scope, name)), step, mode)
    })
}

pub(super) fn no_function(name: &str) -> EvalError {
    EvalError::new("step", format!("there is no function @{name}"))
}

pub(super) fn check_count(place: &str, expected: usize, found: usize) -> Result<(), EvalError> {
    if expected == found {
        return Ok(());
    }
    Err(EvalError::new(place, format!("expected {expected} arguments, found {found}")))
}

/// Runs calls in order; `run` gets a call's arguments, changes its caches, and returns its results.
pub(super) fn run_calls(
    calls: &[Call],
    state: &mut KvState,
    run: impl Fn(&Call, &mut [Value]) -> Result<Vec<Value>, EvalError>,
) -> Result<Tensor, EvalError> {
    // State changes only if the whole step succeeds.
    let mut layers = state.layers.clone();
    let mut values: BTreeMap<&str, Value> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let scope = if call.scope.is_empty() { String::new() } else { format!(" in \"{}\"", call.scope) };
        let place = format!("call {index} of the step{scope}");
        let mut args = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            args.push(match argument {
                Argument::Kv(layer) => Value::Kv(layers.remove(layer).unwrap_or_default()),
                Argument::Value(name) => match values.get(name.as_str()) {
                    Some(value) => value.clone(),
                    None => return Err(EvalError::new(place, format!("no earlier call made %{name}"))),
                },
            });
        }
        let results = run(call, &mut args).map_err(|error| error.within(&place))?;
        if results.len() != call.results.len() {
            let (found, expected) = (results.len(), call.results.len());
            return Err(EvalError::new(place, format!("{expected} results are named, the function has {found}")));
        }
        values.extend(call.results.iter().map(String::as_str).zip(results));
        for (argument, value) in call.arguments.iter().zip(args) {
            if let (Argument::Kv(layer), Value::Kv(cache)) = (argument, value) {
                layers.insert(*layer, cache);
            }
        }
    }
    state.layers = layers;
    match values.remove(LOGITS) {
        Some(Value::Tensor(logits)) => Ok(logits),
        _ => Err(EvalError::new("step", format!("no call made a tensor %{LOGITS}"))),
    }
}

/// Per input that is a KV cache and is written: the node that holds all that is written.
pub(super) fn written_caches(graph: &Graph) -> BTreeMap<usize, NodeId> {
    let writes = graph.topological().into_iter().filter(|&node| matches!(graph.op(node), Op::KvWrite { .. }));
    // Later ones replace earlier ones: a chain's last node comes last.
    writes.filter_map(|node| Some((cache_input(graph, node)?, node))).collect()
}

/// The input whose cache `node` holds, behind any number of writes.
pub(super) fn cache_input(graph: &Graph, mut node: NodeId) -> Option<usize> {
    loop {
        match graph.op(node) {
            Op::Input { index, .. } => return Some(*index),
            Op::KvWrite { .. } => node = *graph.operands(node).first()?,
            _ => return None,
        }
    }
}
