//! Values of the interpreter: tensors and the KV cache.

use crate::dim::Bindings;
use crate::dtype::DType;
use crate::shape::Shape;
use std::collections::BTreeMap;

/// More elements than this in one tensor are refused: 2 GiB of f64, far beyond what a test needs.
const MAX_ELEMENTS: usize = 1 << 28;

/// A tensor: row-major elements, all as f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DType,
    sizes: Vec<usize>,
    data: Vec<f64>,
}

impl Tensor {
    /// A tensor; the error says that `data` does not fill `sizes`.
    pub fn new(dtype: DType, sizes: Vec<usize>, data: Vec<f64>) -> Result<Tensor, String> {
        let elements = elements(&sizes)?;
        if elements != data.len() {
            return Err(format!("{} values do not fill {dtype}{sizes:?}, which has {elements}", data.len()));
        }
        Ok(Tensor { dtype, sizes, data })
    }

    /// Integers in one axis.
    pub fn integers(values: &[i32]) -> Tensor {
        let data = values.iter().map(|&value| f64::from(value)).collect();
        Tensor { dtype: DType::I32, sizes: vec![values.len()], data }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The elements alone.
    pub fn into_data(self) -> Vec<f64> {
        self.data
    }
}

/// A value of the interpreter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// The KV cache of one layer.
    Kv(KvCache),
}

impl Value {
    /// The tensor, or `None` for a KV cache.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            Value::Kv(_) => None,
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Value {
        Value::Tensor(tensor)
    }
}

/// The KV cache of one layer: keys and values of each sequence by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KvCache {
    /// Rows of `heads * head_dim` keys, one after the other, per sequence id.
    pub keys: BTreeMap<u64, Vec<f64>>,
    /// Rows of values, likewise.
    pub values: BTreeMap<u64, Vec<f64>>,
}

/// The KV caches of a model's layers, empty at first. Kept from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KvState {
    /// The cache of each layer that was written.
    pub layers: BTreeMap<usize, KvCache>,
}

impl KvState {
    /// Forgets a sequence.
    pub fn remove_sequence(&mut self, sequence: u64) {
        for layer in self.layers.values_mut() {
            layer.keys.remove(&sequence);
            layer.values.remove(&sequence);
        }
    }
}

/// The sizes of `shape` under `bindings`; an error if there are too many elements.
pub(super) fn sizes(shape: &Shape, bindings: &Bindings) -> Result<Vec<usize>, String> {
    let size = |dim: &crate::dim::Dim| dim.coefficient.checked_mul(dim.symbol.map_or(1, |s| bindings.get(s)));
    let sizes: Option<Vec<_>> = shape.0.iter().map(size).collect();
    let sizes = sizes.ok_or_else(|| format!("the sizes of {shape} overflow"))?;
    elements(&sizes)?;
    Ok(sizes)
}

fn elements(sizes: &[usize]) -> Result<usize, String> {
    let product = sizes.iter().try_fold(1, |product: usize, &size| product.checked_mul(size));
    // A zero hides any size beside it, so each must be acceptable alone.
    let fits = sizes.iter().all(|&size| size <= MAX_ELEMENTS);
    product
        .filter(|&elements| fits && elements <= MAX_ELEMENTS)
        .ok_or_else(|| format!("a tensor of sizes {sizes:?} is too large for the interpreter"))
}
