//! Elementwise code of a region: the value of any node at given indices, computed where it is used.

use super::index::{Index, through_reshape};
use super::math::{self, Circular, Fma};
use super::memory;
use super::text::{FunctionText, I64, Machine, Scalar, Ty, Value, float_of, int, int_of};
use crate::kernel::common_divisor;
use llmc_ir::dim::Dim;
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::{BinaryOp, CompareOp, Op, ReduceOp, UnaryOp};
use llmc_ir::plan::WeightLayout;
use llmc_ir::shape::{Shape, TensorType};
use std::collections::HashMap;

/// The result of a dot as it lies in working memory: f32 rows.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Its first element.
    pub base: Value,
    /// Row of the tensor that it starts with.
    pub row: Value,
    /// Column of the tensor that it starts with.
    pub column: Value,
    /// Bytes between rows.
    pub stride: usize,
    /// How many partial results make the result, added in order.
    pub summands: usize,
    /// Bytes between them.
    pub summand_stride: usize,
}

impl Tile {
    /// The result whose first summand lies at `address`.
    pub fn load(&self, f: &mut FunctionText, ty: Ty, address: &Value, align: usize) -> Value {
        let first = f.load(ty, address, align);
        (1..self.summands).fold(first, |sum, summand| {
            let address = f.offset(address, &int((summand * self.summand_stride) as i64));
            let next = f.load(ty, &address, align);
            f.binary("fadd", &sum, &next)
        })
    }
}

/// What expressions refer to.
pub struct Scope<'a> {
    /// The region's body.
    pub body: &'a Graph,
    /// Addresses of the region's inputs.
    pub inputs: &'a [Value],
    /// Layouts of inputs that are weights.
    pub layouts: &'a [Option<WeightLayout>],
    /// Results of dots.
    pub tiles: HashMap<NodeId, Tile>,
    /// Results of reductions in the current row and group.
    pub reduced: HashMap<NodeId, Value>,
    /// Fused multiply-add or not.
    pub fma: Fma,
    /// Where constants go.
    /// Lanes of the code being written: 16, or 1 for the rest of a row.
    pub lanes: usize,
    /// Values already computed in the current loop body.
    pub known: HashMap<(NodeId, Vec<Index>), Value>,
}

