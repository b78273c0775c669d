//! Names of regions: what they compute, for people who read profiles.

use llmc_ir::graph::NodeId;
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, Region, Source};
use std::collections::BTreeSet;

/// Parts that a name is made of at most.
const MAX_PARTS: usize = 4;

/// After its weights' modules (`gate_proj+up_proj`), or what it computes (`cos+sin`) if it has none.
pub(super) fn describe(region: &Region) -> String {
    let body = &region.body;
    let nodes = body.topological();
    let weight = |node: NodeId| match body.op(node) {
        Op::Input { index, .. } => match &region.inputs[*index] {
            Source::Weight(name) => Some(module(name)),
            _ => None,
        },
        _ => None,
    };
    let parts: Vec<String> = match region.anchor {
        Anchor::Attend => vec!["attend".to_owned()],
        Anchor::Weights => vec!["weights".to_owned()],
        Anchor::Dot => {
            let dots = nodes.iter().filter(|&&node| matches!(body.op(node), Op::Dot { .. }));
            dots.map(|&dot| weight(body.operands(dot)[1]).unwrap_or_else(|| "dot".to_owned())).collect()
        }
        Anchor::Rows => nodes.iter().filter_map(|&node| weight(node)).collect(),
    };
    let parts =
        if parts.is_empty() { region.outputs.iter().map(|&output| operation(region, output)).collect() } else { parts };
    let mut distinct: Vec<String> = Vec::new();
    for part in parts {
        if !distinct.contains(&part) {
            distinct.push(part);
        }
    }
    distinct.truncate(MAX_PARTS);
    distinct.join("+")
}

/// `base`, or with a separator `base.2` and so on if it is taken; taken from then on.
pub(crate) fn unique(base: &str, separator: char, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{base}{separator}{number}"));
    let name = std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.expect("there are more numbers than names");
    taken.insert(name.clone());
    name
}

/// `q_proj` of `self_attn.q_proj.weight`, with nothing in it but letters, digits and `_`.
fn module(weight: &str) -> String {
    let path: Vec<&str> = weight.split('.').collect();
    let name = if path.len() > 1 { path[path.len() - 2] } else { path[0] };
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    name.trim_start_matches('/').chars().map(plain).collect()
}

/// The operation that makes an output, behind reshapes and conversions.
fn operation(region: &Region, output: NodeId) -> String {
    let mut node = output;
    while let Op::Reshape { .. } | Op::Convert { .. } | Op::Broadcast { .. } = region.body.op(node) {
        node = region.body.operands(node)[0];
    }
    match region.body.op(node) {
        op if !op.is_leaf() => op.name().to_owned(),
        _ if node == output => "copy".to_owned(),
        _ => region.body.op(output).name().to_owned(),
    }
}
