//! Runs a plan symbolically: each byte range of the arena is tagged with the value in it, and each read must find
//! the value that the fused program means.

use llmc_ir::module::{Argument, LOGITS, Module};
use llmc_ir::plan::{Operand, Plan, Program};
use llmc_ir::region::{FusedProgram, Source};
use std::collections::BTreeMap;

/// The value that an output of a region has in one call: call, region, output.
type Tag = (usize, usize, usize);

#[derive(Default)]
struct Memory {
    arena: Vec<(u64, u64, Tag)>,
    logits: Option<Tag>,
}

impl Memory {
    fn write(&mut self, operand: &Operand, tag: Tag) {
        match operand {
            Operand::Arena { offset, bytes } => {
                let end = offset + bytes;
                self.arena.retain(|&(start, stop, _)| stop <= *offset || end <= start);
                self.arena.push((*offset, end, tag));
            }
            Operand::Logits => self.logits = Some(tag),
            _ => {}
        }
    }

    fn read(&self, operand: &Operand) -> Option<Tag> {
        match operand {
            Operand::Arena { offset, bytes } => {
                let range = (*offset, offset + bytes);
                self.arena.iter().find(|&&(start, end, _)| (start, end) == range).map(|&(.., tag)| tag)
            }
            Operand::Logits => self.logits,
            _ => None,
        }
    }
}

/// Panics where the plan would read something else than the program means.
pub(super) fn simulate(fused: &FusedProgram, plan: &Plan, program: &Program) {
    let mut memory = Memory::default();
    let mut names: BTreeMap<&str, Tag> = BTreeMap::new();
    assert_eq!(fused.module.calls.len(), program.calls.len());
    for (index, (call, planned)) in fused.module.calls.iter().zip(&program.calls).enumerate() {
        let function = fused.module.function(&call.function).unwrap();
        let launches = &program.functions[planned.function].launches;
        for (number, (region, launch)) in function.regions.iter().zip(launches).enumerate() {
            for (source, operand) in region.inputs.iter().zip(&launch.inputs) {
                let place = format!("call {index} region {} reads {source:?} at {operand:?}", region.name);
                let expected = match source {
                    Source::Param(param) => match &call.arguments[*param] {
                        Argument::Value(name) => names[name.as_str()],
                        Argument::Kv(layer) => {
                            assert_eq!((operand, planned.kv_layer), (&Operand::Kv, *layer), "{place}");
                            continue;
                        }
                    },
                    Source::Output { region, output } if *operand != Operand::Kv => (index, *region, *output),
                    Source::Output { .. } => continue,
                    Source::Weight(name) => {
                        let Operand::Weight { slot } = operand else { panic!("{place}") };
                        let weight = &plan.weights[planned.weights[*slot]].name;
                        assert_eq!(*weight, Module::weight_key(&call.scope, name), "{place}");
                        continue;
                    }
                    Source::Step(input) => {
                        assert_eq!(*operand, Operand::Step { input: *input }, "{place}");
                        continue;
                    }
                };
                assert_eq!(memory.read(operand), Some(expected), "{place}");
            }
            for (output, operand) in launch.outputs.iter().enumerate() {
                memory.write(operand, (index, number, output));
            }
        }
        for copy in &launches[function.regions.len()..] {
            let tag = memory.read(&copy.inputs[0]).expect("a copy reads what was written");
            memory.write(&copy.outputs[0], tag);
        }
        for (name, source) in call.results.iter().zip(&function.results) {
            if let Source::Output { region, output } = source {
                names.insert(name, (index, *region, *output));
            }
        }
    }
    assert_eq!(memory.logits, names.get(LOGITS).copied());
}
