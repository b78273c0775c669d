//! Type inference: the type of a node follows from its operation and its operands' types.

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::op::{Attention, DotMethod, Op, UnaryOp};
use crate::plan::StepInput;
use crate::shape::{KvType, Shape, TensorType, Type};

/// The type of `op` applied to operands of the given types, or what is wrong and what to do.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Type, String> {
    let expected = match op {
        Op::Concat { .. } => operands.len().max(1),
        op if op.is_leaf() => 0,
        Op::Select => 3,
        Op::Binary(_) | Op::Compare(_) | Op::Dot { .. } | Op::Gather | Op::KvWrite { .. } | Op::Attend(_) => 2,
        _ => 1,
    };
    if operands.len() != expected {
        return Err(format!("expected {expected} operands, found {}", operands.len()));
    }
    match op {
        Op::Input { ty, .. } | Op::Weight { ty, .. } => Ok(ty.clone()),
        Op::Step(input) => Ok(step_type(*input)),
        Op::Constant { values, dtype, shape } => constant(values.len(), *dtype, shape),
        Op::Iota { axis, shape } => {
            check_axis(*axis, shape)?;
            Ok(Type::Tensor(TensorType { dtype: DType::I32, shape: shape.clone() }))
        }
        Op::Attend(attention) => attend(attention, operands[0], operands[1]),
        Op::KvWrite { .. } => kv_write(operands[0], operands[1]),
        _ => {
            let tensors: Result<Vec<_>, _> = operands
                .iter()
                .map(|ty| ty.as_tensor().ok_or_else(|| format!("expected a tensor, found {ty}")))
                .collect();
            tensor_op(op, &tensors?).map(Type::Tensor)
        }
    }
}

/// The type of a step input.
pub fn step_type(input: StepInput) -> Type {
    match input {
        StepInput::TokenIds | StepInput::Positions => Type::tensor(DType::I32, &[Symbol::Tokens]),
        StepInput::SampleRows => Type::tensor(DType::I32, &[Symbol::Samples]),
    }
}

fn tensor_op(op: &Op, operands: &[&TensorType]) -> Result<TensorType, String> {
    let first = operands.first().ok_or("expected at least one operand")?;
    let with_shape = |shape: Shape| TensorType { dtype: first.dtype, shape };
    match op {
        Op::Unary(unary) => {
            let integer_ok = matches!(unary, UnaryOp::Negate | UnaryOp::Absolute) && first.dtype == DType::I32;
            if !first.dtype.is_float() && !integer_ok {
                return Err(format!("{} needs a float operand, found {first}; convert it first", op.name()));
            }
            Ok((*first).clone())
        }
        Op::Binary(_) => {
            same(first, operands[1])?;
            if first.dtype == DType::Bool {
                return Err(format!("{} needs numbers, found {first}", op.name()));
            }
            Ok((*first).clone())
        }
        Op::Compare(_) => {
            same(first, operands[1])?;
            Ok(TensorType { dtype: DType::Bool, shape: first.shape.clone() })
        }
        Op::Select => {
            same(operands[1], operands[2])?;
            if first.dtype != DType::Bool || first.shape != operands[1].shape {
                return Err(format!("the condition must be bool{}, found {first}", operands[1].shape));
            }
            Ok(operands[1].clone())
        }
        Op::Convert { to } => Ok(TensorType { dtype: *to, shape: first.shape.clone() }),
        Op::Reduce { axis, .. } => {
            check_axis(*axis, &first.shape)?;
            if !first.dtype.is_float() {
                return Err(format!("reduce needs a float operand, found {first}"));
            }
            let mut shape = first.shape.clone();
            shape.0[*axis] = Dim::fixed(1);
            Ok(with_shape(shape))
        }
        Op::Dot { left, right, batch, method } => {
            let ty = dot(first, operands[1], *left, *right, *batch)?;
            let is_narrow = [first, operands[1]].iter().all(|ty| ty.dtype == DType::BF16);
            if *method == DotMethod::BlockFloat && !(is_narrow && (*left, *right, *batch) == (1, 1, 0)) {
                let (name, second) = (method.name(), operands[1]);
                return Err(format!("dot by {name} needs rows of bf16 and rows of bf16, found {first} and {second}"));
            }
            Ok(ty)
        }
        Op::Reshape { shape } => match (first.shape.elements(), shape.elements()) {
            (Some(from), Some(to)) if from == to => Ok(with_shape(shape.clone())),
            _ => Err(format!("reshape must keep the number of elements: {} to {shape}", first.shape)),
        },
        Op::Permute { order } => {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if sorted.iter().copied().ne(0..first.shape.rank()) {
                return Err(format!("{order:?} is not a permutation of the axes of {first}"));
            }
            Ok(with_shape(Shape(order.iter().map(|&axis| first.shape.0[axis]).collect())))
        }
        Op::Broadcast { shape } => {
            let fits = shape.rank() == first.shape.rank()
                && first.shape.0.iter().zip(&shape.0).all(|(from, to)| from == to || *from == Dim::fixed(1));
            if !fits {
                return Err(format!("only axes of size 1 broadcast: {} to {shape}", first.shape));
            }
            Ok(with_shape(shape.clone()))
        }
        Op::Slice { axis, start, end } => {
            let size = fixed_axis(*axis, &first.shape)?;
            if start >= end || *end > size {
                return Err(format!("slice {start}..{end} is empty or outside axis {axis} of {first}"));
            }
            let mut shape = first.shape.clone();
            shape.0[*axis] = Dim::fixed(end - start);
            Ok(with_shape(shape))
        }
        Op::Concat { axis } => concat(operands, *axis),
        Op::Gather => {
            let indices = operands[1];
            if indices.dtype != DType::I32 || indices.shape.rank() != 1 || first.shape.rank() == 0 {
                return Err(format!("gather needs a table and i32[m], found {first} and {indices}"));
            }
            let mut shape = first.shape.clone();
            shape.0[0] = indices.shape.0[0];
            Ok(with_shape(shape))
        }
        other => Err(format!("{} is not a tensor operation", other.name())),
    }
}

