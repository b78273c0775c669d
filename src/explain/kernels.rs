//! Kernels under the machine's roof: what a launch moves and computes at the typical sizes of its program, and how long
//! that takes if nothing but the machine limits it.

use super::report::{Kernel, Price, Program, Way};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::dtype::DType;
use llmc_ir::machine::{Machines, Processor};
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::plan::{self, Operand, Plan, WeightLayout};
use llmc_ir::region::{self, PlannedModel};
use llmc_passes::eqsat::cost::{Target, Work, price_of, typical};
use llmc_passes::region_cost::{self, cache_bytes, input_bytes, region_work, tensor_bytes, ways};
use std::collections::{BTreeMap, BTreeSet};

/// A target's name, and the bytes of its functions by symbol.
pub type CodeSizes = (String, BTreeMap<String, u64>);

/// The programs of a planned model.
///
/// # Errors
/// If there is no machine for one.
pub fn programs(planned: &PlannedModel, machines: &Machines, code: &[CodeSizes]) -> Result<Vec<Program>, String> {
    let describe = |(program, of_program): (&plan::Program, &Vec<region::Kernel>)| {
        let machine = machines.of(program.processor)?;
        let sizes = typical(&program.bounds);
        let mut launches: BTreeMap<&str, usize> = BTreeMap::new();
        let mut barriers = 0;
        for launch in program.calls.iter().flat_map(|call| &program.functions[call.function].launches) {
            *launches.entry(&launch.kernel).or_default() += 1;
            barriers += usize::from(launch.barrier);
        }
        let compressed = compressed_inputs(&planned.plan, program);
        let describe = |kernel: &region::Kernel| {
            let symbol = llmc_codegen::kernel_symbol(&program.name, &kernel.name);
            let code = if program.processor == Processor::Cpu { code } else { &[] };
            let bytes = code.iter().map(|(name, sizes)| (name.clone(), sizes.get(&symbol).copied().unwrap_or(0)));
            let launches = launches.get(kernel.name.as_str()).copied().unwrap_or(0);
            let target = Target::of(machine, &program.bounds);
            describe_kernel(kernel, launches, &target, (bytes.collect(), &compressed))
        };
        let kernels: Vec<Kernel> = of_program.iter().map(describe).collect();
        let sum = |part: fn(&Price) -> f64| {
            kernels.iter().map(|kernel| kernel.launches as f64 * part(&kernel.price)).sum::<f64>()
        };
        Ok(Program {
            name: program.name.clone(),
            machine: machine.name.clone(),
            takes: takes(&program.bounds),
            sizes,
            launches: program.launches_per_step(),
            barriers,
            seconds: sum(|price| price.seconds),
            bytes: sum(|price| price.bytes),
            flops: sum(|price| price.flops),
            rounded_rows: program.search.as_ref().and_then(|search| search.rounded).map_or(0, |rounded| rounded.rows),
            floor_bytes: floor(&planned.plan, program, of_program, &sizes),
            kernels,
            arena: super::arena::arena(program),
        })
    };
    planned.plan.programs.iter().zip(&planned.kernels).map(describe).collect()
}

fn takes(bounds: &Bounds) -> String {
    let max = &bounds.max;
    match (bounds.one_token_per_sequence, max.sequences) {
        (true, 1) => "one token of one sequence".to_owned(),
        (true, sequences) => format!("one token of each of up to {sequences} sequences"),
        (false, sequences) => format!("up to {} tokens of up to {sequences} sequences", max.tokens),
    }
}

