//! Whether a plan is consistent, from the plan and its kernels alone.

use super::barriers::{Access, accesses};
use super::tensor_bytes;
use crate::buffers::ALIGNMENT;
use crate::pack::weight_bytes;
use llmc_ir::dtype::DType;
use llmc_ir::infer::step_type;
use llmc_ir::plan::{Launch, Operand, Plan, Program, Rounded, WeightLayout, compressed};
use llmc_ir::region::{Kernel, PlannedModel};
use llmc_ir::shape::Type;
use std::collections::BTreeMap;

/// All that is wrong with a planned model; nothing if it is consistent.
pub fn check_plan(model: &PlannedModel) -> Vec<String> {
    let plan = &model.plan;
    let mut errors = Vec::new();
    for weight in &plan.weights {
        match weight_bytes(weight.dtype, &weight.shape, weight.layout) {
            Ok(bytes) if bytes == weight.bytes => {}
            // Upper bytes of flagged quarters are behind the panels.
            Ok(panels)
                if weight.layout == WeightLayout::Compressed
                    && weight.bytes > panels
                    && (weight.bytes - panels).is_multiple_of(compressed::HALF as u64) => {}
            Ok(bytes) => errors.push(format!("weight `{}`: {} bytes, expected {bytes}", weight.name, weight.bytes)),
            Err(reason) => errors.push(format!("weight `{}`: {reason}", weight.name)),
        }
    }
    if model.kernels.len() != plan.programs.len() {
        let (lists, programs) = (model.kernels.len(), plan.programs.len());
        errors.push(format!("{lists} lists of kernels for {programs} programs"));
    }
    for (program, kernels) in plan.programs.iter().zip(&model.kernels) {
        let mut found = Vec::new();
        check_program(plan, program, kernels, &mut found);
        errors.extend(found.into_iter().map(|error| format!("program {}: {error}", program.name)));
    }
    errors
}

fn check_program(plan: &Plan, program: &Program, kernels: &[Kernel], errors: &mut Vec<String>) {
    let by_name: BTreeMap<&str, &Kernel> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel)).collect();
    if by_name.len() != kernels.len() {
        errors.push("two kernels have the same name".into());
    }
    let before = errors.len();
    for function in &program.functions {
        for (index, launch) in function.launches.iter().enumerate() {
            let mut found = Vec::new();
            match by_name.get(launch.kernel.as_str()) {
                Some(kernel) => check_launch(plan, program, launch, kernel, &mut found),
                None => found.push("there is no kernel of that name".into()),
            }
            let place = format!("@{} launch {index} ({})", function.name, launch.kernel);
            errors.extend(found.into_iter().map(|error| format!("{place}: {error}")));
        }
    }
    if let Some(search) = &program.search {
        let launches = program.functions.get(search.function).map(|function| &function.launches);
        let is_head = launches.and_then(|all| all.get(search.launch)).map(|launch| launch.outputs == [Operand::Logits]);
        let may_be = |Rounded { weight, rows, .. }: Rounded| {
            let layout = plan.weights.get(weight).map(|weight| weight.layout);
            layout == Some(WeightLayout::Rounded) && (1..=program.bounds.max.samples).contains(&rows)
        };
        if is_head != Some(true) || !search.rounded.is_none_or(may_be) {
            errors.push(
                "it does not search the launch that makes the logits, or not some rows by a rounded weight".into(),
            );
        }
    }
    for (index, call) in program.calls.iter().enumerate() {
        let Some(function) = program.functions.get(call.function) else {
            errors.push(format!("call {index}: there is no function {}", call.function));
            continue;
        };
        for launch in &function.launches {
            if let Some(kernel) = by_name.get(launch.kernel.as_str()) {
                check_weights(plan, launch, kernel, &call.weights)
                    .unwrap_or_else(|error| errors.push(format!("call {index} ({}): {error}", launch.kernel)));
            }
            let cached = launch.inputs.iter().chain(&launch.outputs).any(|operand| *operand == Operand::Kv);
            if cached && call.kv_layer >= plan.kv.layers {
                errors.push(format!("call {index}: layer {} of {} cached ones", call.kv_layer, plan.kv.layers));
            }
        }
    }
    if errors.len() == before {
        check_barriers(program, &by_name, errors);
    }
}

