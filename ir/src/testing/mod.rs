//! Inputs for tests of whatever changes or compiles graphs (cargo feature `testing`): random well-typed functions,
//! values and steps, all determined by a seed, and an example model.
//!
//! ```
//! use llmc_ir::eval::{Mode, eval_function};
//! use llmc_ir::testing::{Config, random_function, random_step};
//!
//! let random = random_function(7, &Config::rowwise());
//! let step = random_step(7, 3, 5);
//! let mut inputs = random.inputs(7, &step);
//! let results = eval_function(&random.function, &mut inputs, &random.weight_source(), &step, Mode::AsTyped)?;
//! assert_eq!(results.len(), random.function.results.len());
//! # Ok::<(), llmc_ir::eval::EvalError>(())
//! ```

mod example;
mod grow;
mod head;
mod random;
mod steps;
#[cfg(test)]
mod tests;

pub use example::{example_module, example_weight};
pub use grow::random_function;
pub use head::{head_function, head_module, plain_call, table_function, tied_head_module};
pub use random::Random;
pub use steps::{StepSizes, random_module};

use crate::dtype::DType;
use crate::eval::{KvCache, StepInputs, Tensor, Value};
use crate::module::Function;
use crate::shape::Type;
use std::collections::BTreeMap;

/// What a random function may consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many operations to add, beside those that make operands fit.
    pub operations: usize,
    /// Which; the order does not matter, a repeated kind is chosen more often.
    pub kinds: Vec<Kind>,
    /// Float types of parameters, weights and conversions.
    pub dtypes: Vec<DType>,
    /// Upper limit of each fixed size.
    pub max_size: usize,
}

/// A kind of operation that a random function may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A unary function, guarded so that its result is finite.
    Unary,
    /// A function of two operands; the second may be a weight repeated over rows, or a constant.
    Binary,
    /// A choice by comparing parameters, indexes or positions: never by values that rounding could turn over.
    Select,
    /// A change of the element type.
    Convert,
    /// A reduction of the last axis, or of any fixed one where [`Kind::Permute`] is allowed too.
    Reduce,
    /// A product of rows `[tokens, k]` with a weight `[n, k]`, or one of both operands with a batch axis where
    /// [`Kind::Permute`] is allowed too.
    Dot,
    /// `[tokens, n]` to `[tokens, heads, n / heads]` or back.
    Reshape,
    /// Axes in another order. Without it the first axis is always `tokens`.
    Permute,
    /// A part of the last axis.
    Slice,
    /// Several operands along the last axis.
    Concat,
    /// Rows of a table by token id.
    Gather,
    /// Writes to the KV cache and attention over it. At most once.
    Attend,
}

impl Config {
    /// Maps and reductions over rows `[tokens, n]` and `[tokens, heads, n]`: what one region of rows can hold.
    pub fn rowwise() -> Config {
        use Kind::{Binary, Concat, Convert, Reduce, Reshape, Select, Slice, Unary};
        Config {
            operations: 12,
            kinds: vec![Unary, Binary, Binary, Select, Convert, Reduce, Reshape, Slice, Concat],
            dtypes: vec![DType::F32, DType::BF16],
            max_size: 24,
        }
    }

    /// Rows and products with weights, gathers and attention: what models consist of.
    pub fn modellike() -> Config {
        let mut config = Config::rowwise();
        config.kinds.extend([Kind::Dot, Kind::Dot, Kind::Gather, Kind::Attend]);
        config.operations = 18;
        config
    }

    /// Every operation, all float types, and shapes whose rows are anywhere.
    pub fn everything() -> Config {
        let mut config = Config::modellike();
        config.kinds.push(Kind::Permute);
        config.dtypes.push(DType::F16);
        config
    }
}

/// A random function and what it needs to run.
#[derive(Clone, Debug)]
pub struct RandomFunction {
    /// The function; all its nodes are used.
    pub function: Function,
    /// Values of its weights.
    pub weights: BTreeMap<String, Tensor>,
}

/// Token ids of random steps, and the tables that random functions look them up in, stay below this.
pub const TEST_VOCAB: usize = 11;

impl RandomFunction {
    /// The weights as the interpreter takes them.
    pub fn weight_source(&self) -> impl Fn(&str) -> Option<Tensor> {
        |name| self.weights.get(name).cloned()
    }

    /// Random arguments, rounded to their types; caches are empty.
    pub fn inputs(&self, seed: u64, step: &StepInputs) -> Vec<Value> {
        let mut random = Random::new(seed);
        let bindings = step.bindings();
        let value = |ty: &Type| match ty {
            Type::Kv(_) => Value::Kv(KvCache::default()),
            Type::Tensor(ty) => random.tensor(ty.dtype, &ty.shape.evaluate(&bindings)).into(),
        };
        self.function.params.iter().map(|param| &param.ty).map(value).collect()
    }
}

/// A step of 1 to `max_sequences` fresh sequences of 1 to `max_tokens` tokens each; logits are wanted for each
/// one's last row.
pub fn random_step(seed: u64, max_sequences: usize, max_tokens: usize) -> StepInputs {
    let mut random = Random::new(seed);
    let count = 1 + random.below(max_sequences);
    let prompts: Vec<Vec<i32>> = (0..count)
        .map(|_| (0..1 + random.below(max_tokens)).map(|_| random.below(TEST_VOCAB) as i32).collect())
        .collect();
    let first = random.below(100) as u64;
    let sequences: Vec<_> = (first..).zip(&prompts).map(|(id, prompt)| (id, 0, &prompt[..])).collect();
    StepInputs::batch(&sequences)
}
