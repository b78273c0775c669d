//! Runs regions, fused functions and fused modules: the same meaning behind fusion as before it.

use super::graph::{Environment, run, weight};
use super::module::{cache_input, check_count, no_function, run_calls, written_caches};
use super::value::{KvState, Tensor, Value};
use super::{EvalError, Mode, StepInputs, Weights};
use crate::module::Module;
use crate::region::{FusedFunction, FusedModule, Region, Source};
use crate::text::{NodeNames, source_text, source_type};
use std::collections::BTreeMap;

/// Runs the body of a region on values for its inputs; the results are its outputs.
pub fn eval_region(region: &Region, inputs: &[Value], step: &StepInputs, mode: Mode) -> Result<Vec<Value>, EvalError> {
    let environment = Environment::new(step, &|_| None, mode)?;
    let (outputs, _) = run_region(region, inputs, &environment)?;
    Ok(outputs)
}

/// Runs a fused function, as [`eval_function`](super::eval_function) does before fusion.
pub fn eval_fused_function(
    function: &FusedFunction,
    args: &mut [Value],
    weights: &Weights<'_>,
    step: &StepInputs,
    mode: Mode,
) -> Result<Vec<Value>, EvalError> {
    let environment = Environment::new(step, weights, mode)?;
    let place = format!("function @{}", function.name);
    check_count(&place, function.params.len(), args.len())?;
    let mut outputs: Vec<Vec<Value>> = Vec::with_capacity(function.regions.len());
    let mut written = BTreeMap::new();
    let fetch = |source: &Source, outputs: &[Vec<Value>], args: &[Value]| {
        let value = fetch(function, source, outputs, args, &environment);
        value.map_err(|message| EvalError::new(&*place, format!("{}: {message}", source_text(function, source))))
    };
    for region in &function.regions {
        let inputs: Result<Vec<_>, _> = region.inputs.iter().map(|source| fetch(source, &outputs, args)).collect();
        let (results, caches) = run_region(region, &inputs?, &environment).map_err(|error| error.within(&place))?;
        for (input, cache) in caches {
            if let Some(param) = region.inputs.get(input).and_then(|source| cache_param(function, source)) {
                written.insert(param, cache);
            }
        }
        outputs.push(results);
    }
    let results: Result<Vec<_>, _> = function.results.iter().map(|source| fetch(source, &outputs, args)).collect();
    let results = results?;
    for (param, cache) in written {
        args[param] = cache;
    }
    Ok(results)
}

/// Runs a step of a fused module, as [`eval_module`](super::eval_module) does before fusion.
pub fn eval_fused_module(
    module: &FusedModule,
    weights: &Weights<'_>,
    state: &mut KvState,
    step: &StepInputs,
    mode: Mode,
) -> Result<Tensor, EvalError> {
    run_calls(&module.calls, state, |call, args| {
        let function = module.function(&call.function).ok_or_else(|| no_function(&call.function))?;
        eval_fused_function(function, args, &|name| weights(&Module::weight_key(&call.scope, name)), step, mode)
    })
}

fn fetch(
    function: &FusedFunction,
    source: &Source,
    outputs: &[Vec<Value>],
    args: &[Value],
    environment: &Environment<'_>,
) -> Result<Value, String> {
    match source {
        Source::Param(index) => args.get(*index).cloned().ok_or_else(|| "there is no such parameter".into()),
        Source::Output { region, output } => {
            let value = outputs.get(*region).and_then(|values| values.get(*output));
            value.cloned().ok_or_else(|| "no earlier region has this output".into())
        }
        Source::Step(input) => Ok(environment.step.tensor(*input).into()),
        Source::Weight(name) => {
            let ty = source_type(function, source).ok_or("no region says what type it has")?;
            let tensor = (environment.weights)(name).ok_or("there is no such weight")?;
            weight(tensor, &ty, environment).map(Value::Tensor)
        }
    }
}

/// A region's outputs, and what the caches among its inputs hold afterwards.
type RegionResults = (Vec<Value>, BTreeMap<usize, Value>);

fn run_region(region: &Region, inputs: &[Value], environment: &Environment<'_>) -> Result<RegionResults, EvalError> {
    let place = format!("region @{}", region.name);
    check_count(&place, region.inputs.len(), inputs.len())?;
    let written = written_caches(&region.body);
    let mut wanted = region.outputs.clone();
    wanted.extend(written.values());
    let names = NodeNames::of_region(region);
    let mut outputs = run(&region.body, inputs, &wanted, &names, environment).map_err(|error| error.within(&place))?;
    let caches = outputs.split_off(region.outputs.len());
    Ok((outputs, written.into_keys().zip(caches).collect()))
}

/// The parameter whose cache `source` holds, behind any number of writes.
fn cache_param<'f>(function: &'f FusedFunction, mut source: &'f Source) -> Option<usize> {
    loop {
        match source {
            Source::Param(index) => return Some(*index),
            Source::Output { region: index, output } => {
                let region = function.regions.get(*index)?;
                source = region.inputs.get(cache_input(&region.body, *region.outputs.get(*output)?)?)?;
                // Sources refer to earlier regions, so this ends.
                if matches!(source, Source::Output { region, .. } if region >= index) {
                    return None;
                }
            }
            Source::Weight(_) | Source::Step(_) => return None,
        }
    }
}
