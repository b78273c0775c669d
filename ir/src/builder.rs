//! The language in which models are written: methods that emit primitive operations.
//!
//! Positions, block tables and dtype decisions are ambient; weight names are checkpoint keys relative to the
//! current scope. The first mistake is kept and returned by [`FunctionBuilder::finish`], so that model code
//! reads like its paper.

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::graph::{Graph, NodeId};
use crate::module::{Function, Param};
use crate::op::{Attention, BinaryOp, KvPart, Op, ReduceOp, UnaryOp};
use crate::plan::StepInput;
use crate::shape::{KvType, Shape, TensorType, Type};

/// Which element types a model computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics {
    /// What matrices are multiplied in: activations wherever they feed a dot, the KV cache or attention.
    pub matrix: DType,
    /// Weight matrices as they are stored; where it differs from `matrix`, they are widened to it.
    pub stored: DType,
    /// Everything else: the residual stream, norms, biases, rotations.
    pub scalar: DType,
}

impl Numerics {
    /// Matrices in `matrix`, stored and multiplied, everything else in f32.
    pub fn new(matrix: DType) -> Numerics {
        Numerics { matrix, stored: matrix, scalar: DType::F32 }
    }
}

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// No bias.
    Absent,
    /// A weight named `bias` beside `weight`.
    Present,
}

/// Rotary position embedding of the rotate-half kind (Su et al., "RoFormer", 2021, in the arrangement of
/// Llama's published weights: dimension i pairs with i + head_dim/2).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `head_dim / 2` angles per position, in radians.
    pub frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by; 1 for all but YaRN-like scalings.
    pub factor: f32,
}

/// Builds one function.
#[derive(Debug)]
pub struct FunctionBuilder {
    name: String,
    params: Vec<Param>,
    graph: Graph,
    scope: String,
    numerics: Numerics,
    error: Option<String>,
}

impl FunctionBuilder {
    /// An empty function.
    pub fn new(name: &str, numerics: Numerics) -> FunctionBuilder {
        FunctionBuilder {
            name: name.to_owned(),
            params: Vec::new(),
            graph: Graph::default(),
            scope: String::new(),
            numerics,
            error: None,
        }
    }

    /// The function, or the first mistake.
    pub fn finish(self, results: &[NodeId]) -> Result<Function, String> {
        match self.error {
            Some(error) => Err(format!("function @{}: {error}", self.name)),
            None => Ok(Function { name: self.name, params: self.params, graph: self.graph, results: results.to_vec() }),
        }
    }

