//! Which tensor of a GGUF file becomes which tensor of the checkpoint, and in what row order.

use std::collections::BTreeMap;

use super::error::{Problem, malformed, unsupported};
use super::hyper::{Architecture, Hyper};
use super::reader::{Gguf, Tensor};
use super::rope;

/// The tensors of a checkpoint.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    /// Sorted by checkpoint name.
    pub(super) weights: Vec<Weight<'a>>,
    /// Rows of the embedding.
    pub(super) vocabulary: usize,
    /// Whether the embedding also is the output projection.
    pub(super) tied: bool,
    /// Whether the attention projections have biases.
    pub(super) attention_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub(super) mlp_bias: bool,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// One tensor of the checkpoint and where it comes from.
#[derive(Debug)]
pub(super) struct Weight<'a> {
    pub(super) name: String,
    pub(super) source: Tensor<'a>,
    pub(super) rows: RowOrder,
}

/// How the rows of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As in the checkpoint.
    Same,
    /// Per head of this many rows, the two halves that rotate together are interleaved.
    Interleaved { head_dim: usize },
}

impl RowOrder {
    /// Where row `row` of the checkpoint is in the GGUF tensor.
    pub(super) fn source_row(self, row: usize) -> usize {
        match self {
            RowOrder::Same => row,
            RowOrder::Interleaved { head_dim } => {
                let (head, row, half) = (row / head_dim, row % head_dim, head_dim / 2);
                head * head_dim + if row < half { 2 * row } else { 2 * (row - half) + 1 }
            }
        }
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";

/// Accounts for every tensor of the file: all that are needed are there with the right shape, and none is left over.
pub(super) fn layout<'a>(gguf: &Gguf<'a>, hyper: &Hyper) -> Result<Layout<'a>, Problem> {
    let mut tensors = Tensors(gguf.tensors.iter().map(|tensor| (tensor.name, tensor)).collect());
    tensors.0.remove(rope::FACTORS_TENSOR);
    let mut weights = Vec::new();
    let mut keep = |name: String, source: Tensor<'a>, rows| weights.push(Weight { name, source, rows });

    let Hyper { hidden, intermediate, heads, kv_heads, head_dim, .. } = *hyper;
    let query = heads.checked_mul(head_dim);
    let Some((query, key)) = query.map(|query| (query, kv_heads * head_dim)) else {
        return malformed(format!("{heads} heads of {head_dim} elements are too many"));
    };
    let interleaved = match hyper.architecture {
        Architecture::Llama => RowOrder::Interleaved { head_dim },
        Architecture::Qwen2 => RowOrder::Same,
    };
    let projections = [
        ("attn_q", "self_attn.q_proj", query, hidden, interleaved),
        ("attn_k", "self_attn.k_proj", key, hidden, interleaved),
        ("attn_v", "self_attn.v_proj", key, hidden, RowOrder::Same),
        ("attn_output", "self_attn.o_proj", hidden, query, RowOrder::Same),
        ("ffn_gate", "mlp.gate_proj", intermediate, hidden, RowOrder::Same),
        ("ffn_up", "mlp.up_proj", intermediate, hidden, RowOrder::Same),
        ("ffn_down", "mlp.down_proj", hidden, intermediate, RowOrder::Same),
    ];
    let biased = projections.map(|(stored, ..)| tensors.0.contains_key(format!("blk.0.{stored}.bias").as_str()));
    let (attention_bias, mlp_bias) = biases(hyper, biased)?;