fn describe_kernel(
    kernel: &region::Kernel,
    launches: usize,
    target: &Target<'_>,
    (code_bytes, compressed): (BTreeMap<String, u64>, &CompressedInputs<'_>),
) -> Kernel {
    let machine = target.machine;
    let (work, dtype) = work(kernel, &target.sizes, compressed);
    let body = &kernel.region.body;
    let in_blocks = |node| matches!(body.op(node), Op::Dot { method: DotMethod::BlockFloat, .. });
    let in_blocks = machine.block_float.filter(|_| body.topological().into_iter().any(in_blocks));
    let matrix = machine.matrix_flops(dtype) * in_blocks.unwrap_or(1.0);
    let price = price_of(&work, matrix, machine);
    let (unit_flops, peak) = match work.matrix_flops / matrix >= work.vector_flops / machine.vector_flops {
        true => (work.matrix_flops, matrix),
        false => (work.vector_flops, machine.vector_flops),
    };
    let flops = work.matrix_flops + work.vector_flops;
    Kernel {
        name: kernel.name.clone(),
        anchor: kernel.region.anchor.name(),
        launches,
        price: Price { bytes: work.bytes, flops, seconds: price.seconds, bound: price.bound.to_string() },
        unit_flops,
        intensity: if work.bytes > 0.0 { unit_flops / work.bytes } else { 0.0 },
        peak,
        ways: ways(&kernel.region, target).into_iter().map(as_reported).collect(),
        code_bytes,
    }
}

/// What share of their bytes the compressed weights have that launches of a kernel take as an input, by the kernel's name and the
/// input's number: the mean of all.
type CompressedInputs<'p> = BTreeMap<(&'p str, usize), f64>;

fn compressed_inputs<'p>(plan: &Plan, program: &'p plan::Program) -> CompressedInputs<'p> {
    let mut sums: BTreeMap<(&str, usize), [f64; 2]> = BTreeMap::new();
    for call in &program.calls {
        for launch in &program.functions[call.function].launches {
            for (input, operand) in launch.inputs.iter().enumerate() {
                let Operand::Weight { slot } = operand else { continue };
                let weight = call.weights.get(*slot).and_then(|&index| plan.weights.get(index));
                if let Some(weight) = weight.filter(|weight| weight.layout == WeightLayout::Compressed) {
                    let [bytes, plain] = sums.entry((&launch.kernel, input)).or_default();
                    *bytes += weight.bytes as f64;
                    *plain += weight.shape.iter().product::<usize>() as f64 * weight.dtype.bytes() as f64;
                }
            }
        }
    }
    sums.into_iter().map(|(input, [bytes, plain])| (input, bytes / plain)).collect()
}

/// What one launch of a kernel does, and the element type that its products multiply.
fn work(kernel: &region::Kernel, sizes: &Bindings, compressed: &CompressedInputs<'_>) -> (Work, DType) {
    let (mut work, dtype) = region_work(&kernel.region, sizes);
    for node in kernel.region.body.topological() {
        let Op::Input { index, .. } = kernel.region.body.op(node) else { continue };
        if let Some(share) = compressed.get(&(kernel.name.as_str(), *index)) {
            work.bytes -= (1.0 - share) * input_bytes(&kernel.region, node, sizes);
        }
    }
    (work, dtype)
}

fn as_reported(region_cost::Way { name, seconds, chosen }: region_cost::Way) -> Way {
    Way { name, seconds, chosen }
}

/// What no step of a program can do without: each weight once, gathered rows, and the cache.
fn floor(plan: &Plan, program: &plan::Program, kernels: &[region::Kernel], sizes: &Bindings) -> f64 {
    let by_name: BTreeMap<&str, &region::Kernel> =
        kernels.iter().map(|kernel| (kernel.name.as_str(), kernel)).collect();
    let mut weights: BTreeSet<usize> = BTreeSet::new();
    let mut bytes = 0.0;
    for call in &program.calls {
        for launch in &program.functions[call.function].launches {
            let Some(kernel) = by_name.get(launch.kernel.as_str()) else { continue };
            let body = &kernel.region.body;
            for node in body.topological() {
                bytes += cache_bytes(&kernel.region, node, sizes);
                let Op::Input { index, .. } = body.op(node) else { continue };
                let Some(Operand::Weight { slot }) = launch.inputs.get(*index) else { continue };
                let whole = tensor_bytes(body.ty(node), sizes);
                let read = input_bytes(&kernel.region, node, sizes);
                if read < whole {
                    bytes += read;
                } else {
                    weights.extend(call.weights.get(*slot));
                }
            }
        }
    }
    bytes + weights.iter().filter_map(|&index| plan.weights.get(index)).map(|weight| weight.bytes as f64).sum::<f64>()
}
