//! Random modules: steps of random functions over values that are passed on, overwritten and swapped, with one cache
//! per layer. What functions consist of is what models do to rows, matrices and heads.

use super::Random;
use crate::builder::{FunctionBuilder, Numerics};
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::graph::NodeId;
use crate::module::{Argument, Call, Function, LOGITS, Module};
use crate::op::{AttendMethod, Attention, BinaryOp, KvPart, Op, ReduceOp, UnaryOp};
use crate::plan::StepInput;
use crate::shape::{KvType, Shape, Type};

/// Rows are `groups` groups of `group` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSizes {
    /// Groups per row; also the heads of the caches.
    pub groups: usize,
    /// Elements per group; even.
    pub group: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
}

impl StepSizes {
    fn width(self) -> usize {
        self.groups * self.group
    }
}

/// The names of values between calls, and their kinds.
const NAMES: [(&str, Kind); 6] = [
    ("a", Kind::Rows),
    ("b", Kind::Rows),
    ("c", Kind::Rows),
    ("d", Kind::Matrix),
    ("e", Kind::Matrix),
    ("angle", Kind::Angle),
];

/// Kinds of values, by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `f32[tokens, width]`
    Rows,
    /// `bf16[tokens, width]`
    Matrix,
    /// `f32[tokens, group]`
    Angle,
    /// `f32[tokens, 1]`
    Single,
    /// `f32[tokens, groups, group]`
    Grouped,
    /// `f32[tokens, groups, 1]`
    PerGroup,
}

impl Kind {
    fn ty(self, sizes: StepSizes) -> Type {
        let tokens = Dim::from(Symbol::Tokens);
        let StepSizes { groups, group, .. } = sizes;
        let (dtype, dims) = match self {
            Kind::Rows => (DType::F32, vec![tokens, sizes.width().into()]),
            Kind::Matrix => (DType::BF16, vec![tokens, sizes.width().into()]),
            Kind::Angle => (DType::F32, vec![tokens, group.into()]),
            Kind::Single => (DType::F32, vec![tokens, 1.into()]),
            Kind::Grouped => (DType::F32, vec![tokens, groups.into(), group.into()]),
            Kind::PerGroup => (DType::F32, vec![tokens, groups.into(), 1.into()]),
        };
        Type::tensor(dtype, &dims)
    }

    fn shape(self, sizes: StepSizes) -> Shape {
        self.ty(sizes).as_tensor().expect("kinds are tensors").shape.clone()
    }
}

/// A module whose functions and calls follow from `seed`. Its values stay in the range of f32 for weights in -1..1.
pub fn random_module(seed: u64, sizes: StepSizes) -> Module {
    let mut random = Random::new(seed);
    let mut functions = vec![start(sizes), finish(sizes)];
    let all = NAMES.map(|(name, _)| name.to_owned()).to_vec();
    let mut calls =
        vec![Call { function: "start".into(), scope: String::new(), arguments: Vec::new(), results: all.clone() }];
    for number in 0..1 + random.below(3) {
        let (function, arguments, results) = middle(&format!("f{number}"), &mut random, sizes);
        for repeat in 0..1 + random.below(2) {
            let value = |name: &String| if name == "kv" { Argument::Kv(repeat) } else { Argument::Value(name.clone()) };
            let arguments = arguments.iter().map(value).collect();
            let scope = format!("layers.{repeat}.");
            calls.push(Call { function: function.name.clone(), scope, arguments, results: results.clone() });
        }
        functions.push(function);
    }
    let arguments = all.into_iter().map(Argument::Value).collect();
    calls.push(Call { function: "finish".into(), scope: String::new(), arguments, results: vec![LOGITS.into()] });
    Module { name: "Random".into(), functions, calls }
}

