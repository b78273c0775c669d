//! From a division of nodes to regions with bodies, inputs, outputs and names.

use super::body::Body;
use super::grow::{Partition, roots};
use super::name;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::module::Function;
use llmc_ir::op::Op;
use llmc_ir::region::{Anchor, FusedFunction, Region, Source};
use std::collections::{BTreeMap, BTreeSet};

/// Builds the regions of a function in order of execution.
pub(super) fn extract(function: &Function, partition: &Partition) -> FusedFunction {
    let order = function.graph.topological();
    let rank: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(rank, &node)| (node, rank)).collect();
    let mut extraction = Extraction {
        graph: &function.graph,
        partition,
        rank,
        built: BTreeMap::new(),
        regions: Vec::new(),
        names: BTreeSet::new(),
    };
    let needs = extraction.needs(&roots(function));
    for index in execution_order(&extraction, &needs) {
        let region = extraction.build(partition.regions[index].anchor, &needs[&index]);
        extraction.push(region, &needs[&index].roots);
    }
    let mut results = Vec::new();
    for &result in &function.results {
        let direct = extraction.built.get(&result).map(|&(region, output)| Source::Output { region, output });
        let computed = |source: &Source| match source {
            Source::Output { region, .. } => extraction.regions[*region].anchor != Anchor::Weights,
            _ => true,
        };
        let source = match direct.filter(|source| computed(source) && !results.contains(source)) {
            Some(source) => source,
            None => extraction.copy(result),
        };
        results.push(source);
    }
    FusedFunction { name: function.name.clone(), params: function.params.clone(), regions: extraction.regions, results }
}

struct Extraction<'a> {
    graph: &'a Graph,
    partition: &'a Partition,
    rank: BTreeMap<NodeId, usize>,
    /// Region and output of each node that is in memory.
    built: BTreeMap<NodeId, (usize, usize)>,
    regions: Vec<Region>,
    names: BTreeSet<String>,
}

/// What a region computes.
#[derive(Default)]
struct Need {
    /// Nodes that are visible outside.
    roots: BTreeSet<NodeId>,
    /// Nodes of the body, inputs included.
    nodes: BTreeSet<NodeId>,
    /// Those among them that come from other regions.
    imports: BTreeSet<NodeId>,
}

/// Indices of the regions that are needed, each after those it reads from, else by their first nodes.
fn execution_order(extraction: &Extraction<'_>, needs: &BTreeMap<usize, Need>) -> Vec<usize> {
    let region_of = &extraction.partition.region_of;
    let first = |index: usize| {
        needs[&index]
            .nodes
            .iter()
            .filter(|node| region_of.get(node) == Some(&index))
            .map(|node| extraction.rank[node])
            .min()
    };
    let mut waiting: BTreeSet<(Option<usize>, usize)> = needs.keys().map(|&index| (first(index), index)).collect();
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut order = Vec::new();
    loop {
        let ready = |&&(_, index): &&(Option<usize>, usize)| {
            needs[&index].imports.iter().all(|node| done.contains(&region_of[node]))
        };
        let Some(&next) = waiting.iter().find(ready) else { return order };
        waiting.remove(&next);
        done.insert(next.1);
        order.push(next.1);
    }
}

impl Extraction<'_> {
    /// What each region must compute, starting from what the function is run for.
    fn needs(&self, roots: &[NodeId]) -> BTreeMap<usize, Need> {
        let region_of = &self.partition.region_of;
        let mut needs: BTreeMap<usize, Need> = BTreeMap::new();
        let mut pending: Vec<NodeId> = roots.iter().copied().filter(|node| region_of.contains_key(node)).collect();
        while let Some(root) = pending.pop() {
            let region = region_of[&root];
            let need = needs.entry(region).or_default();
            if !need.roots.insert(root) {
                continue;
            }
            let imported = self.trace(Some(region), root, need);
            pending.extend(imported);
        }
        needs
    }

    /// Adds to `need` all that `root` takes inside of `region`; returns what it takes from other regions.
    fn trace(&self, region: Option<usize>, root: NodeId, need: &mut Need) -> Vec<NodeId> {
        let mut imported = Vec::new();
        let mut pending = vec![root];
        while let Some(node) = pending.pop() {
            if !need.nodes.insert(node) {
                continue;
            }
            let home = self.partition.region_of.get(&node).copied();
            if home.is_some() && home != region && !self.is_repeated(node) {
                need.imports.insert(node);
                imported.push(node);
            } else {
                pending.extend(self.graph.operands(node));
            }
        }
        imported
    }

    /// Whether other regions repeat a node of a region instead of reading it: it is larger than what it is made
    /// of, or the same bytes.
    fn is_repeated(&self, node: NodeId) -> bool {
        let same_bytes = matches!(self.graph.op(node), Op::Reshape { .. } | Op::Broadcast { .. });
        same_bytes && !self.partition.pinned.contains(&node)
    }

    fn build(&self, anchor: Anchor, need: &Need) -> Region {
        let mut nodes: Vec<NodeId> = need.nodes.iter().copied().collect();
        nodes.sort_by_key(|node| self.rank[node]);
        let mut body = Body::default();
        let mut copies: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for node in nodes {
            let source = if need.imports.contains(&node) {
                let (region, output) = self.built[&node];
                Some(Source::Output { region, output })
            } else {
                match self.graph.op(node) {
                    Op::Input { index, .. } => Some(Source::Param(*index)),
                    Op::Step(input) => Some(Source::Step(*input)),
                    Op::Weight { name, .. } => Some(Source::Weight(name.clone())),
                    _ => None,
                }
            };
            let copy = match source {
                Some(source) => body.input(&source, self.graph.ty(node)),
                None => {
                    let operands: Vec<NodeId> =
                        self.graph.operands(node).iter().map(|operand| copies[operand]).collect();
                    body.add(self.graph.op(node).clone(), &operands)
                }
            };
            copies.insert(node, copy);
        }
        let mut roots: Vec<NodeId> = need.roots.iter().copied().collect();
        roots.sort_by_key(|node| self.rank[node]);
        let outputs = roots.iter().map(|root| copies[root]).collect();
        let mut region = body.finish(String::new(), anchor, outputs);
        region.name = name::describe(&region);
        region
    }

    /// Adds a region under a name of its own and remembers what it makes.
    fn push(&mut self, mut region: Region, roots: &BTreeSet<NodeId>) -> usize {
        let index = self.regions.len();
        region.name = name::unique(&region.name, '.', &mut self.names);
        self.regions.push(region);
        let mut roots: Vec<NodeId> = roots.iter().copied().collect();
        roots.sort_by_key(|node| self.rank[node]);
        self.built.extend(roots.into_iter().enumerate().map(|(output, root)| (root, (index, output))));
        index
    }

    /// A region that writes a value which is in memory already, or is no region's, to a place of its own.
    fn copy(&mut self, node: NodeId) -> Source {
        let mut need = Need { roots: BTreeSet::from([node]), ..Need::default() };
        self.trace(None, node, &mut need);
        let mut region = self.build(Anchor::Rows, &need);
        region.name = "copy".to_owned();
        Source::Output { region: self.push(region, &BTreeSet::new()), output: 0 }
    }
}