impl Scope<'_> {
    /// The value of `node` at one index per axis. Floats are f32 that the node's element type can hold, integers
    /// i32, bools i1; scalars if no lane differs.
    pub fn evaluate(&mut self, f: &mut FunctionText, node: NodeId, at: &[Index]) -> Result<Value, String> {
        let key = (node, at.to_vec());
        if let Some(value) = self.known.get(&key) {
            return Ok(value.clone());
        }
        let value = self.compute(f, node, at)?;
        self.known.insert(key, value.clone());
        Ok(value)
    }

    /// [`evaluate`](Self::evaluate), widened to the current number of lanes.
    pub fn evaluate_lanes(&mut self, f: &mut FunctionText, node: NodeId, at: &[Index]) -> Result<Value, String> {
        let value = self.evaluate(f, node, at)?;
        Ok(if value.ty.lanes == self.lanes { value } else { f.splat(&value, self.lanes) })
    }

    fn compute(&mut self, f: &mut FunctionText, node: NodeId, at: &[Index]) -> Result<Value, String> {
        let body = self.body;
        let operands = body.operands(node);
        let ty = tensor(body, node)?;
        match body.op(node) {
            Op::Input { index, .. } => {
                let layout = self.layouts[*index].unwrap_or(WeightLayout::RowMajor);
                let base = self.inputs[*index].clone();
                memory::load(f, &base, ty, layout, at, self.lanes)
            }
            Op::Constant { values, .. } if values.len() == 1 => Ok(literal(ty.dtype, values[0].get())),
            Op::Constant { values, .. } => {
                let values: Vec<f64> = values.iter().map(|value| value.get()).collect();
                let base = memory::constant(f, ty.dtype, &values);
                memory::load(f, &base, &memory::constant_type(ty), WeightLayout::RowMajor, at, self.lanes)
            }
            Op::Iota { axis, .. } => Ok(self.iota(f, &at[*axis])),
            Op::Unary(op) => {
                let x = self.evaluate(f, operands[0], at)?;
                let result = self.unary(f, *op, &x);
                Ok(round(f, ty.dtype, result))
            }
            Op::Binary(op) => {
                let (a, b) = self.pair(f, &operands, at)?;
                let result = binary(f, *op, &a, &b);
                Ok(round(f, ty.dtype, result))
            }
            Op::Compare(op) => {
                let (a, b) = self.pair(f, &operands, at)?;
                let float = a.ty.scalar == Scalar::F32;
                let predicate = match (op, float) {
                    (CompareOp::Less, true) => "fcmp olt",
                    (CompareOp::LessEqual, true) => "fcmp ole",
                    (CompareOp::Equal, true) => "fcmp oeq",
                    (CompareOp::Less, false) => "icmp slt",
                    (CompareOp::LessEqual, false) => "icmp sle",
                    (CompareOp::Equal, false) => "icmp eq",
                };
                Ok(f.compare(predicate, &a, &b))
            }
            Op::Select => {
                let condition = self.evaluate(f, operands[0], at)?;
                let (a, b) = self.pair(f, &operands[1..], at)?;
                let (a, condition) = self.level(f, a, condition);
                let (b, condition) = self.level(f, b, condition);
                let (a, b) = self.level(f, a, b);
                Ok(f.select(&condition, &a, &b))
            }
            Op::Convert { to } => {
                let x = self.evaluate(f, operands[0], at)?;
                Ok(convert(f, &x, *to))
            }
            Op::Reduce { .. } => {
                self.reduced.get(&node).cloned().ok_or_else(|| "a reduction is used outside its row".to_owned())
            }
            Op::Dot { .. } => self.dot(f, node, at),
            Op::Reshape { .. } if self.in_memory(operands[0]) => {
                // The same bytes under another shape.
                let mut source = operands[0];
                while let Op::Reshape { .. } = body.op(source) {
                    source = body.operands(source)[0];
                }
                let Op::Input { index, .. } = body.op(source) else { return Err("an input is in memory".into()) };
                let base = self.inputs[*index].clone();
                memory::load(f, &base, ty, WeightLayout::RowMajor, at, self.lanes)
            }
            Op::Reshape { .. } => {
                let from = tensor(body, operands[0])?;
                let at = through_reshape(f, &ty.shape, &from.shape, at)?;
                self.evaluate(f, operands[0], &at)
            }
            Op::Broadcast { .. } => {
                let from = tensor(body, operands[0])?.shape.clone();
                let narrowed: Vec<_> = (0..from.rank())
                    .map(|axis| if from.0[axis] == ty.shape.0[axis] { at[axis].clone() } else { Index::zero() })
                    .collect();
                self.evaluate(f, operands[0], &narrowed)
            }
            Op::Slice { axis, start, .. } => {
                let mut at = at.to_vec();
                at[*axis] = at[*axis].shifted(f, *start as i64)?;
                self.evaluate(f, operands[0], &at)
            }
            Op::Concat { axis } => self.concat(f, &operands, *axis, &ty.shape, at),
            Op::Gather => {
                let row = self.evaluate(f, operands[1], &at[..1])?;
                let row = f.cast("sext", &row, I64);
                let mut at = at.to_vec();
                at[0] = Index::Scalar(row);
                self.evaluate(f, operands[0], &at)
            }
            op => Err(format!("{} cannot be part of elementwise code", op.name())),
        }
    }

    /// Whether a node is an input in row-major order, or a reshape of one.
    fn in_memory(&self, node: NodeId) -> bool {
        match self.body.op(node) {
            Op::Input { index, .. } => self.layouts[*index].unwrap_or(WeightLayout::RowMajor) == WeightLayout::RowMajor,
            Op::Reshape { .. } => self.in_memory(self.body.operands(node)[0]),
            _ => false,
        }
    }

    fn pair(&mut self, f: &mut FunctionText, operands: &[NodeId], at: &[Index]) -> Result<(Value, Value), String> {
        let a = self.evaluate(f, operands[0], at)?;
        let b = self.evaluate(f, operands[1], at)?;
        Ok(self.level(f, a, b))
    }

    /// Splats the scalar one of two values.
    fn level(&self, f: &mut FunctionText, a: Value, b: Value) -> (Value, Value) {
        match (a.ty.lanes, b.ty.lanes) {
            (1, lanes) if lanes > 1 => (f.splat(&a, lanes), b),
            (lanes, 1) if lanes > 1 => {
                let b = f.splat(&b, lanes);
                (a, b)
            }
            _ => (a, b),
        }
    }

    fn iota(&self, f: &mut FunctionText, index: &Index) -> Value {
        let first = index.first(f);
        let i32s = super::text::I32;
        let first = if first.ty == i32s { first } else { f.cast("trunc", &first, i32s) };
        if !index.has_lanes() || self.lanes == 1 {
            return first;
        }
        let start = f.splat(&first, self.lanes);
        let lanes = f.lane_numbers(start.ty);
        f.binary("add", &start, &lanes)
    }

    fn unary(&self, f: &mut FunctionText, op: UnaryOp, x: &Value) -> Value {
        let one = |x: &Value| float_of(x.ty, 1.0);
        if x.ty.scalar == Scalar::I32 {
            let negated = f.binary("sub", &int_of(x.ty, 0), x);
            return match op {
                UnaryOp::Absolute => f.intrinsic("smax", &[x.clone(), negated]),
                _ => negated,
            };
        }
        match op {
            UnaryOp::Negate => f.negate(x),
            UnaryOp::Absolute => f.intrinsic("fabs", std::slice::from_ref(x)),
            UnaryOp::Exp => math::exp(f, self.fma, x),
            UnaryOp::Log => math::log(f, self.fma, x),
            UnaryOp::Sqrt => f.intrinsic("sqrt", std::slice::from_ref(x)),
            UnaryOp::Rsqrt => {
                let root = f.intrinsic("sqrt", std::slice::from_ref(x));
                f.binary("fdiv", &one(x), &root)
            }
            UnaryOp::Reciprocal => f.binary("fdiv", &one(x), x),
            UnaryOp::Sin => math::circular(f, self.fma, Circular::Sin, x),
            UnaryOp::Cos => math::circular(f, self.fma, Circular::Cos, x),
            UnaryOp::Tanh => math::tanh(f, self.fma, x),
            UnaryOp::Sigmoid => math::sigmoid(f, self.fma, x),
        }
    }

    fn dot(&mut self, f: &mut FunctionText, node: NodeId, at: &[Index]) -> Result<Value, String> {
        let tile = self.tiles.get(&node).ok_or("a dot outside a dot region")?.clone();
        let row = at[0].first(f);
        let row = f.binary("sub nsw", &row, &tile.row);
        let column = at[1].first(f);
        let column = f.binary("sub nsw", &column, &tile.column);
        let base = f.element(&tile.base, &row, tile.stride as i64);
        let address = f.element(&base, &column, 4);
        let lanes = if at[1].has_lanes() { self.lanes } else { 1 };
        let align = match f.machine() {
            Machine::Host => 4,
            Machine::Device => {
                let elements = common_divisor(common_divisor(at[1].align(), tile.stride / 4), lanes);
                common_divisor(elements * 4, memory::DEVICE_ALIGNMENT)
            }
        };
        Ok(tile.load(f, math::floats(lanes), &address, align))
    }

    fn concat(
        &mut self,
        f: &mut FunctionText,
        operands: &[NodeId],
        axis: usize,
        shape: &Shape,
        at: &[Index],
    ) -> Result<Value, String> {
        let size = |shape: &Shape| shape.0[axis].as_fixed().ok_or("concat needs a fixed axis");
        if let Index::Scalar(position) = &at[axis] {
            return self.part_at(f, operands, axis, position, at);
        }
        let (low, high) = at[axis].reach(size(shape)?);
        let mut start = 0;
        for &operand in operands {
            let end = start + size(&tensor(self.body, operand)?.shape)?;
            if start <= low && high <= end {
                let mut at = at.to_vec();
                at[axis] = at[axis].shifted(f, -(start as i64))?;
                return self.evaluate(f, operand, &at);
            }
            start = end;
        }
        Err(format!("a loop over {low}..{high} crosses the parts of a concat"))
    }

    /// One element of a concat at a position that may be in any part: all parts are read, at the nearest position that
    /// they have.
    fn part_at(
        &mut self,
        f: &mut FunctionText,
        operands: &[NodeId],
        axis: usize,
        position: &Value,
        at: &[Index],
    ) -> Result<Value, String> {
        let mut start = 0;
        let mut result: Option<Value> = None;
        for &operand in operands {
            let size = tensor(self.body, operand)?.shape.0[axis].as_fixed().ok_or("concat needs a fixed axis")? as i64;
            let shifted = f.add(position, &int(-start));
            let least = f.max(&shifted, &int(0));
            let nearest = f.min(&least, &int(size - 1));
            let mut at = at.to_vec();
            at[axis] = Index::Scalar(nearest);
            let value = self.evaluate(f, operand, &at)?;
            result = Some(match result {
                None => value,
                Some(before) => {
                    let inside = f.compare("icmp sge", position, &int(start));
                    f.select(&inside, &value, &before)
                }
            });
            start += size;
        }
        result.ok_or_else(|| "a concat of nothing".to_owned())
    }
}