/// Defines every value.
fn start(sizes: StepSizes) -> Function {
    let mut body = Body::new("start", sizes);
    let ids = body.b.step(StepInput::TokenIds);
    let table = body.b.matrix("table", sizes.vocab, sizes.width());
    let d = body.b.add(Op::Gather, &[table, ids]);
    let a = body.b.convert(d, DType::F32);
    let b = body.b.unary(UnaryOp::Tanh, a);
    let c = body.b.constant_like(0.5, a);
    let angle = body.b.add(Op::Slice { axis: 1, start: 0, end: sizes.group }, &[b]);
    body.b.finish(&[a, b, c, d, d, angle]).expect("the start is well-typed")
}

/// Uses every value.
fn finish(sizes: StepSizes) -> Function {
    let mut body = Body::new("finish", sizes);
    let params: Vec<NodeId> = NAMES.iter().map(|(name, kind)| body.b.param(name, kind.ty(sizes))).collect();
    let rows = body.b.step(StepInput::SampleRows);
    let mut sum = body.b.add(Op::Gather, &[params[0], rows]);
    for &param in &params[1..5] {
        let sampled = body.b.add(Op::Gather, &[param, rows]);
        let sampled = body.b.convert(sampled, DType::F32);
        sum = body.b.plus(sum, sampled);
    }
    let x = body.b.to_matrix_type(sum);
    let table = body.b.matrix("table", sizes.vocab, sizes.width());
    let logits = body.b.dot(x, table);
    body.b.finish(&[logits]).expect("the end is well-typed")
}

/// A random function, the values it takes, and the values it makes.
fn middle(name: &str, random: &mut Random, sizes: StepSizes) -> (Function, Vec<String>, Vec<String>) {
    let mut body = Body::new(name, sizes);
    let mut arguments = Vec::new();
    for (name, kind) in NAMES {
        let node = body.b.param(name, kind.ty(sizes));
        body.nodes.push((kind, node));
        arguments.push(name.to_owned());
    }
    let mut kv =
        Some(body.b.param("kv", Type::Kv(KvType { heads: sizes.groups, head_dim: sizes.group, dtype: DType::BF16 })));
    arguments.push("kv".to_owned());
    for _ in 0..4 + random.below(24) {
        kv = body.grow(random, kv);
    }
    let mut results = Vec::new();
    let mut nodes = Vec::new();
    for (name, kind) in NAMES {
        if random.below(3) > 0 {
            results.push(name.to_owned());
            let node = body.pick(random, kind);
            // Whatever functions do, the next one gets numbers in -1..1.
            nodes.push(body.b.unary(UnaryOp::Tanh, node));
        }
    }
    if nodes.is_empty() {
        results.push("a".to_owned());
        nodes.push(body.pick(random, Kind::Rows));
    }
    (body.b.finish(&nodes).expect("random functions are well-typed"), arguments, results)
}

struct Body {
    b: FunctionBuilder,
    sizes: StepSizes,
    nodes: Vec<(Kind, NodeId)>,
    weights: usize,
}

impl Body {
    fn new(name: &str, sizes: StepSizes) -> Body {
        Body { b: FunctionBuilder::new(name, Numerics::new(DType::BF16)), sizes, nodes: Vec::new(), weights: 0 }
    }

    /// A node of that kind: mostly a late one.
    fn pick(&mut self, random: &mut Random, kind: Kind) -> NodeId {
        let of_kind: Vec<NodeId> = self.nodes.iter().filter(|(k, _)| *k == kind).map(|(_, node)| *node).collect();
        match of_kind.len() {
            0 => self.constant(kind),
            count => of_kind[count - 1 - random.below(count).min(random.below(count))],
        }
    }

    fn constant(&mut self, kind: Kind) -> NodeId {
        let dtype = kind.ty(self.sizes).as_tensor().expect("kinds are tensors").dtype;
        self.b.add(Op::Constant { values: vec![0.25.into()], dtype, shape: kind.shape(self.sizes) }, &[])
    }

    fn weight(&mut self) -> String {
        self.weights += 1;
        format!("w{}", self.weights)
    }

