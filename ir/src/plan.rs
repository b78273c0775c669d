//! The plan: what a compiled model consists of, as data. It is all that the runtime knows of a model.

pub mod compressed;

use crate::dim::Bounds;
use crate::dtype::DType;
use crate::machine::Processor;
use serde::{Deserialize, Serialize};

/// Positions of one KV cache block. 32 makes a block's keys and values whole matrix-unit tiles.
pub const KV_BLOCK_POSITIONS: usize = 32;

/// A compiled model: facts, memory layout and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What the checkpoint said.
    pub model: ModelFacts,
    /// How the KV cache lies in memory.
    pub kv: KvLayout,
    /// The packed weights in the order of the weight table ([`crate::abi::StepArgs::weights`]).
    pub weights: Vec<PackedWeight>,
    /// One program per specialisation, the tightest first.
    pub programs: Vec<Program>,
}

impl Plan {
    /// The programs that a kind of processor runs.
    pub fn programs_on(&self, processor: Processor) -> impl Iterator<Item = &Program> + Clone {
        self.programs.iter().filter(move |program| program.processor == processor)
    }

    /// The plan with no other programs than those that a kind of processor runs.
    pub fn on(&self, processor: Processor) -> Plan {
        Plan { programs: self.programs_on(processor).cloned().collect(), ..self.clone() }
    }
}

/// Facts about a model that a runtime or a user asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The architecture's name in config.json, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// Element type of the weights and of the activations that feed matrix products.
    pub dtype: DType,
    /// Size of the vocabulary: columns of the logits.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// The most positions that a sequence may have.
    pub max_context: usize,
    /// The most sequences in one step.
    pub max_batch: usize,
    /// Number of parameters as counted in the checkpoint.
    pub parameters: u64,
}

/// The KV cache's memory. The pool is an array of blocks; a block holds [`KV_BLOCK_POSITIONS`]
/// positions of one sequence for all layers and heads: `[layer][kv head][keys | values]`.
///
/// For `bf16` the keys of a head are tiles `[2 position tiles][head_dim/32][16 dim pairs][16
/// positions][2]` and the values `[head_dim/16][16 position pairs][16 dims][2]`; for `f32` keys are
/// `[2 position tiles][head_dim][16 positions]` and values `[head_dim/16][32 positions][16 dims]`.
/// `padded_head_dim` is `head_dim` rounded up to 32, the padding being zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvLayout {
    /// Number of layers that have a cache.
    pub layers: usize,
    /// Key/value heads per layer.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: DType,
}

impl KvLayout {
    /// `head_dim` rounded up to whole tiles.
    pub fn padded_head_dim(&self) -> usize {
        self.head_dim.next_multiple_of(32)
    }

    /// Bytes of the keys (or of the values) of one head in one block.
    pub fn half_bytes(&self) -> usize {
        KV_BLOCK_POSITIONS * self.padded_head_dim() * self.dtype.bytes()
    }

    /// Bytes from one layer's part of a block to the next layer's.
    pub fn layer_bytes(&self) -> usize {
        2 * self.half_bytes() * self.heads
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        self.layer_bytes() * self.layers
    }
}

/// How the elements of a weight lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// As in the checkpoint: the last axis is contiguous.
    RowMajor,
    /// A matrix `[n, k]` in panels of 32 rows, zero-padded to multiples of 32 both ways.
    /// `bf16`: `[n/32][k/32][2 tiles of 16 rows][16 k pairs][16 rows][2]` (each tile is the second
    /// operand of a matrix unit); `f32`: `[n/32][k][32 rows]`.
    Panels,
    /// The same in bf16 with three quarters of the bytes, and the same values. The upper byte of an element, a sign and seven bits of
    /// exponent, is replaced by a code of 4 bits: one bit is the sign, and eight exponents are nearly all there are in a panel.
    ///
    /// A panel of 32 rows: `u8[16]` upper bytes by code, `u8[k/32]` flags, filled up with zeros to whole lines of 64 bytes;
    /// then `[k/32][4 quarters][2 tiles of 16 rows]` of 192 bytes. A quarter of a tile is what [`WeightLayout::Panels`] has as four
    /// lines of 64 bytes: `u8[2][64]` lower bytes, of two lines each, and `u8[64]` codes, in the lower half of a byte for an element of the first two
    /// lines, in the upper half for one of the others. Of two lines, 16 bytes are the elements 8 i to 8 i + 7 of the first and then of
    /// the second, for i from 0 to 3.
    ///
    /// A quarter with an upper byte that has no code is flagged, by bit `2 quarter + tile`. In place of codes it has an `i64`, the distance
    /// in bytes from there to its upper bytes, in the order of the lower ones: `u8[2][64]`, behind all panels.
    Compressed,
    /// A matrix `[n, k]` rounded to 8 bits: an element is about `scale (u - 128)`. Panels of 32 rows, padded to multiples
    /// of 32 rows and 4 k: `f32[32]` scales, `f32[32]` lengths of what rounding takes from a row, `f32[32]` lengths of rows (negative
    /// infinity for padding), of which both are rounded up, then `u8[k/4][2 tiles of 16 rows][16 rows][4 k]`.
    Rounded,
}

