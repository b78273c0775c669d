//! Grows random functions: each operation takes nodes that are there and leaves one more.

use super::{Config, Kind, Random, RandomFunction, TEST_VOCAB};
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::eval::Tensor;
use crate::graph::{Graph, NodeId};
use crate::module::{Function, Param};
use crate::op::{AttendMethod, Attention, BinaryOp, CompareOp, DotMethod, KvPart, Op, ReduceOp, UnaryOp};
use crate::plan::StepInput;
use crate::shape::{KvType, Shape, TensorType, Type};
use std::collections::BTreeMap;

/// Results larger than this are squashed with `tanh`: deep graphs would leave the range of f16 otherwise.
const MAX_MAGNITUDE: f64 = 100.0;

/// A random function, the same for the same seed and configuration. Its first two parameters are rows
/// `[tokens, n]`; results are its last node and up to two others.
///
/// All values are finite for inputs in -1..1, and change continuously with the rounding of any operation, so that
/// two ways of computing them can be compared with a tolerance.
pub fn random_function(seed: u64, config: &Config) -> RandomFunction {
    let mut grower = Grower {
        random: Random::new(seed),
        config,
        graph: Graph::default(),
        params: Vec::new(),
        weights: BTreeMap::new(),
        rows: Vec::new(),
        exact: Vec::new(),
    };
    let width = grower.size() * 2;
    for name in ["x", "y"] {
        let dtype = grower.dtype();
        let node = grower.param(name, Type::tensor(dtype, &[Dim::from(Symbol::Tokens), width.into()]));
        grower.exact.push(node);
        grower.rows.push(Row { node, magnitude: 1.0 });
    }
    let mut kinds = config.kinds.clone();
    for _ in 0..config.operations {
        let Some(&kind) = (!kinds.is_empty()).then(|| grower.random.choose(&kinds)) else { break };
        grower.grow(kind);
        kinds.retain(|&other| other != Kind::Attend || kind != Kind::Attend);
    }
    grower.finish()
}

/// A float tensor that later operations may use.
#[derive(Clone, Copy)]
struct Row {
    node: NodeId,
    /// An upper bound of its elements' absolute values.
    magnitude: f64,
}

struct Grower<'c> {
    random: Random,
    config: &'c Config,
    graph: Graph,
    params: Vec<Param>,
    weights: BTreeMap<String, Tensor>,
    rows: Vec<Row>,
    /// Nodes whose values no rounding touched.
    exact: Vec<NodeId>,
}

