//! Equality saturation once more, with its statistics: which rules fired, and which form each program got at what price.

use super::ExplainError;
use super::report::{Form, Rule, Saturation};
use llmc_ir::machine::Machines;
use llmc_ir::module::SpecializedModule;
use llmc_ir::text::function_text;
use llmc_passes::eqsat::cost::Target;
use llmc_passes::eqsat::form::form_cost;
use llmc_passes::eqsat::rule::{self, Numerics};
use llmc_passes::eqsat::saturate::saturate;

/// As the report has it.
pub fn describe_rule(rule: &rule::Rule) -> Rule {
    Rule { name: rule.name, family: rule.family.name(), equation: rule.equation, numerics: numerics(rule.numerics) }
}

fn numerics(numerics: Numerics) -> &'static str {
    match numerics {
        Numerics::Exact => "the same operations",
        Numerics::Reassociates => "sums in another order",
        Numerics::Blocks => "whole numbers in blocks",
        Numerics::Rounds => "rounded elsewhere",
    }
}

/// Every function before and behind the pass; equal functions of several programs are one entry. `graph_of` gives the
/// index of the graph that shows a program's form.
///
/// # Errors
/// If saturation fails, which it then did in the pass, or there is no machine for a program.
pub fn saturations(
    before: &[SpecializedModule],
    after: &[SpecializedModule],
    (rules, machines): (&[rule::Rule], &Machines),
    graph_of: impl Fn(&str, &str) -> usize,
) -> Result<Vec<Saturation>, ExplainError> {
    let mut known: Vec<(String, Saturation)> = Vec::new();
    for (program, rewritten) in before.iter().zip(after) {
        let machine = machines.of(program.processor).map_err(ExplainError::Machine)?;
        let target = Target::of(machine, &program.bounds);
        for function in &program.module.functions {
            let Some(chosen) = rewritten.module.function(&function.name) else { continue };
            let text = function_text(function);
            let [before, after] = [function, chosen].map(|form| form_cost(form, &target));
            let form = Form {
                program: program.name.clone(),
                seconds_before: before.seconds,
                seconds: after.seconds,
                changed: after.is_better_than(&before),
                graph: graph_of(&program.name, &function.name),
            };
            if let Some((_, saturation)) = known.iter_mut().find(|(other, _)| *other == text) {
                saturation.forms.push(form);
                continue;
            }
            let statistics = saturate(function, rules).map_err(ExplainError::Saturation)?.statistics;
            let saturation = Saturation {
                function: function.name.clone(),
                iterations: statistics.iterations,
                nodes_before: statistics.nodes_before,
                nodes: statistics.nodes,
                classes: statistics.classes,
                stop: statistics.stop.to_string(),
                fired: statistics.fired,
                forms: vec![form],
            };
            known.push((text, saturation));
        }
    }
    Ok(known.into_iter().map(|(_, saturation)| saturation).collect())
}
