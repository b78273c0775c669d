//! A random function as a module: its parameters come from embedding tables, its results become the logits.

use llmc_ir::builder::{FunctionBuilder, Numerics};
use llmc_ir::dim::{Dim, Symbol};
use llmc_ir::dtype::DType;
use llmc_ir::module::{Argument, Call, Function, LOGITS, Module};
use llmc_ir::op::Op;
use llmc_ir::plan::StepInput;
use llmc_ir::shape::{Shape, TensorType, Type};
use llmc_ir::testing::{RandomFunction, TEST_VOCAB};
use std::collections::BTreeMap;

/// The module, or `None` if no result of the function has rows of tokens. Weights of the function keep their names,
/// the tables are named after its parameters.
pub fn wrap(random: &RandomFunction) -> Option<Module> {
    let mut function = random.function.clone();
    let graph = &function.graph;
    function.results.retain(|&result| width(graph.ty(result)).is_some());
    if function.results.is_empty() {
        return None;
    }
    let roots = function.results.clone();
    function.graph.retain_reachable(&roots);
    let result_types: Vec<TensorType> =
        function.results.iter().filter_map(|&result| function.graph.ty(result).as_tensor().cloned()).collect();
    let names: Vec<String> = (0..result_types.len()).map(|index| format!("r{index}")).collect();
    let argument = |(index, ty): (usize, &Type)| match ty {
        Type::Kv(_) => Argument::Kv(0),
        Type::Tensor(_) => Argument::Value(function.params[index].name.clone()),
    };
    let tensors: Vec<&str> = function
        .params
        .iter()
        .filter(|param| param.ty.as_tensor().is_some())
        .map(|param| param.name.as_str())
        .collect();
    let call = |function: &str, arguments, results| Call {
        function: function.into(),
        scope: String::new(),
        arguments,
        results,
    };
    let calls = vec![
        call("embed", vec![], tensors.iter().map(ToString::to_string).collect()),
        call(
            &function.name,
            function.params.iter().map(|param| &param.ty).enumerate().map(argument).collect(),
            names.clone(),
        ),
        call("head", names.iter().cloned().map(Argument::Value).collect(), vec![LOGITS.into()]),
    ];
    let functions = vec![embed(&function), function, head(&names, &result_types)];
    Some(Module { name: "Random".into(), functions, calls })
}

/// The types of the tables by name.
pub fn tables(random: &RandomFunction) -> BTreeMap<String, TensorType> {
    let tensors = random.function.params.iter().filter_map(|param| Some((&param.name, param.ty.as_tensor()?)));
    tensors.map(|(name, ty)| (table(name), table_type(ty))).collect()
}

fn table(param: &str) -> String {
    format!("table.{param}")
}

fn table_type(param: &TensorType) -> TensorType {
    let mut dims = param.shape.0.clone();
    dims[0] = Dim::fixed(TEST_VOCAB);
    TensorType { dtype: param.dtype, shape: Shape(dims) }
}

/// Elements per row of a tensor `[tokens, ...]` of floats.
fn width(ty: &Type) -> Option<usize> {
    let ty = ty.as_tensor()?;
    let (first, rest) = ty.shape.0.split_first()?;
    let rows = *first == Symbol::Tokens.into() && ty.dtype.is_float();
    rows.then(|| rest.iter().map(|dim| dim.as_fixed()).product::<Option<usize>>()).flatten()
}

fn embed(function: &Function) -> Function {
    let mut b = FunctionBuilder::new("embed", Numerics::new(DType::F32));
    let ids = b.step(StepInput::TokenIds);
    let mut results = Vec::new();
    for param in &function.params {
        let Some(ty) = param.ty.as_tensor() else { continue };
        let weight = Op::Weight { name: table(&param.name), ty: Type::Tensor(table_type(ty)) };
        let weight = b.add(weight, &[]);
        results.push(b.add(Op::Gather, &[weight, ids]));
    }
    b.finish(&results).expect("tables are well-typed")
}

/// All results side by side, for the rows that are sampled.
fn head(names: &[String], types: &[TensorType]) -> Function {
    let mut b = FunctionBuilder::new("head", Numerics::new(DType::F32));
    let params: Vec<_> = names.iter().zip(types).map(|(name, ty)| b.param(name, Type::Tensor(ty.clone()))).collect();
    let rows = b.step(StepInput::SampleRows);
    let mut parts = Vec::new();
    for (param, ty) in params.into_iter().zip(types) {
        let sampled = b.add(Op::Gather, &[param, rows]);
        let width = width(&Type::Tensor(ty.clone())).expect("results have rows");
        let flat = b.reshape(sampled, &[Dim::from(Symbol::Samples), width.into()]);
        parts.push(b.convert(flat, DType::F32));
    }
    let logits = if parts.len() == 1 { parts[0] } else { b.add(Op::Concat { axis: 1 }, &parts) };
    b.finish(&[logits]).expect("logits are well-typed")
}
