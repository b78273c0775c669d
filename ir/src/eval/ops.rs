//! Tensor operations on f64 elements.

use super::Mode;
use super::strided::{permuted, strides, walk};
use super::value::{Tensor, sizes};
use crate::block_float::{self, EXPONENT_IN_ROWS, EXPONENT_IN_WEIGHTS};
use crate::dim::Bindings;
use crate::dtype::DType;
use crate::op::{BinaryOp, CompareOp, DotMethod, Op, ReduceOp, UnaryOp};
use crate::shape::TensorType;

/// The result of a tensor operation, of type `ty`, for operands whose types were inferred to fit.
pub(super) fn apply(
    op: &Op,
    ty: &TensorType,
    operands: &[&Tensor],
    bindings: &Bindings,
    mode: Mode,
) -> Result<Tensor, String> {
    let sizes = sizes(&ty.shape, bindings)?;
    let elements: usize = sizes.iter().product();
    let operand = |index: usize| operands.get(index).copied().ok_or("an operand is missing");
    let data = match op {
        Op::Constant { values, .. } => match &values[..] {
            [value] => vec![value.get(); elements],
            all => all.iter().map(|value| value.get()).collect(),
        },
        Op::Iota { axis, .. } => iota(&sizes, *axis),
        Op::Unary(op) => {
            let function = unary(*op);
            operand(0)?.data().iter().map(|&x| function(x)).collect()
        }
        Op::Binary(op) => zip(operand(0)?, operand(1)?, binary(*op)),
        Op::Compare(op) => zip(operand(0)?, operand(1)?, compare(*op)),
        Op::Select => {
            let choices = operand(1)?.data().iter().zip(operand(2)?.data());
            let conditions = operand(0)?.data().iter();
            conditions.zip(choices).map(|(&condition, (&yes, &no))| if condition != 0.0 { yes } else { no }).collect()
        }
        Op::Convert { .. } | Op::Reshape { .. } => operand(0)?.data().to_vec(),
        Op::Reduce { op, axis } => reduce(operand(0)?, *op, *axis),
        Op::Dot { method: DotMethod::BlockFloat, .. } if mode == Mode::AsTyped => {
            let in_blocks = |x: &Tensor, exponent| {
                let rows = block_float::rounded(x.data(), x.sizes()[1], exponent);
                Tensor::new(DType::F32, x.sizes().to_vec(), rows)
            };
            let [rows, weights] = [(0, EXPONENT_IN_ROWS), (1, EXPONENT_IN_WEIGHTS)]
                .map(|(index, exponent)| operand(index).map_err(str::to_owned).and_then(|x| in_blocks(x, exponent)));
            dot(&rows?, &weights?, [1, 1], 0, elements)
        }
        Op::Dot { left, right, batch, .. } => dot(operand(0)?, operand(1)?, [*left, *right], *batch, elements),
        Op::Permute { order } => {
            let x = operand(0)?;
            permuted(x.data(), x.sizes(), order).1
        }
        Op::Broadcast { .. } => {
            let x = operand(0)?;
            let from = strides(x.sizes()).into_iter().zip(x.sizes());
            let strides: Vec<_> = from.map(|(stride, &size)| if size == 1 { 0 } else { stride }).collect();
            walk(x.data(), 0, &sizes, &strides)
        }
        Op::Slice { axis, start, .. } => {
            let x = operand(0)?;
            let strides = strides(x.sizes());
            walk(x.data(), start * strides[*axis], &sizes, &strides)
        }
        Op::Concat { axis } => concat(operands, &sizes, *axis),
        Op::Gather => gather(operand(0)?, operand(1)?)?,
        other => return Err(format!("{} is not a tensor operation", other.name())),
    };
    Tensor::new(ty.dtype, sizes, rounded(data, ty.dtype, mode))
}

/// Rounds elements to what `dtype` holds, unless `mode` ignores that it is a float type.
pub(super) fn rounded(mut data: Vec<f64>, dtype: DType, mode: Mode) -> Vec<f64> {
    match (mode, dtype) {
        (Mode::Wide, dtype) if dtype.is_float() => {}
        (_, DType::F32) => data.iter_mut().for_each(|x| *x = f64::from(*x as f32)),
        _ => data.iter_mut().for_each(|x| *x = dtype.round(*x)),
    }
    data
}

fn unary(op: UnaryOp) -> fn(f64) -> f64 {
    match op {
        UnaryOp::Negate => |x| -x,
        UnaryOp::Absolute => f64::abs,
        UnaryOp::Exp => f64::exp,
        UnaryOp::Log => f64::ln,
        UnaryOp::Rsqrt => |x| 1.0 / x.sqrt(),
        UnaryOp::Sqrt => f64::sqrt,
        UnaryOp::Reciprocal => |x| 1.0 / x,
        UnaryOp::Sin => f64::sin,
        UnaryOp::Cos => f64::cos,
        UnaryOp::Tanh => f64::tanh,
        UnaryOp::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
    }
}

