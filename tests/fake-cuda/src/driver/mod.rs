//! What a driver keeps for a process: device memory, modules, streams, graphs, and the error that ends them all.
//!
//! [`run`](self) holds the work that streams and graphs consist of; this file holds the rest. All handles are numbers.

mod run;
#[cfg(test)]
mod tests;

use crate::counts::Counts;
use crate::settings::Settings;
use crate::status::Status;
use llmc_ptx_emulator::{Memory, MemoryError, Module};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

pub use run::Work;

/// Dynamic shared memory that a launch may have unless the function's attribute allows more, in bytes.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// The driver of a process.
pub struct Driver {
    /// Its device.
    pub settings: Settings,
    /// What happened so far.
    pub counts: Counts,
    memory: Memory,
    modules: BTreeMap<u64, Arc<Module>>,
    functions: BTreeMap<u64, Function>,
    /// Streams by handle, with the recordings of those that are being recorded. 0 is the default stream.
    streams: BTreeMap<u64, Option<Recording>>,
    /// Events by handle, with the time of those that were recorded.
    events: BTreeMap<u64, Option<Instant>>,
    graphs: BTreeMap<u64, Arc<Vec<Work>>>,
    failed: Option<Status>,
    /// Copies to the host so far.
    results: u64,
    last_handle: u64,
}

/// A stream's work since recording began.
struct Recording {
    work: Vec<Work>,
    /// Where calls that cannot be recorded are refused meanwhile; `None`: everywhere.
    thread: Option<ThreadId>,
}

/// Who may not make calls that cannot be recorded while a stream is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// Nobody.
    Global,
    /// The thread that records.
    ThreadLocal,
}

#[derive(Clone)]
struct Function {
    module: Arc<Module>,
    name: String,
    /// Dynamic shared memory that a launch may have.
    most_shared: u32,
}

/// What can be asked about a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionFacts {
    /// Threads that a block may have.
    pub threads: u32,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of dynamic shared memory that a launch may have.
    pub dynamic_shared: u32,
    /// Bytes of local memory of a thread.
    pub local: u32,
}

impl Driver {
    /// A driver with nothing in use.
    pub fn new(settings: Settings) -> Driver {
        Driver {
            counts: Counts { device: settings.device_name(), ..Counts::default() },
            settings,
            memory: Memory::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            streams: BTreeMap::from([(0, None)]),
            events: BTreeMap::new(),
            graphs: BTreeMap::new(),
            failed: None,
            results: 0,
            last_handle: 0,
        }
    }

    /// The error of earlier work: once a kernel has failed, every call fails.
    pub fn check(&self) -> Result<(), Status> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Bytes of device memory that are free.
    pub fn free_memory(&self) -> u64 {
        self.settings.memory.saturating_sub(self.memory.allocated_bytes())
    }

