//! Shapes and the types of values.

use crate::dim::{Bindings, Dim};
use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The sizes of a tensor's axes, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape of anything that converts to dimensions.
    pub fn of<D: Into<Dim> + Copy>(dims: &[D]) -> Shape {
        Shape(dims.iter().map(|&d| d.into()).collect())
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements, or `None` if it holds two symbols or overflows.
    pub fn elements(&self) -> Option<Dim> {
        self.0.iter().try_fold(Dim::fixed(1), |product, &dim| product.times(dim))
    }

    /// The sizes under `bindings`.
    pub fn evaluate(&self, bindings: &Bindings) -> Vec<usize> {
        self.0.iter().map(|dim| dim.evaluate(bindings)).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

/// A tensor's element type and shape; printed as `bf16[tokens, 576]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Axes, outermost first.
    pub shape: Shape,
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// The KV cache of one layer as a value; printed as `kv<3 x 64, bf16>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KvType {
    /// Number of key/value heads.
    pub heads: usize,
    /// Elements per head and position.
    pub head_dim: usize,
    /// Element type of what is stored.
    pub dtype: DType,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kv<{} x {}, {}>", self.heads, self.head_dim, self.dtype)
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// The state of one layer's KV cache.
    Kv(KvType),
}

impl Type {
    /// A tensor type.
    pub fn tensor<D: Into<Dim> + Copy>(dtype: DType, dims: &[D]) -> Type {
        Type::Tensor(TensorType { dtype, shape: Shape::of(dims) })
    }

    /// The tensor type, or `None` for a KV cache.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(tensor) => Some(tensor),
            Type::Kv(_) => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(tensor) => tensor.fmt(f),
            Type::Kv(kv) => kv.fmt(f),
        }
    }
}
