//! Planning: fused programs become launches over memory. Behind this there are no operations, only kernels,
//! operands and barriers.
//!
//! | file | idea |
//! |---|---|
//! | `values`   | where values between calls live |
//! | `instance` | one function with its parameters bound to places: tasks, lifetimes, offsets |
//! | `kernels`  | regions that compute the same share a kernel |
//! | `barriers` | which launches must wait for those before them |
//! | `recipes`  | weights that are computed while compiling |
//! | `check`    | whether a plan is consistent, from the plan alone |
//! | `work`     | what no step can do without |
//! | `print`    | a plan as text |

mod barriers;
mod check;
mod instance;
mod kernels;
mod print;
mod recipes;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod tests;
mod values;
pub(crate) mod work;

pub use check::check_plan;
pub use print::print_plan;

use crate::fuse::{check_region, unique_name};
use crate::pack::{WeightTable, pack};
use crate::pass::{Context, State};
use instance::{Binding, Instance};
use kernels::Kernels;
use llmc_ir::dim::Bounds;
use llmc_ir::module::{Argument, Module};
use llmc_ir::plan::{KvLayout, ModelFacts, Plan, PlannedCall, PlannedFunction, Program, WeightLayout};
use llmc_ir::region::{FusedFunction, FusedProgram, Kernel, PlannedModel, Region, Source};
use llmc_ir::shape::{KvType, TensorType, Type};
use recipes::Recipes;
use std::collections::{BTreeMap, BTreeSet};
use values::Values;

/// Why there is no plan for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No kernel can be made of a region.
    #[error("program {program}, function @{function}, region @{region}: {reason}")]
    Region {
        /// The program.
        program: String,
        /// The function.
        function: String,
        /// The region.
        region: String,
        /// The operation at fault and what was expected of it.
        reason: String,
    },
    /// A weight cannot be packed.
    #[error("weight `{weight}`: {reason}")]
    Weight {
        /// Checkpoint key.
        weight: String,
        /// What was found and expected.
        reason: String,
    },
    /// A call does not fit its function or the calls before it.
    #[error("program {program}, call {call} (@{function}): {reason}")]
    Call {
        /// The program.
        program: String,
        /// Position in the step, from 0.
        call: usize,
        /// The function's name.
        function: String,
        /// What was found and expected.
        reason: String,
    },
    /// The layers' caches differ.
    #[error("the KV cache of layer {layer} is {found}, but {expected} before; all layers must agree")]
    Kv {
        /// The layer.
        layer: usize,
        /// Its cache.
        found: KvType,
        /// The cache of an earlier call.
        expected: KvType,
    },
}

/// The largest activation that a plan may hold: 64 TiB, more than any machine has.
const MAX_BUFFER_BYTES: u64 = 1 << 46;

/// The pass: one plan for all programs.
pub fn plan(state: State, context: &Context) -> Result<State, String> {
    let State::Fused(programs) = state else {
        return Err(format!("it takes fused programs, found {}; run `fuse` first", state.kind()));
    };
    let planned = plan_programs(programs, &context.facts).map_err(|error| error.to_string())?;
    Ok(State::Planned(Box::new(planned)))
}

/// Plans all programs over one weight table and one KV layout.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_programs(mut programs: Vec<FusedProgram>, facts: &ModelFacts) -> Result<PlannedModel, PlanError> {
    let mut recipes = Recipes::default();
    recipes.lift(&mut programs);
    for program in &programs {
        check_regions(program)?;
    }
    let table = pack(&programs)?;
    let kv = kv_layout(&programs, facts)?;
    let mut planned = Vec::new();
    let mut kernels = Vec::new();
    for program in &programs {
        let (program, its_kernels) = plan_program(program, facts, &table)?;
        planned.push(program);
        kernels.push(its_kernels);
    }
    let plan = Plan { model: facts.clone(), kv, weights: table.weights, programs: planned };
    let recipes = recipes.of_calls(programs.iter().map(|program| &program.module));
    Ok(PlannedModel { plan, recipes, kernels })
}

fn plan_program(
    program: &FusedProgram,
    facts: &ModelFacts,
    table: &WeightTable,
) -> Result<(Program, Vec<Kernel>), PlanError> {
    let module = &program.module;
    let values = Values::of(program, facts)?;
    let mut bindings: Vec<Binding> = Vec::new();
    let mut calls = Vec::new();
    for (position, call) in module.calls.iter().enumerate() {
        let (binding, kv_layer) = values.bind(program, position)?;
        let function = bindings.iter().position(|other| *other == binding).unwrap_or(bindings.len());
        if function == bindings.len() {
            bindings.push(binding);
        }
        let slots = weight_slots(&module.functions[bindings[function].function]);
        let weights = slots.iter().map(|name| table.index[&Module::weight_key(&call.scope, name)]).collect();
        calls.push(PlannedCall { function, weights, kv_layer });
    }

    let mut kernels = Kernels::default();
    let mut instances = Vec::new();
    for (index, binding) in bindings.iter().enumerate() {
        let function = &module.functions[binding.function];
        let uses: Vec<&PlannedCall> = calls.iter().filter(|call| call.function == index).collect();
        let layouts = slot_layouts(function, &uses, table)?;
        instances.push(Instance::new(function, binding, &layouts, &program.bounds, &mut kernels));
    }
    let frame = instances.iter().map(|instance| instance.frame_bytes).max().unwrap_or(0);
    let mut names = BTreeSet::new();
    let mut functions: Vec<PlannedFunction> = instances
        .into_iter()
        .map(|instance| PlannedFunction {
            name: unique_name(&instance.name, '.', &mut names),
            launches: instance.launches(&values),
        })
        .collect();
    barriers::mark(&mut functions, &calls, &kernels.list);
    let arena_bytes = values.bytes + frame;
    let work = work::work(&calls, &functions, &kernels.list, &table.weights);
    let program = Program {
        name: program.name.clone(),
        processor: program.processor,
        bounds: program.bounds,
        arena_bytes,
        functions,
        calls,
        work,
        search: None,
    };
    Ok((program, kernels.list))
}

