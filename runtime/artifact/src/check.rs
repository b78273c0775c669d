//! What has to hold of a manifest before anybody relies on it: parts refer to parts that exist, operands lie inside
//! their memory, and no size is so large that computing with it could overflow.

mod cuda;

use crate::manifest::Manifest;
use crate::names::{TOKENIZER, code_tensor_name, weight_tensor_name};
use llmc_ir::dim::Symbol;
use llmc_ir::machine::Processor;
use llmc_ir::plan::{Operand, Plan, PlannedCall, Program, Rounded, WeightLayout};
use std::collections::{BTreeMap, BTreeSet};

/// The largest vocabulary and the most tokens, samples, sequences and positions of a step: compiled code counts in 32
/// bits, and the compiler allows no more.
const LARGEST_SIZE: usize = 1 << 24;

/// The most layers, heads and elements of a head: far beyond any model, and a block of the cache stays below 2^44 bytes.
const LARGEST_CACHE_SIZE: usize = 1 << 12;

/// The most bytes of activations or of a thread's working memory: an address space.
const LARGEST_MEMORY: u64 = 1 << 47;

impl Manifest {
    /// Checks that the tensors, given with their sizes, are those that the manifest speaks of and
    /// that the plan's references stay inside it.
    ///
    /// # Errors
    /// A sentence saying what is missing or does not fit.
    pub fn check_contents(&self, sizes: &BTreeMap<&str, u64>) -> Result<(), String> {
        for (index, weight) in self.plan.weights.iter().enumerate() {
            let name = weight_tensor_name(index, weight);
            match sizes.get(name.as_str()) {
                None => return Err(format!("the plan has weight {index} but there is no tensor `{name}`")),
                Some(&bytes) if bytes != weight.bytes => {
                    return Err(format!("tensor `{name}` has {bytes} bytes, the plan says {}", weight.bytes));
                }
                Some(_) => {}
            }
        }
        for target in &self.targets {
            if target.tensor != code_tensor_name(&target.name) || !sizes.contains_key(target.tensor.as_str()) {
                return Err(format!(
                    "code for {} should be the tensor `{}`, the manifest names `{}`, which {}",
                    target.name,
                    code_tensor_name(&target.name),
                    target.tensor,
                    if sizes.contains_key(target.tensor.as_str()) { "exists" } else { "does not exist" }
                ));
            }
            check_memory(&format!("working memory of the code for {}", target.name), target.scratch_bytes)?;
        }
        let mut names = BTreeSet::new();
        let all = self.targets.iter().map(|target| &target.name).chain(self.cuda.iter().map(|cuda| &cuda.name));
        if let Some(twice) = all.into_iter().find(|name| !names.insert(*name)) {
            return Err(format!("there is code for {twice} twice"));
        }
        if self.tokenizer.is_some() != sizes.contains_key(TOKENIZER) {
            return Err(format!("facts about the tokenizer and the tensor `{TOKENIZER}` must come together"));
        }
        check_plan(&self.plan)?;
        for (processor, has_code) in
            [(Processor::Cpu, !self.targets.is_empty()), (Processor::Gpu, !self.cuda.is_empty())]
        {
            check_processor(&self.plan, processor, has_code)?;
        }
        self.cuda.iter().try_for_each(|cuda| cuda::check_cuda(&self.plan, cuda, sizes))
    }
}

fn check_plan(plan: &Plan) -> Result<(), String> {
    let (model, kv) = (&plan.model, &plan.kv);
    for (what, size) in [("vocab", model.vocab), ("max_context", model.max_context), ("max_batch", model.max_batch)] {
        check_size(&format!("the plan's {what}"), size, LARGEST_SIZE)?;
    }
    for (what, size) in [("layers", kv.layers), ("heads", kv.heads), ("head size", kv.head_dim)] {
        check_size(&format!("the cache's number of {what}"), size, LARGEST_CACHE_SIZE)?;
    }
    let mut names = BTreeSet::new();
    for program in &plan.programs {
        if !names.insert(&program.name) {
            return Err(format!("two programs are called `{}`", program.name));
        }
        check_program(plan, program).map_err(|problem| format!("program `{}`: {problem}", program.name))?;
    }
    Ok(())
}

