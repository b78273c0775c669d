//! What each thread of a step does when: compiled code tells of launches, and barriers of those who wait at them.

use super::barrier::Barrier;
use crate::device::{Activity, Span};
use llmc_ir::abi::StepArgs;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::time::Instant;

/// Events that a thread has room for before its list has to grow.
const ROOM: usize = 4096;

/// Records one step.
pub(super) struct Recorder<'a> {
    barrier: &'a Barrier,
    start: Instant,
    threads: Box<[Events]>,
}

/// A thread's events in order, on cache lines of their own.
#[repr(align(128))]
struct Events(UnsafeCell<Vec<Event>>);

#[derive(Clone, Copy)]
struct Event {
    at: f64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Launch,
    Wait,
    Resume,
}

impl<'a> Recorder<'a> {
    /// For a step of so many threads, which meet at that barrier.
    pub fn new(barrier: &'a Barrier, threads: usize) -> Recorder<'a> {
        let events = || Events(UnsafeCell::new(Vec::with_capacity(ROOM)));
        Recorder { barrier, start: Instant::now(), threads: (0..threads).map(|_| events()).collect() }
    }

    /// Makes a step tell this of everything. It must outlive the step.
    pub fn install(&self, args: &mut StepArgs) {
        args.barrier = meet;
        args.barrier_state = std::ptr::from_ref(self).cast();
        args.trace = Some(launch);
        args.trace_state = std::ptr::from_ref(self).cast();
    }

    /// What each thread did, after the step. Who is through waits for the end of the step.
    pub fn spans(self) -> Vec<Vec<Span>> {
        let end = self.start.elapsed().as_secs_f64();
        self.threads.into_iter().map(|events| spans(&events.0.into_inner(), end)).collect()
    }

    /// # Safety
    /// Each thread uses its own number only.
    unsafe fn add(&self, thread: u32, kind: Kind) {
        let at = self.start.elapsed().as_secs_f64();
        // SAFETY: nobody else uses this thread's events before `spans`, which owns the recorder.
        unsafe { (*self.threads[thread as usize].0.get()).push(Event { at, kind }) };
    }
}

/// A thread that resumes after a barrier goes on with the launch that it was in, until it says that the next one begins.
/// After the last launch it says so once more.
fn spans(events: &[Event], end: f64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut launches = 0;
    for (index, event) in events.iter().enumerate() {
        launches += usize::from(event.kind == Kind::Launch);
        let until = events.get(index + 1).map_or(end, |next| next.at);
        let activity = match event.kind {
            Kind::Wait => Activity::Wait,
            Kind::Launch if index + 1 == events.len() => Activity::Wait,
            Kind::Launch => Activity::Launch(launches - 1),
            // Before the first launch there is nothing to go on with, and between two launches nothing happens.
            Kind::Resume if events.get(index + 1).is_none_or(|next| launches == 0 || next.kind == Kind::Launch) => {
                continue;
            }
            Kind::Resume => Activity::Launch(launches - 1),
        };
        spans.push(Span { activity, start: event.at, end: until });
    }
    spans
}

/// In place of [`super::barrier::meet`].
///
/// # Safety
/// `state` must point to a live [`Recorder`] for more than `thread` threads, each of which calls with its own number.
unsafe extern "C" fn meet(state: *const c_void, thread: u32) {
    // SAFETY: as promised by the caller.
    let recorder = unsafe { &*state.cast::<Recorder<'_>>() };
    // SAFETY: as promised by the caller.
    unsafe { recorder.add(thread, Kind::Wait) };
    recorder.barrier.meet(thread as usize);
    // SAFETY: as promised by the caller.
    unsafe { recorder.add(thread, Kind::Resume) };
}

/// What compiled code calls before a launch ([`llmc_ir::abi::TraceFunction`]).
///
/// # Safety
/// As for [`meet`].
unsafe extern "C" fn launch(state: *const c_void, thread: u32) {
    // SAFETY: as promised by the caller.
    unsafe { (*state.cast::<Recorder<'_>>()).add(thread, Kind::Launch) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activities_follow_each_other() {
        use Activity::{Launch, Wait};
        let events = [(1.0, Kind::Launch), (2.0, Kind::Wait), (3.0, Kind::Resume), (4.0, Kind::Wait)];
        let more = [(5.0, Kind::Resume), (5.5, Kind::Launch), (7.0, Kind::Launch)];
        let events: Vec<Event> = events.into_iter().chain(more).map(|(at, kind)| Event { at, kind }).collect();
        let spans = spans(&events, 9.0);
        let expected = [
            (Launch(0), 1.0, 2.0),
            (Wait, 2.0, 3.0),
            (Launch(0), 3.0, 4.0),
            (Wait, 4.0, 5.0),
            (Launch(1), 5.5, 7.0),
            (Wait, 7.0, 9.0),
        ];
        assert_eq!(spans, expected.map(|(activity, start, end)| Span { activity, start, end }));
    }
}
