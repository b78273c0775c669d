//! What saturation found and what extraction chose, as text: every line that costs something with its reason.

use super::cost::{Bound, Target};
use super::form::{form_cost, prices};
use super::rule::Rule;
use super::saturate::Statistics;
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::shape::Type;
use llmc_ir::text::function_text;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// How a function's graph grew, and which rules made it grow: a line each, with the equation. The rules are those that
/// saturation could use.
pub fn statistics(statistics: &Statistics, rules: &[Rule]) -> String {
    let Statistics { iterations, nodes, classes, nodes_before, fired, stop } = statistics;
    let mut text = format!(
        "{nodes_before} nodes grew to {nodes}, in {classes} classes of equal values; {stop} after {iterations} iterations\n"
    );
    for rule in rules {
        if let Some(count) = fired.get(rule.name) {
            text += &format!("  {:<27} {:>2} x  {}\n", rule.name, count, rule.equation);
        }
    }
    text
}

/// The function's text, the price behind each line that costs something. A `+` marks what is new beside the function as it
/// came.
///
/// # Errors
/// Never: text grows.
pub fn priced(function: &Function, original: &Function, target: &Target<'_>) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let sizes = &target.sizes;
    writeln!(
        out,
        "// tokens {}, samples {}, sequences {}, context {} on {}: {:.2} us",
        sizes.tokens,
        sizes.samples,
        sizes.sequences,
        sizes.context,
        target.machine.name,
        1e6 * form_cost(function, target).seconds
    )?;
    let mut known = operations(original);
    let prices = prices(function, target);
    let mut prices = prices.iter().filter(|(node, ..)| !matches!(function.graph.op(*node), Op::Input { .. }));
    for line in function_text(function).trim().lines() {
        let priced = if line.trim_start().starts_with('%') { prices.next() } else { None };
        let Some((node, work, price)) = priced else {
            writeln!(out, "{line}")?;
            continue;
        };
        let operation = (function.graph.op(*node).clone(), function.graph.ty(*node).clone());
        let mark = match known.get_mut(&operation) {
            Some(left @ 1..) => {
                *left -= 1;
                ' '
            }
            _ => '+',
        };
        write!(out, "{mark}{}", line.get(1..).unwrap_or_default())?;
        if price.bound != Bound::Free && 1e9 * price.seconds >= LEAST_NANOSECONDS {
            write!(
                out,
                "  // {}, {}, {:.0} ns, {}",
                quantity(work.bytes, "B"),
                quantity(work.matrix_flops + work.vector_flops, "FLOP"),
                1e9 * price.seconds,
                price.bound
            )?;
        }
        writeln!(out)?;
    }
    Ok(out)
}

/// How often a function has each operation of a type.
fn operations(function: &Function) -> BTreeMap<(Op, Type), usize> {
    let mut counts = BTreeMap::new();
    for node in function.graph.topological() {
        *counts.entry((function.graph.op(node).clone(), function.graph.ty(node).clone())).or_insert(0) += 1;
    }
    counts
}

/// Prices below this are not shown: they decide nothing.
const LEAST_NANOSECONDS: f64 = 0.5;

/// A number with three digits, a prefix and its unit, if it has one.
pub fn quantity(value: f64, unit: &str) -> String {
    let (scaled, prefix) = match value {
        value if value >= 1e12 => (value / 1e12, "T"),
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = match scaled {
        scaled if scaled >= 100.0 || prefix.is_empty() => 0,
        scaled if scaled >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {prefix}{unit}").trim_end().to_owned()
}

/// Seconds with three digits, in the unit that suits them.
pub(super) fn duration(seconds: f64) -> String {
    let (scaled, unit) = match seconds {
        seconds if seconds >= 1e-3 => (1e3 * seconds, "ms"),
        seconds if seconds >= 1e-6 => (1e6 * seconds, "us"),
        seconds => (1e9 * seconds, "ns"),
    };
    match scaled {
        scaled if scaled >= 100.0 || unit == "ns" => format!("{scaled:.0} {unit}"),
        scaled if scaled >= 10.0 => format!("{scaled:.1} {unit}"),
        scaled => format!("{scaled:.2} {unit}"),
    }
}