impl Grower<'_> {
    fn grow(&mut self, kind: Kind) {
        let x = *self.random.choose(&self.rows);
        let result = match kind {
            Kind::Unary => self.unary(x),
            Kind::Binary => self.binary(x),
            Kind::Select => self.select(x),
            Kind::Convert => Row { node: self.converted(x.node, None), ..x },
            Kind::Reduce => self.reduce(x),
            Kind::Dot => self.dot(x),
            Kind::Reshape => self.reshape(x),
            Kind::Permute => self.permute(x),
            Kind::Slice => self.slice(x),
            Kind::Concat => self.concat(x),
            Kind::Gather => self.gather(),
            Kind::Attend => self.attend(x),
        };
        let result = self.bounded(result);
        self.rows.push(result);
    }

    fn finish(mut self) -> RandomFunction {
        let mut results = vec![self.rows[self.rows.len() - 1].node];
        for _ in 0..self.random.below(3) {
            let node = self.random.choose(&self.rows).node;
            if !results.contains(&node) {
                results.push(node);
            }
        }
        self.graph.retain_reachable(&results);
        let names = self.graph.topological().into_iter().filter_map(|node| match self.graph.op(node) {
            Op::Weight { name, .. } => Some(name.clone()),
            _ => None,
        });
        let used: Vec<_> = names.collect();
        self.weights.retain(|name, _| used.contains(name));
        let function = Function { name: "random".into(), params: self.params, graph: self.graph, results };
        RandomFunction { function, weights: self.weights }
    }

    // ---- pieces

    fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op, operands).expect("random operations are well-typed by construction")
    }

    fn tensor(&self, node: NodeId) -> TensorType {
        self.graph.ty(node).as_tensor().expect("rows are tensors").clone()
    }

    fn size(&mut self) -> usize {
        1 + self.random.below((self.config.max_size / 2).max(1))
    }

    fn dtype(&mut self) -> DType {
        *self.random.choose(&self.config.dtypes)
    }

    fn param(&mut self, name: &str, ty: Type) -> NodeId {
        self.params.push(Param { name: name.into(), ty: ty.clone() });
        self.add(Op::Input { index: self.params.len() - 1, ty }, &[])
    }

    fn weight(&mut self, dtype: DType, sizes: &[usize]) -> NodeId {
        let name = format!("weight{}", self.weights.len());
        let value = self.random.tensor(dtype, sizes);
        self.weights.insert(name.clone(), value);
        self.add(Op::Weight { name, ty: Type::tensor(dtype, sizes) }, &[])
    }

    /// One value in the type of `like`.
    fn constant(&mut self, value: f64, like: NodeId) -> NodeId {
        let TensorType { dtype, shape } = self.tensor(like);
        self.add(Op::Constant { values: vec![dtype.round(value).into()], dtype, shape }, &[])
    }

    fn broadcast(&mut self, x: NodeId, shape: &Shape) -> NodeId {
        if self.tensor(x).shape == *shape { x } else { self.add(Op::Broadcast { shape: shape.clone() }, &[x]) }
    }

    fn bounded(&mut self, x: Row) -> Row {
        if x.magnitude <= MAX_MAGNITUDE {
            return x;
        }
        Row { node: self.add(Op::Unary(UnaryOp::Tanh), &[x.node]), magnitude: 1.0 }
    }

    /// In another float type, or in the one asked for.
    fn converted(&mut self, x: NodeId, to: Option<DType>) -> NodeId {
        let to = to.unwrap_or_else(|| self.dtype());
        if self.tensor(x).dtype == to { x } else { self.add(Op::Convert { to }, &[x]) }
    }

    /// A tensor of the type of `x`, from somewhere else if there is one.
    fn partner(&mut self, x: Row) -> Row {
        let ty = self.tensor(x.node);
        let same: Vec<_> = self.rows.iter().copied().filter(|row| self.tensor(row.node) == ty).collect();
        let fixed: Vec<_> = ty.shape.0.iter().map(|dim| dim.as_fixed()).collect();
        match (self.random.below(4), fixed.last().copied().flatten()) {
            (0, _) => {
                let value = self.random.unit();
                Row { node: self.constant(value, x.node), magnitude: 1.0 }
            }
            (1, Some(width)) => {
                let vector = self.weight(ty.dtype, &[width]);
                let mut ones = vec![Dim::fixed(1); ty.shape.rank()];
                ones[ty.shape.rank() - 1] = Dim::fixed(width);
                let row = self.add(Op::Reshape { shape: Shape(ones) }, &[vector]);
                Row { node: self.broadcast(row, &ty.shape), magnitude: 1.0 }
            }
            _ => *self.random.choose(&same),
        }
    }

    // ---- operations

    fn unary(&mut self, x: Row) -> Row {
        let op = *self.random.choose(UnaryOp::ALL);
        let apply = |g: &mut Self, op, node| g.add(Op::Unary(op), &[node]);
        let (node, magnitude) = match op {
            UnaryOp::Exp => {
                let squashed = apply(self, UnaryOp::Tanh, x.node);
                (squashed, std::f64::consts::E)
            }
            UnaryOp::Log | UnaryOp::Rsqrt | UnaryOp::Sqrt | UnaryOp::Reciprocal => {
                let positive = apply(self, UnaryOp::Absolute, x.node);
                let one = self.constant(1.0, positive);
                (self.add(Op::Binary(BinaryOp::Add), &[positive, one]), 1.0 + x.magnitude)
            }
            UnaryOp::Negate | UnaryOp::Absolute => (x.node, x.magnitude),
            UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Tanh | UnaryOp::Sigmoid => (x.node, 1.0),
        };
        Row { node: apply(self, op, node), magnitude }
    }

    fn binary(&mut self, x: Row) -> Row {
        let op = *self.random.choose(BinaryOp::ALL);
        let mut y = self.partner(x);
        let magnitude = match op {
            BinaryOp::Add | BinaryOp::Subtract => x.magnitude + y.magnitude,
            BinaryOp::Multiply => x.magnitude * y.magnitude,
            BinaryOp::Maximum | BinaryOp::Minimum => x.magnitude.max(y.magnitude),
            BinaryOp::Divide => {
                let positive = self.add(Op::Unary(UnaryOp::Absolute), &[y.node]);
                let one = self.constant(1.0, positive);
                y.node = self.add(Op::Binary(BinaryOp::Add), &[positive, one]);
                x.magnitude
            }
        };
        Row { node: self.add(Op::Binary(op), &[x.node, y.node]), magnitude }
    }

    fn select(&mut self, x: Row) -> Row {
        let y = self.partner(x);
        let shape = self.tensor(x.node).shape;
        let compare = Op::Compare(*self.random.choose(CompareOp::ALL));
        let same: Vec<_> = self.exact.iter().copied().filter(|&node| self.tensor(node).shape == shape).collect();
        let condition = match (self.random.below(3), shape.0.first()) {
            (0, _) if !same.is_empty() => {
                let left = *self.random.choose(&same);
                let threshold = self.random.unit();
                let right = self.constant(threshold, left);
                self.add(compare, &[left, right])
            }
            (1, Some(&rows)) if rows == Symbol::Tokens.into() => {
                let mut ones = vec![Dim::fixed(1); shape.rank()];
                ones[0] = rows;
                let positions = self.add(Op::Step(StepInput::Positions), &[]);
                let positions = self.add(Op::Reshape { shape: Shape(ones) }, &[positions]);
                let left = self.broadcast(positions, &shape);
                let right = self.constant(1.0, left);
                self.add(compare, &[left, right])
            }
            _ => {
                let axis = self.random.below(shape.rank());
                let left = self.add(Op::Iota { axis, shape }, &[]);
                let threshold = self.random.below(6) as f64;
                let right = self.constant(threshold, left);
                self.add(compare, &[left, right])
            }
        };
        let node = self.add(Op::Select, &[condition, x.node, y.node]);
        Row { node, magnitude: x.magnitude.max(y.magnitude) }
    }

    fn reduce(&mut self, x: Row) -> Row {
        let shape = self.tensor(x.node).shape;
        let any = self.config.kinds.contains(&Kind::Permute);
        let fixed = |axis: &usize| shape.0[*axis].as_fixed().is_some() && (any || axis + 1 == shape.rank());
        let axes: Vec<_> = (0..shape.rank()).filter(fixed).collect();
        if axes.is_empty() {
            return x;
        }
        let axis = *self.random.choose(&axes);
        let size = shape.0[axis].as_fixed().unwrap_or(1);
        let op = *self.random.choose(ReduceOp::ALL);
        let magnitude = if op == ReduceOp::Sum { x.magnitude * size as f64 } else { x.magnitude };
        let reduced = self.add(Op::Reduce { op, axis }, &[x.node]);
        let reduced = self.bounded(Row { node: reduced, magnitude });
        if self.random.below(4) == 0 { reduced } else { Row { node: self.broadcast(reduced.node, &shape), ..reduced } }
    }

    fn dot(&mut self, x: Row) -> Row {
        let dtype = self.dtype();
        let x = Row { node: self.converted(x.node, Some(dtype)), ..x };
        let shape = self.tensor(x.node).shape;
        let last = shape.rank() - 1;
        let Some(size) = shape.0[last].as_fixed() else { return x };
        let outputs = 2 * self.size();
        let magnitude = x.magnitude * size as f64;
        if shape.rank() == 2 {
            // Weights may be narrower than the rows.
            let narrow = if self.random.below(2) == 0 { self.dtype() } else { dtype };
            let narrow = if dtype == DType::F32 { narrow } else { dtype };
            let weight = self.weight(narrow, &[outputs, size]);
            return Row { node: self.add(Op::PRODUCT, &[x.node, weight]), magnitude };
        }
        match (self.config.kinds.contains(&Kind::Permute), shape.0[0].as_fixed()) {
            (true, Some(batch)) => {
                let weight = self.weight(dtype, &[batch, size, outputs]);
                let op = Op::Dot { left: last, right: 1, batch: 1, method: DotMethod::Gemm };
                Row { node: self.add(op, &[x.node, weight]), magnitude }
            }
            _ => x,
        }
    }

    fn reshape(&mut self, x: Row) -> Row {
        let dims = self.tensor(x.node).shape.0;
        let shape = match dims[..] {
            [rows, width] => {
                let Some(width) = width.as_fixed() else { return x };
                let divisors: Vec<_> = (1..=width).filter(|heads| width % heads == 0).collect();
                let heads = *self.random.choose(&divisors);
                vec![rows, heads.into(), (width / heads).into()]
            }
            [rows, heads, width] => match heads.times(width) {
                Some(width) => vec![rows, width],
                None => return x,
            },
            _ => return x,
        };
        let node = self.add(Op::Reshape { shape: Shape(shape) }, &[x.node]);
        if self.exact.contains(&x.node) {
            self.exact.push(node);
        }
        Row { node, ..x }
    }

    fn permute(&mut self, x: Row) -> Row {
        let mut order: Vec<_> = (0..self.tensor(x.node).shape.rank()).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, self.random.below(index + 1));
        }
        Row { node: self.add(Op::Permute { order }, &[x.node]), ..x }
    }

    fn slice(&mut self, x: Row) -> Row {
        let shape = self.tensor(x.node).shape;
        let axis = shape.rank() - 1;
        let Some(size) = shape.0[axis].as_fixed() else { return x };
        let start = self.random.below(size);
        let end = start + 1 + self.random.below(size - start);
        Row { node: self.add(Op::Slice { axis, start, end }, &[x.node]), ..x }
    }

    fn concat(&mut self, x: Row) -> Row {
        let ty = self.tensor(x.node);
        let axis = ty.shape.rank() - 1;
        let joined = |other: &TensorType| {
            let dims = &other.shape.0;
            other.dtype == ty.dtype
                && dims.len() == axis + 1
                && dims[..axis] == ty.shape.0[..axis]
                && dims[axis].as_fixed().is_some()
        };
        if !joined(&ty) {
            return x;
        }
        let fitting: Vec<_> = self.rows.iter().copied().filter(|row| joined(&self.tensor(row.node))).collect();
        let mut parts = vec![x];
        for _ in 0..self.random.below(3) {
            parts.push(*self.random.choose(&fitting));
        }
        let widths = parts.iter().filter_map(|row| self.tensor(row.node).shape.0[axis].as_fixed());
        if widths.sum::<usize>() > 4 * self.config.max_size {
            return x;
        }
        let nodes: Vec<_> = parts.iter().map(|row| row.node).collect();
        let magnitude = parts.iter().map(|row| row.magnitude).fold(0.0, f64::max);
        Row { node: self.add(Op::Concat { axis }, &nodes), magnitude }
    }

    fn gather(&mut self) -> Row {
        let (dtype, width) = (self.dtype(), 2 * self.size());
        let table = self.weight(dtype, &[TEST_VOCAB, width]);
        let ids = self.add(Op::Step(StepInput::TokenIds), &[]);
        let node = self.add(Op::Gather, &[table, ids]);
        self.exact.push(node);
        Row { node, magnitude: 1.0 }
    }

    fn attend(&mut self, x: Row) -> Row {
        let dims = self.tensor(x.node).shape.0;
        let [rows, width] = dims[..] else { return x };
        let (Some(size), true) = (width.as_fixed(), rows == Symbol::Tokens.into()) else { return x };
        let dtype = self.dtype();
        let (kv_heads, group, head_dim) = (1 + self.random.below(2), 1 + self.random.below(3), self.size());
        let x = self.converted(x.node, Some(dtype));
        let mut project = |heads: usize| {
            let weight = self.weight(dtype, &[heads * head_dim, size]);
            let product = self.add(Op::PRODUCT, &[x, weight]);
            let product = self.add(Op::Unary(UnaryOp::Tanh), &[product]);
            self.converted(product, Some(dtype))
        };
        let (query, keys, values) = (project(kv_heads * group), project(kv_heads), project(kv_heads));
        let kv = self.param("kv", Type::Kv(KvType { heads: kv_heads, head_dim, dtype }));
        let kv = self.add(Op::KvWrite { part: KvPart::Key }, &[kv, keys]);
        let kv = self.add(Op::KvWrite { part: KvPart::Value }, &[kv, values]);
        let window = (self.random.below(2) == 0).then(|| 1 + self.random.below(4));
        let scale = (self.random.unit() + 1.5).into();
        let attention = Attention { heads: kv_heads * group, kv_heads, scale, window, method: AttendMethod::Whole };
        Row { node: self.add(Op::Attend(attention), &[query, kv]), magnitude: 1.0 }
    }
}