/// One entry of the weight table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedWeight {
    /// The checkpoint's names of the tensors it was made of, joined with `+`.
    pub name: String,
    /// Element type after packing.
    pub dtype: DType,
    /// Shape before padding.
    pub shape: Vec<usize>,
    /// How its elements lie in memory.
    pub layout: WeightLayout,
    /// Size in bytes, padding included.
    pub bytes: u64,
}

impl PackedWeight {
    /// Whether code for a kind of processor reads it: only CPUs search by rounded weights.
    pub fn is_read_by(&self, processor: Processor) -> bool {
        processor == Processor::Cpu || self.layout != WeightLayout::Rounded
    }
}

/// One specialisation: what a step of it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// `decode`, `prefill`, ...
    pub name: String,
    /// What runs it.
    pub processor: Processor,
    /// The steps that it can run.
    pub bounds: Bounds,
    /// Bytes of activations ([`crate::abi::StepArgs::arena`]).
    pub arena_bytes: u64,
    /// The functions that the calls refer to.
    pub functions: Vec<PlannedFunction>,
    /// The step: functions in order of execution.
    pub calls: Vec<PlannedCall>,
    /// What no step can do without.
    pub work: Work,
    /// How it finds the largest logits; `None`: all are wanted and looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
}

/// How the largest logit of each row, or some of the largest, are found without writing all of them, and the largest, if
/// there are rounded weights, without computing all: a product with those, half as many bytes, says within which bounds each
/// logit lies, and those that may be the largest are computed. What is found is what would be found among all logits, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The function that has the launch that makes the logits, an index into [`Program::functions`].
    pub function: usize,
    /// Which of its launches that is: a product of its first input with the weight that is its second, nothing else.
    pub launch: usize,
    /// Rounded weights, if there are any.
    pub rounded: Option<Rounded>,
}

/// Rounded weights in place of those that logits are products with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounded {
    /// An index into [`Plan::weights`].
    pub weight: usize,
    /// Rows of logits up to which they are used: with more of them computing columns costs more than they save.
    pub rows: usize,
    /// [`Work::weight_bytes`] of a step that reads rounded weights.
    pub weight_bytes: u64,
    /// [`Work::flops_per_token`] of such a step. An operation in 8 bits counts as a quarter: vectors hold four times as many
    /// numbers as in f32, and no CPU does less in bf16.
    pub flops_per_token: u64,
}

/// What a step is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Goal {
    /// All logits.
    Logits,
    /// The largest logit of each row ([`Program::search`]): in place of logits the step writes [`crate::abi::Found`].
    Largest,
    /// The same by rounded weights.
    Search,
    /// Some of the largest logits of each row: [`crate::abi::Listed`].
    Candidates,
}

impl Goal {
    /// What the names of its functions end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Goal::Logits => "",
            Goal::Largest => ".largest",
            Goal::Search => ".search",
            Goal::Candidates => ".candidates",
        }
    }
}

/// What every step of a program has to move and compute, whatever its code: the floor under its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Bytes of weights, each once. Tables that rows are looked up in do not count.
    pub weight_bytes: u64,
    /// Operations of products with weights per token, a multiply-add being two.
    pub flops_per_token: u64,
    /// Those of them that are taken in block floating point: [`crate::block_float`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub block_float_flops_per_token: u64,
    /// The same as the first per row of logits.
    pub flops_per_sample: u64,
    /// What attention adds, by how far it looks back.
    pub attention: Vec<AttentionWork>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The part of a step's attention, of all layers, that looks back equally far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionWork {
    /// The most positions that a token sees; `None`: all before it.
    pub window: Option<usize>,
    /// Bytes of keys and values per position and sequence.
    pub bytes_per_position: u64,
    /// Operations per token and position that it sees.
    pub flops_per_position: u64,
}

impl Work {
    /// Bytes that a step reads of weights and of the caches of its sequences, which come to have so many positions each.
    pub fn bytes(&self, contexts: impl Iterator<Item = usize> + Clone) -> f64 {
        let cache = |part: &AttentionWork| part.bytes_per_position as f64 * part.seen(contexts.clone());
        self.weight_bytes as f64 + self.attention.iter().map(cache).sum::<f64>()
    }