    /// Adds an operation or a few; returns the cache if it was not used up.
    fn grow(&mut self, random: &mut Random, kv: Option<NodeId>) -> Option<NodeId> {
        use Kind::{Angle, Grouped, Matrix, PerGroup, Rows, Single};
        let (kind, node) = match random.below(18) {
            0 | 1 => {
                let (x, y) = (self.pick(random, Rows), self.pick(random, Rows));
                let op = [BinaryOp::Add, BinaryOp::Multiply, BinaryOp::Subtract][random.below(3)];
                let result = self.b.binary(op, x, y);
                // Squares of squares would leave the range.
                (Rows, if op == BinaryOp::Multiply { self.b.unary(UnaryOp::Tanh, result) } else { result })
            }
            2 => {
                let x = self.pick(random, Rows);
                (Rows, self.b.unary([UnaryOp::Tanh, UnaryOp::Sigmoid][random.below(2)], x))
            }
            3 | 4 => {
                let x = self.pick(random, Rows);
                (Matrix, self.b.convert(x, DType::BF16))
            }
            5 => {
                let x = self.pick(random, Matrix);
                (Rows, self.b.convert(x, DType::F32))
            }
            6..=8 => {
                let (x, name) = (self.pick(random, Matrix), self.weight());
                let weight = self.b.matrix(&name, self.sizes.width(), self.sizes.width());
                (Rows, self.b.dot(x, weight))
            }
            9 => {
                let x = self.pick(random, Rows);
                (Single, self.b.add(Op::Reduce { op: ReduceOp::Sum, axis: 1 }, &[x]))
            }
            10 => {
                let x = self.pick(random, Single);
                (Rows, self.b.add(Op::Broadcast { shape: Rows.shape(self.sizes) }, &[x]))
            }
            11 => {
                let x = self.pick(random, Rows);
                (Grouped, self.b.add(Op::Reshape { shape: Grouped.shape(self.sizes) }, &[x]))
            }
            12 => {
                let x = self.pick(random, Grouped);
                (Rows, self.b.add(Op::Reshape { shape: Rows.shape(self.sizes) }, &[x]))
            }
            13 => {
                let x = self.pick(random, Grouped);
                (PerGroup, self.b.add(Op::Reduce { op: ReduceOp::Max, axis: 2 }, &[x]))
            }
            14 => {
                let (x, y) = (self.pick(random, Grouped), self.pick(random, PerGroup));
                let y = self.b.add(Op::Broadcast { shape: Grouped.shape(self.sizes) }, &[y]);
                (Grouped, self.b.binary(BinaryOp::Add, x, y))
            }
            15 => {
                let x = self.pick(random, Grouped);
                let first = self.b.add(Op::Slice { axis: 2, start: 0, end: self.sizes.group / 2 }, &[x]);
                let second =
                    self.b.add(Op::Slice { axis: 2, start: self.sizes.group / 2, end: self.sizes.group }, &[x]);
                let second = self.b.unary(UnaryOp::Negate, second);
                (Grouped, self.b.add(Op::Concat { axis: 2 }, &[second, first]))
            }
            16 => {
                let (x, angle) = (self.pick(random, Grouped), self.pick(random, Angle));
                let shape = Shape::of(&[Dim::from(Symbol::Tokens), 1.into(), self.sizes.group.into()]);
                let angle = self.b.add(Op::Reshape { shape }, &[angle]);
                let angle = self.b.spread(angle, x);
                (Grouped, self.b.binary(BinaryOp::Multiply, x, angle))
            }
            _ => {
                let kv = kv?;
                let [query, keys, values] = [(); 3].map(|()| self.pick(random, Matrix));
                let kv = self.b.add(Op::KvWrite { part: KvPart::Key }, &[kv, keys]);
                let kv = self.b.add(Op::KvWrite { part: KvPart::Value }, &[kv, values]);
                let attention = Attention {
                    heads: self.sizes.groups,
                    kv_heads: self.sizes.groups,
                    scale: 0.5.into(),
                    window: None,
                    method: AttendMethod::Whole,
                };
                let attended = self.b.attend(query, kv, attention);
                self.nodes.push((Matrix, attended));
                return None;
            }
        };
        self.nodes.push((kind, node));
        kv
    }
}
