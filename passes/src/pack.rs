//! Packing: which weight is stored in which layout. Each tensor is stored once, for all programs.
//!
//! A matrix that any dot multiplies by lies in panels; looking up rows of it reads the panels too. Everything
//! else lies as in the checkpoint.

use crate::plan::PlanError;
use llmc_ir::dtype::DType;
use llmc_ir::module::Module;
use llmc_ir::op::Op;
use llmc_ir::plan::{PackedWeight, WeightLayout, compressed};
use llmc_ir::region::{FusedProgram, Region, Source};
use llmc_ir::shape::{TensorType, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Rows and columns of panels are padded to multiples of this.
pub const PANEL: u64 = 32;

/// The weights of all programs in the order in which a step first uses them.
#[derive(Clone, Debug, Default)]
pub struct WeightTable {
    /// The entries.
    pub weights: Vec<PackedWeight>,
    /// Their positions by checkpoint key.
    pub index: BTreeMap<String, usize>,
}

/// How regions use a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Dot,
    Gather,
    Elements,
}

/// Chooses a layout for each weight that a call of any program uses.
///
/// # Errors
/// [`PlanError::Weight`] if programs disagree on a weight's type, if a matrix is both multiplied by and read
/// element by element, or if there is no packed form for its type.
pub fn pack(programs: &[FusedProgram]) -> Result<WeightTable, PlanError> {
    let mut found: Vec<(String, TensorType, BTreeSet<Use>)> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    for program in programs {
        for call in &program.module.calls {
            let regions = program.module.function(&call.function).map_or(&[][..], |function| &function.regions);
            for (name, ty, uses) in regions.iter().flat_map(weights) {
                let key = Module::weight_key(&call.scope, name);
                let Type::Tensor(ty) = ty else { return Err(error(&key, "a cache is not a weight".into())) };
                let position = *index.entry(key.clone()).or_insert(found.len());
                if position == found.len() {
                    found.push((key, ty, uses));
                } else if found[position].1 != ty {
                    return Err(error(&key, format!("it is used as {} and as {ty}", found[position].1)));
                } else {
                    found[position].2.extend(uses);
                }
            }
        }
    }
    let weights = found.into_iter().map(|(key, ty, uses)| packed(key, &ty, &uses)).collect::<Result<_, _>>()?;
    Ok(WeightTable { weights, index })
}

/// The weights among a region's inputs: name, type, and what the body does with them.
fn weights(region: &Region) -> Vec<(&str, Type, BTreeSet<Use>)> {
    let body = &region.body;
    let mut weights = Vec::new();
    for node in body.topological() {
        let Op::Input { index, ty } = body.op(node) else { continue };
        let Source::Weight(name) = &region.inputs[*index] else { continue };
        let use_of = |user| match body.op(user) {
            Op::Dot { .. } if body.operands(user)[0] != node => Use::Dot,
            Op::Gather if body.operands(user)[1] != node => Use::Gather,
            _ => Use::Elements,
        };
        let mut uses: BTreeSet<Use> = body.users(node).into_iter().map(use_of).collect();
        if region.outputs.contains(&node) {
            uses.insert(Use::Elements);
        }
        weights.push((*index, name.as_str(), ty.clone(), uses));
    }
    weights.sort_by_key(|(index, ..)| *index);
    weights.into_iter().map(|(_, name, ty, uses)| (name, ty, uses)).collect()
}

fn packed(key: String, ty: &TensorType, uses: &BTreeSet<Use>) -> Result<PackedWeight, PlanError> {
    let shape: Option<Vec<usize>> = ty.shape.0.iter().map(|dim| dim.as_fixed()).collect();
    let shape = shape.ok_or_else(|| error(&key, format!("{ty} does not have a fixed shape")))?;
    let layout = if uses.contains(&Use::Dot) { WeightLayout::Panels } else { WeightLayout::RowMajor };
    if layout == WeightLayout::Panels && uses.contains(&Use::Elements) {
        let reason = "a matrix product and element-wise operations use it, which would take two copies";
        return Err(error(&key, reason.into()));
    }
    let bytes = weight_bytes(ty.dtype, &shape, layout).map_err(|reason| error(&key, reason))?;
    Ok(PackedWeight { name: key, dtype: ty.dtype, shape, layout, bytes })
}

