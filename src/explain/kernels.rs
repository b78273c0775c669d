//! Kernels under the machine's roof: what a launch moves and computes at the typical sizes of its program, and how long
//! that takes if nothing but the machine limits it.

use super::report::{Kernel, Price, Program};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::dtype::DType;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machine;
use llmc_ir::op::Op;
use llmc_ir::plan::{self, Operand, Plan};
use llmc_ir::region::{self, PlannedModel};
use llmc_ir::shape::Type;
use llmc_passes::eqsat::analysis::Dependence;
use llmc_passes::eqsat::cost::{Term, Work, price_of, typical};
use std::collections::{BTreeMap, BTreeSet};

/// A target's name, and the bytes of its functions by symbol.
pub type CodeSizes = (String, BTreeMap<String, u64>);

/// The programs of a planned model.
pub fn programs(planned: &PlannedModel, machine: &Machine, code: &[CodeSizes]) -> Vec<Program> {
    let describe = |(program, of_program): (&plan::Program, &Vec<region::Kernel>)| {
        let sizes = typical(&program.bounds);
        let mut launches: BTreeMap<&str, usize> = BTreeMap::new();
        let mut barriers = 0;
        for launch in program.calls.iter().flat_map(|call| &program.functions[call.function].launches) {
            *launches.entry(&launch.kernel).or_default() += 1;
            barriers += usize::from(launch.barrier);
        }
        let describe = |kernel: &region::Kernel| {
            let symbol = llmc_codegen::kernel_symbol(&program.name, &kernel.name);
            let bytes = code.iter().map(|(name, sizes)| (name.clone(), sizes.get(&symbol).copied().unwrap_or(0)));
            let launches = launches.get(kernel.name.as_str()).copied().unwrap_or(0);
            describe_kernel(kernel, launches, &sizes, machine, bytes.collect())
        };
        let kernels: Vec<Kernel> = of_program.iter().map(describe).collect();
        let sum = |part: fn(&Price) -> f64| {
            kernels.iter().map(|kernel| kernel.launches as f64 * part(&kernel.price)).sum::<f64>()
        };
        Program {
            name: program.name.clone(),
            takes: takes(&program.bounds),
            sizes,
            launches: program.launches_per_step(),
            barriers,
            seconds: sum(|price| price.seconds),
            bytes: sum(|price| price.bytes),
            flops: sum(|price| price.flops),
            floor_bytes: floor(&planned.plan, program, of_program, &sizes),
            kernels,
            arena: super::arena::arena(program),
        }
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
    sizes: &Bindings,
    machine: &Machine,
    code_bytes: BTreeMap<String, u64>,
) -> Kernel {
    let (work, dtype) = work(&kernel.region, sizes);
    let price = price_of(&work, dtype, machine);
    let matrix = machine.matrix_flops(dtype);
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
        code_bytes,
    }
}

/// What one launch does, and the element type that its products multiply. Unlike prices of forms, which are made before
/// fusion, bytes are those of the region's inputs and outputs.
fn work(region: &region::Region, sizes: &Bindings) -> (Work, DType) {
    let body = &region.body;
    let mut work = Work { launches: 1.0, ..Work::default() };
    let mut dtype = DType::F32;
    for node in body.topological() {
        let op = body.op(node);
        let operands: Vec<&Type> = body.operands(node).into_iter().map(|operand| body.ty(operand)).collect();
        if let (Op::Dot { .. } | Op::Attend(_), Some(Type::Tensor(left))) = (op, operands.first()) {
            dtype = left.dtype;
        }
        let own = Term { op, operands, ty: body.ty(node), dependence: Dependence::Runtime }.work(sizes);
        work.matrix_flops += own.matrix_flops;
        work.vector_flops += own.vector_flops;
        work.bytes += input_bytes(region, node, sizes) + cache_bytes(region, node, sizes);
    }
    work.bytes += region.outputs.iter().map(|&output| tensor_bytes(body.ty(output), sizes)).sum::<f64>();
    (work, dtype)
}

/// Bytes that a launch reads of an input. Of a table only the gathered rows.
fn input_bytes(region: &region::Region, node: NodeId, sizes: &Bindings) -> f64 {
    let body = &region.body;
    if !matches!(body.op(node), Op::Input { .. }) {
        return 0.0;
    }
    let users = body.users(node);
    let gathers = |user: &NodeId| matches!(body.op(*user), Op::Gather) && body.operands(*user)[0] == node;
    if !users.is_empty() && users.iter().all(gathers) {
        return users.into_iter().map(|user| tensor_bytes(body.ty(user), sizes)).sum();
    }
    tensor_bytes(body.ty(node), sizes)
}

/// Bytes of the cache that a node reads or writes.
fn cache_bytes(region: &region::Region, node: NodeId, sizes: &Bindings) -> f64 {
    let body = &region.body;
    match (body.op(node), body.ty(node)) {
        (Op::KvWrite { .. }, Type::Kv(kv)) => (sizes.tokens * kv.heads * kv.head_dim * kv.dtype.bytes()) as f64,
        (Op::Attend(attention), _) => {
            let Some(Type::Kv(kv)) = body.operands(node).get(1).map(|&cache| body.ty(cache)) else { return 0.0 };
            let seen = attention.window.map_or(sizes.context, |window| window.min(sizes.context));
            (2 * sizes.sequences * seen * kv.heads * kv.head_dim * kv.dtype.bytes()) as f64
        }
        _ => 0.0,
    }
}

/// Bytes of a tensor; a cache is counted by those who look into it.
fn tensor_bytes(ty: &Type, sizes: &Bindings) -> f64 {
    let Some(tensor) = ty.as_tensor() else { return 0.0 };
    let elements: f64 = tensor.shape.evaluate(sizes).into_iter().map(|size| size as f64).product();
    elements * tensor.dtype.bytes() as f64
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