/// Where a loop over the last axis of `node` must be cut so that no piece crosses the parts of a concat.
pub fn breakpoints(body: &Graph, node: NodeId, low: usize, high: usize) -> Vec<usize> {
    let mut cuts = vec![low, high];
    collect(body, node, low as i64, high as i64, 0, &mut cuts);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// `low..high` is the part of the node's last axis that is read; `shift` is what takes it back to the loop's range.
fn collect(body: &Graph, node: NodeId, low: i64, high: i64, shift: i64, cuts: &mut Vec<usize>) {
    let last = |node: NodeId| body.ty(node).as_tensor().map_or(0, |ty| ty.shape.rank()).saturating_sub(1);
    let size = |node: NodeId| {
        body.ty(node).as_tensor().and_then(|ty| ty.shape.0.last().copied()).and_then(Dim::as_fixed).unwrap_or(1) as i64
    };
    for (position, operand) in body.operands(node).into_iter().enumerate() {
        match body.op(node) {
            Op::Slice { axis, start, .. } if *axis == last(node) => {
                let start = *start as i64;
                collect(body, operand, low + start, high + start, shift - start, cuts);
            }
            Op::Concat { axis } if *axis == last(node) => {
                let before: i64 = body.operands(node)[..position].iter().map(|&o| size(o)).sum();
                let (from, to) = (low.max(before), high.min(before + size(operand)));
                if from < to {
                    cuts.extend([(from + shift) as usize, (to + shift) as usize]);
                    collect(body, operand, from - before, to - before, shift + before, cuts);
                }
            }
            Op::Broadcast { .. } if size(operand) != size(node) => {}
            Op::Reshape { .. } if size(operand) != size(node) && !grouped(body, node, operand) => {}
            op if op.is_map() => collect(body, operand, low, high, shift, cuts),
            _ => {}
        }
    }
}

/// Whether a reshape only groups or ungroups columns, so that positions in a group stay what they are.
fn grouped(body: &Graph, node: NodeId, operand: NodeId) -> bool {
    let rank = |node: NodeId| body.ty(node).as_tensor().map_or(0, |ty| ty.shape.rank());
    rank(node).abs_diff(rank(operand)) == 1
}

/// How the elements of a reduction combine.
pub fn combine(f: &mut FunctionText, op: ReduceOp, a: &Value, b: &Value) -> Value {
    match op {
        ReduceOp::Sum => f.binary("fadd", a, b),
        ReduceOp::Max => f.intrinsic("maximum", &[a.clone(), b.clone()]),
    }
}

/// Rounds an f32 to what `dtype` can hold.
pub fn round(f: &mut FunctionText, dtype: DType, value: Value) -> Value {
    match dtype {
        DType::BF16 => math::round_to_bf16(f, &value),
        _ => value,
    }
}

fn binary(f: &mut FunctionText, op: BinaryOp, a: &Value, b: &Value) -> Value {
    let float = a.ty.scalar == Scalar::F32;
    match (op, float) {
        (BinaryOp::Add, true) => f.binary("fadd", a, b),
        (BinaryOp::Subtract, true) => f.binary("fsub", a, b),
        (BinaryOp::Multiply, true) => f.binary("fmul", a, b),
        (BinaryOp::Divide, true) => f.binary("fdiv", a, b),
        (BinaryOp::Maximum, true) => f.intrinsic("maximum", &[a.clone(), b.clone()]),
        (BinaryOp::Minimum, true) => f.intrinsic("minimum", &[a.clone(), b.clone()]),
        (BinaryOp::Add, false) => f.binary("add", a, b),
        (BinaryOp::Subtract, false) => f.binary("sub", a, b),
        (BinaryOp::Multiply, false) => f.binary("mul", a, b),
        (BinaryOp::Divide, false) => f.binary("sdiv", a, b),
        (BinaryOp::Maximum, false) => f.intrinsic("smax", &[a.clone(), b.clone()]),
        (BinaryOp::Minimum, false) => f.intrinsic("smin", &[a.clone(), b.clone()]),
    }
}

fn convert(f: &mut FunctionText, x: &Value, to: DType) -> Value {
    let floats = x.ty.with_scalar(Scalar::F32);
    match (x.ty.scalar, to) {
        (Scalar::F32, DType::I32) => {
            let ints = x.ty.with_scalar(Scalar::I32);
            let name = format!("llvm.fptosi.sat.{}.{}", ints.suffix(), x.ty.suffix());
            f.call(&name, Some(ints), std::slice::from_ref(x)).expect("the intrinsic returns a value")
        }
        (Scalar::F32, DType::Bool) => f.compare("fcmp une", x, &float_of(x.ty, 0.0)),
        (Scalar::F32, _) => round(f, to, x.clone()),
        (Scalar::I32, DType::I32) | (Scalar::I1, DType::Bool) => x.clone(),
        (Scalar::I32, DType::Bool) => f.compare("icmp ne", x, &int_of(x.ty, 0)),
        (Scalar::I1, DType::I32) => f.cast("zext", x, x.ty.with_scalar(Scalar::I32)),
        (Scalar::I1, _) => f.cast("uitofp", x, floats),
        _ => {
            let converted = f.cast("sitofp", x, floats);
            round(f, to, converted)
        }
    }
}

fn literal(dtype: DType, value: f64) -> Value {
    match dtype {
        DType::I32 => int_of(super::text::I32, value as i64),
        DType::Bool => Value { text: (value != 0.0).to_string(), ty: int(0).ty.with_scalar(Scalar::I1) },
        _ => float_of(super::text::F32, dtype.round(value)),
    }
}

/// The tensor type of a node.
pub fn tensor(body: &Graph, node: NodeId) -> Result<&TensorType, String> {
    body.ty(node).as_tensor().ok_or_else(|| format!("{} is not a tensor", body.ty(node)))
}