/// Bytes of a weight in memory, padding included; of a compressed one without what is behind its panels.
pub fn weight_bytes(dtype: DType, shape: &[usize], layout: WeightLayout) -> Result<u64, String> {
    let too_large = || format!("{shape:?} has more bytes than there are addresses");
    let product = |sizes: &[u64]| sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
    let size = dtype.bytes() as u64;
    let mut sizes: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    match (layout, &sizes[..]) {
        (WeightLayout::RowMajor, _) => sizes.push(size),
        (WeightLayout::Panels, &[n, k]) => {
            let k = match dtype {
                DType::BF16 => k.div_ceil(PANEL) * PANEL,
                DType::F32 => k,
                other => return Err(format!("there are panels of bf16 and f32, found {other}; compile with --dtype")),
            };
            sizes = vec![n.div_ceil(PANEL) * PANEL, k, size];
        }
        (WeightLayout::Compressed, &[n, k]) if dtype == DType::BF16 => {
            let panel = usize::try_from(k).ok().filter(|&k| k < usize::MAX / 4).map(compressed::panel);
            sizes = vec![n.div_ceil(PANEL), panel.ok_or_else(too_large)? as u64];
        }
        (WeightLayout::Compressed, _) => {
            return Err(format!("only matrices of bf16 are compressed, found {dtype} {shape:?}"));
        }
        // A byte per element, and two numbers in f32 per row.
        (WeightLayout::Rounded, &[n, k]) => sizes = vec![n.div_ceil(PANEL) * PANEL, k.div_ceil(4) * 4 + 12],
        (WeightLayout::Panels | WeightLayout::Rounded, _) => {
            return Err(format!("panels are of matrices, found the shape {shape:?}"));
        }
    }
    product(&sizes).ok_or_else(too_large)
}

fn error(weight: &str, reason: String) -> PlanError {
    PlanError::Weight { weight: weight.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::{Epilogues, fuse_program, sample};

    #[test]
    fn a_tied_table_is_stored_once_in_panels() {
        let table = pack(&[fuse_program(&sample::program(), Epilogues::Fused)]).unwrap();
        let embedding = &table.weights[0];
        assert_eq!(embedding.name, "model.embed_tokens.weight");
        assert_eq!((embedding.layout, embedding.bytes), (WeightLayout::Panels, 64 * 32 * 2));
        assert_eq!(table.weights.iter().filter(|weight| weight.name.contains("embed")).count(), 1);
        assert_eq!(table.weights[1].name, "model.layers.0.input_layernorm.weight");
        assert_eq!((table.weights[1].layout, table.weights[1].bytes), (WeightLayout::RowMajor, 32 * 4));
        assert_eq!(table.weights.last().unwrap().name, "model.norm.weight");
        assert_eq!(table.index.len(), table.weights.len());
    }

    #[test]
    fn sizes_are_padded_and_hostile_ones_do_not_overflow() {
        assert_eq!(weight_bytes(DType::F32, &[33, 5], WeightLayout::Panels), Ok(64 * 5 * 4));
        assert_eq!(weight_bytes(DType::BF16, &[33, 5], WeightLayout::Panels), Ok(64 * 32 * 2));
        assert_eq!(weight_bytes(DType::BF16, &[33, 5], WeightLayout::RowMajor), Ok(33 * 5 * 2));
        assert!(weight_bytes(DType::F32, &[usize::MAX, 4], WeightLayout::RowMajor).is_err());
        assert!(weight_bytes(DType::F16, &[32, 32], WeightLayout::Panels).unwrap_err().contains("bf16"));
    }
}