    /// Takes device memory.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64, Status> {
        self.refuse_while_recording()?;
        match bytes {
            0 => Err(Status::INVALID_VALUE),
            _ if bytes > self.free_memory() => Err(Status::OUT_OF_MEMORY),
            _ => {
                let address = self.memory.allocate(bytes);
                self.counts.peak_memory_bytes = self.counts.peak_memory_bytes.max(self.memory.allocated_bytes());
                Ok(address)
            }
        }
    }

    /// Gives device memory back.
    pub fn free(&mut self, address: u64) -> Result<(), Status> {
        self.memory.free(address).map_err(refused)
    }

    /// Copies from the host.
    pub fn copy_in(&mut self, stream: u64, address: u64, bytes: &[u8]) -> Result<(), Status> {
        self.refuse_if_recording(stream)?;
        self.memory.write(address, bytes).map_err(refused)?;
        self.counts.bytes_to_device += bytes.len() as u64;
        Ok(())
    }

    /// Copies to the host. Bytes that nothing was written to are an error: whoever reads them relies on nothing.
    pub fn copy_out(&mut self, stream: u64, address: u64, bytes: &mut [u8]) -> Result<(), Status> {
        self.refuse_if_recording(stream)?;
        if self.settings.results.is_some_and(|most| self.results >= most) {
            self.failed = Some(Status::ILLEGAL_ADDRESS);
            return self.check();
        }
        self.results += 1;
        let length = bytes.len() as u64;
        bytes.copy_from_slice(self.memory.read(address, length).map_err(refused)?);
        let undefined = self.memory.undefined_bytes(address, length).map_err(refused)?;
        if undefined > 0 {
            say(&format!("{undefined} of the {length} bytes at {address:#x} are copied to the host but hold nothing"));
            self.failed = Some(Status::ILLEGAL_ADDRESS);
        }
        self.counts.bytes_to_host += length;
        Ok(())
    }

    /// Compiles PTX text. The error comes with what the driver's compiler logs.
    pub fn load_module(&mut self, text: &str) -> Result<u64, (Status, String)> {
        self.refuse_while_recording().map_err(|status| (status, String::new()))?;
        if let Some(log) = &self.settings.jit {
            return Err((Status::INVALID_PTX, format!("ptxas fatal   : {log}")));
        }
        let module = Module::parse(text).map_err(|error| {
            (Status::INVALID_PTX, format!("ptxas application ptx input, line {}; {}", error.line, error.message))
        })?;
        if !self.settings.knows_ptx(module.version()) {
            let (major, minor) = module.version();
            let log = format!("ptxas fatal   : Unsupported .version {major}.{minor}");
            return Err((Status::UNSUPPORTED_PTX_VERSION, log));
        }
        if !runs(module.target(), self.settings.capability) {
            let log = format!("SM version specified by .target is {}, the device is older", module.target());
            return Err((Status::NO_BINARY_FOR_GPU, log));
        }
        let handle = self.handle();
        self.modules.insert(handle, Arc::new(module));
        Ok(handle)
    }

    /// Forgets a module. Its functions stay for graphs that hold them.
    pub fn unload_module(&mut self, module: u64) -> Result<(), Status> {
        self.modules.remove(&module).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    /// A kernel of a module.
    pub fn function(&mut self, module: u64, name: &str) -> Result<u64, Status> {
        let module = self.modules.get(&module).ok_or(Status::INVALID_HANDLE)?.clone();
        module.kernel(name).ok_or(Status::NOT_FOUND)?;
        let handle = self.handle();
        let function = Function { module, name: name.to_owned(), most_shared: SHARED_WITHOUT_ASKING };
        self.functions.insert(handle, function);
        Ok(handle)
    }

    /// Address and size of a variable of a module.
    pub fn variable(&mut self, module: u64, name: &str) -> Result<(u64, u64), Status> {
        let module = self.modules.get(&module).ok_or(Status::INVALID_HANDLE)?;
        let address = self.memory.variable(module, name).ok_or(Status::NOT_FOUND)?;
        self.memory.allocation(address).ok_or(Status::NOT_FOUND)
    }

    /// What can be asked about a function.
    pub fn facts(&self, function: u64) -> Result<FunctionFacts, Status> {
        let function = self.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
        let kernel = function.module.kernel(&function.name).ok_or(Status::INVALID_HANDLE)?;
        Ok(FunctionFacts {
            threads: kernel.maximum_threads().unwrap_or(1024),
            static_shared: kernel.static_shared_bytes() as u32,
            dynamic_shared: function.most_shared,
            local: kernel.local_bytes() as u32,
        })
    }

    /// Sizes of a function's parameters in bytes.
    pub fn parameters(&self, function: u64) -> Result<Vec<u64>, Status> {
        let function = self.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
        let kernel = function.module.kernel(&function.name).ok_or(Status::INVALID_HANDLE)?;
        Ok(kernel.parameters().collect())
    }

    /// Allows launches of a function to have so much dynamic shared memory.
    pub fn allow_shared(&mut self, function: u64, bytes: u32) -> Result<(), Status> {
        let most = self.settings.shared_per_block();
        let fixed = self.facts(function)?.static_shared;
        let function = self.functions.get_mut(&function).ok_or(Status::INVALID_HANDLE)?;
        if bytes.saturating_add(fixed) > most {
            return Err(Status::INVALID_VALUE);
        }
        function.most_shared = bytes;
        Ok(())
    }

    /// A new stream.
    pub fn create_stream(&mut self) -> u64 {
        let handle = self.handle();
        self.streams.insert(handle, None);
        handle
    }

    /// Ends a stream.
    pub fn destroy_stream(&mut self, stream: u64) -> Result<(), Status> {
        self.streams.remove(&stream).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    /// Waits for a stream: everything is done already.
    pub fn synchronize(&mut self, stream: u64) -> Result<(), Status> {
        self.refuse_if_recording(stream)
    }

    /// A new event.
    pub fn create_event(&mut self) -> u64 {
        let handle = self.handle();
        self.events.insert(handle, None);
        handle
    }

    /// Ends an event.
    pub fn destroy_event(&mut self, event: u64) -> Result<(), Status> {
        self.events.remove(&event).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    /// Marks the present in a stream.
    pub fn record_event(&mut self, event: u64, stream: u64) -> Result<(), Status> {
        self.refuse_if_recording(stream)?;
        *self.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)? = Some(Instant::now());
        Ok(())
    }

    /// Waits for an event: what it marks is done already.
    pub fn wait_event(&self, event: u64) -> Result<(), Status> {
        self.events.get(&event).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Milliseconds between two events.
    pub fn elapsed(&self, start: u64, end: u64) -> Result<f32, Status> {
        let time = |event| self.events.get(&event).copied().flatten().ok_or(Status::INVALID_HANDLE);
        Ok(time(end)?.saturating_duration_since(time(start)?).as_secs_f32() * 1e3)
    }

    /// Records a stream's work instead of doing it, until [`Driver::end_capture`].
    pub fn begin_capture(&mut self, stream: u64, mode: CaptureMode) -> Result<(), Status> {
        if stream == 0 {
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        match self.streams.get_mut(&stream) {
            Some(recording @ None) => {
                let thread = (mode == CaptureMode::ThreadLocal).then(|| thread::current().id());
                *recording = Some(Recording { work: Vec::new(), thread });
                Ok(())
            }
            Some(Some(_)) => Err(Status::INVALID_VALUE),
            None => Err(Status::INVALID_HANDLE),
        }
    }

    /// The work recorded since [`Driver::begin_capture`], as a graph.
    pub fn end_capture(&mut self, stream: u64) -> Result<u64, Status> {
        let recording = self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)?;
        let work = recording.take().ok_or(Status::STREAM_CAPTURE_UNMATCHED)?.work;
        let handle = self.handle();
        self.graphs.insert(handle, Arc::new(work));
        Ok(handle)
    }

    /// Whether a stream's work is being recorded.
    pub fn is_capturing(&self, stream: u64) -> Result<bool, Status> {
        self.streams.get(&stream).map(Option::is_some).ok_or(Status::INVALID_HANDLE)
    }

    /// Makes a graph ready to run.
    pub fn instantiate(&mut self, graph: u64) -> Result<u64, Status> {
        let work = self.graphs.get(&graph).ok_or(Status::INVALID_HANDLE)?.clone();
        if self.settings.graphs.is_some_and(|most| self.counts.graphs >= most) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let handle = self.handle();
        self.graphs.insert(handle, work);
        self.counts.graphs += 1;
        Ok(handle)
    }

    /// Forgets a graph, or one that was made ready to run.
    pub fn destroy_graph(&mut self, graph: u64) -> Result<(), Status> {
        self.graphs.remove(&graph).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn handle(&mut self) -> u64 {
        self.last_handle += 1;
        self.last_handle
    }

    fn refuse_if_recording(&self, stream: u64) -> Result<(), Status> {
        if self.is_capturing(stream)? { Err(Status::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    fn refuse_while_recording(&self) -> Result<(), Status> {
        let here = thread::current().id();
        match self.streams.values().flatten().any(|recording| recording.thread.is_none_or(|thread| thread == here)) {
            true => Err(Status::STREAM_CAPTURE_UNSUPPORTED),
            false => Ok(()),
        }
    }
}

/// Whether a device runs code for a target: code for older architectures, and `sm_90a`'s like only there.
fn runs(target: &str, (major, minor): (u32, u32)) -> bool {
    let number = target.trim_start_matches("sm_");
    let exact = number.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let Ok(architecture) = exact.parse::<u32>() else { return false };
    let device = 10 * major + minor;
    if exact.len() < number.len() { architecture == device } else { architecture <= device }
}

fn refused(error: MemoryError) -> Status {
    say(&error.to_string());
    Status::INVALID_VALUE
}

/// Tells people what no error code can.
fn say(message: &str) {
    eprintln!("fake-cuda: {message}");
}
