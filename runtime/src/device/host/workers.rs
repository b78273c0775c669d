//! The threads of a model: they wait for a step, run it together and wait again.

use super::barrier::{self, Barrier};
use super::cpu;
use super::signal::{Patience, Signal};
use super::trace::Recorder;
use crate::device::Trace;
use llmc_ir::abi::{StepArgs, StepFunction};
use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};

/// Stack of a worker: what the main thread usually has, since compiled code runs on either.
const STACK_BYTES: usize = 8 << 20;

/// A step's threads: the one that calls [`Workers::run`], and others that live as long as this.
pub(super) struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// CPUs to run on, one per thread; empty if threads shall not be bound.
    cpus: Vec<usize>,
    /// The thread that was bound to the first of them.
    bound_caller: Option<ThreadId>,
}

/// What the threads of a step share.
struct Shared {
    /// Number of the newest job.
    start: Signal,
    /// Per worker: number of the newest job that it has finished.
    done: Box<[Signal]>,
    /// Written by the calling thread while the workers wait, read by them after `start`.
    job: UnsafeCell<Job>,
    barrier: Barrier,
    /// In a step, and between two.
    patience: [Patience; 2],
}

// SAFETY: `job` is the only part that is not Sync. `Workers::run` and `drop` (which have exclusive
// access to Workers) write it only while all workers wait for `start`, whose set and wait order the
// write before the workers' reads; `done` orders the reads before the next write.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only while the thread that made it waits in `run`.
unsafe impl Send for Shared {}

impl Shared {
    /// How often threads have called the system so far to wait for each other; it wraps around.
    fn system_calls(&self) -> u32 {
        let signals = self.done.iter().chain([&self.start]);
        signals.fold(self.barrier.system_calls(), |sum, signal| sum.wrapping_add(signal.calls()))
    }
}

#[derive(Clone, Copy)]
enum Job {
    Step { function: StepFunction, args: *const StepArgs },
    Exit,
}

impl Workers {
    /// Starts `threads - 1` threads. If the process may use as many CPUs as there are threads,
    /// each is bound to one of its own.
    pub fn start(threads: usize) -> io::Result<Workers> {
        let cpus = cpu::available_cpus();
        let patience = match threads <= cpus.len() {
            true => [Patience::OWN_CPU, Patience::BETWEEN_STEPS],
            false => [Patience::SHARED_CPU; 2],
        };
        let cpus = if threads > 1 && threads <= cpus.len() { cpus[..threads].to_vec() } else { Vec::new() };
        let shared = Arc::new(Shared {
            start: Signal::default(),
            done: (1..threads).map(|_| Signal::default()).collect(),
            job: UnsafeCell::new(Job::Exit),
            barrier: Barrier::new(threads, patience[0]),
            patience,
        });
        let mut workers = Workers { shared, handles: Vec::new(), cpus, bound_caller: None };
        for thread in 1..threads {
            let shared = Arc::clone(&workers.shared);
            let cpu = workers.cpus.get(thread).copied();
            let builder = std::thread::Builder::new().name(format!("llmrt-{thread}")).stack_size(STACK_BYTES);
            workers.handles.push(builder.spawn(move || work(&shared, thread, cpu))?);
        }
        Ok(workers)
    }

    /// Threads that run a step.
    pub fn threads(&self) -> usize {
        self.shared.done.len() + 1
    }

    /// Runs a step on all threads, with this model's barrier, and returns when all are through.
    /// The calling thread is bound to a CPU of its own until the model is dropped.
    ///
    /// # Safety
    /// As for [`StepFunction`], the barrier excepted.
    pub unsafe fn run(&mut self, function: StepFunction, args: &mut StepArgs) {
        args.barrier = barrier::meet;
        args.barrier_state = std::ptr::from_ref(&self.shared.barrier).cast();
        // SAFETY: as promised by the caller.
        unsafe { self.run_with_barrier(function, args) };
    }

    /// Runs a step like [`Workers::run`] and returns what each thread did when, and how often they called the system.
    ///
    /// # Safety
    /// As for [`Workers::run`].
    pub unsafe fn run_traced(&mut self, function: StepFunction, args: &mut StepArgs) -> Trace {
        let shared = Arc::clone(&self.shared);
        let recorder = Recorder::new(&shared.barrier, self.threads());
        recorder.install(args);
        let before = shared.system_calls();
        // SAFETY: as promised by the caller; the recorder outlives the step and has room for each of its threads.
        unsafe { self.run_with_barrier(function, args) };
        let system_calls = shared.system_calls().wrapping_sub(before);
        Trace { threads: recorder.spans(), system_calls }
    }

