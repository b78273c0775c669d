//! Work: kernels and fills, done at once or recorded into a graph.

use super::{Driver, Function, refused, say};
use crate::status::Status;
use llmc_ptx_emulator::{Argument, FaultKind, LaunchConfig, LaunchError, launch};
use std::sync::Arc;

/// Something that a stream does.
#[derive(Clone)]
pub enum Work {
    /// Runs a kernel.
    Kernel(Launch),
    /// Sets bytes of device memory.
    Fill {
        /// The first of them.
        address: u64,
        /// What they become.
        value: u8,
        /// How many.
        bytes: u64,
    },
    /// Copies inside of device memory.
    Copy {
        /// Where to.
        to: u64,
        /// Where from.
        from: u64,
        /// How many bytes.
        bytes: u64,
    },
}

/// A kernel with everything that it is launched with.
#[derive(Clone)]
pub struct Launch {
    function: Function,
    config: LaunchConfig,
    arguments: Vec<Argument>,
}

impl Driver {
    /// Makes a launch of a function, if its sizes are allowed.
    pub fn launch(
        &self,
        function: u64,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        arguments: Vec<Argument>,
    ) -> Result<Launch, Status> {
        let facts = self.facts(function)?;
        let function = self.functions.get(&function).ok_or(Status::INVALID_HANDLE)?.clone();
        let config = LaunchConfig::new(grid, block, shared);
        if shared > facts.dynamic_shared {
            let (name, most) = (&function.name, facts.dynamic_shared);
            say(&format!("launch of `{name}`: {shared} bytes of dynamic shared memory, its attribute allows {most}"));
            return Err(Status::INVALID_VALUE);
        }
        if config.threads() > facts.threads {
            say(&format!("launch of `{}`: {} threads, it allows {}", function.name, config.threads(), facts.threads));
            return Err(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        if grid.contains(&0) || block.contains(&0) || grid[1] > 0xffff || grid[2] > 0xffff {
            say(&format!("launch of `{}`: a grid of {grid:?} blocks of {block:?} threads", function.name));
            return Err(Status::INVALID_VALUE);
        }
        Ok(Launch { function, config, arguments })
    }

    /// Does a stream's work, or records it.
    pub fn submit(&mut self, stream: u64, work: Work) -> Result<(), Status> {
        match self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)? {
            Some(recording) => {
                recording.work.push(work);
                Ok(())
            }
            None => self.perform(&work),
        }
    }

    /// Does the work of a graph.
    pub fn launch_graph(&mut self, graph: u64, stream: u64) -> Result<(), Status> {
        self.refuse_if_recording(stream)?;
        let work = Arc::clone(self.graphs.get(&graph).ok_or(Status::INVALID_HANDLE)?);
        self.counts.graph_launches += 1;
        work.iter().try_for_each(|work| self.perform(work))
    }

    /// A fault is not this call's error but that of the calls to come.
    fn perform(&mut self, work: &Work) -> Result<(), Status> {
        if self.failed.is_some() {
            return Ok(());
        }
        match work {
            Work::Fill { address, value, bytes } => self.memory.fill(*address, *value, *bytes).map_err(refused),
            Work::Copy { to, from, bytes } => self.memory.copy(*to, *from, *bytes).map_err(refused),
            Work::Kernel(kernel) => {
                self.failed = self.run_kernel(kernel).err();
                Ok(())
            }
        }
    }

    fn run_kernel(&mut self, Launch { function, config, arguments }: &Launch) -> Result<(), Status> {
        let name = &function.name;
        if self.settings.fault.as_ref().is_some_and(|part| name.contains(part)) {
            say(&format!("kernel `{name}` fails, as the settings ask"));
            return Err(Status::LAUNCH_FAILED);
        }
        let counters = launch(&function.module, name, *config, arguments, &mut self.memory).map_err(|error| {
            say(&error.to_string());
            status(&error)
        })?;
        self.counts.add(name, &counters);
        Ok(())
    }
}

fn status(error: &LaunchError) -> Status {
    let LaunchError::Fault(fault) = error else { return Status::INVALID_VALUE };
    match fault.kind {
        FaultKind::OutOfBounds { .. } | FaultKind::ReadOnly { .. } => Status::ILLEGAL_ADDRESS,
        FaultKind::Misaligned { .. } => Status::MISALIGNED_ADDRESS,
        FaultKind::InstructionLimit { .. } => Status::LAUNCH_TIMEOUT,
        _ => Status::LAUNCH_FAILED,
    }
}
