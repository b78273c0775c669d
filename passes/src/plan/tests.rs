//! Plans of a small Llama and of odd steps.

use super::simulate::simulate;
use super::*;
use crate::fuse::{Epilogues, fuse_program, random, sample};
use proptest::prelude::*;

fn planned(program: &FusedProgram, facts: &ModelFacts) -> PlannedModel {
    let model = plan_programs(vec![program.clone()], facts).unwrap();
    assert_eq!(check_plan(&model), Vec::<String>::new());
    simulate(program, &model.plan, &model.plan.programs[0]);
    model
}

#[test]
fn the_plan_of_a_small_llama() {
    let model = planned(&fuse_program(&sample::program(), Epilogues::Fused), &sample::facts());
    insta::assert_snapshot!(print_plan(&model.plan));
    let program = &model.plan.programs[0];
    assert_eq!(program.functions[2].launches.len(), 9);
    assert_eq!(program.functions.len(), 4);
}

proptest! {
    #[test]
    fn no_value_is_overwritten_while_it_is_needed(seed: u64) {
        let program = random::program(seed);
        for epilogues in [Epilogues::Fused, Epilogues::Separate] {
            planned(&fuse_program(&program, epilogues), &random::facts());
        }
    }
}
