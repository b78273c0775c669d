//! Search: the largest logits without all logits.
//!
//! A greedy step wants to know which logit of a row is the largest. So the head's kernel keeps that instead of writing all logits;
//! and where it pays it does not compute all of them either. It would read the whole head, a fifth or a quarter of a small
//! model's bytes, and multiply in bf16. Rounded to 8 bits the head has half as many bytes, an instruction multiplies more of
//! them, and how far rounding may move a logit is known: so a product with the rounded weights says which few logits may be the
//! largest, and only those are computed. The token is the one that all logits would give, bit for bit. Steps that want logits
//! take them as ever. Those that draw from the likeliest list some of the largest, of all that they compute.
//!
//! The rounded weights are a second copy of the head in the artifact. Only decode programs search: of a prompt a single row of
//! logits is wanted.

use crate::pack::weight_bytes;
use crate::pass::{Context, State};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::{Machine, Processor};
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::plan::{Operand, PackedWeight, Plan, Program, Rounded, Search, WeightLayout};
use llmc_ir::region::{Anchor, Kernel, PlannedModel, Region};

/// The longest rows that are searched: sums of rounded numbers stay within 32 bits.
const LONGEST_ROW: usize = 1 << 16;

/// Columns of a row that are computed, about, and with each the 15 that it shares lines of memory with. In text SmolLM2 has 13 and
/// Qwen2.5-0.5B 6, after random tokens 70 and 16 (means over 128 rows of either).
const COMPUTED: usize = 64;

/// Columns that share lines of memory.
const TOGETHER: usize = 16;

/// Products in 8 bits for each element of a row: large ones take two, and so do those beside them.
const PRODUCTS_PER_ELEMENT: f64 = 1.1;

/// Which rows of logits are searched by rounded weights.
#[derive(Clone, Copy, Debug)]
pub enum Rounding<'m> {
    /// None: there is no code for it.
    No,
    /// As many in a step as gain by it on a machine, by code that takes so many products in the time of one in f32.
    ByPrice(&'m Machine, f64),
    /// All.
    Always,
}

/// What [`Rounding::Always`] reckons with as the rate of products.
const USUAL_RATE: f64 = 4.0;

/// The pass.
pub fn search(state: State, context: &Context) -> Result<State, String> {
    let State::Planned(mut model) = state else {
        return Err(format!("it takes a planned model, found {}; run `plan` first", state.kind()));
    };
    let rounding = match context.machines.of(Processor::Cpu) {
        Ok(machine) => context.rounded_rate.map_or(Rounding::No, |rate| Rounding::ByPrice(machine, rate)),
        Err(_) => Rounding::No,
    };
    add_searches(&mut model, rounding)?;
    Ok(State::Planned(model))
}

/// Lets every decode program for CPUs search whose logits are a product and nothing else, and says of up to how many rows by
/// rounded weights: of none, if all steps of so few rows are run by tighter programs.
///
/// # Errors
/// If a rounded weight has more bytes than there are addresses.
pub fn add_searches(model: &mut PlannedModel, rounding: Rounding<'_>) -> Result<(), String> {
    let PlannedModel { plan, kernels, .. } = model;
    for (index, kernels) in kernels.iter().enumerate() {
        let (tighter, program) = (&plan.programs[..index], &plan.programs[index]);
        if program.processor != Processor::Cpu || !program.bounds.one_token_per_sequence {
            continue;
        }
        let Some(Head { function, launch, weight }) = head(program, kernels) else { continue };
        let rows = rounding.rows(&plan.weights[weight], program.bounds.max.samples)?;
        let rounded = if rows > rows_before(tighter, program) {
            Some(rounded(plan, index, weight, (rows, rounding.rate()))?)
        } else {
            None
        };
        plan.programs[index].search = Some(Search { function, launch, rounded });
    }
    Ok(())
}

/// Rows up to which every step that a program could run is run by a tighter one.
fn rows_before(tighter: &[Program], program: &Program) -> usize {
    let takes_all = |other: &&Program| {
        let (own, other) = (program.bounds, other.bounds);
        other.one_token_per_sequence && other.max.context >= own.max.context
    };
    let of_kind = tighter.iter().filter(|other| other.processor == program.processor);
    of_kind.filter(takes_all).map(|other| other.bounds.max.samples).max().unwrap_or(0)
}

