//! Checks of the calls that make up a step.

use super::Report;
use crate::dim::{Dim, Promise, Symbol};
use crate::dtype::DType;
use crate::module::{Argument, Call, Function, LOGITS, Module, Param};
use crate::op::Op;
use crate::region::{FusedFunction, Source};
use crate::shape::{KvType, Type};
use crate::text::{input_types, source_type};
use std::collections::BTreeMap;

/// What calls need to know of a function.
pub(super) struct Signature<'f> {
    name: &'f str,
    params: &'f [Param],
    /// `None` where the function itself is broken.
    results: Vec<Option<Type>>,
    weights: Vec<(String, Type)>,
}

impl<'f> Signature<'f> {
    pub(super) fn of_function(function: &'f Function) -> Signature<'f> {
        let graph = &function.graph;
        let results = function.results.iter().map(|&node| graph.contains(node).then(|| graph.ty(node).clone()));
        let weights = graph.topological().into_iter().filter_map(|node| match graph.op(node) {
            Op::Weight { name, ty } => Some((name.clone(), ty.clone())),
            _ => None,
        });
        let (results, weights) = (results.collect(), weights.collect());
        Signature { name: &function.name, params: &function.params, results, weights }
    }

    pub(super) fn of_fused_function(function: &'f FusedFunction) -> Signature<'f> {
        let results = function.results.iter().map(|source| source_type(function, source)).collect();
        let mut weights = Vec::new();
        for region in &function.regions {
            let mut types = input_types(region);
            for (index, source) in region.inputs.iter().enumerate() {
                if let (Source::Weight(name), Some(ty)) = (source, types.remove(&index)) {
                    weights.push((name.clone(), ty));
                }
            }
        }
        Signature { name: &function.name, params: &function.params, results, weights }
    }
}

/// Values by name; `None` where the type is unknown because of another mistake.
type Values<'c> = BTreeMap<&'c str, Option<Type>>;

/// Reports what is wrong with a step.
pub(super) fn verify(functions: &[Signature<'_>], calls: &[Call], promise: Promise, report: &mut Report) {
    report.enter("step");
    let by_name: BTreeMap<&str, &Signature<'_>> = functions.iter().map(|function| (function.name, function)).collect();
    let mut values = Values::new();
    let mut layers: BTreeMap<usize, KvType> = BTreeMap::new();
    let mut weights: BTreeMap<String, &Type> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let scope = if call.scope.is_empty() { String::new() } else { format!(" in \"{}\"", call.scope) };
        let place = format!("call {index} (@{}{scope})", call.function);
        let Some(function) = by_name.get(call.function.as_str()) else {
            let known: Vec<_> = by_name.keys().copied().collect();
            report.add(&*place, "there is no such function", format!("the module has {}", known.join(", ")));
            values.extend(call.results.iter().map(|name| (name.as_str(), None)));
            continue;
        };
        verify_arguments(call, function, &place, &values, &mut layers, report);
        for (name, ty) in &function.weights {
            let key = Module::weight_key(&call.scope, name);
            let known = *weights.entry(key.clone()).or_insert(ty);
            if known != ty {
                let message = format!("weight \"{key}\" is {ty} here and {known} elsewhere");
                report.add(&*place, message, "use one type for it and convert the value");
            }
        }
        if call.results.len() != function.results.len() {
            let (found, expected) = (call.results.len(), function.results.len());
            report.add(&*place, format!("{found} results are named, there are {expected}"), "name each result once");
        }
        report.distinct("results of a call", call.results.iter().map(String::as_str));
        let types = function.results.iter().cloned().chain(std::iter::repeat(None));
        values.extend(call.results.iter().map(String::as_str).zip(types));
    }
    verify_logits(&values, promise, report);
    if let Some((expected, (&found, _))) = layers.iter().enumerate().find(|(index, (layer, _))| index != *layer) {
        let message = format!("KV caches are used without number {expected}, up to {found} and more");
        report.add("", message, "number the layers that have a cache 0, 1, 2, ...");
    }
}

fn verify_arguments(
    call: &Call,
    function: &Signature<'_>,
    place: &str,
    values: &Values<'_>,
    layers: &mut BTreeMap<usize, KvType>,
    report: &mut Report,
) {
    if call.arguments.len() != function.params.len() {
        let (found, expected) = (call.arguments.len(), function.params.len());
        report.add(place, format!("{found} arguments for {expected} parameters"), "pass one for each");
    }
    let mut own_layers = Vec::new();
    for (argument, param) in call.arguments.iter().zip(function.params) {
        let name = &param.name;
        match argument {
            Argument::Value(value) => match values.get(value.as_str()) {
                None => {
                    let message = format!("no call before this one makes %{value}, which is passed for %{name}");
                    report.add(place, message, "order calls so that each comes behind what it needs");
                }
                Some(Some(ty)) if *ty != param.ty => {
                    let message = format!("%{value} is {ty}, parameter %{name} is {}", param.ty);
                    report.add(place, message, "pass a value of the parameter's type");
                }
                Some(_) => {}
            },
            Argument::Kv(layer) => {
                if own_layers.contains(layer) {
                    let message = format!("kv {layer} is passed twice in one call");
                    report.add(place, message, "pass each cache once");
                }
                own_layers.push(*layer);
                let Type::Kv(ty) = param.ty else {
                    let message = format!("kv {layer} is passed for %{name}, which is {}", param.ty);
                    report.add(place, message, "pass a value");
                    continue;
                };
                let known = *layers.entry(*layer).or_insert(ty);
                if known != ty {
                    let message = format!("kv {layer} is {ty} here and {known} elsewhere");
                    report.add(place, message, "give each layer a cache of its own");
                }
            }
        }
    }
}

fn verify_logits(values: &Values<'_>, promise: Promise, report: &mut Report) {
    let is_samples = |dim: Dim| match promise {
        Promise::None => dim == Symbol::Samples.into(),
        Promise::OneTokenPerSequence => {
            [Symbol::Samples, Symbol::Tokens, Symbol::Sequences].map(Dim::from).contains(&dim)
        }
    };
    let is_vocab = |dims: &[Dim]| matches!(dims, [rows, columns] if is_samples(*rows) && columns.as_fixed().is_some());
    let help = format!("let the last call return f32[samples, vocab] and name it %{LOGITS}");
    match values.get(LOGITS) {
        None => report.add("", format!("no call makes %{LOGITS}"), help),
        Some(Some(Type::Tensor(ty))) if ty.dtype == DType::F32 && is_vocab(&ty.shape.0) => {}
        Some(Some(ty)) => report.add("", format!("%{LOGITS} is {ty}"), help),
        Some(None) => {}
    }
}
