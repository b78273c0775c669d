//! Specialisation: one program per kind of step. A kind is bounds on the step's sizes, never another model.
//!
//! **decode**: every sequence brings one token, and every row is sampled in order. `samples` and `sequences` then
//! are `tokens`, and the list of sampled rows is `0, 1, 2, ...`: gathering by it becomes an identity, which
//! canonicalisation removes.
//!
//! **prefill**: at most a chunk of tokens over several sequences, any of them sampled.

use crate::pass::{Context, State};
use crate::rebuild::rebuild;
use llmc_ir::dim::{Bindings, Bounds, Dim, Symbol};
use llmc_ir::module::{Module, SpecializedModule};
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;
use llmc_ir::shape::{Shape, TensorType, Type};

/// Makes the programs, the tightest first.
pub fn specialize(state: State, context: &Context) -> Result<State, String> {
    let State::Module(module) = state else {
        return Err(format!("it takes a module, found {}", state.kind()));
    };
    let mut decode = module.clone();
    promise_one_token_per_sequence(&mut decode)?;
    let programs = [("decode", decode_bounds(context), decode), ("prefill", prefill_bounds(context), module)];
    let programs = programs.map(|(name, bounds, module)| SpecializedModule { name: name.to_owned(), bounds, module });
    Ok(State::Programs(programs.into()))
}

/// Steps in which up to `max_batch` sequences bring one token each.
pub fn decode_bounds(context: &Context) -> Bounds {
    let batch = context.facts.max_batch;
    let max = Bindings { tokens: batch, samples: batch, sequences: batch, context: context.facts.max_context };
    Bounds { max, one_token_per_sequence: true }
}

/// Steps of up to a chunk of tokens (fewer if not even full contexts of all sequences have as many).
pub fn prefill_bounds(context: &Context) -> Bounds {
    let (batch, positions) = (context.facts.max_batch, context.facts.max_context);
    let tokens = context.prefill_chunk.min(batch.saturating_mul(positions));
    let max = Bindings { tokens, samples: tokens, sequences: batch.min(tokens), context: positions };
    Bounds { max, one_token_per_sequence: false }
}

/// Uses `tokens == sequences == samples` in every function.
fn promise_one_token_per_sequence(module: &mut Module) -> Result<(), String> {
    for function in &mut module.functions {
        for param in &mut function.params {
            param.ty = substitute_type(&param.ty);
        }
        rebuild(function, |graph, op, operands| graph.add(substitute(op), operands))?;
    }
    Ok(())
}

/// The operation under the decode promise.
fn substitute(op: Op) -> Op {
    match op {
        Op::Step(StepInput::SampleRows) => Op::Iota { axis: 0, shape: Shape::of(&[Symbol::Tokens]) },
        Op::Input { index, ty } => Op::Input { index, ty: substitute_type(&ty) },
        Op::Constant { values, dtype, shape } => Op::Constant { values, dtype, shape: substitute_shape(&shape) },
        Op::Iota { axis, shape } => Op::Iota { axis, shape: substitute_shape(&shape) },
        Op::Reshape { shape } => Op::Reshape { shape: substitute_shape(&shape) },
        Op::Broadcast { shape } => Op::Broadcast { shape: substitute_shape(&shape) },
        other => other,
    }
}

fn substitute_type(ty: &Type) -> Type {
    match ty {
        Type::Tensor(tensor) => {
            Type::Tensor(TensorType { dtype: tensor.dtype, shape: substitute_shape(&tensor.shape) })
        }
        Type::Kv(kv) => Type::Kv(*kv),
    }
}

fn substitute_shape(shape: &Shape) -> Shape {
    let dim = |dim: &Dim| match dim.symbol {
        Some(Symbol::Samples | Symbol::Sequences) => Dim { symbol: Some(Symbol::Tokens), ..*dim },
        _ => *dim,
    };
    Shape(shape.0.iter().map(dim).collect())
}
