//! Recorded steps: the launches of a program for one size of step, replayed with one call of the driver.
//!
//! Steps come in many sizes, and a recording is for one. So sizes are rounded up, by a third at most: the surplus blocks
//! of a grid look at the step's real sizes in device memory and end.

use super::driver::Gpu;
use super::launches::{GridSizes, Kernel};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, DriverError};
use llmc_ir::dim::Bindings;
use std::collections::BTreeMap;

/// Recordings that are kept.
const MOST: usize = 64;

/// Recordings by program and size.
#[derive(Default)]
pub(super) struct Graphs {
    recorded: BTreeMap<(usize, GridSizes), Recording>,
    /// Counts replays, to know which recording has not been used for the longest time.
    clock: u64,
}

struct Recording {
    graph: CudaGraph,
    used: u64,
}

// SAFETY: a recording may be used from any thread, by one at a time, which `&mut` makes sure of.
unsafe impl Send for Graphs {}

impl Graphs {
    /// Runs a program's launches for a step that fits `sizes`, after recording them if that is the first one.
    ///
    /// # Safety
    /// As for [`Kernel::launch`], until the recording is dropped.
    pub unsafe fn run(
        &mut self,
        gpu: &Gpu,
        program: usize,
        sizes: GridSizes,
        kernels: &mut [Kernel],
    ) -> Result<(), DriverError> {
        self.clock += 1;
        let key = (program, sizes);
        if !self.recorded.contains_key(&key) {
            if self.recorded.len() >= MOST {
                let oldest = self.recorded.iter().min_by_key(|(_, recording)| recording.used).map(|(key, _)| *key);
                oldest.map(|key| self.recorded.remove(&key));
            }
            // SAFETY: as the caller promises.
            let graph = unsafe { record(gpu, sizes, kernels) }?;
            self.recorded.insert(key, Recording { graph, used: 0 });
        }
        match self.recorded.get_mut(&key) {
            Some(recording) => {
                recording.used = self.clock;
                recording.graph.launch()
            }
            None => Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)),
        }
    }
}

/// Records launches.
///
/// # Safety
/// As for [`Kernel::launch`].
unsafe fn record(gpu: &Gpu, sizes: GridSizes, kernels: &mut [Kernel]) -> Result<CudaGraph, DriverError> {
    let stream = &gpu.stream;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    // SAFETY: as the caller promises.
    let launched = kernels.iter_mut().try_for_each(|kernel| unsafe { kernel.launch(sizes, stream) });
    // Ends the recording after an error too, so that the stream can be used.
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    launched?;
    graph?.ok_or(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))
}

/// The sizes that a step is recorded for: at least its own, and at most what the program takes.
pub(super) fn padded(tokens: usize, sequences: usize, samples: usize, max: &Bindings) -> GridSizes {
    GridSizes {
        tokens: round_up(tokens, max.tokens),
        sequences: round_up(sequences, max.sequences),
        samples: round_up(samples, max.samples),
    }
}

/// The next power of two, or three quarters of it: 1, 2, 3, 4, 6, 8, 12, 16, 24, ...
fn round_up(size: usize, most: usize) -> u32 {
    if size == 0 {
        return 0;
    }
    let power = size.next_power_of_two();
    let between = power / 4 * 3;
    let rounded = if between >= size { between } else { power };
    rounded.min(most) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_by_a_third_at_most() {
        let rounded = |size| round_up(size, 1 << 20);
        assert_eq!(
            (0..=17).map(rounded).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]
        );
        for size in 3..5000 {
            let rounded = rounded(size) as usize;
            assert!(rounded >= size && 3 * (rounded - size) <= 2 * size, "{size}: {rounded}");
        }
        assert_eq!(round_up(100, 110), 110);
        assert_eq!(round_up(33, 512), 48);
    }
}
