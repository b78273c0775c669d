//! Operations on intervals.

use super::error::{SMALLEST, UNIT, of_function};
use super::graph::Environment;
use super::{Enclosure, FUZZ};
use llmc_ir::block_float::{self, EXPONENT_IN_ROWS, EXPONENT_IN_WEIGHTS};
use llmc_ir::dtype::DType;
use llmc_ir::eval::{Mode, StepInputs, Tensor, Value, Weights, eval_function};
use llmc_ir::graph::Graph;
use llmc_ir::module::{Function, Param};
use llmc_ir::op::{BinaryOp, CompareOp, DotMethod, Op, ReduceOp, UnaryOp};
use llmc_ir::shape::{Shape, TensorType, Type};

/// An interval.
type Ends = (f64, f64);

/// The result of an operation with tensor operands, rounded to its type.
pub(super) fn apply(
    op: &Op,
    ty: &TensorType,
    operands: &[&Enclosure],
    environment: &Environment<'_>,
) -> Result<Enclosure, String> {
    let step = environment.step;
    let sizes = ty.shape.evaluate(&step.bindings());
    let widths = |function: &dyn Fn(Ends) -> Result<Ends, String>| -> Result<Vec<Ends>, String> {
        ends(operands[0]).map(function).collect()
    };
    let pairs = |function: &dyn Fn(Ends, Ends) -> Result<Ends, String>| -> Result<Vec<Ends>, String> {
        ends(operands[0]).zip(ends(operands[1])).map(|(a, b)| function(a, b)).collect()
    };
    let elements: Vec<Ends> = match op {
        Op::Unary(op) => {
            let further = if *op == UnaryOp::Exp { environment.mode.of_exponential() } else { 0.0 };
            widths(&|x| unary(*op, x, further))?
        }
        Op::Binary(op) => {
            let further = if *op == BinaryOp::Multiply { environment.mode.of_product() } else { 0.0 };
            pairs(&|a, b| Ok(widened(binary(*op, a, b)?, further)))?
        }
        Op::Compare(op) => pairs(&|a, b| Ok(compare(*op, a, b)))?,
        Op::Select => ends(operands[0])
            .zip(ends(operands[1]).zip(ends(operands[2])))
            .map(|(condition, (yes, no))| match condition {
                (0.0, 0.0) => no,
                (1.0, 1.0) => yes,
                _ => (yes.0.min(no.0), yes.1.max(no.1)),
            })
            .collect(),
        Op::Convert { .. } => ends(operands[0]).collect(),
        Op::Reduce { op: ReduceOp::Max, .. } => arranged(op, operands, environment)?,
        Op::Reduce { op: ReduceOp::Sum, axis } => {
            let terms = operands[0].sizes[*axis];
            let sums = arranged(op, operands, environment)?;
            let sizes = arrange_floats(op, &[(operands[0], magnitudes(operands[0]))], step)?;
            summed(sums, &sizes, terms.saturating_sub(1))
        }
        Op::Dot { method: DotMethod::BlockFloat, .. } => {
            let [rows, weights] = [(0, EXPONENT_IN_ROWS), (1, EXPONENT_IN_WEIGHTS)]
                .map(|(index, exponent)| in_blocks(operands[index], exponent));
            dot(&Op::PRODUCT, &[&rows, &weights], rows.sizes[1], step)?
        }
        Op::Dot { left, .. } => dot(op, operands, operands[0].sizes[*left], step)?,
        // Everything else only moves elements.
        op => arranged(op, operands, environment)?,
    };
    let round = |x: f64| if ty.dtype == DType::I32 { x } else { ty.dtype.round(x) };
    let low = elements.iter().map(|&(low, _)| round(low)).collect();
    let high = elements.iter().map(|&(_, high)| round(high)).collect();
    Ok(Enclosure { dtype: ty.dtype, sizes, low, high })
}

fn ends(x: &Enclosure) -> impl Iterator<Item = Ends> {
    x.low.iter().copied().zip(x.high.iter().copied())
}

fn magnitudes(x: &Enclosure) -> Vec<f64> {
    ends(x).map(|(low, high)| low.abs().max(high.abs())).collect()
}

/// Widens by `units` of the larger end.
fn widened((low, high): Ends, units: f64) -> Ends {
    if units == 0.0 || !low.is_finite() || !high.is_finite() {
        return (low, high);
    }
    let by = units * UNIT * low.abs().max(high.abs());
    (low - by, high + by)
}

