//! Symbolic dimensions: a coefficient times symbols of a closed set.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A size that is known only when a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbol {
    /// Rows of activations in a step: the new tokens of all its sequences together.
    Tokens,
    /// Rows whose logits are wanted.
    Samples,
    /// Sequences that take part in a step.
    Sequences,
    /// Positions in the KV cache of one sequence, the step's own included.
    Context,
}

impl Symbol {
    /// Every symbol, in declaration order.
    pub const ALL: [Symbol; 4] = [Symbol::Tokens, Symbol::Samples, Symbol::Sequences, Symbol::Context];

    /// The name used in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Symbol::Tokens => "tokens",
            Symbol::Samples => "samples",
            Symbol::Sequences => "sequences",
            Symbol::Context => "context",
        }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `coefficient`, or `coefficient * symbol`. Neither sums nor division ever appear in a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dim {
    /// The constant factor.
    pub coefficient: usize,
    /// The symbolic factor, if there is one.
    pub symbol: Option<Symbol>,
}

impl Dim {
    /// A size known at compile time.
    pub const fn fixed(size: usize) -> Dim {
        Dim { coefficient: size, symbol: None }
    }

    /// A size known only when a step runs.
    pub const fn symbol(symbol: Symbol) -> Dim {
        Dim { coefficient: 1, symbol: Some(symbol) }
    }

    /// The size, if it is known at compile time.
    pub fn as_fixed(self) -> Option<usize> {
        match self.symbol {
            None => Some(self.coefficient),
            Some(_) => None,
        }
    }

    /// The size under `bindings`.
    pub fn evaluate(self, bindings: &Bindings) -> usize {
        self.coefficient * self.symbol.map_or(1, |symbol| bindings.get(symbol))
    }

    /// The product, or `None` if it would hold two symbols or overflow.
    pub fn times(self, other: Dim) -> Option<Dim> {
        let symbol = match (self.symbol, other.symbol) {
            (Some(_), Some(_)) => return None,
            (a, b) => a.or(b),
        };
        Some(Dim { coefficient: self.coefficient.checked_mul(other.coefficient)?, symbol })
    }
}

impl From<usize> for Dim {
    fn from(size: usize) -> Dim {
        Dim::fixed(size)
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Dim {
        Dim::symbol(symbol)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.coefficient, self.symbol) {
            (size, None) => write!(f, "{size}"),
            (1, Some(symbol)) => write!(f, "{symbol}"),
            (coefficient, Some(symbol)) => write!(f, "{coefficient}*{symbol}"),
        }
    }
}

/// A value for each symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bindings {
    /// Value of [`Symbol::Tokens`].
    pub tokens: usize,
    /// Value of [`Symbol::Samples`].
    pub samples: usize,
    /// Value of [`Symbol::Sequences`].
    pub sequences: usize,
    /// Value of [`Symbol::Context`].
    pub context: usize,
}

impl Bindings {
    /// The value bound to `symbol`.
    pub fn get(&self, symbol: Symbol) -> usize {
        match symbol {
            Symbol::Tokens => self.tokens,
            Symbol::Samples => self.samples,
            Symbol::Sequences => self.sequences,
            Symbol::Context => self.context,
        }
    }
}

/// What a specialisation may assume of a step: upper limits, and whether every sequence brings
/// exactly one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The largest value of each symbol.
    pub max: Bindings,
    /// `tokens == sequences == samples`: the decode promise.
    pub one_token_per_sequence: bool,
}

/// What is known of every step beside its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing.
    None,
    /// `tokens == sequences == samples`.
    OneTokenPerSequence,
}

impl Bounds {
    /// [`Bounds::one_token_per_sequence`] as a promise.
    pub fn promise(&self) -> Promise {
        if self.one_token_per_sequence { Promise::OneTokenPerSequence } else { Promise::None }
    }

    /// The largest size that `dim` can have.
    pub fn max_of(&self, dim: Dim) -> usize {
        dim.evaluate(&self.max)
    }
}
