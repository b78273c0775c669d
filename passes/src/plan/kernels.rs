//! Kernels: regions that compute the same on the same layouts share one.

use crate::fuse::unique_name;
use llmc_ir::graph::{Graph, NodeId};
use llmc_ir::op::Op;
use llmc_ir::plan::WeightLayout;
use llmc_ir::region::{Anchor, Kernel, Region, Source};
use llmc_ir::shape::Type;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The kernels of one program.
#[derive(Default)]
pub(super) struct Kernels {
    /// In order of first use.
    pub list: Vec<Kernel>,
    known: BTreeMap<String, usize>,
    names: BTreeSet<String>,
}

impl Kernels {
    /// The name of the kernel for a region of `function`, given the layout of each input that is a weight.
    pub fn of_region(&mut self, function: &str, region: &Region, layouts: Vec<Option<WeightLayout>>) -> String {
        let key = structure(region, &layouts);
        if let Some(&index) = self.known.get(&key) {
            return self.list[index].name.clone();
        }
        let taken = self.names.contains(&region.name);
        let base = if taken { format!("{function}.{}", region.name) } else { region.name.clone() };
        let name = unique_name(&base, '.', &mut self.names);
        self.known.insert(key, self.list.len());
        self.list.push(Kernel { name: name.clone(), region: region.clone(), weight_layouts: layouts });
        name
    }

    /// The name of the kernel that copies a tensor.
    pub fn of_copy(&mut self, function: &str, ty: &Type) -> String {
        let mut body = Graph::default();
        let input = Op::Input { index: 0, ty: ty.clone() };
        let input = body.add(input, &[]).expect("an input is well-typed");
        let region = Region {
            name: "copy".to_owned(),
            anchor: Anchor::Rows,
            body,
            inputs: vec![Source::Param(0)],
            outputs: vec![input],
        };
        self.of_region(function, &region, vec![None])
    }
}

/// Text that is equal for regions of which one kernel can be made.
fn structure(region: &Region, layouts: &[Option<WeightLayout>]) -> String {
    let nodes = region.body.topological();
    let numbers: BTreeMap<NodeId, usize> = nodes.iter().enumerate().map(|(number, &node)| (node, number)).collect();
    let numbered = |nodes: &[NodeId]| nodes.iter().map(|node| numbers[node]).collect::<Vec<_>>();
    let mut text = format!("{:?} {layouts:?} {:?}", region.anchor, numbered(&region.outputs));
    for &node in &nodes {
        let operands = numbered(&region.body.operands(node));
        write!(text, "; {:?} {operands:?}", region.body.op(node)).expect("text grows");
    }
    text
}
