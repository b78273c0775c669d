//! What saturation found and what extraction chose, as text: every line that costs something with its reason.

use super::cost::{Bound, Price, Target, Term, dependence, typical};
use super::saturate::Statistics;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machine;
use llmc_ir::module::{Function, SpecializedModule};
use llmc_ir::op::Op;
use llmc_ir::text::function_text;
use std::collections::BTreeMap;
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

/// Seconds of a function for a target.
pub fn seconds(function: &Function, target: &Target<'_>) -> f64 {
    prices(function, target).iter().map(|(_, price)| price.seconds).sum()
}

/// Seconds of a step of a program as it typically is: of all its calls.
pub fn step_seconds(program: &SpecializedModule, machine: &Machine) -> f64 {
    let target = Target { machine, sizes: typical(&program.bounds) };
    let functions = program.module.calls.iter().filter_map(|call| program.module.function(&call.function));
    functions.map(|function| seconds(function, &target)).sum()
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
        1e6 * seconds(function, target)
    )?;
    let prices = prices(function, target);
    let mut prices = prices.iter().filter(|(node, _)| !matches!(function.graph.op(*node), Op::Input { .. }));
    for line in function_text(function).trim().lines() {
        write!(out, "{line}")?;
        if line.trim_start().starts_with('%')
            && let Some((node, price)) = prices.next()
            && price.bound != Bound::Free
            && 1e9 * price.seconds >= LEAST_NANOSECONDS
        {
            let work = term(function, *node, &dependences(function)).work(sizes);
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

/// The price of each node, in the order of the text.
fn prices(function: &Function, target: &Target<'_>) -> Vec<(NodeId, Price)> {
    let known = dependences(function);
    let nodes = function.graph.topological();
    nodes.into_iter().map(|node| (node, term(function, node, &known).price(target))).collect()
}

type Dependences = BTreeMap<NodeId, super::analysis::Dependence>;

fn dependences(function: &Function) -> Dependences {
    let mut known = Dependences::new();
    for node in function.graph.topological() {
        let operands = function.graph.operands(node);
        let found = dependence(function.graph.op(node), operands.iter().map(|operand| known[operand]));
        known.insert(node, found);
    }
    known
}

fn term<'f>(function: &'f Function, node: NodeId, known: &Dependences) -> Term<'f> {
    let graph = &function.graph;
    Term {
        op: graph.op(node),
        operands: graph.operands(node).into_iter().map(|operand| graph.ty(operand)).collect(),
        ty: graph.ty(node),
        dependence: known[&node],
    }
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
