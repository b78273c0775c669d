//! What saturation found and what extraction chose, as text: every line that costs something with its reason.

use super::cost::{Bound, Target};
use super::form::{form_cost, prices};
use super::saturate::Statistics;
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::text::function_text;
use std::fmt::{self, Write};

/// One line per fact: sizes, iterations, and how often each rule made two classes one.
pub fn statistics(name: &str, statistics: &Statistics) -> String {
    let Statistics { iterations, nodes, classes, nodes_before, fired, stop } = statistics;
    let mut text = format!(
        "@{name}: {stop} after {iterations} iterations, {nodes_before} -> {nodes} nodes in {classes} classes\n"
    );
    for (rule, count) in fired {
        text += &format!("  {rule} fired {count} times\n");
    }
    text
}

/// The function's text, the price behind each line that costs something.
///
/// # Errors
/// Never: text grows.
pub fn priced(function: &Function, target: &Target<'_>) -> Result<String, fmt::Error> {
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
    let prices = prices(function, target);
    let mut prices = prices.iter().filter(|(node, ..)| !matches!(function.graph.op(*node), Op::Input { .. }));
    for line in function_text(function).trim().lines() {
        write!(out, "{line}")?;
        if line.trim_start().starts_with('%')
            && let Some((_, work, price)) = prices.next()
            && price.bound != Bound::Free
            && 1e9 * price.seconds >= LEAST_NANOSECONDS
        {
            write!(
                out,
                "  // {}, {}, {:.0} ns, {}",
                short(work.bytes, "B"),
                short(work.matrix_flops + work.vector_flops, "FLOP"),
                1e9 * price.seconds,
                price.bound
            )?;
        }
        writeln!(out)?;
    }
    Ok(out)
}

/// Prices below this are not shown: they decide nothing.
const LEAST_NANOSECONDS: f64 = 0.5;

/// A number with three digits, a prefix and its unit.
fn short(value: f64, unit: &str) -> String {
    let (scaled, prefix) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    match scaled {
        scaled if scaled >= 100.0 || prefix.is_empty() => format!("{scaled:.0} {prefix}{unit}"),
        scaled if scaled >= 10.0 => format!("{scaled:.1} {prefix}{unit}"),
        scaled => format!("{scaled:.2} {prefix}{unit}"),
    }
}
