//! Plans of a small Llama and of odd steps.

use super::simulate::simulate;
use super::*;
use crate::fuse::{Epilogues, fuse_program, sample};

fn planned(program: &FusedProgram) -> PlannedModel {
    let model = plan_programs(vec![program.clone()], &sample::facts()).unwrap();
    assert_eq!(check_plan(&model), Vec::<String>::new());
    simulate(program, &model.plan, &model.plan.programs[0]);
    model
}

#[test]
fn the_plan_of_a_small_llama() {
    let model = planned(&fuse_program(&sample::program(), Epilogues::Fused));
    insta::assert_snapshot!(print_plan(&model.plan));
    let program = &model.plan.programs[0];
    assert_eq!(program.functions[2].launches.len(), 9);
    assert_eq!(program.functions.len(), 4);
}
