//! Search: the largest logits without all logits.
//!
//! A greedy step wants to know which logit of a row is the largest. So the head's kernel keeps that instead of writing all logits;
//! and where few rows wait for memory it does not compute all of them either. It would read the whole head, a fifth or a
//! quarter of a small model's bytes. Rounded to 8 bits the head has half as many, and how far rounding may move a logit is known: so
//! a product with the rounded weights says which few logits may be the largest, and only those are computed. The token is the
//! one that all logits would give, bit for bit. Steps that want logits take them as ever.
//!
//! The rounded weights are a second copy of the head in the artifact. Only decode programs search: of a prompt a single row of
//! logits is wanted.

use crate::pack::weight_bytes;
use crate::pass::{Context, State};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Processor;
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::plan::{Operand, PackedWeight, Plan, Program, Rounded, Search, WeightLayout};
use llmc_ir::region::{Anchor, Kernel, PlannedModel, Region};

/// The longest rows that are searched: sums of rounded numbers stay within 32 bits.
const LONGEST_ROW: usize = 1 << 16;

/// The pass.
pub fn search(state: State, context: &Context) -> Result<State, String> {
    let State::Planned(mut model) = state else {
        return Err(format!("it takes a planned model, found {}; run `plan` first", state.kind()));
    };
    add_searches(&mut model, context.rounds)?;
    Ok(State::Planned(model))
}

/// Lets every decode program for CPUs search whose logits are a product and nothing else: of bf16 by rounded weights, if
/// code `rounds`.
///
/// # Errors
/// If a rounded weight has more bytes than there are addresses.
pub fn add_searches(model: &mut PlannedModel, rounds: bool) -> Result<(), String> {
    let PlannedModel { plan, kernels, .. } = model;
    for (index, kernels) in kernels.iter().enumerate() {
        let program = &plan.programs[index];
        if program.processor != Processor::Cpu || !program.bounds.one_token_per_sequence {
            continue;
        }
        let Some(Head { function, launch, weight }) = head(program, kernels) else { continue };
        let rounded = if rounds && may_be_rounded(&plan.weights[weight]) {
            let rounded = rounded(plan, weight)?;
            let others = plan.programs[index].work.weight_bytes.saturating_sub(plan.weights[weight].bytes);
            Some(Rounded { weight: rounded, weight_bytes: others.saturating_add(plan.weights[rounded].bytes) })
        } else {
            None
        };
        plan.programs[index].search = Some(Search { function, launch, rounded });
    }
    Ok(())
}

/// Whether a product with a weight may be taken in 8 bits.
fn may_be_rounded(weight: &PackedWeight) -> bool {
    weight.dtype == DType::BF16 && weight.shape.get(1).is_some_and(|&k| k <= LONGEST_ROW)
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

/// Whether a region is the product of its first input with its second, whose sums are not split.
fn is_product(region: &Region) -> bool {
    let body = &region.body;
    let [output] = region.outputs[..] else { return false };
    let Op::Dot { left: 1, right: 1, batch: 0, method } = *body.op(output) else { return false };
    let operands = body.operands(output);
    let is_input = |(expected, &node)| matches!(body.op(node), Op::Input { index, .. } if *index == expected);
    let same_type = |pair: &[NodeId]| match (body.ty(pair[0]).as_tensor(), body.ty(pair[1]).as_tensor()) {
        (Some(left), Some(right)) => left.dtype == right.dtype,
        _ => false,
    };
    region.anchor == Anchor::Dot
        && method != DotMethod::SplitK
        && operands.iter().enumerate().all(is_input)
        && same_type(&operands)
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
