//! Values between calls: each name has one place in the arena for the whole step.

use super::instance::{Binding, Place};
use super::{PlanError, source_type, tensor_bytes};
use crate::buffers::aligned;
use llmc_ir::dtype::DType;
use llmc_ir::module::{Argument, LOGITS};
use llmc_ir::plan::ModelFacts;
use llmc_ir::region::FusedProgram;
use llmc_ir::shape::{TensorType, Type};
use std::collections::BTreeMap;

/// Where the values between calls are.
pub(super) struct Values {
    /// Offset of each by name.
    pub offsets: BTreeMap<String, u64>,
    /// What they take together, aligned.
    pub bytes: u64,
}

impl Values {
    /// Places for the results of all calls, in order of first definition.
    pub fn of(program: &FusedProgram, facts: &ModelFacts) -> Result<Values, PlanError> {
        let mut sizes: Vec<(&str, u64)> = Vec::new();
        for (position, call) in program.module.calls.iter().enumerate() {
            let error = |reason| call_error(program, position, reason);
            let function = program.module.function(&call.function);
            let function = function.ok_or_else(|| error("there is no function of that name".into()))?;
            if call.results.len() != function.results.len() {
                let (names, results) = (call.results.len(), function.results.len());
                return Err(error(format!("{names} names for {results} results")));
            }
            for (name, source) in call.results.iter().zip(&function.results) {
                let ty = source_type(function, source).ok_or_else(|| error(not_computed(name)))?;
                let Type::Tensor(ty) = ty else { continue };
                if name == LOGITS {
                    check_logits(ty, facts).map_err(error)?;
                    continue;
                }
                let bytes = tensor_bytes(ty, &program.bounds);
                match sizes.iter_mut().find(|(other, _)| other == name) {
                    Some((_, size)) => *size = bytes.max(*size),
                    None => sizes.push((name, bytes)),
                }
            }
        }
        let mut values = Values { offsets: BTreeMap::new(), bytes: 0 };
        for (name, bytes) in sizes {
            values.offsets.insert(name.to_owned(), values.bytes);
            values.bytes = aligned(values.bytes.saturating_add(bytes));
        }
        Ok(values)
    }

    /// What the parameters and results of a call are bound to, and the layer of its cache (0 if it has none).
    pub fn bind(&self, program: &FusedProgram, position: usize) -> Result<(Binding, usize), PlanError> {
        let module = &program.module;
        let call = &module.calls[position];
        let error = |reason| call_error(program, position, reason);
        let index = module.functions.iter().position(|function| function.name == call.function);
        let index = index.ok_or_else(|| error("there is no function of that name".into()))?;
        let function = &module.functions[index];
        if call.arguments.len() != function.params.len() {
            let (arguments, params) = (call.arguments.len(), function.params.len());
            return Err(error(format!("{arguments} arguments for {params} parameters")));
        }
        let mut layer = None;
        let mut params = Vec::new();
        for (argument, param) in call.arguments.iter().zip(&function.params) {
            params.push(match (argument, &param.ty) {
                (Argument::Kv(of), Type::Kv(_)) if layer.is_none_or(|layer| layer == *of) => {
                    layer = Some(*of);
                    Place::Kv
                }
                (Argument::Kv(of), Type::Kv(_)) => {
                    return Err(error(format!("it has the cache of layer {of} beside another one; give it one")));
                }
                (Argument::Value(name), _) if name == LOGITS => {
                    return Err(error("the logits are the result of the step, a call cannot read them".into()));
                }
                (Argument::Value(name), ty @ Type::Tensor(_)) => match defined(program, position, name) {
                    Some(found) if found == ty => Place::Value(name.clone()),
                    Some(found) => return Err(error(format!("%{} is {ty}, `{name}` is {found}", param.name))),
                    None => return Err(error(format!("no earlier call defines `{name}`"))),
                },
                (_, ty) => return Err(error(format!("%{} is {ty}, which the argument is not", param.name))),
            });
        }
        let mut results = Vec::new();
        for (position, (name, source)) in call.results.iter().zip(&function.results).enumerate() {
            if call.results[..position].contains(name) {
                return Err(error(format!("two results are named `{name}`")));
            }
            if function.results[..position].contains(source) {
                return Err(error(not_computed(name)));
            }
            results.push(match source_type(function, source) {
                Some(Type::Kv(_)) => Place::Kv,
                _ if name == LOGITS => Place::Logits,
                _ => Place::Value(name.clone()),
            });
        }
        Ok((Binding { function: index, params, results }, layer.unwrap_or(0)))
    }
}

/// The type of the value that `name` stands for before a call.
fn defined<'a>(program: &'a FusedProgram, before: usize, name: &str) -> Option<&'a Type> {
    let module = &program.module;
    let call = module.calls[..before].iter().rev().find(|call| call.results.iter().any(|result| result == name))?;
    let function = module.function(&call.function)?;
    let position = call.results.iter().position(|result| result == name)?;
    source_type(function, function.results.get(position)?)
}

fn check_logits(ty: &TensorType, facts: &ModelFacts) -> Result<(), String> {
    let columns = ty.shape.0.get(1).and_then(|dim| dim.as_fixed());
    if ty.dtype == DType::F32 && ty.shape.rank() == 2 && columns == Some(facts.vocab) {
        return Ok(());
    }
    Err(format!("the logits must be f32[samples, {}], found {ty}", facts.vocab))
}

fn not_computed(name: &str) -> String {
    format!("`{name}` must be an output of a region that is no other result; fusion copies what is not")
}

fn call_error(program: &FusedProgram, call: usize, reason: String) -> PlanError {
    let function = program.module.calls[call].function.clone();
    PlanError::Call { program: program.name.clone(), call, function, reason }
}
