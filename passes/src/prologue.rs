//! Prologues: rows that a product alone reads, such as a norm, are computed in the product's own kernel.
//!
//! A kernel less is a launch less, with the wait between it and the next. In return every core computes the rows for
//! itself, and what else the kernel left behind (the sum that a norm is of) is computed again where it is used. With a row
//! or two and products that take many cores that is a bargain, with many rows it is not: so the machine and the program's
//! bounds decide. Results have the same bits either way.

use crate::eqsat::cost::{price_of, typical};
use crate::eqsat::form::LEAST_GAIN;
use crate::fuse::{Body, check_region};
use crate::pass::{Context, State};
use crate::region_cost::region_work;
use llmc_ir::dim::Bindings;
use llmc_ir::graph::NodeId;
use llmc_ir::machine::Machine;
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, FusedFunction, Region, Source};
use std::collections::{BTreeMap, BTreeSet};

/// The pass.
pub fn prologue(state: State, context: &Context) -> Result<State, String> {
    let State::Fused(mut programs) = state else {
        return Err(format!("it takes fused programs, found {}; run `fuse` first", state.kind()));
    };
    for program in &mut programs {
        let machine = context.machines.of(program.processor)?;
        let sizes = typical(&program.bounds);
        for function in &mut program.module.functions {
            let mut changed = function.clone();
            let mut gain = 0.0;
            take_rows(&mut changed, |rows| {
                let saved = seconds_saved(rows, &sizes, machine);
                gain += saved.max(0.0);
                saved > 0.0
            });
            let price = |region: &Region| {
                let (work, dtype) = region_work(region, &sizes);
                price_of(&work, machine.matrix_flops(dtype), machine).seconds
            };
            let before: f64 = function.regions.iter().map(price).sum();
            if gain > before * LEAST_GAIN {
                *function = changed;
            }
        }
    }
    Ok(State::Fused(programs))
}

/// Lets every region of products compute its left operand, where another region computes it for nothing else that must
/// be in memory, and `wanted` agrees.
pub fn take_rows(function: &mut FusedFunction, mut wanted: impl FnMut(&Region) -> bool) {
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let open = (0..function.regions.len()).filter(|&rows| !refused.contains(&function.regions[rows].name));
        let mut found = open.filter_map(|rows| Some((rows, dissolved(function, rows)?)));
        let Some((rows, users)) = found.next() else {
            return;
        };
        if !wanted(&function.regions[rows]) {
            refused.insert(function.regions[rows].name.clone());
            continue;
        }
        for (user, region) in users {
            function.regions[user] = region;
        }
        function.regions.remove(rows);
        let moved = |source: &mut Source| match source {
            Source::Output { region, .. } if *region > rows => *region -= 1,
            _ => {}
        };
        let inputs = function.regions.iter_mut().flat_map(|region| &mut region.inputs);
        inputs.chain(&mut function.results).for_each(moved);
    }
}

/// What a launch costs beyond what all cores but one compute in vain. What the rows read and write stays in caches.
fn seconds_saved(rows: &Region, sizes: &Bindings, machine: &Machine) -> f64 {
    let shared = region_work(rows, sizes).0.vector_flops / machine.vector_flops;
    machine.launch_seconds - shared * (machine.units - 1.0)
}

/// What the users of a region of rows become without it; `None` if they, or later steps, need it. One of its outputs is
/// the left operand of one region's products and nothing else; others are made element by element and not multiplied.
fn dissolved(function: &FusedFunction, rows: usize) -> Option<Vec<(usize, Region)>> {
    let made = &function.regions[rows];
    let returned = function.results.iter().any(|source| is_output_of(source, rows));
    let writes = made.outputs.iter().any(|&output| matches!(made.body.op(output), Op::KvWrite { .. }));
    if made.anchor != Anchor::Rows || returned || writes {
        return None;
    }
    let mut users = Vec::new();
    let mut multiplied = 0;
    for (index, user) in function.regions.iter().enumerate() {
        let mut uses = false;
        for node in user.body.topological() {
            let Op::Input { index, .. } = user.body.op(node) else { continue };
            let Source::Output { output, .. } = user.inputs[*index] else { continue };
            if !is_output_of(&user.inputs[*index], rows) {
                continue;
            }
            uses = true;
            let dots = user.body.users(node).iter().filter(|&&other| is_dot(user, other)).count();
            match dots {
                0 if is_map(made, made.outputs[output]) => {}
                0 => return None,
                _ if dots < user.body.users(node).len() || user.outputs.contains(&node) => return None,
                _ => multiplied += 1,
            }
        }
        if uses {
            let merged = merge(function, rows, index)?;
            check_region(&merged).ok()?;
            users.push((index, merged));
        }
    }
    (multiplied == 1).then_some(users)
}

fn is_output_of(source: &Source, rows: usize) -> bool {
    matches!(source, Source::Output { region, .. } if *region == rows)
}

fn is_dot(region: &Region, node: NodeId) -> bool {
    matches!(region.body.op(node), Op::Dot { .. })
}

/// Whether a node is made of inputs element by element.
fn is_map(region: &Region, node: NodeId) -> bool {
    let below = region.body.reachable(&[node]);
    below.into_iter().all(|node| region.body.op(node).is_leaf() || region.body.op(node).is_map())
}

/// A region of rows or products with what it reads of the rows before it computed inside.
fn merge(function: &FusedFunction, rows: usize, user: usize) -> Option<Region> {
    let [before, region] = [rows, user].map(|index| &function.regions[index]);
    if !matches!(region.anchor, Anchor::Rows | Anchor::Dot) {
        return None;
    }
    let mut merged = Body::default();
    let read = region.inputs.iter().filter(|source| is_output_of(source, rows));
    let read: Vec<NodeId> = read.filter_map(|source| output(before, source)).collect();
    let computed = copy(before, &before.body.reachable(&read), &mut merged, |_| None);
    let all = region.body.topological().into_iter().collect();
    let copies = copy(region, &all, &mut merged, |source| match is_output_of(source, rows) {
        true => output(before, source).map(|node| computed[&node]),
        false => None,
    });
    let outputs = region.outputs.iter().map(|output| copies[output]).collect();
    Some(merged.finish(region.name.clone(), region.anchor, outputs))
}

fn output(region: &Region, source: &Source) -> Option<NodeId> {
    match source {
        Source::Output { output, .. } => region.outputs.get(*output).copied(),
        _ => None,
    }
}

/// Adds some nodes of a region to another body; `replaced` says which inputs are something else there.
fn copy(
    region: &Region,
    nodes: &BTreeSet<NodeId>,
    to: &mut Body,
    replaced: impl Fn(&Source) -> Option<NodeId>,
) -> BTreeMap<NodeId, NodeId> {
    let mut copies: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for node in region.body.topological().into_iter().filter(|node| nodes.contains(node)) {
        let made = match region.body.op(node) {
            Op::Input { index, ty } => {
                let source = &region.inputs[*index];
                replaced(source).unwrap_or_else(|| to.input(source, ty))
            }
            op => {
                let operands: Vec<NodeId> = region.body.operands(node).iter().map(|operand| copies[operand]).collect();
                to.add(op.clone(), &operands)
            }
        };
        copies.insert(node, made);
    }
    copies
}
