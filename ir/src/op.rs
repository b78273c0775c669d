//! The operations. Few on purpose: a model's layers are builder methods that emit these.

use crate::dtype::DType;
use crate::plan::StepInput;
use crate::shape::{Shape, Type};
use std::fmt;
use std::str::FromStr;

/// One operation. Whatever operand types do not determine is part of it, so that a node's type
/// always follows from its operation and operands ([`crate::infer::infer`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// A parameter of the function (or an input of the region) that holds the graph.
    Input {
        /// Its position in the parameter list.
        index: usize,
        /// Its type.
        ty: Type,
    },
    /// An input that every step brings along.
    Step(StepInput),
    /// A tensor of the checkpoint, named relative to the scope of the call.
    Weight {
        /// Checkpoint key without the call's scope, such as `self_attn.q_proj.weight`; a name
        /// with a leading `/` is absolute.
        name: String,
        /// Its type.
        ty: Type,
    },
    /// Literal values: one for all elements, or one each in row-major order.
    Constant {
        /// The values.
        values: Vec<Number>,
        /// Element type.
        dtype: DType,
        /// Shape, without symbols if there is more than one value.
        shape: Shape,
    },
    /// The index along an axis as `i32`.
    Iota {
        /// The axis whose index is the value.
        axis: usize,
        /// Result shape.
        shape: Shape,
    },
    /// An elementwise function of one float operand.
    Unary(UnaryOp),
    /// An elementwise function of two operands of the same type.
    Binary(BinaryOp),
    /// An elementwise comparison of two operands of the same type; the result is `bool`.
    Compare(CompareOp),
    /// `select(condition, if_true, if_false)`, elementwise.
    Select,
    /// Rounds each element to another type.
    Convert {
        /// Element type of the result.
        to: DType,
    },
    /// Reduces one axis to size 1.
    Reduce {
        /// How elements combine.
        op: ReduceOp,
        /// The axis that is reduced.
        axis: usize,
    },
    /// Sums products over one axis of each operand, in `f32`. The result's axes: batch axes,
    /// then the remaining axes of the left operand, then those of the right one.
    Dot {
        /// Contracted axis of the left operand.
        left: usize,
        /// Contracted axis of the right operand.
        right: usize,
        /// Leading axes that both operands share.
        batch: usize,
        /// How its kernel takes the products.
        method: DotMethod,
    },
    /// The same elements in row-major order under another shape.
    Reshape {
        /// Result shape.
        shape: Shape,
    },
    /// Axis `i` of the result is axis `order[i]` of the operand.
    Permute {
        /// A permutation of the operand's axes.
        order: Vec<usize>,
    },
    /// Repeats axes of size 1 to the size in `shape` (same rank).
    Broadcast {
        /// Result shape.
        shape: Shape,
    },
    /// Elements `start..end` of a fixed axis.
    Slice {
        /// The axis.
        axis: usize,
        /// First index kept.
        start: usize,
        /// First index not kept.
        end: usize,
    },
    /// Joins operands along a fixed axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// `gather(table[n, ...], indices: i32[m])`: rows of the table, `[m, ...]`.
    Gather,
    /// `kv_write(kv, rows[tokens, heads*head_dim])`: the cache with the rows stored at their
    /// sequences' positions.
    KvWrite {
        /// Whether the rows are keys or values.
        part: KvPart,
    },
    /// `attend(query[tokens, heads*head_dim], kv)`: softmax attention of every row over the
    /// positions of its own sequence up to its own, in `f32`; defined by
    /// [`crate::decompose::attend`]. Query heads are grouped: head `h` reads key/value head
    /// `h / (heads / kv_heads)`.
    Attend(Attention),
}

/// Parameters of [`Op::Attend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: Number,
    /// Sliding window: a row at position p sees positions `p - window + 1 ..= p` only.
    pub window: Option<usize>,
    /// How its kernel divides the work.
    pub method: AttendMethod,
}

impl KvPart {
    /// Both parts, in declaration order.
    pub const ALL: [KvPart; 2] = [KvPart::Key, KvPart::Value];

    /// The name used in the text form.
    pub fn name(self) -> &'static str {
        match self {
            KvPart::Key => "key",
            KvPart::Value => "value",
        }
    }
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KvPart {
    /// What queries are compared with.
    Key,
    /// What is averaged.
    Value,
}

/// A literal: an f64 that compares, orders and hashes by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(u64);