    /// Runs `body` with `name.` appended to the prefix of weight names.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scope.clone();
        self.scope = format!("{outer}{name}.");
        let result = body(self);
        self.scope = outer;
        result
    }

    /// Adds any operation; the first mistake is kept for [`finish`](Self::finish).
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        match self.graph.add(op, operands) {
            Ok(node) => node,
            Err(error) => {
                self.error.get_or_insert(error);
                let poison =
                    Op::Constant { values: vec![0.0.into()], dtype: self.numerics.scalar, shape: Shape(Vec::new()) };
                self.graph.add(poison, &[]).expect("a scalar constant is well-typed")
            }
        }
    }

    /// The type of a node.
    pub fn ty(&self, node: NodeId) -> &Type {
        self.graph.ty(node)
    }

    // ---- leaves

    /// A parameter.
    pub fn param(&mut self, name: &str, ty: Type) -> NodeId {
        let index = self.params.len();
        self.params.push(Param { name: name.to_owned(), ty: ty.clone() });
        self.add(Op::Input { index, ty }, &[])
    }

    /// Rows of the residual stream, `[tokens, width]`, as a parameter.
    pub fn rows_param(&mut self, name: &str, width: usize) -> NodeId {
        self.param(name, Type::tensor(self.numerics.scalar, &[Dim::from(Symbol::Tokens), width.into()]))
    }

    /// The KV cache of a layer as a parameter.
    pub fn kv_param(&mut self, name: &str, heads: usize, head_dim: usize) -> NodeId {
        self.param(name, Type::Kv(KvType { heads, head_dim, dtype: self.numerics.matrix }))
    }

    /// An input that every step brings along.
    pub fn step(&mut self, input: StepInput) -> NodeId {
        self.add(Op::Step(input), &[])
    }

    /// A weight matrix or table of the current scope.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> NodeId {
        self.weight(name, Type::tensor(self.numerics.stored, &[rows, columns]))
    }

    /// A weight vector of the current scope.
    pub fn vector(&mut self, name: &str, size: usize) -> NodeId {
        self.weight(name, Type::tensor(self.numerics.scalar, &[size]))
    }

    fn weight(&mut self, name: &str, ty: Type) -> NodeId {
        let name = if name.starts_with('/') { name.to_owned() } else { format!("{}{name}", self.scope) };
        self.add(Op::Weight { name, ty }, &[])
    }

    /// One value in the shape and element type of `like`.
    pub fn constant_like(&mut self, value: f64, like: NodeId) -> NodeId {
        let (dtype, shape) = match self.ty(like) {
            Type::Tensor(tensor) => (tensor.dtype, tensor.shape.clone()),
            Type::Kv(_) => (self.numerics.scalar, Shape(Vec::new())),
        };
        let value = dtype.round(value);
        self.add(Op::Constant { values: vec![value.into()], dtype, shape }, &[])
    }

    // ---- elementwise

    /// A function of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: NodeId) -> NodeId {
        self.add(Op::Unary(op), &[x])
    }

    /// A function of two operands of the same type.
    pub fn binary(&mut self, op: BinaryOp, a: NodeId, b: NodeId) -> NodeId {
        self.add(Op::Binary(op), &[a, b])
    }

    /// `x + y`; a vector `y` is added to every row.
    pub fn plus(&mut self, x: NodeId, y: NodeId) -> NodeId {
        let y = self.spread(y, x);
        self.binary(BinaryOp::Add, x, y)
    }

    /// `x * y`; a vector `y` multiplies every row.
    pub fn times(&mut self, x: NodeId, y: NodeId) -> NodeId {
        let y = self.spread(y, x);
        self.binary(BinaryOp::Multiply, x, y)
    }

    /// `x` times a number.
    pub fn scaled(&mut self, x: NodeId, factor: f64) -> NodeId {
        let factor = self.constant_like(factor, x);
        self.binary(BinaryOp::Multiply, x, factor)
    }

    /// Rounds to another element type; nothing to do if it is the same.
    pub fn convert(&mut self, x: NodeId, to: DType) -> NodeId {
        match self.ty(x).as_tensor() {
            Some(tensor) if tensor.dtype == to => x,
            _ => self.add(Op::Convert { to }, &[x]),
        }
    }

    /// Rounds to the matrix type, as what feeds dots and the KV cache must be.
    pub fn to_matrix_type(&mut self, x: NodeId) -> NodeId {
        self.convert(x, self.numerics.matrix)
    }

    /// `x * sigmoid(x)` (Elfwing et al., "Sigmoid-weighted linear units", 2017).
    pub fn silu(&mut self, x: NodeId) -> NodeId {
        let gate = self.unary(UnaryOp::Sigmoid, x);
        self.times(x, gate)
    }

    /// The same elements under another shape.
    pub fn reshape<D: Into<Dim> + Copy>(&mut self, x: NodeId, dims: &[D]) -> NodeId {
        self.add(Op::Reshape { shape: Shape::of(dims) }, &[x])
    }

    /// Repeats `x` to the shape of `like`. Axes that `x` lacks are taken to be missing in front.
    pub fn spread(&mut self, x: NodeId, like: NodeId) -> NodeId {
        let (Some(from), Some(to)) = (self.ty(x).as_tensor(), self.ty(like).as_tensor()) else { return x };
        let (from, to) = (from.shape.clone(), to.shape.clone());
        if from == to {
            return x;
        }
        let mut padded = vec![Dim::fixed(1); to.rank().saturating_sub(from.rank())];
        let x = if padded.is_empty() {
            x
        } else {
            padded.extend(from.0);
            self.add(Op::Reshape { shape: Shape(padded) }, &[x])
        };
        self.add(Op::Broadcast { shape: to }, &[x])
    }

    // ---- layers

    /// `x W^T (+ bias)` in f32 for rows `x` of the matrix type; weights `name.weight[out, in]`, `name.bias[out]`.
    pub fn linear(&mut self, x: NodeId, name: &str, (inputs, outputs): (usize, usize), bias: Bias) -> NodeId {
        let weight = self.matrix(&format!("{name}.weight"), outputs, inputs);
        let product = self.dot(x, weight);
        match bias {
            Bias::Absent => product,
            Bias::Present => {
                let bias = self.vector(&format!("{name}.bias"), outputs);
                self.plus(product, bias)
            }
        }
    }

    /// `x W^T` for `x[rows, k]` and `W[n, k]`.
    pub fn dot(&mut self, x: NodeId, weight: NodeId) -> NodeId {
        let weight = self.to_matrix_type(weight);
        self.add(Op::PRODUCT, &[x, weight])
    }

    /// Rows of a table, in f32.
    pub fn embedding(&mut self, table: NodeId, indices: NodeId) -> NodeId {
        let rows = self.add(Op::Gather, &[table, indices]);
        self.convert(rows, self.numerics.scalar)
    }

    /// Root mean square norm over the last axis (Zhang and Sennrich, 2019): `x / sqrt(mean(x^2) + epsilon) * name.weight`.
    pub fn rms_norm(&mut self, x: NodeId, name: &str, epsilon: f64) -> NodeId {
        let Some(TensorType { shape, .. }) = self.ty(x).as_tensor().cloned() else { return x };
        let axis = shape.rank().saturating_sub(1);
        let width = shape.0.last().and_then(|dim| dim.as_fixed()).unwrap_or(1);
        let square = self.times(x, x);
        let sum = self.add(Op::Reduce { op: ReduceOp::Sum, axis }, &[square]);
        let mean = self.scaled(sum, 1.0 / width as f64);
        let epsilon = self.constant_like(epsilon, mean);
        let shifted = self.binary(BinaryOp::Add, mean, epsilon);
        let inverse = self.unary(UnaryOp::Rsqrt, shifted);
        let normalised = self.times(x, inverse);
        let gamma = self.vector(&format!("{name}.weight"), width);
        self.times(normalised, gamma)
    }

    /// Rotates each head of `x[tokens, heads*head_dim]` by its position.
    pub fn rope(&mut self, x: NodeId, heads: usize, rope: &Rope) -> NodeId {
        let half = rope.frequencies.len();
        let tokens = Dim::from(Symbol::Tokens);
        let (cos, sin) = self.rotation(rope);
        let parts = self.reshape(x, &[tokens, heads.into(), (2 * half).into()]);
        let first = self.add(Op::Slice { axis: 2, start: 0, end: half }, &[parts]);
        let second = self.add(Op::Slice { axis: 2, start: half, end: 2 * half }, &[parts]);
        let per_head = |b: &mut Self, angle: NodeId| {
            let angle = b.reshape(angle, &[tokens, 1.into(), half.into()]);
            b.spread(angle, first)
        };
        let (cos, sin) = (per_head(self, cos), per_head(self, sin));
        let (first_cos, second_sin) = (self.times(first, cos), self.times(second, sin));
        let (second_cos, first_sin) = (self.times(second, cos), self.times(first, sin));
        let rotated_first = self.binary(BinaryOp::Subtract, first_cos, second_sin);
        let rotated_second = self.binary(BinaryOp::Add, second_cos, first_sin);
        let rotated = self.add(Op::Concat { axis: 2 }, &[rotated_first, rotated_second]);
        self.reshape(rotated, &[tokens, (heads * 2 * half).into()])
    }

    /// Cosine and sine of position times frequency, `f32[tokens, head_dim/2]` each.
    fn rotation(&mut self, rope: &Rope) -> (NodeId, NodeId) {
        let half = rope.frequencies.len();
        let tokens = Dim::from(Symbol::Tokens);
        let positions = self.step(StepInput::Positions);
        let positions = self.convert(positions, self.numerics.scalar);
        let positions = self.reshape(positions, &[tokens, 1.into()]);
        let positions = self.add(Op::Broadcast { shape: Shape::of(&[tokens, half.into()]) }, &[positions]);
        let values = rope.frequencies.iter().map(|&f| f64::from(f).into()).collect();
        let frequencies =
            self.add(Op::Constant { values, dtype: self.numerics.scalar, shape: Shape::of(&[1, half]) }, &[]);
        let angles = self.times(positions, frequencies);
        let mut result = [UnaryOp::Cos, UnaryOp::Sin].map(|op| self.unary(op, angles));
        if rope.factor != 1.0 {
            result = result.map(|x| self.scaled(x, rope.factor.into()));
        }
        (result[0], result[1])
    }

    /// Stores keys and values (rounded to the cache's type) and returns the cache that holds them.
    pub fn kv_write(&mut self, kv: NodeId, keys: NodeId, values: NodeId) -> NodeId {
        let keys = self.to_matrix_type(keys);
        let values = self.to_matrix_type(values);
        let kv = self.add(Op::KvWrite { part: KvPart::Key }, &[kv, keys]);
        self.add(Op::KvWrite { part: KvPart::Value }, &[kv, values])
    }

    /// Attention of every row over its own sequence; see [`Op::Attend`].
    pub fn attend(&mut self, query: NodeId, kv: NodeId, attention: Attention) -> NodeId {
        let query = self.to_matrix_type(query);
        self.add(Op::Attend(attention), &[query, kv])
    }
}
