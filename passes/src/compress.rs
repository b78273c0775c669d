//! Compression: weights in bf16 in about three quarters of their bytes, with the same values.
//!
//! A decode step is as fast as memory brings weights. Half of a bf16 weight is a sign and seven bits of exponent, and of those
//! exponents a trained matrix has few: a code of four bits tells them ([`WeightLayout::Compressed`]; Zhang et al., "DFloat11", 2025,
//! use the same redundancy by Huffman codes). Kernels put the bytes together again, in registers or in a cache, so no
//! bit of a result changes.
//!
//! How many quarters of a matrix hold an exponent without a code depends on its values, which passes do not know: the
//! compiler counts before ([`Context::flagged`]). Calls share code, so a weight is compressed if all weights that
//! the same kernels take in its place are too.

use crate::pack::weight_bytes;
use crate::pass::{Context, State};
use crate::plan::work::work;
use llmc_ir::dtype::DType;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::machine::Processor;
use llmc_ir::op::Op;
use llmc_ir::plan::{Operand, PackedWeight, Plan, WeightLayout, compressed};
use llmc_ir::region::{Kernel, PlannedModel, Region};
use std::collections::{BTreeMap, BTreeSet};

/// A weight's bytes are at most so many sixteenths of what they were, or it stays as it is.
const MOST_SIXTEENTHS: u64 = 14;

/// The pass.
pub fn compress(state: State, context: &Context) -> Result<State, String> {
    let State::Planned(mut model) = state else {
        return Err(format!("it takes a planned model, found {}; run `plan` first", state.kind()));
    };
    compress_weights(&mut model, &context.flagged)?;
    Ok(State::Planned(model))
}