impl Number {
    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number(value.to_bits())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints the shortest text that parses back to the same bits; a NaN other than the usual one as its bits.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.get();
        if value.is_nan() && self.0 != f64::NAN.to_bits() {
            return write!(f, "{:#018x}", self.0);
        }
        let single = value as f32;
        if f64::from(single).to_bits() == self.0 {
            let text = format!("{single:?}");
            if text.parse::<f64>().is_ok_and(|parsed| parsed.to_bits() == self.0) {
                return f.write_str(&text);
            }
        }
        write!(f, "{value:?}")
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Number, String> {
        let bits = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
        match bits {
            Some(bits) => bits.map(Number).map_err(|_| format!("`{text}` is not the bits of a 64-bit number")),
            None => text.parse::<f64>().map(Number::from).map_err(|_| format!("`{text}` is not a number")),
        }
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name used in the text form.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

named! {
    /// How the kernel of a dot takes its products. But for the last way it changes no value beyond the order of sums.
    DotMethod {
        /// Blocks of rows and columns that stay in fast memory while they are multiplied: for many rows.
        Gemm = "gemm",
        /// The weight is read once, in order and ahead of time, for all rows together: for few rows.
        Gemv = "gemv",
        /// A gemv whose work items are parts of the sum as well as columns: for few rows and many cores.
        SplitK = "split_k",
        /// A gemm of whole numbers: of a row and of a weight in bf16, with 64 consecutive k sharing a power of two
        /// ([`crate::block_float`]). That rounds both, by far less than bf16 does.
        BlockFloat = "block_float",
    }
}

impl DotMethod {
    /// The lengths of the parts in which [`DotMethod::SplitK`] takes a sum over k: multiples of 32 but for the last one,
    /// which follow from the length of the sum alone.
    pub fn sum_parts(k: usize) -> Vec<usize> {
        const PART: usize = 512;
        let part = k.div_ceil(k.div_ceil(PART).max(1)).next_multiple_of(32).max(32);
        (0..k.div_ceil(part)).map(|number| part.min(k - number * part)).collect()
    }
}

impl AttendMethod {
    /// Positions of a sequence that a work item of [`AttendMethod::Split`] covers.
    pub const SPLIT_POSITIONS: usize = 256;
}

named! {
    /// How the kernel of an `attend` divides its work. It changes no value beyond the order of sums.
    AttendMethod {
        /// A work item is some rows of one sequence and one key/value head, over all that they see.
        Whole = "whole",
        /// A work item is one row over a part of what it sees; the parts are combined behind. It takes a step of one
        /// token per sequence.
        Split = "split",
    }
}

named! {
    /// Elementwise functions of one float operand.
    UnaryOp {
        /// `-x`
        Negate = "negate",
        /// `|x|`
        Absolute = "abs",
        /// `e^x`
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// `1 / sqrt(x)`
        Rsqrt = "rsqrt",
        /// `sqrt(x)`
        Sqrt = "sqrt",
        /// `1 / x`
        Reciprocal = "reciprocal",
        /// Sine of radians.
        Sin = "sin",
        /// Cosine of radians.
        Cos = "cos",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// `1 / (1 + e^-x)`
        Sigmoid = "sigmoid",
    }
}

named! {
    /// Elementwise functions of two operands of the same type.
    BinaryOp {
        /// `a + b`
        Add = "add",
        /// `a - b`
        Subtract = "sub",
        /// `a * b`
        Multiply = "mul",
        /// `a / b`
        Divide = "div",
        /// The larger one.
        Maximum = "max",
        /// The smaller one.
        Minimum = "min",
    }
}

named! {
    /// Comparisons.
    CompareOp {
        /// `a < b`
        Less = "less",
        /// `a <= b`
        LessEqual = "less_equal",
        /// `a == b`
        Equal = "equal",
    }
}

named! {
    /// How the elements of a reduced axis combine.
    ReduceOp {
        /// Their sum.
        Sum = "sum",
        /// The largest.
        Max = "max",
    }
}

impl Op {
    /// Rows `[rows, k]` times the rows of a weight `[n, k]`.
    pub const PRODUCT: Op = Op::Dot { left: 1, right: 1, batch: 0, method: DotMethod::Gemm };

    /// Whether each element of the result depends on operand elements by elementwise
    /// computation or rearrangement only: what can be fused into a loop over the result.
    pub fn is_map(&self) -> bool {
        matches!(
            self,
            Op::Unary(_)
                | Op::Binary(_)
                | Op::Compare(_)
                | Op::Select
                | Op::Convert { .. }
                | Op::Reshape { .. }
                | Op::Broadcast { .. }
                | Op::Slice { .. }
                | Op::Concat { .. }
        )
    }

    /// Whether the operation has no operands.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Step(_) | Op::Weight { .. } | Op::Constant { .. } | Op::Iota { .. })
    }

    /// The name used in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Step(_) => "step",
            Op::Weight { .. } => "weight",
            Op::Constant { .. } => "const",
            Op::Iota { .. } => "iota",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Compare(op) => op.name(),
            Op::Select => "select",
            Op::Convert { .. } => "convert",
            Op::Reduce { .. } => "reduce",
            Op::Dot { .. } => "dot",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Broadcast { .. } => "broadcast",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Gather => "gather",
            Op::KvWrite { .. } => "kv_write",
            Op::Attend(_) => "attend",
        }
    }
}