    for layer in 0..hyper.layers {
        for (stored, name) in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")] {
            let source = tensors.take(&format!("blk.{layer}.{stored}.weight"), &[hidden])?;
            keep(format!("model.layers.{layer}.{name}.weight"), source, RowOrder::Same);
        }
        for ((stored, name, outputs, inputs, rows), biased) in projections.into_iter().zip(biased) {
            let source = tensors.take(&format!("blk.{layer}.{stored}.weight"), &[outputs, inputs])?;
            keep(format!("model.layers.{layer}.{name}.weight"), source, rows);
            if biased {
                let source = tensors.take(&format!("blk.{layer}.{stored}.bias"), &[outputs])?;
                keep(format!("model.layers.{layer}.{name}.bias"), source, rows);
            }
        }
    }
    keep("model.norm.weight".to_string(), tensors.take("output_norm.weight", &[hidden])?, RowOrder::Same);

    let vocabulary = tensors.0.get("token_embd.weight").map_or(0, |tensor| tensor.shape[0]);
    let embedding = tensors.take("token_embd.weight", &[vocabulary, hidden])?;
    let mut warnings = Vec::new();
    let tied = match tensors.0.contains_key("output.weight") {
        false => {
            keep(EMBEDDING.to_string(), embedding, RowOrder::Same);
            true
        }
        true => {
            let output = tensors.take("output.weight", &[vocabulary, hidden])?;
            let same = same_but_for_noise(&embedding, &output);
            if same {
                warnings.push(format!(
                    "token_embd.weight ({}) and output.weight ({}) are one matrix but for quantisation noise: they are tied",
                    embedding.kind, output.kind
                ));
                // The finer one; the output projection where they are alike.
                let finer = if embedding.kind.noise() < output.kind.noise() { embedding } else { output };
                keep(EMBEDDING.to_string(), finer, RowOrder::Same);
            } else {
                keep(EMBEDDING.to_string(), embedding, RowOrder::Same);
                keep("lm_head.weight".to_string(), output, RowOrder::Same);
            }
            same
        }
    };
    if let Some(name) = tensors.0.keys().next() {
        return unsupported(
            format!("it holds the tensor {name}, which a {} model does not have", hyper.architecture.name()),
            "use a file of a plain Llama, Mistral or Qwen2 model",
        );
    }
    weights.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Layout { weights, vocabulary, tied, attention_bias, mlp_bias, warnings })
}

/// The tensors that no weight has claimed yet.
struct Tensors<'g, 'a>(BTreeMap<&'a str, &'g Tensor<'a>>);

impl<'a> Tensors<'_, 'a> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, Problem> {
        match self.0.remove(name) {
            Some(tensor) if tensor.shape == shape => Ok(tensor.clone()),
            Some(tensor) => {
                malformed(format!("tensor {name} should have the shape {shape:?}, but has {:?}", tensor.shape))
            }
            None => malformed(format!("the tensor {name} is missing")),
        }
    }
}

/// Which biases `config.json` has to announce: only some combinations can be said there.
fn biases(hyper: &Hyper, biased: [bool; 7]) -> Result<(bool, bool), Problem> {
    let [q, k, v, o, gate, up, down] = biased;
    let even = q == k && k == v && gate == up && up == down;
    let may = match (hyper.architecture, hyper.sliding_window) {
        (Architecture::Qwen2, _) => even && q && !o && !gate,
        (Architecture::Llama, None) => even && q == o,
        // Mistral, whose configuration has no word for biases.
        (Architecture::Llama, Some(_)) => !biased.contains(&true),
    };
    match may {
        true => Ok((q, gate)),
        false => unsupported(
            format!(
                "its first layer has biases in a combination that {} models do not have",
                hyper.architecture.name()
            ),
            "use a file of a plain Llama, Mistral or Qwen2 model",
        ),
    }
}

/// Whether two matrices differ by no more than storing them in their types explains.
///
/// The measure is the root-mean-square difference relative to the second's root-mean-square; matrices that were trained
/// apart are at 1 and more. Row by row, so that neither is in memory as a whole.
fn same_but_for_noise(a: &Tensor<'_>, b: &Tensor<'_>) -> bool {
    let bound = a.kind.noise() + b.kind.noise();
    let (mut difference, mut norm) = (0.0, 0.0);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (row_a, row_b) in rows(a).zip(rows(b)) {
        x.clear();
        y.clear();
        a.kind.dequantize(row_a, &mut x);
        b.kind.dequantize(row_b, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            difference += (f64::from(x) - f64::from(y)).powi(2);
            norm += f64::from(y).powi(2);
        }
    }
    // False for NaN: such weights are reported when they are written.
    difference <= bound.powi(2) * norm
}

/// The stored bytes of each row.
pub(super) fn rows<'a>(tensor: &Tensor<'a>) -> std::slice::ChunksExact<'a, u8> {
    tensor.bytes.chunks_exact(tensor.columns() / tensor.kind.block_elements() * tensor.kind.block_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_heads_are_split_into_halves() {
        let order = RowOrder::Interleaved { head_dim: 6 };
        let rows: Vec<usize> = (0..12).map(|row| order.source_row(row)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