fn check_regions(program: &FusedProgram) -> Result<(), PlanError> {
    for function in &program.module.functions {
        let mut cache: Option<Source> = None;
        for (index, region) in function.regions.iter().enumerate() {
            let fits = check_region(region)
                .and_then(|()| check_sizes(region, &program.bounds))
                .and_then(|()| check_cache(index, region, &mut cache));
            fits.map_err(|reason| PlanError::Region {
                program: program.name.clone(),
                function: function.name.clone(),
                region: region.name.clone(),
                reason,
            })?;
        }
    }
    Ok(())
}

/// Whether the outputs are small enough that sums of their sizes do not overflow.
fn check_sizes(region: &Region, bounds: &Bounds) -> Result<(), String> {
    for tensor in region.outputs.iter().filter_map(|&output| region.body.ty(output).as_tensor()) {
        let bytes = tensor_bytes(tensor, bounds);
        if bytes > MAX_BUFFER_BYTES {
            return Err(format!("{tensor} takes {bytes} bytes at the bounds; lower --max-batch or --max-context"));
        }
    }
    Ok(())
}

/// Whether a region sees the cache as the last write before it left it. The cache is memory: there is only one
/// version of it at a time. `cache` is where the current version comes from, if a region has used it yet.
fn check_cache(index: usize, region: &Region, cache: &mut Option<Source>) -> Result<(), String> {
    for (source, ty) in region.inputs.iter().zip(region.input_types()) {
        if matches!(ty, Type::Kv(_)) && cache.get_or_insert_with(|| source.clone()) != source {
            return Err("it uses a cache that was written since; use the result of the last kv_write".into());
        }
    }
    for (output, &node) in region.outputs.iter().enumerate() {
        if let Type::Kv(_) = region.body.ty(node) {
            *cache = Some(Source::Output { region: index, output });
        }
    }
    Ok(())
}

/// The layout of the cache that all calls of all programs share.
fn kv_layout(programs: &[FusedProgram], facts: &ModelFacts) -> Result<KvLayout, PlanError> {
    let mut common: Option<KvType> = None;
    let mut layers = 0;
    for program in programs {
        for call in &program.module.calls {
            let Some(function) = program.module.function(&call.function) else { continue };
            for (argument, param) in call.arguments.iter().zip(&function.params) {
                let (Argument::Kv(layer), Type::Kv(found)) = (argument, &param.ty) else { continue };
                let expected = *common.get_or_insert(*found);
                if expected != *found {
                    return Err(PlanError::Kv { layer: *layer, found: *found, expected });
                }
                layers = layers.max(layer + 1);
            }
        }
    }
    let KvType { heads, head_dim, dtype } = common.unwrap_or(KvType { heads: 0, head_dim: 0, dtype: facts.dtype });
    Ok(KvLayout { layers, heads, head_dim, dtype })
}

/// The weights of a function, each once, in the order of first use.
fn weight_slots(function: &FusedFunction) -> Vec<&str> {
    let mut slots: Vec<&str> = Vec::new();
    for source in function.regions.iter().flat_map(|region| &region.inputs) {
        if let Source::Weight(name) = source
            && !slots.contains(&name.as_str())
        {
            slots.push(name);
        }
    }
    slots
}

/// The layout of each weight slot, which must be the same in all calls: they share the code.
fn slot_layouts<'a>(
    function: &'a FusedFunction,
    calls: &[&PlannedCall],
    table: &WeightTable,
) -> Result<BTreeMap<&'a str, (usize, WeightLayout)>, PlanError> {
    let mut layouts = BTreeMap::new();
    for (slot, name) in weight_slots(function).into_iter().enumerate() {
        for call in calls {
            let weight = &table.weights[call.weights[slot]];
            let (_, layout) = *layouts.entry(name).or_insert((slot, weight.layout));
            if layout != weight.layout {
                let reason = format!("calls of @{} need it in different layouts; do not tie it", function.name);
                return Err(PlanError::Weight { weight: weight.name.clone(), reason });
            }
        }
    }
    Ok(layouts)
}

/// The type of what a source stands for.
pub(crate) fn source_type<'a>(function: &'a FusedFunction, source: &Source) -> Option<&'a Type> {
    match source {
        Source::Param(index) => Some(&function.params.get(*index)?.ty),
        Source::Output { region, output } => {
            let region = function.regions.get(*region)?;
            Some(region.body.ty(*region.outputs.get(*output)?))
        }
        Source::Weight(_) | Source::Step(_) => None,
    }
}

/// Bytes of a tensor at the upper bounds; saturates.
fn tensor_bytes(ty: &TensorType, bounds: &Bounds) -> u64 {
    let sizes = ty.shape.evaluate(&bounds.max);
    sizes.iter().fold(ty.dtype.bytes() as u64, |product, &size| product.saturating_mul(size as u64))
}
