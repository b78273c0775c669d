//! Weights on their way into an artifact: all cores pack a batch of bytes while the previous one is hashed and written.

use crate::census::Census;
use crate::error::CompileError;
use crate::model::Model;
use crate::recipe::compute;
use llmc_artifact::{ArtifactError, ArtifactWriter};
use llmc_codegen::pack::Packing;
use llmc_ir::module::Function;
use llmc_ir::plan::PackedWeight;
use llmc_models::checkpoint::{Checkpoint, TensorView};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::collections::BTreeMap;
use std::ops::Range;

/// Packed bytes of a batch at most, unless a single piece has more: enough to keep many cores busy, and two of them are
/// all that is in memory.
const BATCH_BYTES: usize = 8 << 20;

/// Packs weights, from the checkpoint or by their recipes, into the next entries of an artifact. `progress` hears how many
/// bytes more have been written; its error ends the writing.
///
/// # Errors
/// If a weight is missing, not finite, or infinite in the type that it is packed in, or if the disk refuses.
pub fn write_weights(
    writer: &mut ArtifactWriter,
    model: &Model,
    (recipes, census): (&BTreeMap<String, Function>, &Census),
    weights: &[PackedWeight],
    progress: &mut dyn FnMut(u64) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let mut written = Batch::default();
    let mut packed = Batch::default();
    for weight in weights {
        let packing = Packing::of(weight, census.panels(&weight.name))?;
        let mut behind = Vec::new();
        let source = Source::of(weight, model, recipes)?;
        let pieces_per_batch = (BATCH_BYTES / packing.piece_bytes()).max(1);
        for first in (0..packing.pieces()).step_by(pieces_per_batch) {
            let pieces = first..packing.pieces().min(first + pieces_per_batch);
            std::mem::swap(&mut written, &mut packed);
            let (write, pack) =
                rayon::join(|| written.write(writer), || packed.pack((weight, &packing), &source, pieces, &mut behind));
            progress(write?)?;
            pack?;
        }
    }
    progress(packed.write(writer)?)
}

/// Packed bytes of one weight.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Whether the weight ends with them.
    is_last: bool,
}

impl Batch {
    /// Becomes some pieces of a weight. `behind` is what of it comes behind all pieces, as far as it is known.
    fn pack(
        &mut self,
        (weight, packing): (&PackedWeight, &Packing<'_>),
        source: &Source<'_>,
        pieces: Range<usize>,
        behind: &mut Vec<u8>,
    ) -> Result<(), CompileError> {
        self.is_last = pieces.end == packing.pieces();
        self.bytes.resize(packing.bytes(pieces.clone()).len(), 0);
        let each = self.bytes.par_chunks_mut(packing.piece_bytes()).enumerate();
        let packed = each.map_init(Vec::new, |values, (piece, bytes)| {
            let piece = pieces.start + piece;
            source.read(packing.elements(piece..piece + 1), values)?;
            check_range(weight, values)?;
            let mut behind = Vec::new();
            packing.pack(piece, values, bytes, &mut behind);
            Ok(behind)
        });
        // The first failure, whichever thread was faster.
        for of_piece in packed.collect::<Vec<Result<Vec<u8>, CompileError>>>() {
            behind.extend(of_piece?);
        }
        source.forget(packing.elements(pieces));
        if self.is_last {
            self.bytes.append(behind);
        }
        Ok(())
    }

    /// Writes the bytes, if there are any, and returns how many there were.
    fn write(&self, writer: &mut ArtifactWriter) -> Result<u64, ArtifactError> {
        if self.bytes.is_empty() {
            return Ok(0);
        }
        writer.write(&self.bytes)?;
        if self.is_last {
            writer.end_entry()?;
        }
        Ok(self.bytes.len() as u64)
    }
}

/// Where a weight's elements come from.
enum Source<'a> {
    Tensor(TensorView<'a>, &'a Checkpoint),
    Computed(Vec<f32>),
}

impl<'a> Source<'a> {
    fn of(
        weight: &PackedWeight,
        model: &'a Model,
        recipes: &BTreeMap<String, Function>,
    ) -> Result<Source<'a>, CompileError> {
        let checkpoint = &model.checkpoint;
        if let Some(recipe) = recipes.get(&weight.name) {
            return Ok(Source::Computed(compute(&weight.name, recipe, checkpoint)?));
        }
        let missing = || CompileError::Limit(format!("weight `{}` is not in the checkpoint", weight.name));
        Ok(Source::Tensor(checkpoint.tensor(&weight.name).ok_or_else(missing)?, checkpoint))
    }

    fn read(&self, range: Range<usize>, values: &mut Vec<f32>) -> Result<(), CompileError> {
        match self {
            Source::Tensor(tensor, _) => tensor.read_f32(range, values)?,
            Source::Computed(computed) => {
                values.clear();
                values.extend_from_slice(&computed[range]);
            }
        }
        Ok(())
    }

    /// Lets go of memory that holds elements of the checkpoint.
    fn forget(&self, range: Range<usize>) {
        if let Source::Tensor(tensor, checkpoint) = self {
            checkpoint.forget(tensor.name, range);
        }
    }
}

/// Refuses values that are finite in the checkpoint but not in the type that they are packed in.
fn check_range(weight: &PackedWeight, values: &[f32]) -> Result<(), CompileError> {
    let overflows = |value: &&f32| !weight.dtype.round(f64::from(**value)).is_finite();
    // Magnitudes are in the order of their bits, NaN behind infinity.
    let largest = values.iter().fold(0, |largest: i32, value| largest.max(value.abs().to_bits().cast_signed()));
    if !overflows(&&f32::from_bits(largest.cast_unsigned())) {
        return Ok(());
    }
    let value = values.iter().find(overflows).copied().unwrap_or_default();
    Err(CompileError::Overflow { name: weight.name.clone(), value, dtype: weight.dtype.to_string() })
}