fn unary(op: UnaryOp, (low, high): Ends, further: f64) -> Result<Ends, String> {
    let function: fn(f64) -> f64 = match op {
        UnaryOp::Negate => return Ok((-high, -low)),
        UnaryOp::Absolute if low <= 0.0 && high >= 0.0 => return Ok((0.0, low.abs().max(high.abs()))),
        UnaryOp::Absolute => return Ok((low.abs().min(high.abs()), low.abs().max(high.abs()))),
        UnaryOp::Exp => f64::exp,
        UnaryOp::Log => f64::ln,
        UnaryOp::Rsqrt => |x| 1.0 / x.sqrt(),
        UnaryOp::Sqrt => f64::sqrt,
        UnaryOp::Reciprocal => |x| 1.0 / x,
        UnaryOp::Sin => f64::sin,
        UnaryOp::Cos => f64::cos,
        UnaryOp::Tanh => f64::tanh,
        UnaryOp::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
    };
    if op == UnaryOp::Reciprocal && low <= 0.0 && high >= 0.0 {
        return Err(format!("{} of {low}..{high}", op.name()));
    }
    let (a, b) = (function(low), function(high));
    let (mut low_end, mut high_end) = (a.min(b), a.max(b));
    if matches!(op, UnaryOp::Sin | UnaryOp::Cos) {
        // Not monotone, but never steeper than 1.
        (low_end, high_end) = ((low_end - (high - low)).max(-1.0), (high_end + (high - low)).min(1.0));
    }
    if low_end.is_nan() || high_end.is_nan() {
        return Err(format!("{} of {low}..{high}", op.name()));
    }
    let Some(error) = of_function(op) else { return Ok((low_end, high_end)) };
    let (low_end, high_end) = widened((low_end, high_end), error + further);
    Ok((low_end - SMALLEST, high_end + SMALLEST))
}

fn binary(op: BinaryOp, a: Ends, b: Ends) -> Result<Ends, String> {
    let hull = |function: fn(f64, f64) -> f64| {
        let corners = [function(a.0, b.0), function(a.0, b.1), function(a.1, b.0), function(a.1, b.1)];
        corners.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
    };
    Ok(match op {
        BinaryOp::Add => (a.0 + b.0, a.1 + b.1),
        BinaryOp::Subtract => (a.0 - b.1, a.1 - b.0),
        BinaryOp::Multiply => hull(|a, b| a * b),
        BinaryOp::Divide if b.0 <= 0.0 && b.1 >= 0.0 => return Err(format!("division by {}..{}", b.0, b.1)),
        BinaryOp::Divide => hull(|a, b| a / b),
        BinaryOp::Maximum => (a.0.max(b.0), a.1.max(b.1)),
        BinaryOp::Minimum => (a.0.min(b.0), a.1.min(b.1)),
    })
}

fn compare(op: CompareOp, a: Ends, b: Ends) -> Ends {
    let (certain, possible) = match op {
        CompareOp::Less => (a.1 < b.0, a.0 < b.1),
        CompareOp::LessEqual => (a.1 <= b.0, a.0 <= b.1),
        CompareOp::Equal => (a.0 == a.1 && a == b, a.0 <= b.1 && b.0 <= a.1),
    };
    (f64::from(u8::from(certain)), f64::from(u8::from(possible)))
}

/// Sums that are off by the rounding of `additions`.
fn summed(sums: Vec<Ends>, magnitudes: &[f64], additions: usize) -> Vec<Ends> {
    let count = additions as f64 * UNIT;
    let share = count / (1.0 - count) + FUZZ;
    let exact = additions == 0;
    let widen =
        |((low, high), size): (Ends, &f64)| if exact { (low, high) } else { (low - share * size, high + share * size) };
    sums.into_iter().zip(magnitudes).map(widen).collect()
}

/// Rows as products in block floating point take them, or as they are: programs of few rows and code for some CPUs multiply otherwise.
/// Where their elements are known, so are those; else each may move by half of the largest unit that its block can have.
fn in_blocks(x: &Enclosure, exponent: i32) -> Enclosure {
    let length = x.sizes[1];
    if x.is_exact() {
        let rounded = block_float::rounded(&x.low, length, exponent);
        let ends = |pick: fn(f64, f64) -> f64| x.low.iter().zip(&rounded).map(|(&a, &b)| pick(a, b)).collect();
        return Enclosure { dtype: DType::F32, sizes: x.sizes.clone(), low: ends(f64::min), high: ends(f64::max) };
    }
    let magnitudes = magnitudes(x);
    let radius: Vec<f64> = magnitudes
        .chunks(length.max(1))
        .flat_map(|row| row.chunks(block_float::LENGTH))
        .flat_map(|block| {
            let largest = block.iter().fold(0.0, |largest: f64, &x| largest.max(x));
            vec![block_float::unit(largest, exponent) / 2.0; block.len()]
        })
        .collect();
    let moved = |ends: &[f64], by: f64| ends.iter().zip(&radius).map(|(end, radius)| end + by * radius).collect();
    let (low, high) = (moved(&x.low, -1.0), moved(&x.high, 1.0));
    Enclosure { dtype: DType::F32, sizes: x.sizes.clone(), low, high }
}

