//! How a plan runs on a GPU: the device kernels that each of its launches becomes, and their grids.
//!
//! Every device kernel takes 64-bit pointers into device memory: `(args, workspace, inputs…, outputs…)`. `args` points to
//! a [`GpuStepArgs`], `workspace` to memory that all launches of a step share one after the other, and the rest are the
//! operands of the plan's launch in its order, the weights' and the cache's addresses included. So a launch's arguments do
//! not change from step to step: a step can be recorded once for a size and replayed with other contents of `args`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a step reads first, in device memory; all pointers are device addresses. The fields are the first ones of
/// [`crate::abi::StepArgs`], at the same offsets and with the same meaning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuStepArgs {
    /// Rows of activations. A grid may be made for more: its surplus blocks do nothing.
    pub tokens: u64,
    /// Sequences that take part.
    pub sequences: u64,
    /// Rows whose logits are wanted.
    pub samples: u64,
    /// Distance between the block tables of two sequences, in entries.
    pub block_table_stride: u64,
    /// `i32[tokens]`.
    pub token_ids: u64,
    /// `i32[tokens]`.
    pub positions: u64,
    /// `i32[samples]`.
    pub sample_rows: u64,
    /// `i32[tokens]`.
    pub slots: u64,
    /// `i32[sequences + 1]`.
    pub sequence_starts: u64,
    /// `i32[sequences, block_table_stride]`.
    pub block_tables: u64,
}

/// A plan's programs on one GPU architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCode {
    /// Bytes of the workspace that every step needs.
    pub workspace_bytes: u64,
    /// Parallel to those of the plan's programs that a GPU runs.
    pub programs: Vec<GpuProgram>,
}

/// One program's kernels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProgram {
    /// By the name of the plan's kernel: what it becomes, in order of execution.
    pub kernels: BTreeMap<String, Vec<GridLaunch>>,
}

/// One device kernel over a grid of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridLaunch {
    /// The kernel's name in the PTX module.
    pub symbol: String,
    /// Blocks along x, y and z.
    pub grid: [Extent; 3],
    /// Threads of a block, along x.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

/// How many blocks there are along one axis: `count.div_ceil(per) * times`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// What is counted.
    pub count: Count,
    /// How many of them one block takes.
    pub per: u32,
    /// Blocks beside each other for the same ones.
    pub times: u32,
}

/// Sizes of a step that a grid depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// One, whatever the step.
    One,
    /// [`GpuStepArgs::tokens`].
    Tokens,
    /// [`GpuStepArgs::sequences`].
    Sequences,
    /// [`GpuStepArgs::samples`].
    Samples,
}

impl Count {
    /// How many there are in a step of that many tokens, sequences and samples.
    pub fn of(self, tokens: u32, sequences: u32, samples: u32) -> u32 {
        match self {
            Count::One => 1,
            Count::Tokens => tokens,
            Count::Sequences => sequences,
            Count::Samples => samples,
        }
    }
}

impl Extent {
    /// The number of blocks of a step of that many tokens, sequences and samples.
    pub fn blocks(&self, tokens: u32, sequences: u32, samples: u32) -> u32 {
        self.count.of(tokens, sequences, samples).div_ceil(self.per) * self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::StepArgs;
    use std::mem::offset_of;

    #[test]
    fn steps_begin_as_on_the_host() {
        assert_eq!(offset_of!(GpuStepArgs, tokens), offset_of!(StepArgs, tokens));
        assert_eq!(offset_of!(GpuStepArgs, sequences), offset_of!(StepArgs, sequences));
        assert_eq!(offset_of!(GpuStepArgs, samples), offset_of!(StepArgs, samples));
        assert_eq!(offset_of!(GpuStepArgs, block_table_stride), offset_of!(StepArgs, block_table_stride));
        assert_eq!(offset_of!(GpuStepArgs, token_ids), offset_of!(StepArgs, token_ids));
        assert_eq!(offset_of!(GpuStepArgs, positions), offset_of!(StepArgs, positions));
        assert_eq!(offset_of!(GpuStepArgs, sample_rows), offset_of!(StepArgs, sample_rows));
        assert_eq!(offset_of!(GpuStepArgs, slots), offset_of!(StepArgs, slots));
        assert_eq!(offset_of!(GpuStepArgs, sequence_starts), offset_of!(StepArgs, sequence_starts));
        assert_eq!(offset_of!(GpuStepArgs, block_tables), offset_of!(StepArgs, block_tables));
    }
}
