//! What a region makes a machine do. Unlike prices of forms, which are made before fusion (`eqsat/cost.rs`), bytes are those
//! of its inputs and outputs.

use crate::eqsat::analysis::Dependence;
use crate::eqsat::compare::{other_ways, way};
use crate::eqsat::cost::{Target, Term, Work};
use llmc_ir::dim::Bindings;
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::Op;
use llmc_ir::region::Region;
use llmc_ir::shape::Type;

/// What one launch does, and the element type that its products multiply.
pub fn region_work(region: &Region, sizes: &Bindings) -> (Work, DType) {
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

/// A way in which a kernel could divide its work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// As the text form calls it.
    pub name: &'static str,
    /// Seconds of the kernel's products or attention, by the prices that forms are chosen by.
    pub seconds: f64,
    /// Whether it is the one that was chosen.
    pub chosen: bool,
}

/// The ways that a region's products with weights, or its attention, could go in a step; none if there is no choice. Products
/// of the same rows are priced as the one product that their kernel makes of them.
pub fn ways(region: &Region, target: &Target<'_>) -> Vec<Way> {
    let body = &region.body;
    let mut ways: Vec<Way> = Vec::new();
    for (op, operands, ty) in choices(body) {
        for other in std::iter::once(&op).chain(&other_ways(&op)) {
            let (Some(name), operands) = (way(other), operands.iter().collect()) else { continue };
            let term = Term { op: other, operands, ty: &ty, dependence: Dependence::Runtime };
            let seconds = term.price(target).seconds;
            match ways.iter_mut().find(|way| way.name == name) {
                Some(way) => way.seconds += seconds,
                None => ways.push(Way { name, seconds, chosen: *other == op }),
            }
        }
    }
    ways.retain(|way| way.seconds.is_finite());
    ways
}

/// What there is a choice of in a body: operations with the types of their operands and results.
fn choices(body: &Graph) -> Vec<(Op, Vec<Type>, Type)> {
    let mut choices: Vec<(NodeId, Op, Vec<Type>, Type)> = Vec::new();
    for node in body.topological() {
        let op = body.op(node);
        let operands = body.operands(node);
        let is_choice = match op {
            Op::Dot { .. } => matches!(body.op(operands[1]), Op::Input { .. }),
            op => way(op).is_some(),
        };
        if way(op).is_none() || !is_choice {
            continue;
        }
        let types: Vec<Type> = operands.iter().map(|&operand| body.ty(operand).clone()).collect();
        let same_rows = choices
            .iter_mut()
            .find(|(rows, known, ..)| matches!(op, Op::Dot { .. }) && *rows == operands[0] && known == op);
        match same_rows {
            Some((_, _, known, result)) => {
                widen(&mut known[1], 0, &types[1]);
                widen(result, 1, body.ty(node));
            }
            None => choices.push((operands[0], op.clone(), types, body.ty(node).clone())),
        }
    }
    choices.into_iter().map(|(_, op, operands, ty)| (op, operands, ty)).collect()
}

/// Makes an axis of a type longer by that of another.
fn widen(ty: &mut Type, axis: usize, by: &Type) {
    if let (Type::Tensor(ty), Type::Tensor(by)) = (ty, by) {
        ty.shape.0[axis].coefficient += by.shape.0[axis].coefficient;
    }
}

/// Bytes that a launch reads of an input. Of a table only the gathered rows.
pub fn input_bytes(region: &Region, node: NodeId, sizes: &Bindings) -> f64 {
    let body = &region.body;
    if !matches!(body.op(node), Op::Input { .. }) {
        return 0.0;
    }
    if is_looked_up(region, node) {
        return body.users(node).into_iter().map(|user| tensor_bytes(body.ty(user), sizes)).sum();
    }
    tensor_bytes(body.ty(node), sizes)
}

/// Whether only rows of an input are looked up.
pub fn is_looked_up(region: &Region, input: NodeId) -> bool {
    let body = &region.body;
    let gathers = |user: &NodeId| matches!(body.op(*user), Op::Gather) && body.operands(*user)[0] == input;
    let users = body.users(input);
    !users.is_empty() && users.iter().all(gathers)
}

/// Bytes of the cache that a node reads or writes.
pub fn cache_bytes(region: &Region, node: NodeId, sizes: &Bindings) -> f64 {
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
pub fn tensor_bytes(ty: &Type, sizes: &Bindings) -> f64 {
    let Some(tensor) = ty.as_tensor() else { return 0.0 };
    let elements: f64 = tensor.shape.evaluate(sizes).into_iter().map(|size| size as f64).product();
    elements * tensor.dtype.bytes() as f64
}
