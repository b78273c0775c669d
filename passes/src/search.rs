//! Search: the largest logits without all logits.
//!
//! A greedy step wants to know which logit of a row is the largest, and reads the whole head for it, a fifth or a quarter of a
//! small model's bytes. Rounded to 8 bits the head has half as many, and how far rounding may move a logit is known: so
//! a product with the rounded weights says which few logits may be the largest, and only those are computed. The token is the
//! one that all logits would give, bit for bit. Steps that want logits take them as ever.
//!
//! The rounded weights are a second copy of the head in the artifact. Only decode programs search: of a prompt a single row of
//! logits is wanted.

use crate::pack::weight_bytes;
use crate::pass::{Context, State};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Processor;
use llmc_ir::op::Op;
use llmc_ir::plan::{Operand, PackedWeight, Plan, Program, Search, WeightLayout};
use llmc_ir::region::{Anchor, Kernel, PlannedModel, Region};

/// The longest rows that are searched: sums of rounded numbers stay within 32 bits.
const LONGEST_ROW: usize = 1 << 16;

/// The pass.
pub fn search(state: State, context: &Context) -> Result<State, String> {
    let State::Planned(mut model) = state else {
        return Err(format!("it takes a planned model, found {}; run `plan` first", state.kind()));
    };
    if context.searches {
        add_searches(&mut model)?;
    }
    Ok(State::Planned(model))
}

/// Lets every decode program for CPUs search whose logits are a product of bf16 and nothing else.
///
/// # Errors
/// If a rounded weight has more bytes than there are addresses.
pub fn add_searches(model: &mut PlannedModel) -> Result<(), String> {
    let PlannedModel { plan, kernels, .. } = model;
    for (index, kernels) in kernels.iter().enumerate() {
        let program = &plan.programs[index];
        if program.processor != Processor::Cpu || !program.bounds.one_token_per_sequence {
            continue;
        }
        let Some(Head { function, launch, weight }) = head(program, kernels) else { continue };
        let rounded = rounded(plan, weight)?;
        let program = &mut plan.programs[index];
        let work = program.work.weight_bytes;
        let weight_bytes = work.saturating_sub(plan.weights[weight].bytes).saturating_add(plan.weights[rounded].bytes);
        program.search = Some(Search { function, launch, rounded, weight_bytes });
    }
    Ok(())
}

/// The launch that makes the logits.
struct Head {
    function: usize,
    launch: usize,
    /// The weight, an index into [`Plan::weights`].
    weight: usize,
}

/// The head of a program, if it can be searched.
fn head(program: &Program, kernels: &[Kernel]) -> Option<Head> {
    let call = program.calls.last()?;
    let launches = &program.functions[call.function].launches;
    let launch = launches.iter().position(|launch| launch.outputs == [Operand::Logits])?;
    let kernel = kernels.iter().find(|kernel| kernel.name == launches[launch].kernel)?;
    let [Operand::Arena { .. }, Operand::Weight { slot }] = launches[launch].inputs[..] else { return None };
    let is_searched = is_product(&kernel.region) && kernel.weight_layouts[1] == Some(WeightLayout::Panels);
    is_searched.then(|| Head { function: call.function, launch, weight: call.weights[slot] })
}

/// Whether a region is the product of its first input with its second, both in bf16.
fn is_product(region: &Region) -> bool {
    let body = &region.body;
    let [output] = region.outputs[..] else { return false };
    let input = |node, expected| match body.op(node) {
        Op::Input { index, ty } => {
            let ty = ty.as_tensor();
            let k = ty.and_then(|ty| ty.shape.0.get(1)?.as_fixed());
            *index == expected && ty.is_some_and(|ty| ty.dtype == DType::BF16) && k.is_some_and(|k| k <= LONGEST_ROW)
        }
        _ => false,
    };
    let is_dot = region.anchor == Anchor::Dot && matches!(body.op(output), Op::Dot { left: 1, right: 1, batch: 0, .. });
    is_dot && body.operands(output).iter().zip(0..).all(|(&operand, expected)| input(operand, expected))
}

/// The rounded form of a weight in the weight table, an index.
fn rounded(plan: &mut Plan, weight: usize) -> Result<usize, String> {
    let PackedWeight { name, dtype, shape, .. } = plan.weights[weight].clone();
    let layout = WeightLayout::Rounded;
    let known = plan.weights.iter().position(|weight| weight.name == name && weight.layout == layout);
    if let Some(known) = known {
        return Ok(known);
    }
    let bytes = weight_bytes(dtype, &shape, layout)?;
    plan.weights.push(PackedWeight { name, dtype, shape, layout, bytes });
    Ok(plan.weights.len() - 1)
}