/// Compresses the weights of products that only CPUs read, and of which `flagged` knows how many quarters are flagged.
///
/// # Errors
/// If a compressed weight has more bytes than there are addresses.
pub fn compress_weights(model: &mut PlannedModel, flagged: &BTreeMap<String, u64>) -> Result<(), String> {
    let slots = Slots::of(model);
    let plan = &mut model.plan;
    let bytes: Vec<Option<u64>> = plan.weights.iter().map(|weight| bytes(weight, flagged)).collect::<Result<_, _>>()?;
    let mut chosen: BTreeSet<usize> = (0..bytes.len()).filter(|&weight| bytes[weight].is_some()).collect();
    chosen.retain(|weight| slots.multiplied.contains(weight) && !slots.fixed.contains(weight));
    // What one kernel takes is compressed together or not at all.
    loop {
        let before = chosen.len();
        for weights in slots.shared.values() {
            if !weights.is_subset(&chosen) || !are_worth_it(plan, weights, &bytes) {
                chosen.retain(|weight| !weights.contains(weight));
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    for &weight in &chosen {
        let PackedWeight { layout, bytes: size, .. } = &mut plan.weights[weight];
        *layout = WeightLayout::Compressed;
        *size = bytes[weight].unwrap_or(*size);
    }
    for (slot, _) in slots.shared.iter().filter(|(_, weights)| weights.is_subset(&chosen)) {
        model.kernels[slot.program][slot.kernel].weight_layouts[slot.input] = Some(WeightLayout::Compressed);
    }
    for (program, kernels) in plan.programs.iter_mut().zip(&model.kernels) {
        program.work = work(&program.calls, &program.functions, kernels, &plan.weights);
    }
    Ok(())
}

/// A weight's bytes when it is compressed, if it can be.
fn bytes(weight: &PackedWeight, flagged: &BTreeMap<String, u64>) -> Result<Option<u64>, String> {
    let PackedWeight { name, dtype: DType::BF16, shape, layout: WeightLayout::Panels, .. } = weight else {
        return Ok(None);
    };
    let Some(flagged) = flagged.get(name) else { return Ok(None) };
    let panels = weight_bytes(DType::BF16, shape, WeightLayout::Compressed)?;
    let behind = flagged.checked_mul(compressed::HALF as u64);
    let all = behind.and_then(|behind| panels.checked_add(behind));
    all.map(Some).ok_or_else(|| format!("weight `{name}` has more bytes than there are addresses"))
}

/// Whether some weights are smaller when they are compressed, by more than what it takes to read them.
fn are_worth_it(plan: &Plan, weights: &BTreeSet<usize>, bytes: &[Option<u64>]) -> bool {
    let sum = |bytes: &dyn Fn(usize) -> u64| weights.iter().map(|&weight| u128::from(bytes(weight))).sum::<u128>();
    let before = sum(&|weight| plan.weights[weight].bytes);
    let after = sum(&|weight| bytes[weight].unwrap_or(u64::MAX));
    after * 16 <= before * u128::from(MOST_SIXTEENTHS)
}

/// An input of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    program: usize,
    /// Its number among the kernels of the program.
    kernel: usize,
    input: usize,
}

/// Which weights kernels take.
#[derive(Default)]
struct Slots {
    /// Those that take each other's places.
    shared: BTreeMap<Slot, BTreeSet<usize>>,
    /// Those that something multiplies by.
    multiplied: BTreeSet<usize>,
    /// Those that are used in other ways than compressed ones can be, and not only by CPUs.
    fixed: BTreeSet<usize>,
}

impl Slots {
    fn of(model: &PlannedModel) -> Slots {
        let mut slots = Slots::default();
        for (program, (planned, kernels)) in model.plan.programs.iter().zip(&model.kernels).enumerate() {
            let numbers: BTreeMap<&str, usize> = kernels.iter().map(|kernel| kernel.name.as_str()).zip(0..).collect();
            for call in &planned.calls {
                for launch in &planned.functions[call.function].launches {
                    let Some(&kernel) = numbers.get(launch.kernel.as_str()) else { continue };
                    for (input, operand) in launch.inputs.iter().enumerate() {
                        let Operand::Weight { slot } = operand else { continue };
                        let weight = call.weights[*slot];
                        slots.shared.entry(Slot { program, kernel, input }).or_default().insert(weight);
                        let uses = Use::of_input(&kernels[kernel], input);
                        if uses.contains(&Use::Multiply) {
                            slots.multiplied.insert(weight);
                        }
                        if planned.processor != Processor::Cpu || uses.contains(&Use::Other) {
                            slots.fixed.insert(weight);
                        }
                    }
                }
            }
        }
        slots
    }
}

/// What is done with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Products with its rows.
    Multiply,
    /// Looking rows of it up.
    LookUp,
    /// What compressed weights are not used for.
    Other,
}

impl Use {
    /// What the users of a node do with it.
    pub fn of_node(graph: &Graph, node: NodeId) -> impl Iterator<Item = Use> {
        graph.users(node).into_iter().map(move |user| match (graph.op(user), &graph.operands(user)[..]) {
            (Op::Dot { .. }, [left, _]) if *left != node => Use::Multiply,
            (Op::Gather, [table, rows]) if *table == node && *rows != node => Use::LookUp,
            _ => Use::Other,
        })
    }

    /// What a kernel does with an input.
    fn of_input(kernel: &Kernel, input: usize) -> BTreeSet<Use> {
        let Region { body, outputs, .. } = &kernel.region;
        let is_input = |&node: &_| matches!(body.op(node), Op::Input { index, .. } if *index == input);
        let of_node = |node| outputs.contains(&node).then_some(Use::Other).into_iter().chain(Use::of_node(body, node));
        body.topological().into_iter().filter(is_input).flat_map(of_node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::{Epilogues, fuse_program, sample};
    use crate::instrument::Instrument;
    use crate::pipeline::{Options, run_pipeline};
    use crate::plan::{check_plan, plan_programs};
    use llmc_ir::builder::Numerics;
    use llmc_ir::machine::Machine;
    use llmc_ir::plan::ModelFacts;
    use llmc_ir::testing::{head_module, tied_head_module};

    fn planned() -> PlannedModel {
        let program = sample::program();
        let facts = sample::facts();
        plan_programs(vec![fuse_program(&program, Epilogues::Fused)], &facts).unwrap()
    }

    /// All weights, none with flagged quarters but one.
    fn counts(model: &PlannedModel, other: (&str, u64)) -> BTreeMap<String, u64> {
        let none = model.plan.weights.iter().map(|weight| (weight.name.clone(), 0));
        none.chain([(other.0.to_owned(), other.1)]).collect()
    }

    #[test]
    fn weights_of_products_shrink() {
        let mut model = planned();
        let before = model.plan.programs[0].work.weight_bytes;
        let flagged = counts(&model, ("", 0));
        compress_weights(&mut model, &flagged).unwrap();
        assert_eq!(check_plan(&model), Vec::<String>::new());
        let is_compressed = |weight: &PackedWeight| weight.layout == WeightLayout::Compressed;
        let compressed: Vec<_> = model.plan.weights.iter().filter(|weight| is_compressed(weight)).collect();
        // Rows of its head are looked up as well.
        for part in ["q_proj", "embed"] {
            assert!(compressed.iter().any(|weight| weight.name.contains(part)), "{:?}", model.plan.weights);
        }
        assert!(compressed.iter().all(|weight| !weight.name.contains("norm")));
        assert!(model.plan.programs[0].work.weight_bytes < before);
    }

    #[test]
    fn what_is_only_looked_up_stays() {
        for (module, expected) in [
            (head_module(Numerics::new(DType::BF16), 640, 640, 64), vec!["head.weight"]),
            (tied_head_module(Numerics::new(DType::BF16), 640, 64), vec!["rows"]),
        ] {
            let facts = ModelFacts { vocab: 640, ..sample::facts() };
            let context = Context::new(facts, Machine::named("host").unwrap());
            let mut instruments: Vec<Box<dyn Instrument>> = Vec::new();
            let state = State::Module(module);
            let (state, _) = run_pipeline(state, &context, &Options::default(), &mut instruments).unwrap();
            let State::Planned(mut model) = state else { panic!("the pipeline ends with a plan") };
            let flagged = counts(&model, ("", 0));
            compress_weights(&mut model, &flagged).unwrap();
            assert_eq!(check_plan(&model), Vec::<String>::new());
            let compressed = model.plan.weights.iter().filter(|weight| weight.layout == WeightLayout::Compressed);
            assert_eq!(compressed.map(|weight| weight.name.as_str()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_does_not_get_smaller_stays_with_all_that_share_its_code() {
        let mut model = planned();
        let name =
            model.plan.weights.iter().find(|weight| weight.name.ends_with("q_proj.weight")).unwrap().name.clone();
        let flagged = counts(&model, (&name, 1 << 20));
        compress_weights(&mut model, &flagged).unwrap();
        assert_eq!(check_plan(&model), Vec::<String>::new());
        let layout = |part: &str| {
            let of = |weight: &&PackedWeight| weight.name.ends_with(part);
            model.plan.weights.iter().filter(of).map(|weight| weight.layout).collect::<Vec<_>>()
        };
        assert!(layout("q_proj.weight").iter().all(|&layout| layout == WeightLayout::Panels));
        assert!(layout("down_proj.weight").iter().all(|&layout| layout == WeightLayout::Compressed));
    }

    #[test]
    fn nothing_is_compressed_that_nobody_counted() {
        let mut model = planned();
        let before = model.plan.clone();
        compress_weights(&mut model, &BTreeMap::new()).unwrap();
        assert_eq!(model.plan, before);
    }
}