impl Rounding<'_> {
    /// How many products are taken in the time of one in f32.
    fn rate(self) -> f64 {
        if let Rounding::ByPrice(_, rate) = self { rate } else { USUAL_RATE }
    }

    /// Up to how many rows, and no more than `most`, are searched by the rounded form of a weight.
    fn rows(self, weight: &PackedWeight, most: usize) -> Result<usize, String> {
        let &[n, k] = &weight.shape[..] else { return Ok(0) };
        if weight.dtype != DType::BF16 || k > LONGEST_ROW {
            return Ok(0);
        }
        let machine = match self {
            Rounding::No => return Ok(0),
            Rounding::Always => return Ok(most),
            Rounding::ByPrice(machine, _) => machine,
        };
        let rounded_bytes = weight_bytes(weight.dtype, &weight.shape, WeightLayout::Rounded)?;
        let [wide, narrow] = [machine.matrix_flops(DType::BF16), self.rate() * machine.matrix_flops(DType::F32)];
        let reading = |bytes: f64| bytes / machine.memory_bandwidth;
        let multiplying = |rows: usize, rate: f64| 2.0 * rows as f64 * n as f64 * k as f64 / rate;
        let computed = weight.bytes as f64 / n as f64 * (COMPUTED.min(n) * TOGETHER) as f64;
        let computing = |rows: usize| reading(computed * rows as f64);
        let pays = |&rows: &usize| {
            let searching = reading(rounded_bytes as f64).max(PRODUCTS_PER_ELEMENT * multiplying(rows, narrow));
            searching + computing(rows) < reading(weight.bytes as f64).max(multiplying(rows, wide))
        };
        Ok((1..=most).take_while(pays).count())
    }
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
    let is_packed = matches!(kernel.weight_layouts[1], Some(WeightLayout::Panels | WeightLayout::Compressed));
    let is_searched = is_product(&kernel.region) && is_packed;
    is_searched.then(|| Head { function: call.function, launch, weight: call.weights[slot] })
}

/// Whether a region is the product of its first input with its second, whose sums are one chain of multiply-adds: a search computes
/// single columns that way.
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
        && matches!(method, DotMethod::Gemm | DotMethod::Gemv)
        && operands.iter().enumerate().all(is_input)
        && same_type(&operands)
}

/// A weight of a program in its rounded form, for so many rows.
fn rounded(plan: &mut Plan, program: usize, weight: usize, (rows, rate): (usize, f64)) -> Result<Rounded, String> {
    let PackedWeight { name, dtype, shape, bytes: all, .. } = plan.weights[weight].clone();
    let layout = WeightLayout::Rounded;
    let bytes = weight_bytes(dtype, &shape, layout)?;
    let work = &plan.programs[program].work;
    let flops = shape.iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64));
    let weight_bytes = work.weight_bytes.saturating_sub(all).saturating_add(bytes);
    let flops_per_token = work.flops_per_token.saturating_sub((flops as f64 * (1.0 - 1.0 / rate)) as u64);
    let known = plan.weights.iter().position(|weight| weight.name == name && weight.layout == layout);
    let weight = known.unwrap_or(plan.weights.len());
    if known.is_none() {
        plan.weights.push(PackedWeight { name, dtype, shape, layout, bytes });
    }
    Ok(Rounded { weight, rows, weight_bytes, flops_per_token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::Instrument;
    use crate::pipeline::{Options, run_pipeline};
    use llmc_ir::builder::Numerics;
    use llmc_ir::plan::ModelFacts;
    use llmc_ir::testing::head_module;

    const BATCH: usize = 64;

    /// What a model whose head has so many columns searches by, per decode program.
    fn searches(columns: usize, k: usize, rounded_rate: Option<f64>) -> Vec<(String, Option<usize>)> {
        let module = head_module(Numerics::new(DType::BF16), columns, columns, k);
        let facts = ModelFacts {
            architecture: "Head".into(),
            dtype: DType::BF16,
            vocab: columns,
            hidden: k,
            layers: 0,
            max_context: 64,
            max_batch: BATCH,
            parameters: 0,
        };
        let context = Context { rounded_rate, ..Context::new(facts, Machine::named("host").unwrap()) };
        let mut instruments: Vec<Box<dyn Instrument>> = Vec::new();
        let state = State::Module(module);
        let (state, _) = run_pipeline(state, &context, &Options::default(), &mut instruments).unwrap();
        let State::Planned(model) = state else { panic!("the pipeline ends with a plan") };
        let rounded = model.plan.weights.iter().filter(|weight| weight.layout == WeightLayout::Rounded).count();
        let decodes = model.plan.programs.iter().filter(|program| program.bounds.one_token_per_sequence);
        let found: Vec<_> = decodes
            .map(|program| {
                let rounded = program.search.as_ref().unwrap().rounded;
                (program.name.clone(), rounded.map(|rounded| rounded.rows))
            })
            .collect();
        assert_eq!(rounded, usize::from(found.iter().any(|(_, rows)| rows.is_some())), "copies of the head");
        found
    }

    #[test]
    fn as_many_rows_are_rounded_as_gain_by_it() {
        let rows = |columns, k| searches(columns, k, Some(4.0)).into_iter().map(|(_, rows)| rows).collect::<Vec<_>>();
        // SmolLM2 and Qwen2.5-0.5B.
        assert_eq!(rows(49152, 576), [Some(1), Some(16), Some(BATCH)]);
        assert_eq!(rows(151_936, 896), [Some(1), Some(16), Some(BATCH)]);
        // What 8000 columns save is half of their bytes; computing some of each row reads more than that from four rows on.
        assert_eq!(rows(8000, 1024), [Some(1), Some(3), None]);
        assert_eq!(rows(2048, 1024), [None, None, None]);
        assert_eq!(rows(384, 64), [None, None, None]);
    }

    #[test]
    fn without_code_for_it_no_row_is_rounded() {
        assert!(searches(49152, 576, None).iter().all(|(_, rows)| rows.is_none()));
    }
}