/// What there is code for must be able to run every step, and nothing else is in the plan.
fn check_processor(plan: &Plan, processor: Processor, has_code: bool) -> Result<(), String> {
    let mut programs = plan.programs_on(processor);
    if !has_code {
        return match programs.next() {
            None => Ok(()),
            Some(program) => {
                Err(format!("program `{}` is for a {processor}, which there is no code for", program.name))
            }
        };
    }
    let takes_any_step = |program: &Program| {
        !program.bounds.one_token_per_sequence && program.bounds.max.context >= plan.model.max_context
    };
    match programs.any(takes_any_step) {
        true => Ok(()),
        false => Err(format!(
            "the plan has no program for a {processor} that takes several tokens of a sequence and the whole context"
        )),
    }
}

fn check_program(plan: &Plan, program: &Program) -> Result<(), String> {
    for symbol in Symbol::ALL {
        check_size(&format!("its largest number of {symbol}"), program.bounds.max.get(symbol), LARGEST_SIZE)?;
    }
    check_memory("its activations", program.arena_bytes)?;
    for call in &program.calls {
        check_call(plan, program, call)?;
    }
    if let Some(Rounded { weight, .. }) = program.search.as_ref().and_then(|search| search.rounded)
        && plan.weights.get(weight).is_none_or(|weight| weight.layout != WeightLayout::Rounded)
    {
        return Err(format!("it searches by weight {weight}, which is no rounded one of the plan"));
    }
    Ok(())
}

fn check_call(plan: &Plan, program: &Program, call: &PlannedCall) -> Result<(), String> {
    let Some(function) = program.functions.get(call.function) else {
        return Err(format!("it calls function {}, which it lacks", call.function));
    };
    if let Some(weight) = call.weights.iter().find(|&&weight| weight >= plan.weights.len()) {
        return Err(format!("it uses weight {weight}, which the plan lacks"));
    }
    let operands = function.launches.iter().flat_map(|launch| launch.inputs.iter().chain(&launch.outputs));
    for operand in operands {
        let problem = match operand {
            Operand::Arena { offset, bytes }
                if offset.checked_add(*bytes).is_none_or(|end| end > program.arena_bytes) =>
            {
                format!("{bytes} bytes at {offset} are outside of its {} bytes of activations", program.arena_bytes)
            }
            Operand::Weight { slot } if *slot >= call.weights.len() => {
                format!("a call has {} weights and no weight {slot}", call.weights.len())
            }
            Operand::Kv if call.kv_layer >= plan.kv.layers => {
                format!("a call uses layer {} of a cache with {} layers", call.kv_layer, plan.kv.layers)
            }
            Operand::Arena { .. } | Operand::Weight { .. } | Operand::Step { .. } | Operand::Kv | Operand::Logits => {
                continue;
            }
        };
        return Err(format!("function `{}`: {problem}", function.name));
    }
    Ok(())
}

fn check_size(what: &str, size: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&size) { Ok(()) } else { Err(format!("{what} is {size}, but must be in 1..={most}")) }
}

