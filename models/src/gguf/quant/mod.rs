//! Block-quantised tensor types and what their bits mean.
//!
//! Formulas: `ggml-quants.c` (`dequantize_row_*`) of ggml, in the same order of f32 operations, so that the values are
//! bit-equal to those of the `gguf` Python package; `testdata/gguf_quants.json` holds vectors computed by the latter.

mod k;
mod legacy;
mod table;

use std::fmt;

use half::f16;

/// Elements of a block of the K types.
const SUPER_BLOCK: usize = 256;
/// Elements of a block of the older types.
const BLOCK: usize = 32;

/// The tensor types that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TensorType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

/// What is known of a type: everything else is derived from this table.
struct Traits {
    kind: TensorType,
    /// Its number in the file.
    code: u32,
    name: &'static str,
    block_elements: usize,
    block_bytes: usize,
    /// Bound of the relative root-mean-square error that quantising a trained weight matrix to this type causes: about
    /// twice what was measured on the embeddings of two models (Q4_0 0.11, Q5_0 0.05; the K types by their bits).
    noise: f64,
}

#[rustfmt::skip]
const TRAITS: [Traits; 15] = [
    Traits { kind: TensorType::F32,  code: 0,  name: "F32",  block_elements: 1, block_bytes: 4, noise: 1e-6 },
    Traits { kind: TensorType::F16,  code: 1,  name: "F16",  block_elements: 1, block_bytes: 2, noise: 1e-3 },
    Traits { kind: TensorType::BF16, code: 30, name: "BF16", block_elements: 1, block_bytes: 2, noise: 4e-3 },
    Traits { kind: TensorType::Q4_0, code: 2,  name: "Q4_0", block_elements: BLOCK, block_bytes: 18, noise: 0.20 },
    Traits { kind: TensorType::Q4_1, code: 3,  name: "Q4_1", block_elements: BLOCK, block_bytes: 20, noise: 0.18 },
    Traits { kind: TensorType::Q5_0, code: 6,  name: "Q5_0", block_elements: BLOCK, block_bytes: 22, noise: 0.10 },
    Traits { kind: TensorType::Q5_1, code: 7,  name: "Q5_1", block_elements: BLOCK, block_bytes: 24, noise: 0.09 },
    Traits { kind: TensorType::Q8_0, code: 8,  name: "Q8_0", block_elements: BLOCK, block_bytes: 34, noise: 0.015 },
    Traits { kind: TensorType::Q2K,  code: 10, name: "Q2_K", block_elements: SUPER_BLOCK, block_bytes: 84,  noise: 0.60 },
    Traits { kind: TensorType::Q3K,  code: 11, name: "Q3_K", block_elements: SUPER_BLOCK, block_bytes: 110, noise: 0.35 },
    Traits { kind: TensorType::Q4K,  code: 12, name: "Q4_K", block_elements: SUPER_BLOCK, block_bytes: 144, noise: 0.18 },
    Traits { kind: TensorType::Q5K,  code: 13, name: "Q5_K", block_elements: SUPER_BLOCK, block_bytes: 176, noise: 0.09 },
    Traits { kind: TensorType::Q6K,  code: 14, name: "Q6_K", block_elements: SUPER_BLOCK, block_bytes: 210, noise: 0.05 },
    Traits { kind: TensorType::Iq4Nl, code: 20, name: "IQ4_NL", block_elements: BLOCK, block_bytes: 18, noise: 0.18 },
    Traits { kind: TensorType::Iq4Xs, code: 23, name: "IQ4_XS", block_elements: SUPER_BLOCK, block_bytes: 136, noise: 0.18 },
];

/// Names of the types that ggml has or had but that are not read here, for messages.
const OTHER_NAMES: [(u32, &str); 21] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl TensorType {
    /// The type with this number in a file, or the name of the one that it stands for.
    pub(super) fn from_code(code: u32) -> Result<TensorType, String> {
        if let Some(traits) = TRAITS.iter().find(|traits| traits.code == code) {
            return Ok(traits.kind);
        }
        let name = OTHER_NAMES.iter().find(|(other, _)| *other == code);
        Err(name.map_or_else(|| format!("number {code}"), |(_, name)| name.to_string()))
    }

    /// Names of all types that can be read.
    pub(super) fn list() -> String {
        TRAITS.map(|traits| traits.name).join(", ")
    }

    /// Elements per block; rows are whole blocks.
    pub(super) fn block_elements(self) -> usize {
        self.traits().block_elements
    }

    /// Bytes per block.
    pub(super) fn block_bytes(self) -> usize {
        self.traits().block_bytes
    }

    /// Bound of the relative root-mean-square error of quantising to this type.
    pub(super) fn noise(self) -> f64 {
        self.traits().noise
    }

    /// Appends the values of whole blocks to `out`.
    pub(super) fn dequantize(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            TensorType::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
            TensorType::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            TensorType::BF16 => {
                let widen = |&b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
                out.extend(bytes.as_chunks::<2>().0.iter().map(widen));
            }
            TensorType::Q4_0 => blocks(bytes, out, legacy::q4_0),
            TensorType::Q4_1 => blocks(bytes, out, legacy::q4_1),
            TensorType::Q5_0 => blocks(bytes, out, legacy::q5_0),
            TensorType::Q5_1 => blocks(bytes, out, legacy::q5_1),
            TensorType::Q8_0 => blocks(bytes, out, legacy::q8_0),
            TensorType::Q2K => blocks(bytes, out, k::q2),
            TensorType::Q3K => blocks(bytes, out, k::q3),
            TensorType::Q4K => blocks(bytes, out, k::q4),
            TensorType::Q5K => blocks(bytes, out, k::q5),
            TensorType::Q6K => blocks(bytes, out, k::q6),
            TensorType::Iq4Nl => blocks(bytes, out, table::iq4_nl),
            TensorType::Iq4Xs => blocks(bytes, out, table::iq4_xs),
        }
    }

    fn traits(self) -> &'static Traits {
        // The table is in the order of the enum; a test holds it to that.
        &TRAITS[self as usize]
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.traits().name)
    }
}

/// Runs a decoder over all blocks; its argument types are the block's size in bytes and elements.
fn blocks<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut Vec<f32>,
    decode: fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let mut values = [0.0; ELEMENTS];
    for block in bytes.as_chunks::<BYTES>().0 {
        decode(block, &mut values);
        out.extend_from_slice(&values);
    }
}

/// The half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
