//! Parses one operation.

use super::lex::Token;
use super::parse::{ParseError, Parser};
use crate::dtype::DType;
use crate::graph::NodeId;
use crate::op::{AttendMethod, Attention, BinaryOp, CompareOp, DotMethod, KvPart, Number, Op, ReduceOp, UnaryOp};
use crate::plan::StepInput;
use crate::shape::{Shape, Type};
use std::collections::BTreeMap;

impl Parser<'_> {
    /// An operation and its operands, up to the `:`. What follows from the type is not set yet.
    pub(super) fn operation(&mut self, nodes: &BTreeMap<String, NodeId>) -> Result<(Op, Vec<NodeId>), ParseError> {
        let Token::Word(name) = self.peek() else { return Err(self.unexpected("an operation")) };
        let open = || Shape(Vec::new());
        let mut op = match name {
            "step" | "weight" | "const" => {
                self.advance();
                return Ok((self.leaf(name)?, Vec::new()));
            }
            "iota" => Op::Iota { axis: 0, shape: open() },
            "select" => Op::Select,
            "convert" => Op::Convert { to: DType::F32 },
            "reduce" => Op::Reduce { op: ReduceOp::Sum, axis: 0 },
            "dot" => Op::Dot { left: 0, right: 0, batch: 0, method: DotMethod::Gemm },
            "reshape" => Op::Reshape { shape: open() },
            "permute" => Op::Permute { order: Vec::new() },
            "broadcast" => Op::Broadcast { shape: open() },
            "slice" => Op::Slice { axis: 0, start: 0, end: 0 },
            "concat" => Op::Concat { axis: 0 },
            "gather" => Op::Gather,
            "kv_write" => Op::KvWrite { part: KvPart::Key },
            "attend" => {
                let method = AttendMethod::Whole;
                Op::Attend(Attention { heads: 0, kv_heads: 0, scale: 0.0.into(), window: None, method })
            }
            _ => match elementwise(name) {
                Some(op) => op,
                None => return Err(self.unexpected("an operation such as `add`, `dot` or `reshape`")),
            },
        };
        self.advance();
        let operands = self.values(nodes)?;
        self.attributes(&mut op)?;
        Ok((op, operands))
    }

    fn leaf(&mut self, name: &str) -> Result<Op, ParseError> {
        Ok(match name {
            "step" => Op::Step(self.variant(&StepInput::ALL, StepInput::name)?),
            "weight" => Op::Weight { name: self.quoted()?, ty: Type::tensor::<usize>(DType::F32, &[]) },
            _ => {
                let mut values = Vec::new();
                if self.peek() == Token::Mark("[") {
                    self.list("[", "]", |parser| {
                        values.push(parser.number()?);
                        Ok(())
                    })?;
                } else {
                    values.push(self.number()?);
                }
                Op::Constant { values, dtype: DType::F32, shape: Shape(Vec::new()) }
            }
        })
    }

    /// `{axis = 1, ...}`, in the order in which they are printed.
    fn attributes(&mut self, op: &mut Op) -> Result<(), ParseError> {
        match op {
            Op::Iota { axis, .. } | Op::Concat { axis } => {
                *axis = self.first("axis", Self::integer)?;
            }
            Op::Reduce { op, axis } => {
                *op = self.first("op", |parser| parser.variant(ReduceOp::ALL, ReduceOp::name))?;
                *axis = self.further("axis", Self::integer)?;
            }
            Op::Dot { left, right, batch, method } => {
                (*left, *right) = self.first("contract", |parser| {
                    let left = parser.axis()?;
                    parser.word("x")?;
                    Ok((left, parser.axis()?))
                })?;
                if let Some(found) = self.optional("batch", Self::integer)? {
                    *batch = found;
                }
                let named = |parser: &mut Self| parser.variant(DotMethod::ALL, DotMethod::name);
                if let Some(found) = self.optional("by", named)? {
                    *method = found;
                }
            }
            Op::Permute { order } => {
                *order = self.first("order", |parser| {
                    let mut order = Vec::new();
                    parser.list("[", "]", |parser| {
                        order.push(parser.integer()?);
                        Ok(())
                    })?;
                    Ok(order)
                })?;
            }
            Op::Slice { axis, start, end } => {
                *axis = self.first("axis", Self::integer)?;
                (*start, *end) = self.further("range", |parser| {
                    let start = parser.integer()?;
                    parser.mark("..")?;
                    Ok((start, parser.integer()?))
                })?;
            }
            Op::KvWrite { part } => {
                *part = self.first("part", |parser| parser.variant(&KvPart::ALL, KvPart::name))?;
            }
            Op::Attend(attention) => {
                attention.heads = self.first("heads", Self::integer)?;
                attention.kv_heads = self.further("kv_heads", Self::integer)?;
                attention.scale = self.further("scale", Self::number)?;
                attention.window = self.further("mask", |parser| {
                    let causal = parser.variant(&[true, false], |causal| if causal { "causal" } else { "window" })?;
                    if causal { Ok(None) } else { parser.integer().map(Some) }
                })?;
                let named = |parser: &mut Self| parser.variant(AttendMethod::ALL, AttendMethod::name);
                if let Some(found) = self.optional("by", named)? {
                    attention.method = found;
                }
            }
            _ => return Ok(()),
        }
        self.mark("}")
    }

    fn first<T>(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        self.mark("{")?;
        self.attribute(name, value)
    }

    fn further<T>(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        self.mark(",")?;
        self.attribute(name, value)
    }

    /// An attribute that may be left out.
    fn optional<T>(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Option<T>, ParseError> {
        match (self.peek(), self.peek_second()) {
            (Token::Mark(","), Token::Word(word)) if word == name => self.further(name, value).map(Some),
            _ => Ok(None),
        }
    }

    fn attribute<T>(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        self.word(name)?;
        self.mark("=")?;
        value(self)
    }

    fn axis(&mut self) -> Result<usize, ParseError> {
        self.mark("[")?;
        let axis = self.integer()?;
        self.mark("]")?;
        Ok(axis)
    }

    fn number(&mut self) -> Result<Number, ParseError> {
        let text = match self.peek() {
            Token::Number(text) | Token::Word(text @ ("inf" | "NaN")) => text,
            _ => return Err(self.unexpected("a number")),
        };
        let number = text.parse().map_err(|message: String| self.error_at(self.position(), message))?;
        self.advance();
        Ok(number)
    }
}

fn elementwise(name: &str) -> Option<Op> {
    let unary = UnaryOp::ALL.iter().find(|op| op.name() == name).map(|&op| Op::Unary(op));
    let binary = || BinaryOp::ALL.iter().find(|op| op.name() == name).map(|&op| Op::Binary(op));
    let compare = || CompareOp::ALL.iter().find(|op| op.name() == name).map(|&op| Op::Compare(op));
    unary.or_else(binary).or_else(compare)
}
