//! An exact extractor: branch and bound over the nodes of each class. It shows how far the greedy one is from the best.

use super::super::cost::Target;
use super::super::extract::{candidates, roots};
use super::super::language::Node;
use super::super::saturate::Saturated;
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};

/// Seconds of the cheapest form, which is below `bound`; `None` if there is none so cheap.
pub fn exact(saturated: &Saturated, target: &Target<'_>, bound: f64) -> Option<f64> {
    let mut options: BTreeMap<Id, Vec<(&Node, f64)>> = BTreeMap::new();
    for (class, node, seconds) in candidates(&saturated.graph, target) {
        options.entry(class).or_default().push((node, seconds));
    }
    options.values_mut().for_each(|nodes| nodes.sort_by(|(_, a), (_, b)| a.total_cmp(b)));
    let mut search = Search { options, best: bound, found: false, chosen: BTreeMap::new() };
    search.decide(&roots(saturated).into_iter().collect(), 0.0);
    search.found.then_some(search.best)
}

struct Search<'g> {
    options: BTreeMap<Id, Vec<(&'g Node, f64)>>,
    best: f64,
    found: bool,
    chosen: BTreeMap<Id, &'g Node>,
}

impl Search<'_> {
    /// Tries every node for one of the classes that are needed and undecided.
    fn decide(&mut self, needed: &BTreeSet<Id>, seconds: f64) {
        if seconds >= self.best {
            return;
        }
        let Some(&class) = needed.last() else {
            if self.is_acyclic() {
                (self.best, self.found) = (seconds, true);
            }
            return;
        };
        for (node, price) in self.options[&class].clone() {
            let mut needed = needed.clone();
            needed.remove(&class);
            self.chosen.insert(class, node);
            needed.extend(node.operands.iter().filter(|operand| !self.chosen.contains_key(operand)));
            self.decide(&needed, seconds + price);
            self.chosen.remove(&class);
        }
    }

    fn is_acyclic(&self) -> bool {
        let mut done: BTreeSet<Id> = BTreeSet::new();
        loop {
            let ready = |(class, node): &(&Id, &&Node)| {
                !done.contains(class) && node.operands.iter().all(|operand| done.contains(operand))
            };
            let next: Vec<Id> = self.chosen.iter().filter(ready).map(|(class, _)| *class).collect();
            if next.is_empty() {
                return done.len() == self.chosen.len();
            }
            done.extend(next);
        }
    }
}
