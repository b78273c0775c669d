//! Specialisation: one program per kind of step. A kind is bounds on the step's sizes, never another model.
//!
//! **decode**: every sequence brings one token, and every row is sampled in order. `samples` and `sequences` then
//! are `tokens`, and the list of sampled rows is `0, 1, 2, ...`: gathering by it becomes an identity, which
//! canonicalisation removes.
//!
//! **prefill**: at most a chunk of tokens over several sequences, any of them sampled.
//!
//! Both come in sizes, because what is best for one row is not for many. The runtime takes the tightest that fits. And
//! both are made for each kind of processor that there is a machine of, since what is best on one is not on the other.

use crate::pass::{Context, State};
use crate::rebuild::rebuild;
use llmc_ir::dim::{Bindings, Bounds, Dim, Symbol};
use llmc_ir::machine::Processor;
use llmc_ir::module::{Module, SpecializedModule};
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;
use llmc_ir::shape::{Shape, TensorType, Type};

/// Sequences of the decode programs below the largest: one user, and a few.
const DECODE_SIZES: [usize; 2] = [1, 16];

/// Tokens of the prefill program below the largest: a short prompt, or the rest of a long one.
const SHORT_PREFILL: usize = 64;

/// Makes the programs, for each kind of processor the tightest first.
pub fn specialize(state: State, context: &Context) -> Result<State, String> {
    let State::Module(module) = state else {
        return Err(format!("it takes a module, found {}", state.kind()));
    };
    let mut decode = module.clone();
    promise_one_token_per_sequence(&mut decode)?;
    let mut programs: Vec<SpecializedModule> = Vec::new();
    for processor in Processor::ALL.into_iter().filter(|&processor| context.machines.of(processor).is_ok()) {
        // The first kind of processor has the plain names.
        let prefix = if programs.is_empty() { String::new() } else { format!("{processor}_") };
        programs.extend(kinds(context).into_iter().map(|(name, bounds)| {
            let module = if bounds.one_token_per_sequence { decode.clone() } else { module.clone() };
            SpecializedModule { name: format!("{prefix}{name}"), processor, bounds, module }
        }));
    }
    Ok(State::Programs(programs))
}

/// The kinds of steps: names and bounds. `decode` and `prefill` take all that the limits allow, the others less.
fn kinds(context: &Context) -> Vec<(String, Bounds)> {
    let (batch, positions) = (context.facts.max_batch, context.facts.max_context);
    let small = DECODE_SIZES.into_iter().filter(|&size| size < batch);
    let mut kinds: Vec<(String, Bounds)> =
        small.map(|size| (format!("decode_{size}"), decode_bounds(size, positions))).collect();
    kinds.push(("decode".to_owned(), decode_bounds(batch, positions)));
    // Fewer than a chunk if not even full contexts of all sequences have as many.
    let tokens = context.prefill_chunk.min(batch.saturating_mul(positions));
    if SHORT_PREFILL < tokens {
        kinds.push((format!("prefill_{SHORT_PREFILL}"), prefill_bounds(SHORT_PREFILL, batch, positions)));
    }
    kinds.push(("prefill".to_owned(), prefill_bounds(tokens, batch, positions)));
    kinds
}

/// Steps in which up to `batch` sequences bring one token each.
fn decode_bounds(batch: usize, context: usize) -> Bounds {
    let max = Bindings { tokens: batch, samples: batch, sequences: batch, context };
    Bounds { max, one_token_per_sequence: true }
}

/// Steps of up to `tokens` tokens.
fn prefill_bounds(tokens: usize, batch: usize, context: usize) -> Bounds {
    let max = Bindings { tokens, samples: tokens, sequences: batch.min(tokens), context };
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
