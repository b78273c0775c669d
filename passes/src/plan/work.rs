//! What no step of a program can do without: its weights once, its products, its attention.

use crate::region_cost::is_looked_up;
use llmc_ir::dim::Bindings;
use llmc_ir::graph::NodeId;
use llmc_ir::op::{DotMethod, Op};
use llmc_ir::plan::{AttentionWork, Operand, PackedWeight, PlannedCall, PlannedFunction, Work};
use llmc_ir::region::{Kernel, Region};
use llmc_ir::shape::{TensorType, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Of a program's calls.
pub(crate) fn work(
    calls: &[PlannedCall],
    functions: &[PlannedFunction],
    kernels: &[Kernel],
    weights: &[PackedWeight],
) -> Work {
    let by_name: BTreeMap<&str, &Kernel> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel)).collect();
    let mut work = Work::default();
    let mut read: BTreeSet<usize> = BTreeSet::new();
    for call in calls {
        for launch in &functions[call.function].launches {
            let Some(kernel) = by_name.get(launch.kernel.as_str()) else { continue };
            let region = &kernel.region;
            for node in region.body.topological() {
                match region.body.op(node) {
                    Op::Input { index, .. } if !is_looked_up(region, node) => {
                        if let Some(Operand::Weight { slot }) = launch.inputs.get(*index) {
                            read.extend(call.weights.get(*slot));
                        }
                    }
                    _ => add(&mut work, region, node),
                }
            }
        }
    }
    work.weight_bytes = read.iter().filter_map(|&index| weights.get(index)).map(|weight| weight.bytes).sum();
    work
}

/// Adds a node's operations.
fn add(work: &mut Work, region: &Region, node: NodeId) {
    let body = &region.body;
    match body.op(node) {
        Op::Dot { left, method, .. } => {
            let operand = body.operands(node)[0];
            let (Some(operand), Some(ty)) = (body.ty(operand).as_tensor(), body.ty(node).as_tensor()) else { return };
            let k = operand.shape.0[*left].as_fixed().unwrap_or(1) as u64;
            let [token, sample] = [Bindings { tokens: 1, ..NOTHING }, Bindings { samples: 1, ..NOTHING }];
            let per_token = 2 * k * elements(ty, &token);
            work.flops_per_token += per_token;
            if *method == DotMethod::BlockFloat {
                work.block_float_flops_per_token += per_token;
            }
            work.flops_per_sample += 2 * k * elements(ty, &sample);
        }
        Op::Attend(attention) => {
            let Some(Type::Kv(kv)) = body.operands(node).get(1).map(|&cache| body.ty(cache)) else { return };
            let bytes = (2 * kv.heads * kv.head_dim * kv.dtype.bytes()) as u64;
            let flops = (4 * attention.heads * kv.head_dim) as u64;
            let window = attention.window;
            match work.attention.iter_mut().find(|part| part.window == window) {
                Some(part) => {
                    part.bytes_per_position += bytes;
                    part.flops_per_position += flops;
                }
                None => {
                    work.attention.push(AttentionWork { window, bytes_per_position: bytes, flops_per_position: flops })
                }
            }
        }
        _ => {}
    }
}

/// A step without anything in it.
const NOTHING: Bindings = Bindings { tokens: 0, samples: 0, sequences: 0, context: 0 };

fn elements(ty: &TensorType, sizes: &Bindings) -> u64 {
    ty.shape.evaluate(sizes).into_iter().map(|size| size as u64).product()
}