    /// # Safety
    /// As for [`StepFunction`].
    unsafe fn run_with_barrier(&mut self, function: StepFunction, args: &StepArgs) {
        self.bind_caller();
        let args: *const StepArgs = args;
        self.publish(Job::Step { function, args });
        // SAFETY: promised by the caller; thread 0 is this one, the workers are the others.
        unsafe { take_part(function, args, 0, self.threads() as u32) };
        let newest = self.shared.start.own();
        for done in &self.shared.done {
            done.wait(newest, self.shared.patience[0]);
        }
    }

    fn publish(&mut self, job: Job) {
        // SAFETY: no worker reads the job now: each has finished the previous one, and `&mut self`
        // keeps other callers out.
        unsafe { *self.shared.job.get() = job };
        self.shared.start.set(self.shared.start.own().wrapping_add(1));
    }

    fn bind_caller(&mut self) {
        let caller = std::thread::current().id();
        if self.bound_caller != Some(caller)
            && let Some(&cpu) = self.cpus.first()
        {
            cpu::bind_thread(&[cpu]);
            self.bound_caller = Some(caller);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.publish(Job::Exit);
        for handle in self.handles.drain(..) {
            // A worker that panicked has ended the process.
            let _ = handle.join();
        }
        if self.bound_caller == Some(std::thread::current().id()) {
            cpu::bind_thread(cpu::available_cpus());
        }
    }
}

/// A worker's life. A panic in it ends the process, since the others would wait for ever.
fn work(shared: &Shared, thread: usize, cpu: Option<usize>) {
    let _abort_on_panic = AbortOnPanic;
    if let Some(cpu) = cpu {
        cpu::bind_thread(&[cpu]);
    }
    let done = &shared.done[thread - 1];
    let threads = shared.done.len() as u32 + 1;
    loop {
        let newest = done.own().wrapping_add(1);
        shared.start.wait(newest, shared.patience[1]);
        // SAFETY: the job was written before `start` was set and stays until `done` is set.
        match unsafe { *shared.job.get() } {
            // SAFETY: promised by the caller of `Workers::run`, which waits for this thread.
            Job::Step { function, args } => unsafe { take_part(function, args, thread as u32, threads) },
            Job::Exit => return,
        }
        done.set(newest);
    }
}

/// Runs a thread's part of a step, and tells whoever traces it that it is over.
///
/// # Safety
/// As for [`StepFunction`].
unsafe fn take_part(function: StepFunction, args: *const StepArgs, thread: u32, threads: u32) {
    // SAFETY: as promised by the caller.
    unsafe {
        function(args, thread, threads);
        if let Some(trace) = (*args).trace {
            trace((*args).trace_state, thread);
        }
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Adds its thread's number to the counter that `kv` points to, on both sides of a barrier.
    unsafe extern "C" fn count(args: *const StepArgs, thread: u32, threads: u32) {
        // SAFETY: the test passes valid arguments and a counter in `kv`.
        unsafe {
            let args = &*args;
            let counter = &*args.kv.cast::<AtomicU64>();
            let before = counter.fetch_add(u64::from(thread) + 1, Ordering::Relaxed);
            assert!(before < args.tokens + u64::from(threads * (threads + 1) / 2));
            (args.barrier)(args.barrier_state, thread);
            let all = u64::from(threads * (threads + 1) / 2);
            assert_eq!(counter.load(Ordering::Relaxed), args.tokens + all);
        }
    }

    fn step_args(counter: &AtomicU64) -> StepArgs {
        let null = std::ptr::null();
        StepArgs {
            tokens: counter.load(Ordering::Relaxed),
            sequences: 0,
            samples: 0,
            block_table_stride: 0,
            token_ids: null,
            positions: null,
            sample_rows: null,
            slots: null,
            sequence_starts: null,
            block_tables: null,
            weights: std::ptr::null(),
            kv: counter.as_ptr().cast(),
            arena: std::ptr::null_mut(),
            scratch: std::ptr::null_mut(),
            scratch_stride: 0,
            logits: std::ptr::null_mut(),
            barrier: super::super::barrier::meet,
            barrier_state: std::ptr::null(),
            trace: None,
            trace_state: std::ptr::null(),
        }
    }

    #[test]
    fn every_thread_takes_part_in_every_step() {
        for threads in [1, 2, 5, 19] {
            let counter = AtomicU64::new(0);
            let mut workers = Workers::start(threads).unwrap();
            for step in 0..50 {
                let mut args = step_args(&counter);
                // SAFETY: `count` uses only what `step_args` has set.
                unsafe { workers.run(count, &mut args) };
                if step % 20 == 0 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            let per_step = (threads * (threads + 1) / 2) as u64;
            assert_eq!(counter.load(Ordering::Relaxed), 50 * per_step);
        }
    }
}
