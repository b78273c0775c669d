//! What kernels did in a process, added up by kernel, and the file that it goes to at the end.

use llmc_ptx_emulator::Counters;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The variable with the file's name.
pub const VARIABLE: &str = "LLMC_FAKE_CUDA_COUNTERS";

/// Everything that is counted.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// The device's name.
    pub device: String,
    /// Kernels run, on their own or in graphs.
    pub launches: u64,
    /// Graphs made ready to run.
    pub graphs: u64,
    /// Times that a graph ran.
    pub graph_launches: u64,
    /// Bytes copied from the host.
    pub bytes_to_device: u64,
    /// Bytes copied to the host.
    pub bytes_to_host: u64,
    /// The most bytes of device memory in use at once.
    pub peak_memory_bytes: u64,
    /// The sum over all kernels.
    pub total: Counters,
    /// By kernel.
    pub kernels: BTreeMap<String, KernelCounts>,
}

/// What one kernel did.
#[derive(Debug, Default, Serialize)]
pub struct KernelCounts {
    /// Times that it ran.
    pub launches: u64,
    /// The sum over them.
    pub counters: Counters,
}

impl Counts {
    /// Adds a launch.
    pub fn add(&mut self, kernel: &str, counters: &Counters) {
        let entry = self.kernels.entry(kernel.to_owned()).or_default();
        entry.launches += 1;
        entry.counters += counters;
        self.launches += 1;
        self.total += counters;
    }

    /// Writes the file if one is asked for.
    pub fn write(&self) {
        let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|bytes| std::fs::write(&path, bytes)) {
            eprintln!("fake-cuda: cannot write the counters to {}: {error}", path.display());
        }
    }
}
