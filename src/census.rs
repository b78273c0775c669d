//! What the values of weights say about compressing them, found out before the passes run.

use crate::error::CompileError;
use crate::model::Model;
use llmc_codegen::pack::{PANEL_ROWS, compressed};
use llmc_ir::dtype::DType;
use llmc_ir::module::Module;
use llmc_ir::op::Op;
use llmc_ir::shape::Type;
use llmc_passes::compress::Use;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::{BTreeMap, BTreeSet};

/// Panels that are counted before progress is told.
const PANELS_AT_ONCE: usize = 256;

/// How many quarters of each panel are flagged, of the weights that may be compressed.
#[derive(Clone, Debug, Default)]
pub struct Census(BTreeMap<String, Vec<u32>>);

impl Census {
    /// Counts the weights in bf16 that a model multiplies by, and besides at most looks up by rows. `progress` hears elements
    /// counted and in all; its error ends the counting.
    ///
    /// # Errors
    /// If a weight is missing or not finite.
    pub fn of(
        model: &Model,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), CompileError>,
    ) -> Result<Census, CompileError> {
        let weights = multiplied(&model.module);
        let all = weights.values().map(|[n, k]| (n * k) as u64).sum();
        let mut done = 0;
        let mut census = Census::default();
        for (name, [n, k]) in weights {
            let Some(tensor) = model.checkpoint.tensor(&name).filter(|tensor| tensor.shape == [n, k]) else { continue };
            let panels = n.div_ceil(PANEL_ROWS);
            let mut flagged = Vec::new();
            for first in (0..panels).step_by(PANELS_AT_ONCE) {
                let some = first..panels.min(first + PANELS_AT_ONCE);
                let elements = |panel: usize| n.min(panel * PANEL_ROWS) * k;
                let count = |(values, plain): &mut (Vec<f32>, Vec<u8>), panel: usize| {
                    tensor.read_f32(elements(panel)..elements(panel + 1), values)?;
                    Ok(compressed::flagged(values, k, plain))
                };
                let counted: Vec<Result<u32, CompileError>> =
                    some.clone().into_par_iter().map_init(Default::default, count).collect();
                for count in counted {
                    flagged.push(count?);
                }
                let range = elements(some.start)..elements(some.end);
                done += range.len() as u64;
                model.checkpoint.forget(&name, range);
                progress(done, all)?;
            }
            census.0.insert(name, flagged);
        }
        Ok(census)
    }

    /// Of each panel of a weight, if it was counted.
    pub fn panels(&self, weight: &str) -> &[u32] {
        self.0.get(weight).map_or(&[], Vec::as_slice)
    }

    /// Of each weight.
    pub fn totals(&self) -> BTreeMap<String, u64> {
        let total = |panels: &Vec<u32>| panels.iter().map(|&flagged| u64::from(flagged)).sum();
        self.0.iter().map(|(name, panels)| (name.clone(), total(panels))).collect()
    }
}

/// The sizes of weights in bf16 that are multiplied by, and besides at most looked up by rows, by checkpoint key.
fn multiplied(module: &Module) -> BTreeMap<String, [usize; 2]> {
    let mut found = BTreeMap::new();
    let (mut multiplied, mut others) = (BTreeSet::new(), BTreeSet::new());
    for call in &module.calls {
        let Some(function) = module.function(&call.function) else { continue };
        let graph = &function.graph;
        for node in graph.topological() {
            let Op::Weight { name, ty: Type::Tensor(ty) } = graph.op(node) else { continue };
            let key = Module::weight_key(&call.scope, name);
            let uses: BTreeSet<Use> = Use::of_node(graph, node).collect();
            if uses.contains(&Use::Multiply) {
                multiplied.insert(key.clone());
            }
            let sizes: Option<Vec<usize>> = ty.shape.0.iter().map(|dim| dim.as_fixed()).collect();
            match (ty.dtype, sizes.as_deref()) {
                (DType::BF16, Some(&[n, k])) if !uses.contains(&Use::Other) => {
                    found.insert(key, [n, k]);
                }
                _ => {
                    others.insert(key);
                }
            }
        }
    }
    found.retain(|key, _| multiplied.contains(key) && !others.contains(key));
    found
}