fn constant(count: usize, dtype: DType, shape: &Shape) -> Result<Type, String> {
    let elements = shape.elements().ok_or("a constant's shape has at most one symbol")?;
    if count != 1 && elements != Dim::fixed(count) {
        return Err(format!("{count} values do not fill {dtype}{shape}; give one value or all of them"));
    }
    Ok(Type::Tensor(TensorType { dtype, shape: shape.clone() }))
}

fn dot(a: &TensorType, b: &TensorType, left: usize, right: usize, batch: usize) -> Result<TensorType, String> {
    check_axis(left, &a.shape)?;
    check_axis(right, &b.shape)?;
    // Narrow weights may meet wide rows: each of their values is one of the wide type.
    let widened = a.dtype == DType::F32 && matches!(b.dtype, DType::BF16 | DType::F16);
    if (a.dtype != b.dtype && !widened) || !a.dtype.is_float() {
        return Err(format!(
            "dot needs two float operands of one element type (or f32 on the left, bf16 or f16 on the right), found {a} and {b}"
        ));
    }
    let contracted = a.shape.0[left] == b.shape.0[right];
    let batches = batch <= left && batch <= right && a.shape.0[..batch] == b.shape.0[..batch];
    if !contracted || !batches {
        return Err(format!("dot of {a} axis {left} with {b} axis {right}, {batch} batch axes: sizes differ"));
    }
    let rest = |shape: &Shape, contracted: usize| -> Vec<Dim> {
        let axes = shape.0.iter().enumerate().skip(batch);
        axes.filter(|(axis, _)| *axis != contracted).map(|(_, dim)| *dim).collect()
    };
    let mut dims = a.shape.0[..batch].to_vec();
    dims.extend(rest(&a.shape, left));
    dims.extend(rest(&b.shape, right));
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}

fn concat(operands: &[&TensorType], axis: usize) -> Result<TensorType, String> {
    let first = operands[0];
    let mut shape = first.shape.clone();
    let mut total = 0;
    for operand in operands {
        total = fixed_axis(axis, &operand.shape)?.checked_add(total).ok_or("the joined axis is too large")?;
        let mut expected = shape.clone();
        if let Some(size) = expected.0.get_mut(axis) {
            *size = operand.shape.0[axis];
        }
        if operand.dtype != first.dtype || operand.shape != expected {
            return Err(format!("concat along axis {axis} of {first} and {operand}: other axes differ"));
        }
    }
    shape.0[axis] = Dim::fixed(total);
    Ok(TensorType { dtype: first.dtype, shape })
}

fn kv_write(kv: &Type, rows: &Type) -> Result<Type, String> {
    let Type::Kv(cache) = kv else { return Err(format!("kv_write needs a cache first, found {kv}")) };
    let expected =
        Type::tensor(cache.dtype, &[Dim::from(Symbol::Tokens), Dim::fixed(width(cache.heads, cache.head_dim)?)]);
    if *rows != expected {
        return Err(format!("kv_write into {cache} needs {expected}, found {rows}"));
    }
    Ok(kv.clone())
}

fn attend(attention: &Attention, query: &Type, kv: &Type) -> Result<Type, String> {
    let Type::Kv(KvType { heads: kv_heads, head_dim, dtype }) = kv else {
        return Err(format!("attend needs a cache second, found {kv}"));
    };
    if *kv_heads != attention.kv_heads || *kv_heads == 0 || !attention.heads.is_multiple_of(*kv_heads) {
        return Err(format!(
            "{} query heads over {} key/value heads do not fit {kv}: query heads must be a multiple",
            attention.heads, attention.kv_heads
        ));
    }
    let scale = attention.scale.get();
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(format!("attention scales scores by {scale}; it must be a positive number"));
    }
    if attention.window == Some(0) {
        return Err("a sliding window of 0 positions would see nothing; leave it out or make it larger".into());
    }
    let expected = Type::tensor(*dtype, &[Dim::from(Symbol::Tokens), Dim::fixed(width(attention.heads, *head_dim)?)]);
    if *query != expected {
        return Err(format!("attend with {} heads over {kv} needs {expected}, found {query}", attention.heads));
    }
    Ok(expected)
}

fn width(heads: usize, head_dim: usize) -> Result<usize, String> {
    heads.checked_mul(head_dim).ok_or_else(|| format!("{heads} heads of {head_dim} elements are too many"))
}

fn same(a: &TensorType, b: &TensorType) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("operands differ: {a} and {b}; convert or broadcast one of them")) }
}

fn check_axis(axis: usize, shape: &Shape) -> Result<(), String> {
    if axis < shape.rank() { Ok(()) } else { Err(format!("axis {axis} is outside {shape}")) }
}

fn fixed_axis(axis: usize, shape: &Shape) -> Result<usize, String> {
    check_axis(axis, shape)?;
    shape.0[axis].as_fixed().ok_or_else(|| format!("axis {axis} of {shape} must have a fixed size"))
}
