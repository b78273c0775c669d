//! Where nodes come from. Passes do not say what became of a node, so states are compared: a node comes from that of the
//! state before which computes the same term; else from one left over there with the same operation and type, in
//! order; else the pass made it.

use super::draw::Drawn;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Gives the nodes behind a pass the origins of those before it, or the pass's name. Returns how many it made.
pub fn trace(before: &[Drawn], after: &mut [Drawn], pass: &'static str) -> usize {
    let mut made = 0;
    for function in after {
        let candidates = candidates(before, function);
        made += trace_function(&candidates, function, pass);
    }
    made
}

/// The functions that one may stem from, the likeliest first: its own before the pass, then those beside that.
fn candidates<'a>(before: &'a [Drawn], function: &Drawn) -> Vec<&'a Drawn> {
    let of_program = before.iter().filter(|other| other.program.is_none() || other.program == function.program);
    let (mut same, others): (Vec<&Drawn>, Vec<&Drawn>) =
        of_program.partition(|other| other.function == function.function);
    same.extend(others);
    same
}

fn trace_function(before: &[&Drawn], after: &mut Drawn, pass: &'static str) -> usize {
    let mut terms: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for (number, function) in before.iter().enumerate() {
        for (node, identity) in function.identities.iter().enumerate() {
            terms.entry(identity.term).or_insert((number, node));
        }
    }
    let found: Vec<Option<(usize, usize)>> =
        after.identities.iter().map(|identity| terms.get(&identity.term).copied()).collect();
    let taken: BTreeSet<(usize, usize)> = found.iter().flatten().copied().collect();
    let mut left: BTreeMap<u64, VecDeque<(usize, usize)>> = BTreeMap::new();
    for (number, function) in before.iter().enumerate() {
        for (node, identity) in function.identities.iter().enumerate() {
            if !taken.contains(&(number, node)) {
                left.entry(identity.operation).or_default().push_back((number, node));
            }
        }
    }
    let mut made = 0;
    for ((node, identity), found) in after.graph.nodes.iter_mut().zip(&after.identities).zip(found) {
        let found = found.or_else(|| left.get_mut(&identity.operation)?.pop_front());
        match found {
            Some((number, earlier)) => node.origin = before[number].graph.nodes[earlier].origin,
            None => {
                node.origin = pass;
                made += 1;
            }
        }
    }
    made
}
