//! A model that is nothing but a table of rows and a head.

use crate::builder::{Bias, FunctionBuilder, Numerics};
use crate::dim::{Dim, Symbol};
use crate::graph::NodeId;
use crate::module::{Argument, Call, Function, LOGITS, Module};
use crate::op::Op;
use crate::plan::StepInput;
use crate::shape::Type;

/// Logits are products of rows of the table `rows`, `[rows, k]`, which tokens choose, with `head.weight`, `[columns, k]`.
pub fn head_module(numerics: Numerics, rows: usize, columns: usize, k: usize) -> Module {
    module(numerics, rows, k, |b, x| b.linear(x, "head", (k, columns), Bias::Absent))
}

/// The same where the table is the head as well, with so many rows of `k`.
///
/// # Panics
/// If there is no such model.
pub fn tied_head_module(numerics: Numerics, rows: usize, k: usize) -> Module {
    module(numerics, rows, k, |b, x| {
        let table = b.matrix("rows", rows, k);
        b.dot(x, table)
    })
}

fn module(
    numerics: Numerics,
    rows: usize,
    k: usize,
    head: impl FnOnce(&mut FunctionBuilder, NodeId) -> NodeId,
) -> Module {
    let functions = vec![table_function(numerics, rows, k), head_function(numerics, k, head)];
    let calls = vec![plain_call("embed", &[], "x"), plain_call("head", &["x"], LOGITS)];
    Module { name: "Head".into(), functions, calls }
}

/// A function `embed` that looks tokens up in the table `rows`, `[rows, k]`.
///
/// # Panics
/// If there is no such function.
pub fn table_function(numerics: Numerics, rows: usize, k: usize) -> Function {
    let mut b = FunctionBuilder::new("embed", numerics);
    let ids = b.step(StepInput::TokenIds);
    let table = b.matrix("rows", rows, k);
    let x = b.add(Op::Gather, &[table, ids]);
    let x = b.to_matrix_type(x);
    b.finish(&[x]).expect("tables are well-typed")
}

/// A function `head` that makes logits of the sampled rows of `x[tokens, k]`.
///
/// # Panics
/// If there is no such function.
pub fn head_function(
    numerics: Numerics,
    k: usize,
    logits: impl FnOnce(&mut FunctionBuilder, NodeId) -> NodeId,
) -> Function {
    let mut b = FunctionBuilder::new("head", numerics);
    let x = b.param("x", Type::tensor(numerics.matrix, &[Dim::from(Symbol::Tokens), k.into()]));
    let rows = b.step(StepInput::SampleRows);
    let sampled = b.add(Op::Gather, &[x, rows]);
    let logits = logits(&mut b, sampled);
    b.finish(&[logits]).expect("logits are well-typed")
}

/// A call of a function in the scope of the model, on values and with one result.
pub fn plain_call(function: &str, arguments: &[&str], result: &str) -> Call {
    Call {
        function: function.into(),
        scope: String::new(),
        arguments: arguments.iter().map(|name| Argument::Value((*name).into())).collect(),
        results: vec![result.into()],
    }
}