fn binary(op: BinaryOp) -> fn(f64, f64) -> f64 {
    match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Subtract => |a, b| a - b,
        BinaryOp::Multiply => |a, b| a * b,
        BinaryOp::Divide => |a, b| a / b,
        BinaryOp::Maximum => |a, b| if a.is_nan() || a > b { a } else { b },
        BinaryOp::Minimum => |a, b| if a.is_nan() || a < b { a } else { b },
    }
}

fn compare(op: CompareOp) -> fn(f64, f64) -> f64 {
    match op {
        CompareOp::Less => |a, b| f64::from(u8::from(a < b)),
        CompareOp::LessEqual => |a, b| f64::from(u8::from(a <= b)),
        CompareOp::Equal => |a, b| f64::from(u8::from(a == b)),
    }
}

fn zip(a: &Tensor, b: &Tensor, function: fn(f64, f64) -> f64) -> Vec<f64> {
    a.data().iter().zip(b.data()).map(|(&a, &b)| function(a, b)).collect()
}

fn iota(sizes: &[usize], axis: usize) -> Vec<f64> {
    let inner: usize = sizes[axis + 1..].iter().product();
    let elements: usize = sizes.iter().product();
    (0..elements).map(|i| (i / inner % sizes[axis]) as f64).collect()
}

fn reduce(x: &Tensor, op: ReduceOp, axis: usize) -> Vec<f64> {
    let inner: usize = x.sizes()[axis + 1..].iter().product();
    let outer: usize = x.sizes()[..axis].iter().product();
    let size = x.sizes()[axis];
    let (start, combine) = match op {
        ReduceOp::Sum => (0.0, binary(BinaryOp::Add)),
        ReduceOp::Max => (f64::NEG_INFINITY, binary(BinaryOp::Maximum)),
    };
    let mut out = vec![start; outer * inner];
    if x.data().is_empty() {
        return out;
    }
    for (results, block) in out.chunks_exact_mut(inner).zip(x.data().chunks_exact(size * inner)) {
        for row in block.chunks_exact(inner) {
            results.iter_mut().zip(row).for_each(|(result, &value)| *result = combine(*result, value));
        }
    }
    out
}

/// Both operands are brought to `[batch, rows, contracted]`, so that the inner loop runs over contiguous elements.
fn dot(a: &Tensor, b: &Tensor, contracted: [usize; 2], batch: usize, elements: usize) -> Vec<f64> {
    let size = a.sizes()[contracted[0]];
    if size == 0 || elements == 0 {
        return vec![0.0; elements];
    }
    let batches: usize = a.sizes()[..batch].iter().product();
    let [a, b] = [(a, contracted[0]), (b, contracted[1])].map(|(x, axis)| contracted_last(x, axis));
    let (a_block, b_block) = (a.len() / batches, b.len() / batches);
    let mut out = Vec::with_capacity(elements);
    for index in 0..batches {
        let a = &a[index * a_block..(index + 1) * a_block];
        let b = &b[index * b_block..(index + 1) * b_block];
        for left in a.chunks_exact(size) {
            out.extend(b.chunks_exact(size).map(|right| product(left, right)));
        }
    }
    out
}

fn contracted_last(x: &Tensor, axis: usize) -> std::borrow::Cow<'_, [f64]> {
    let rank = x.sizes().len();
    if axis + 1 == rank {
        return x.data().into();
    }
    let order: Vec<_> = (0..rank).filter(|&other| other != axis).chain([axis]).collect();
    permuted(x.data(), x.sizes(), &order).1.into()
}

/// Four independent sums, so that additions need not wait for each other.
fn product(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (left_quads, right_quads) = (left.chunks_exact(4), right.chunks_exact(4));
    let rest = left_quads.remainder().iter().zip(right_quads.remainder());
    let tail: f64 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in left_quads.zip(right_quads) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

fn concat(operands: &[&Tensor], sizes: &[usize], axis: usize) -> Vec<f64> {
    let inner: usize = sizes[axis + 1..].iter().product();
    let outer: usize = sizes[..axis].iter().product();
    let mut out = Vec::with_capacity(sizes.iter().product());
    for index in 0..outer {
        for x in operands {
            let block = x.sizes()[axis] * inner;
            out.extend_from_slice(&x.data()[index * block..(index + 1) * block]);
        }
    }
    out
}

fn gather(table: &Tensor, indices: &Tensor) -> Result<Vec<f64>, String> {
    let rows = table.sizes()[0];
    let width: usize = table.sizes()[1..].iter().product();
    let mut out = Vec::with_capacity(indices.data().len() * width);
    for &index in indices.data() {
        if !(0.0..rows as f64).contains(&index) {
            return Err(format!("index {index} is outside the table's rows 0..{rows}"));
        }
        let row = index as usize;
        out.extend_from_slice(&table.data()[row * width..(row + 1) * width]);
    }
    Ok(out)
}