/// The operands of a launch against the types of its kernel.
fn check_launch(plan: &Plan, program: &Program, launch: &Launch, kernel: &Kernel, errors: &mut Vec<String>) {
    let region = &kernel.region;
    let counts = [
        ("inputs", launch.inputs.len(), region.inputs.len()),
        ("outputs", launch.outputs.len(), region.outputs.len()),
        ("layouts", kernel.weight_layouts.len(), region.inputs.len()),
    ];
    for (what, found, expected) in counts {
        if found != expected {
            errors.push(format!("{found} {what}, expected {expected}"));
            return;
        }
    }
    let outputs: Vec<Type> = region.outputs.iter().map(|&output| region.body.ty(output).clone()).collect();
    let typed = launch.inputs.iter().zip(region.input_types()).chain(launch.outputs.iter().zip(outputs));
    for (position, (operand, ty)) in typed.enumerate() {
        let is_output = position >= launch.inputs.len();
        let fits = match (operand, &ty) {
            (Operand::Arena { offset, bytes }, Type::Tensor(tensor)) => {
                let inside = offset.checked_add(*bytes).is_some_and(|end| end <= program.arena_bytes);
                inside && offset.is_multiple_of(ALIGNMENT) && *bytes == tensor_bytes(tensor, &program.bounds)
            }
            (Operand::Weight { .. }, Type::Tensor(_)) => !is_output && kernel.weight_layouts[position].is_some(),
            (Operand::Step { input }, ty) => !is_output && step_shape_fits(ty, &step_type(*input), program),
            (Operand::Kv, Type::Kv(kv)) => {
                (kv.heads, kv.head_dim, kv.dtype) == (plan.kv.heads, plan.kv.head_dim, plan.kv.dtype)
            }
            (Operand::Logits, Type::Tensor(tensor)) => {
                let columns = tensor.shape.0.get(1).and_then(|dim| dim.as_fixed());
                is_output && tensor.dtype == DType::F32 && columns == Some(plan.model.vocab)
            }
            _ => false,
        };
        if !fits {
            errors.push(format!("operand {position}: {operand:?} does not hold {ty} at the bounds"));
        }
    }
    for (index, output) in launch.outputs.iter().enumerate() {
        let others = launch.inputs.iter().chain(&launch.outputs[..index]);
        if others.into_iter().any(|other| overlap(output, other)) {
            errors.push(format!("{output:?} overlaps another operand of the launch"));
        }
    }
}

/// Whether a step input has the type that a kernel expects, sizes taken at the bounds.
fn step_shape_fits(expected: &Type, found: &Type, program: &Program) -> bool {
    let sizes = |ty: &Type| ty.as_tensor().map(|tensor| (tensor.dtype, tensor.shape.evaluate(&program.bounds.max)));
    sizes(expected) == sizes(found)
}

fn overlap(a: &Operand, b: &Operand) -> bool {
    match (a, b) {
        (Operand::Arena { offset: a, bytes: a_bytes }, Operand::Arena { offset: b, bytes: b_bytes }) => {
            *a < b.saturating_add(*b_bytes) && *b < a.saturating_add(*a_bytes)
        }
        (Operand::Logits, Operand::Logits) => true,
        _ => false,
    }
}

/// The weights of a call against the types and layouts of a kernel.
fn check_weights(plan: &Plan, launch: &Launch, kernel: &Kernel, weights: &[usize]) -> Result<(), String> {
    let expected = kernel.region.input_types();
    for ((operand, ty), layout) in launch.inputs.iter().zip(&expected).zip(&kernel.weight_layouts) {
        let Operand::Weight { slot } = operand else { continue };
        let weight = weights.get(*slot).and_then(|&index| plan.weights.get(index));
        let weight = weight.ok_or_else(|| format!("there is no weight in slot {slot}"))?;
        let found = Type::tensor(weight.dtype, &weight.shape);
        if found != *ty || Some(weight.layout) != *layout {
            let layout = layout.unwrap_or(WeightLayout::RowMajor);
            let (name, found_layout) = (&weight.name, weight.layout);
            return Err(format!("weight `{name}` is {found} ({found_layout:?}), expected {ty} ({layout:?})"));
        }
    }
    Ok(())
}

/// Whether any two launches between two barriers of a step touch the same memory.
fn check_barriers(program: &Program, kernels: &BTreeMap<&str, &Kernel>, errors: &mut Vec<String>) {
    let mut phase: Vec<(String, Vec<Access>)> = Vec::new();
    for (index, call) in program.calls.iter().enumerate() {
        for launch in &program.functions[call.function].launches {
            if launch.barrier {
                phase.clear();
            }
            let touched = accesses(launch, kernels[launch.kernel.as_str()], call.kv_layer);
            for (other, before) in &phase {
                if before.iter().any(|a| touched.iter().any(|b| a.clashes(b))) {
                    errors.push(format!("call {index}: no barrier between {other} and {}", launch.kernel));
                }
            }
            phase.push((launch.kernel.clone(), touched));
        }
    }
}
