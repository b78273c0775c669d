//! Names, types and shapes of an artifact's tensors.

use llmc_ir::dtype::DType;
use llmc_ir::plan::{PackedWeight, WeightLayout};
use safetensors::Dtype;

/// The tensor that holds tokenizer.json.
pub const TOKENIZER: &str = "tokenizer.json";

/// The tensor that holds the [`Vocabulary`](crate::Vocabulary) that was taken out of tokenizer.json, if it was.
pub const VOCABULARY: &str = "vocabulary";

/// The tensor that says what the passes were told, as JSON.
pub const PASSES: &str = "passes.json";

/// What stands for a program in the name of the tensor with the IR that the passes started from.
pub const IMPORTED: &str = "imported";

/// Prefix of the tensors that fill pages up. They hold zeros.
pub const PADDING_PREFIX: &str = "padding/";

/// Rows of a panel, and columns of a block within a bf16 panel ([`WeightLayout::Panels`]).
const PANEL: usize = 32;

/// The tensor that holds entry `index` of the weight table: its number keeps names unique and
/// sorted, its checkpoint name makes them readable.
pub fn weight_tensor_name(index: usize, weight: &PackedWeight) -> String {
    format!("weights/{index:04}/{}", weight.name)
}

/// The tensor that holds the code for a target such as `x86-64-v4`.
pub fn code_tensor_name(target: &str) -> String {
    format!("code/{target}")
}

/// The tensor that holds the text form of a program's IR.
pub fn ir_tensor_name(program: &str) -> String {
    format!("ir/{program}")
}

/// Element type and shape under which a packed weight is stored: its own for row-major weights, the
/// order of its tiles for panels, and bytes if neither describes it.
pub fn stored_type(weight: &PackedWeight) -> (Dtype, Vec<usize>) {
    let dtype = match weight.dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I32 => Dtype::I32,
        DType::Bool => Dtype::BOOL,
    };
    let shape = match (weight.layout, weight.dtype, weight.shape.as_slice()) {
        (WeightLayout::RowMajor, _, shape) => shape.to_vec(),
        (WeightLayout::Panels, DType::BF16, &[n, k]) => {
            vec![n.div_ceil(PANEL), k.div_ceil(PANEL), 2, PANEL / 2, PANEL / 2, 2]
        }
        (WeightLayout::Panels, _, &[n, k]) => vec![n.div_ceil(PANEL), k.next_multiple_of(PANEL), PANEL],
        (WeightLayout::Panels | WeightLayout::Compressed | WeightLayout::Rounded, _, _) => Vec::new(),
    };
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let bytes = elements.and_then(|elements| elements.checked_mul(weight.dtype.bytes()));
    if bytes.is_some_and(|bytes| bytes as u64 == weight.bytes) {
        (dtype, shape)
    } else {
        (Dtype::U8, vec![weight.bytes as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(dtype: DType, shape: &[usize], layout: WeightLayout, bytes: u64) -> PackedWeight {
        PackedWeight { name: "w".to_owned(), dtype, shape: shape.to_vec(), layout, bytes }
    }

    #[test]
    fn panels_are_stored_under_the_order_of_their_tiles() {
        let bf16 = weight(DType::BF16, &[70, 40], WeightLayout::Panels, 96 * 64 * 2);
        assert_eq!(stored_type(&bf16), (Dtype::BF16, vec![3, 2, 2, 16, 16, 2]));
        let f32 = weight(DType::F32, &[70, 40], WeightLayout::Panels, 96 * 64 * 4);
        assert_eq!(stored_type(&f32), (Dtype::F32, vec![3, 64, 32]));
    }

    #[test]
    fn what_no_shape_describes_is_stored_as_bytes() {
        let odd = weight(DType::F32, &[3], WeightLayout::RowMajor, 64);
        assert_eq!(stored_type(&odd), (Dtype::U8, vec![64]));
        let huge = weight(DType::F32, &[usize::MAX, 8], WeightLayout::RowMajor, 64);
        assert_eq!(stored_type(&huge), (Dtype::U8, vec![64]));
    }
}
