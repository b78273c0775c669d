//! The forms that equality saturation chose, as text: every line that costs something with its price and what bounds it.

use super::rerun::Around;
use llmc_ir::machine::Machines;
use llmc_ir::text::function_text;
use llmc_passes::eqsat::cost::Target;
use llmc_passes::eqsat::explain::priced;
use llmc_passes::eqsat::form::form_cost;
use std::fmt::{self, Write};

/// Function by function the form of each program, from the programs before and behind saturation. A form that an earlier
/// program has as well is not printed again, since only its prices differ.
///
/// # Errors
/// Never: text grows.
pub fn forms((before, after): Around<'_>, machines: &Machines) -> Result<String, fmt::Error> {
    let mut names: Vec<&str> = Vec::new();
    for function in before.iter().flat_map(|program| &program.module.functions) {
        if !names.contains(&function.name.as_str()) {
            names.push(&function.name);
        }
    }
    let mut out = String::new();
    for name in names {
        let mut known: Vec<(&str, String)> = Vec::new();
        let mut unchanged: Vec<String> = Vec::new();
        for (program, rewritten) in before.iter().zip(after) {
            let (Some(original), Some(form)) = (program.module.function(name), rewritten.module.function(name)) else {
                continue;
            };
            let Ok(machine) = machines.of(program.processor) else { continue };
            let target = Target::of(machine, &program.bounds);
            let [cost_before, cost] = [original, form].map(|function| form_cost(function, &target));
            let (came, chosen) = (cost_before.seconds, cost.seconds);
            if !cost.is_better_than(&cost_before) {
                unchanged.push(format!("{} ({:.2} us)", program.name, 1e6 * came));
                continue;
            }
            writeln!(out, "=== @{name} for {}: {:.2} us -> {:.2} us", program.name, 1e6 * came, 1e6 * chosen)?;
            let text = function_text(form);
            match known.iter().find(|(_, other)| *other == text) {
                Some((other, _)) => writeln!(out, "the same form as for {other}")?,
                None => writeln!(out, "{}", priced(form, original, &target)?)?,
            }
            known.push((&program.name, text));
        }
        if !unchanged.is_empty() {
            writeln!(out, "=== @{name} stays as it was for {}", unchanged.join(", "))?;
        }
    }
    Ok(out)
}