fn check_memory(what: &str, bytes: u64) -> Result<(), String> {
    if bytes <= LARGEST_MEMORY { Ok(()) } else { Err(format!("{what}: {bytes} bytes exceed {LARGEST_MEMORY}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::dim::{Bindings, Bounds};
    use llmc_ir::dtype::DType;
    use llmc_ir::plan::{KvLayout, Launch, ModelFacts, PackedWeight, PlannedFunction, Work};

    pub(super) fn plan() -> Plan {
        let max = Bindings { tokens: 8, samples: 8, sequences: 2, context: 64 };
        let launch = Launch {
            kernel: "k".to_owned(),
            inputs: vec![Operand::Arena { offset: 64, bytes: 64 }, Operand::Weight { slot: 0 }, Operand::Kv],
            outputs: vec![Operand::Logits],
            barrier: false,
        };
        Plan {
            model: ModelFacts {
                architecture: "Toy".to_owned(),
                dtype: DType::F32,
                vocab: 8,
                hidden: 4,
                layers: 1,
                max_context: 64,
                max_batch: 2,
                parameters: 32,
            },
            kv: KvLayout { layers: 1, heads: 1, head_dim: 32, dtype: DType::F32 },
            weights: vec![PackedWeight {
                name: "w".to_owned(),
                dtype: DType::F32,
                shape: vec![8, 4],
                layout: WeightLayout::RowMajor,
                bytes: 128,
            }],
            programs: vec![Program {
                name: "prefill".to_owned(),
                processor: Processor::Cpu,
                bounds: Bounds { max, one_token_per_sequence: false },
                arena_bytes: 128,
                functions: vec![PlannedFunction { name: "layer".to_owned(), launches: vec![launch] }],
                calls: vec![PlannedCall { function: 0, weights: vec![0], kv_layer: 0 }],
                work: Work::default(),
                search: None,
            }],
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Plan), says: &str) {
        let mut plan = plan();
        assert_eq!(check_plan(&plan), Ok(()));
        change(&mut plan);
        let problem = check_plan(&plan).unwrap_err();
        assert!(problem.contains(says), "`{says}` is not in: {problem}");
    }

    #[test]
    fn references_stay_inside() {
        refused(|plan| plan.programs[0].calls[0].function = 1, "calls function 1");
        refused(|plan| plan.programs[0].calls[0].weights = vec![1], "uses weight 1");
        refused(|plan| plan.programs[0].calls[0].weights = vec![], "no weight 0");
        refused(|plan| plan.programs[0].calls[0].kv_layer = 1, "layer 1 of a cache with 1");
        refused(|plan| plan.programs[0].arena_bytes = 127, "64 bytes at 64 are outside of its 127");
        let beyond = Operand::Arena { offset: u64::MAX, bytes: 2 };
        refused(|plan| plan.programs[0].functions[0].launches[0].outputs = vec![beyond], "outside");
        refused(|plan| plan.programs.push(plan.programs[0].clone()), "two programs");
    }

    #[test]
    fn what_there_is_code_for_runs_every_step() {
        let check = |change: fn(&mut Plan), processor, has_code| {
            let mut plan = plan();
            change(&mut plan);
            check_processor(&plan, processor, has_code)
        };
        assert_eq!(check(|_| (), Processor::Cpu, true), Ok(()));
        assert_eq!(check(|_| (), Processor::Gpu, false), Ok(()));
        let refused = |change, processor, has_code, says: &str| {
            let problem = check(change, processor, has_code).unwrap_err();
            assert!(problem.contains(says), "`{says}` is not in: {problem}");
        };
        refused(|plan| plan.programs[0].bounds.one_token_per_sequence = true, Processor::Cpu, true, "several tokens");
        refused(|plan| plan.programs[0].bounds.max.context = 63, Processor::Cpu, true, "whole context");
        refused(|plan| plan.programs.clear(), Processor::Cpu, true, "no program for a cpu");
        refused(|_| (), Processor::Gpu, true, "no program for a gpu");
        refused(|_| (), Processor::Cpu, false, "`prefill` is for a cpu, which there is no code for");
    }

    #[test]
    fn sizes_are_bounded() {
        refused(|plan| plan.model.vocab = 0, "vocab is 0");
        refused(|plan| plan.model.vocab = usize::MAX, "vocab is 18446744073709551615, but must be in 1..=16777216");
        refused(|plan| plan.model.max_batch = 0, "max_batch is 0");
        refused(|plan| plan.kv.heads = usize::MAX, "number of heads");
        refused(|plan| plan.kv.head_dim = 0, "head size is 0");
        refused(|plan| plan.programs[0].bounds.max.samples = 0, "number of samples is 0");
        refused(|plan| plan.programs[0].bounds.max.tokens = usize::MAX, "number of tokens");
        refused(|plan| plan.programs[0].arena_bytes = u64::MAX, "activations");
    }
}
