//! The KV cache in memory, by the layout that [`KvLayout`] documents; written down here a second time on purpose.

use crate::guarded::Guarded;
use half::bf16;
use llmc_ir::dtype::DType;
use llmc_ir::eval::StepInputs;
use llmc_ir::op::KvPart;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, KvLayout};
use llmc_ir::testing::Random;
use std::collections::BTreeMap;

/// What positions hold that no sequence of the test has written: the keys and values of a sequence that is gone.
/// Finite, and large enough to show if anything but a mask keeps it out.
const STALE: f32 = 3000.0;

/// The blocks of all sequences. Blocks are given out in random order.
#[derive(Clone, Debug)]
pub struct Pool {
    layout: KvLayout,
    memory: Guarded,
    free: Vec<usize>,
    tables: BTreeMap<u64, Vec<usize>>,
}

/// A step's arrays as compiled code reads them ([`llmc_ir::abi::StepArgs`]).
#[derive(Clone, Debug)]
pub struct Batch {
    /// What the interpreter reads.
    pub step: StepInputs,
    /// Where each row's key and value go.
    pub slots: Vec<i32>,
    /// First row of each sequence, then the number of rows.
    pub starts: Vec<i32>,
    /// Blocks of each sequence.
    pub tables: Vec<i32>,
    /// Entries per sequence in `tables`.
    pub stride: usize,
}

impl Pool {
    /// A pool of `blocks` blocks in which stale keys and values lie.
    pub fn new(layout: KvLayout, blocks: usize, seed: u64) -> Pool {
        let mut random = Random::new(seed);
        let mut free: Vec<usize> = (0..blocks).collect();
        for index in (1..blocks).rev() {
            free.swap(index, random.below(index + 1));
        }
        let memory = Guarded::new(blocks * layout.block_bytes(), 64, 0);
        let mut pool = Pool { layout, memory, free, tables: BTreeMap::new() };
        for layer in 0..layout.layers {
            for slot in 0..blocks * KV_BLOCK_POSITIONS {
                for part in KvPart::ALL {
                    for element in 0..layout.heads * layout.head_dim {
                        let sign = if random.below(2) == 0 { STALE } else { -STALE };
                        pool.set(layer, part, slot, element, sign);
                    }
                }
            }
        }
        pool
    }

    /// Lays a step out, giving its sequences the blocks that they need.
    ///
    /// # Panics
    /// If there are no free blocks, or the step is not sound.
    pub fn batch(&mut self, step: &StepInputs) -> Batch {
        step.check().expect("a sound step");
        let stride = step.bindings().context.div_ceil(KV_BLOCK_POSITIONS);
        let mut batch = Batch { step: step.clone(), slots: Vec::new(), starts: Vec::new(), tables: Vec::new(), stride };
        for (sequence, rows) in step.sequences() {
            let positions = &step.positions[rows.clone()];
            let table = self.tables.entry(sequence).or_default();
            let needed = (positions[positions.len() - 1] as usize + 1).div_ceil(KV_BLOCK_POSITIONS);
            while table.len() < needed {
                table.push(self.free.pop().expect("a free block"));
            }
            batch.starts.push(rows.start as i32);
            batch.slots.extend(positions.iter().map(|&position| slot(table, position as usize) as i32));
            batch.tables.extend(table.iter().take(stride).map(|&block| block as i32));
            // What lies behind a sequence's blocks must not matter, but it must be a block.
            batch.tables.extend(std::iter::repeat_n(0, stride.saturating_sub(table.len())));
        }
        batch.starts.push(step.token_ids.len() as i32);
        batch
    }

    /// The key or value row of one position of a sequence, `heads * head_dim` elements.
    pub fn row(&self, layer: usize, part: KvPart, sequence: u64, position: usize) -> Vec<f64> {
        let slot = slot(&self.tables[&sequence], position);
        let width = self.layout.heads * self.layout.head_dim;
        (0..width).map(|element| self.get(layer, part, slot, element)).collect()
    }

    /// Takes over what `other` holds at the positions that `step` writes.
    pub fn copy_step(&mut self, other: &Pool, step: &StepInputs) {
        for (sequence, rows) in step.sequences() {
            for &position in &step.positions[rows] {
                let slot = slot(&self.tables[&sequence], position as usize);
                for (layer, part) in (0..self.layout.layers).flat_map(|layer| KvPart::ALL.map(|part| (layer, part))) {
                    for element in 0..self.layout.heads * self.layout.head_dim {
                        let at = self.place(layer, part, slot, element);
                        let bytes = self.layout.dtype.bytes();
                        let from = other.memory.bytes()[at..at + bytes].to_vec();
                        self.memory.bytes_mut()[at..at + bytes].copy_from_slice(&from);
                    }
                }
            }
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The memory.
    pub fn memory(&mut self) -> &mut Guarded {
        &mut self.memory
    }

    fn set(&mut self, layer: usize, part: KvPart, slot: usize, element: usize, value: f32) {
        let at = self.place(layer, part, slot, element);
        let bytes = match self.layout.dtype {
            DType::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        self.memory.bytes_mut()[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn get(&self, layer: usize, part: KvPart, slot: usize, element: usize) -> f64 {
        let at = self.place(layer, part, slot, element);
        let bytes = &self.memory.bytes()[at..];
        match self.layout.dtype {
            DType::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
            _ => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        }
    }

    /// Byte offset of one element.
    fn place(&self, layer: usize, part: KvPart, slot: usize, element: usize) -> usize {
        let layout = &self.layout;
        let (block, position) = (slot / KV_BLOCK_POSITIONS, slot % KV_BLOCK_POSITIONS);
        let (head, dim) = (element / layout.head_dim, element % layout.head_dim);
        let padded = layout.padded_head_dim();
        let half = block * layout.block_bytes() + layer * layout.layer_bytes() + 2 * head * layout.half_bytes();
        let index = match (layout.dtype, part) {
            // [2 position tiles][head_dim/32][16 dim pairs][16 positions][2]
            (DType::BF16, KvPart::Key) => {
                let line = ((position / 16 * (padded / 32) + dim / 32) * 16 + dim % 32 / 2) * 16 + position % 16;
                line * 2 + dim % 2
            }
            // [head_dim/16][16 position pairs][16 dims][2]
            (DType::BF16, KvPart::Value) => ((dim / 16 * 16 + position / 2) * 16 + dim % 16) * 2 + position % 2,
            // [2 position tiles][head_dim][16 positions]
            (_, KvPart::Key) => (position / 16 * padded + dim) * 16 + position % 16,
            // [head_dim/16][32 positions][16 dims]
            (_, KvPart::Value) => (dim / 16 * 32 + position) * 16 + dim % 16,
        };
        let part = if part == KvPart::Key { 0 } else { layout.half_bytes() };
        half + part + index * layout.dtype.bytes()
    }
}

fn slot(table: &[usize], position: usize) -> usize {
    table[position / KV_BLOCK_POSITIONS] * KV_BLOCK_POSITIONS + position % KV_BLOCK_POSITIONS
}
