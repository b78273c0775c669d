//! What a step reads first: its sizes and arrays, gathered in one pinned buffer and copied to the GPU at once.
//!
//! Everything has its place once and for all, because the places are arguments of recorded launches.

use super::driver::Gpu;
use super::error::CudaError;
use super::memory::{DeviceMemory, Pinned};
use crate::executor::StepInputs;
use cudarc::driver::DriverError;
use llmc_ir::gpu::GpuStepArgs;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan, StepInput};

/// Alignment of each array.
const ALIGN: u64 = 256;

/// Where each array begins, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    token_ids: u64,
    positions: u64,
    sample_rows: u64,
    slots: u64,
    sequence_starts: u64,
    block_tables: u64,
    /// Bytes of everything.
    pub bytes: u64,
}

impl Layout {
    /// Room for the largest step of each program.
    pub fn new(plan: &Plan) -> Layout {
        let most = |size: fn(&llmc_ir::dim::Bindings) -> usize| {
            plan.programs.iter().map(|program| size(&program.bounds.max) as u64).max().unwrap_or(0)
        };
        let (tokens, samples, sequences) = (most(|max| max.tokens), most(|max| max.samples), most(|max| max.sequences));
        let blocks = most(|max| max.context.div_ceil(KV_BLOCK_POSITIONS));
        let mut end = size_of::<GpuStepArgs>() as u64;
        let mut place = |elements: u64| {
            let start = end.next_multiple_of(ALIGN);
            end = start + 4 * elements;
            start
        };
        Layout {
            token_ids: place(tokens),
            positions: place(tokens),
            sample_rows: place(samples),
            slots: place(tokens),
            sequence_starts: place(sequences + 1),
            // Last, so that only as much of it is copied as the step has.
            block_tables: place(sequences * blocks),
            bytes: end,
        }
    }
}

/// The inputs of the step that runs, on both sides.
pub(super) struct StepBuffer {
    layout: Layout,
    device: DeviceMemory,
    staging: Pinned,
}

impl StepBuffer {
    /// Takes the memory.
    pub fn allocate(gpu: &Gpu, layout: Layout) -> Result<StepBuffer, CudaError> {
        let device = DeviceMemory::allocate(gpu, layout.bytes, "reserving memory for a step's inputs")?;
        Ok(StepBuffer { layout, device, staging: Pinned::allocate(gpu, layout.bytes)? })
    }

    /// Address of the [`GpuStepArgs`] on the device.
    pub fn args(&self) -> u64 {
        self.device.address()
    }

    /// Address of an array on the device.
    pub fn input(&self, input: StepInput) -> u64 {
        self.device.address()
            + match input {
                StepInput::TokenIds => self.layout.token_ids,
                StepInput::Positions => self.layout.positions,
                StepInput::SampleRows => self.layout.sample_rows,
            }
    }

    /// Copies a step's inputs to the device, before later work of the stream.
    ///
    /// # Safety
    /// The stream must have got past the previous call, and must get past this one before the next and before this
    /// buffer is dropped.
    pub unsafe fn send(&mut self, gpu: &Gpu, inputs: &StepInputs) -> Result<(), DriverError> {
        let used = fill(self.staging.bytes_mut(), &self.layout, self.device.address(), inputs);
        // SAFETY: as the caller promises.
        unsafe { self.device.copy_from(gpu, 0, &self.staging.bytes()[..used]) }
    }
}

/// Lays the inputs out for a buffer that will be at `base` on the device; returns how many bytes that takes.
fn fill(buffer: &mut [u8], layout: &Layout, base: u64, inputs: &StepInputs) -> usize {
    let args = GpuStepArgs {
        tokens: inputs.token_ids.len() as u64,
        sequences: inputs.sequence_starts.len() as u64 - 1,
        samples: inputs.sample_rows.len() as u64,
        block_table_stride: inputs.block_table_stride as u64,
        token_ids: base + layout.token_ids,
        positions: base + layout.positions,
        sample_rows: base + layout.sample_rows,
        slots: base + layout.slots,
        sequence_starts: base + layout.sequence_starts,
        block_tables: base + layout.block_tables,
    };
    put(buffer, 0, fields(&args).into_iter().map(u64::to_le_bytes));
    let arrays = [
        (layout.token_ids, &inputs.token_ids),
        (layout.positions, &inputs.positions),
        (layout.sample_rows, &inputs.sample_rows),
        (layout.slots, &inputs.slots),
        (layout.sequence_starts, &inputs.sequence_starts),
        (layout.block_tables, &inputs.block_tables),
    ];
    for (start, array) in arrays {
        put(buffer, start, array.iter().map(|element| element.to_le_bytes()));
    }
    (layout.block_tables as usize) + 4 * inputs.block_tables.len()
}

fn put<const N: usize>(buffer: &mut [u8], start: u64, elements: impl Iterator<Item = [u8; N]>) {
    let places = buffer[start as usize..].chunks_exact_mut(N);
    places.zip(elements).for_each(|(place, element)| place.copy_from_slice(&element));
}

/// The fields in the order in which they lie in memory.
fn fields(args: &GpuStepArgs) -> [u64; 10] {
    let GpuStepArgs { tokens, sequences, samples, block_table_stride, token_ids, positions, .. } = *args;
    let GpuStepArgs { sample_rows, slots, sequence_starts, block_tables, .. } = *args;
    [
        tokens,
        sequences,
        samples,
        block_table_stride,
        token_ids,
        positions,
        sample_rows,
        slots,
        sequence_starts,
        block_tables,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_lie_where_the_arguments_say() {
        let mut inputs = StepInputs::default();
        inputs.token_ids.extend([11, 12, 13]);
        inputs.positions.extend([40, 0, 1]);
        inputs.sample_rows.extend([0, 2]);
        inputs.slots.extend([8, 32, 33]);
        inputs.sequence_starts.extend([0, 1, 3]);
        inputs.block_tables.extend([7, 0, 1, 0]);
        inputs.block_table_stride = 2;
        let layout = Layout {
            token_ids: 256,
            positions: 512,
            sample_rows: 768,
            slots: 1024,
            sequence_starts: 1280,
            block_tables: 1536,
            bytes: 2048,
        };
        let mut buffer = vec![0; 2048];
        assert_eq!(fill(&mut buffer, &layout, 1 << 20, &inputs), 1536 + 16);
        let word = |at: usize| u64::from_le_bytes(buffer[at..at + 8].try_into().unwrap());
        let words: Vec<u64> = (0..10).map(|field| word(8 * field)).collect();
        assert_eq!(words[..4], [3, 2, 2, 2]);
        let array = |field: usize, count: usize| -> Vec<i32> {
            let start = (words[field] - (1 << 20)) as usize;
            let element = |at: usize| i32::from_le_bytes(buffer[start + 4 * at..][..4].try_into().unwrap());
            (0..count).map(element).collect()
        };
        assert_eq!(array(4, 3), inputs.token_ids);
        assert_eq!(array(5, 3), inputs.positions);
        assert_eq!(array(6, 2), inputs.sample_rows);
        assert_eq!(array(7, 3), inputs.slots);
        assert_eq!(array(8, 3), inputs.sequence_starts);
        assert_eq!(array(9, 4), inputs.block_tables);
    }
}