/// Centre and radius: `|ab - a'b'| <= |a'| rb + ra (|b'| + rb)`; then the rounding of k products and k - 1 additions.
fn dot(op: &Op, operands: &[&Enclosure], k: usize, step: &StepInputs) -> Result<Vec<Ends>, String> {
    let [a, b] = [operands[0], operands[1]];
    let centre = |x: &Enclosure| ends(x).map(|(low, high)| (low + high) / 2.0).collect::<Vec<f64>>();
    let radius = |x: &Enclosure| ends(x).map(|(low, high)| (high - low) / 2.0).collect::<Vec<f64>>();
    let product = |left: Vec<f64>, right: Vec<f64>| arrange_floats(op, &[(a, left), (b, right)], step);
    let absolute = |values: Vec<f64>| values.into_iter().map(f64::abs).collect::<Vec<f64>>();
    let middle = product(centre(a), centre(b))?;
    let size = product(magnitudes(a), magnitudes(b))?;
    let mut spread = vec![0.0; middle.len()];
    if !b.is_exact() {
        let more = product(absolute(centre(a)), radius(b))?;
        spread.iter_mut().zip(more).for_each(|(spread, more)| *spread += more);
    }
    if !a.is_exact() {
        let more = product(radius(a), magnitudes(b))?;
        spread.iter_mut().zip(more).for_each(|(spread, more)| *spread += more);
    }
    let ends = middle.iter().zip(&spread).map(|(middle, spread)| (middle - spread, middle + spread)).collect();
    // One product alone is rounded to f32 with the result.
    let rounded = summed(ends, &size, if k <= 1 { 0 } else { k });
    Ok(rounded.into_iter().map(|(low, high)| (low - k as f64 * SMALLEST, high + k as f64 * SMALLEST)).collect())
}

/// An operation that keeps order (it moves elements, or takes the largest) on both ends.
fn arranged(op: &Op, operands: &[&Enclosure], environment: &Environment<'_>) -> Result<Vec<Ends>, String> {
    let on = |pick: fn(&Enclosure) -> &Vec<f64>| {
        let inputs: Vec<_> = operands.iter().map(|&operand| (operand, pick(operand).clone())).collect();
        arrange_floats(op, &inputs, environment.step)
    };
    let low = on(|x| &x.low)?;
    if operands.iter().all(|operand| operand.is_exact()) {
        return Ok(low.into_iter().map(|x| (x, x)).collect());
    }
    Ok(low.into_iter().zip(on(|x| &x.high)?).collect())
}

/// The interpreter's result, in f64, for operands of the types of the given ones.
fn arrange_floats(op: &Op, operands: &[(&Enclosure, Vec<f64>)], step: &StepInputs) -> Result<Vec<f64>, String> {
    let tensors: Result<Vec<Tensor>, String> =
        operands.iter().map(|(like, data)| Tensor::new(like.dtype, like.sizes.clone(), data.clone())).collect();
    Ok(run_one(op, &tensors?, step, &|_| None, Mode::Wide)?.into_data())
}

/// The interpreter's result for an operation without operands, rounded to its type.
pub(super) fn arrange(
    op: &Op,
    operands: &[Tensor],
    step: &StepInputs,
    weights: &Weights<'_>,
) -> Result<Tensor, String> {
    run_one(op, operands, step, weights, Mode::AsTyped)
}

/// Runs a function of one operation.
fn run_one(
    op: &Op,
    operands: &[Tensor],
    step: &StepInputs,
    weights: &Weights<'_>,
    mode: Mode,
) -> Result<Tensor, String> {
    let mut graph = Graph::default();
    let mut params = Vec::new();
    let mut nodes = Vec::new();
    for (index, operand) in operands.iter().enumerate() {
        let ty = Type::Tensor(TensorType { dtype: operand.dtype(), shape: Shape::of(operand.sizes()) });
        params.push(Param { name: format!("x{index}"), ty: ty.clone() });
        nodes.push(graph.add(Op::Input { index, ty }, &[])?);
    }
    let result = graph.add(fixed(op, step), &nodes)?;
    let function = Function { name: "one".into(), params, graph, results: vec![result] };
    let mut args: Vec<Value> = operands.iter().cloned().map(Value::from).collect();
    let mut results = eval_function(&function, &mut args, weights, step, mode).map_err(|error| error.to_string())?;
    match results.pop() {
        Some(Value::Tensor(tensor)) => Ok(tensor),
        _ => Err("expected a tensor".into()),
    }
}

/// The operation with this step's sizes in place of symbols, since its operands have them.
fn fixed(op: &Op, step: &StepInputs) -> Op {
    let bindings = step.bindings();
    let evaluate = |shape: &Shape| Shape::of(&shape.evaluate(&bindings));
    match op {
        Op::Reshape { shape } => Op::Reshape { shape: evaluate(shape) },
        Op::Broadcast { shape } => Op::Broadcast { shape: evaluate(shape) },
        Op::Constant { values, dtype, shape } => {
            Op::Constant { values: values.clone(), dtype: *dtype, shape: evaluate(shape) }
        }
        Op::Iota { axis, shape } => Op::Iota { axis: *axis, shape: evaluate(shape) },
        other => other.clone(),
    }
}
