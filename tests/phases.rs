//! The tiny model of each architecture at every phase, as text: what a change to a pass changes is seen here. (The
//! imported phase is shown beside the definitions, in `models/tests`, and what is rewritten in `eqsat.rs`.)

use llmc_ir::builder::Numerics;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_ir::text::{print_fused, print_specialized};
use llmc_models::architecture::Architecture;
use llmc_models::weights::{Limits, facts};
use llmc_passes::pass::{Context, State};
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::{Options, run_pipeline};
use similar::TextDiff;

/// One sequence at a time: one program for decoding and one for prompts.
const LIMITS: Limits = Limits { max_context: 64, max_batch: 1 };
const CHUNK: usize = 16;

/// The state of an architecture's tiny model after a phase.
fn after(architecture: Architecture, phase: Phase) -> State {
    let numerics = Numerics::new(DType::BF16);
    let config = architecture.tiny();
    let module = llmc_models::build(&config, numerics).unwrap();
    let facts = facts(&config, &module, numerics, LIMITS);
    let context = Context { prefill_chunk: CHUNK, ..Context::new(facts, Machine::named("host").unwrap()) };
    let options = Options { stop_after: Some(phase), ..Options::default() };
    run_pipeline(State::Module(module), &context, &options, &mut []).unwrap().0
}

/// The text of each program by name.
fn programs(state: State) -> Vec<(String, String)> {
    match state {
        State::Programs(programs) => programs
            .iter()
            .map(|program| (program.name.clone(), print_specialized(std::slice::from_ref(program))))
            .collect(),
        State::Fused(programs) => {
            programs.iter().map(|program| (program.name.clone(), print_fused(std::slice::from_ref(program)))).collect()
        }
        other => panic!("expected programs, found {}", other.kind()),
    }
}

/// What is different in `new`.
fn changes(old: &str, new: &str) -> String {
    TextDiff::from_lines(old, new).unified_diff().context_radius(1).to_string()
}

#[test]
fn canonical() {
    for architecture in Architecture::ALL {
        let text = after(architecture, Phase::Canonical).text();
        insta::assert_snapshot!(format!("{}_canonical", architecture.model_type()), text);
    }
}

/// Each program as what it changes in the canonical module.
#[test]
fn specialized() {
    for architecture in Architecture::ALL {
        let canonical = after(architecture, Phase::Canonical).text();
        let programs = programs(after(architecture, Phase::Specialized));
        let changes: Vec<String> = programs.iter().map(|(_, text)| changes(&canonical, text)).collect();
        insta::assert_snapshot!(format!("{}_specialized", architecture.model_type()), changes.join("\n"));
    }
}

/// The first program, and the others as what is different in them.
#[test]
fn fused() {
    for architecture in Architecture::ALL {
        let programs = programs(after(architecture, Phase::Fused));
        let first = programs[0].1.clone();
        let others = programs[1..].iter().map(|(_, text)| changes(&first, text));
        let texts: Vec<String> = std::iter::once(first.clone()).chain(others).collect();
        insta::assert_snapshot!(format!("{}_fused", architecture.model_type()), texts.join("\n"));
    }
}

#[test]
fn planned() {
    for architecture in Architecture::ALL {
        let text = after(architecture, Phase::Planned).text();
        insta::assert_snapshot!(format!("{}_planned", architecture.model_type()), text);
    }
}