    /// Operations of matrix products of a step with tokens at those positions, and so many rows of logits.
    pub fn flops(&self, positions: impl Iterator<Item = usize> + Clone, samples: usize) -> f64 {
        let tokens = positions.clone().count() as f64;
        let contexts = positions.map(|position| position + 1);
        let attention = |part: &AttentionWork| part.flops_per_position as f64 * part.seen(contexts.clone());
        self.flops_per_token as f64 * tokens
            + self.flops_per_sample as f64 * samples as f64
            + self.attention.iter().map(attention).sum::<f64>()
    }
}

impl AttentionWork {
    /// Positions that are seen of contexts, in all.
    fn seen(&self, contexts: impl Iterator<Item = usize>) -> f64 {
        contexts.map(|context| self.window.map_or(context, |window| window.min(context)) as f64).sum()
    }
}

impl Program {
    /// The name of the entry point in the native code. There is one for logits; others there may be.
    pub fn entry_symbol(&self, goal: Goal) -> String {
        format!("llmc_{}{}", self.name, goal.suffix())
    }

    /// What no step can do without that is run for a goal.
    pub fn work_for(&self, goal: Goal) -> Work {
        match self.search.as_ref().and_then(|search| search.rounded).filter(|_| goal == Goal::Search) {
            Some(Rounded { weight_bytes, flops_per_token, .. }) => {
                Work { weight_bytes, flops_per_token, ..self.work.clone() }
            }
            None => self.work.clone(),
        }
    }

    /// Kernel launches in one step.
    pub fn launches_per_step(&self) -> usize {
        self.calls.iter().map(|call| self.functions[call.function].launches.len()).sum()
    }
}

/// A function after planning: launches over memory, no operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedFunction {
    /// The function's name in the IR, such as `layer`.
    pub name: String,
    /// Kernels in order of execution.
    pub launches: Vec<Launch>,
}

/// One call of a planned function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCall {
    /// Index into [`Program::functions`].
    pub function: usize,
    /// What [`Operand::Weight`] slots of the function are relative to: per slot the index into
    /// [`Plan::weights`].
    pub weights: Vec<usize>,
    /// Which layer of the KV cache it uses.
    pub kv_layer: usize,
}

/// One kernel over its operands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Name of the kernel, unique in the program.
    pub kernel: String,
    /// Where inputs come from, in the order of the region's inputs.
    pub inputs: Vec<Operand>,
    /// Where outputs go, in the order of the region's outputs.
    pub outputs: Vec<Operand>,
    /// Whether every thread must have finished the launches before this one.
    pub barrier: bool,
}

/// A place in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// Activations, at a byte offset into the arena.
    Arena {
        /// Offset in bytes.
        offset: u64,
        /// Size in bytes at the upper bounds.
        bytes: u64,
    },
    /// An entry of [`PlannedCall::weights`].
    Weight {
        /// Index into that list.
        slot: usize,
    },
    /// An input that the runtime prepares for each step.
    Step {
        /// Which one.
        input: StepInput,
    },
    /// The KV cache of the call's layer.
    Kv,
    /// The result of the step: `f32[samples, vocab]`.
    Logits,
}

/// What the runtime hands to every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepInput {
    /// `i32[tokens]`: the token of each row.
    TokenIds,
    /// `i32[tokens]`: the position of each row in its sequence.
    Positions,
    /// `i32[samples]`: the rows whose logits are wanted.
    SampleRows,
}

impl StepInput {
    /// Every step input, in declaration order.
    pub const ALL: [StepInput; 3] = [StepInput::TokenIds, StepInput::Positions, StepInput::SampleRows];

    /// The name used in the text form.
    pub fn name(self) -> &'static str {
        match self {
            StepInput::TokenIds => "token_ids",
            StepInput::Positions => "positions",
            StepInput::SampleRows => "sample_rows",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_with_contexts_as_far_as_they_are_seen() {
        let part = |window| AttentionWork { window, bytes_per_position: 10, flops_per_position: 100 };
        let work = Work {
            weight_bytes: 1000,
            flops_per_token: 7,
            block_float_flops_per_token: 0,
            flops_per_sample: 3,
            attention: vec![part(None), part(Some(4))],
        };
        assert_eq!(work.bytes([3, 9].into_iter()), 1000.0 + 10.0 * 12.0 + 10.0 * 7.0);
        assert_eq!(work.flops([2, 3, 8].into_iter(), 2), 21.0 + 6.0 + 100.0 * 16.0 + 100.0 * 11.0);
        assert_eq!(work.bytes(std::iter::empty()), 1000.0);
    }
}
