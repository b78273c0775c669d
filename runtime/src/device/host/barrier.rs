//! The meeting point of a step's threads, called by compiled code a few hundred times per step.

use super::signal::{Patience, Signal};
use std::ffi::c_void;

/// Up to this many threads, everyone watches everyone: one cache line transfer per barrier, where
/// a tree needs two or more.
const WATCH_ALL: usize = 4;

/// Children per node of the tree that more threads form.
const FAN_IN: usize = 4;

/// The barrier's state. Each thread counts the barriers it has come to in a signal of its own.
pub(super) struct Barrier {
    arrived: Box<[Signal]>,
    released: Signal,
    patience: Patience,
}

impl Barrier {
    pub fn new(threads: usize, patience: Patience) -> Barrier {
        let arrived = (0..threads).map(|_| Signal::default()).collect();
        Barrier { arrived, released: Signal::default(), patience }
    }

    /// How often its threads have called the system so far; it wraps around.
    pub fn system_calls(&self) -> u32 {
        self.arrived.iter().chain([&self.released]).fold(0, |sum, signal| sum.wrapping_add(signal.calls()))
    }

    /// Returns when every thread has called it as often as this one has.
    pub fn meet(&self, thread: usize) {
        let threads = self.arrived.len();
        let round = self.arrived[thread].own().wrapping_add(1);
        if threads <= WATCH_ALL {
            self.arrived[thread].set(round);
            for other in (0..threads).filter(|&other| other != thread) {
                self.arrived[other].wait(round, self.patience);
            }
            return;
        }
        for child in (FAN_IN * thread + 1..).take(FAN_IN).take_while(|&child| child < threads) {
            self.arrived[child].wait(round, self.patience);
        }
        self.arrived[thread].set(round);
        if thread == 0 {
            self.released.set(round);
        } else {
            self.released.wait(round, self.patience);
        }
    }
}

/// What compiled code calls ([`llmc_ir::abi::BarrierFunction`]); `state` is a [`Barrier`].
///
/// # Safety
/// `state` must point to a live [`Barrier`] for more than `thread` threads, each of which calls
/// with its own number.
pub(super) unsafe extern "C" fn meet(state: *const c_void, thread: u32) {
    // SAFETY: as promised by the caller.
    let barrier = unsafe { &*state.cast::<Barrier>() };
    barrier.meet(thread as usize);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn nobody_runs_ahead(threads: usize, rounds: u32, patience: Patience) {
        let barrier = Barrier::new(threads, patience);
        let progress: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (barrier, progress) = (&barrier, &progress);
                scope.spawn(move || {
                    for round in 1..=rounds {
                        progress[thread].store(round, Ordering::Relaxed);
                        barrier.meet(thread);
                        for other in progress {
                            let seen = other.load(Ordering::Relaxed);
                            assert!(seen == round || seen == round + 1, "{seen} in round {round}");
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn threads_meet() {
        nobody_runs_ahead(1, 100, Patience::OWN_CPU);
        nobody_runs_ahead(2, 2000, Patience::OWN_CPU);
        nobody_runs_ahead(3, 300, Patience::SHARED_CPU);
    }

    #[test]
    fn more_threads_than_cpus_meet() {
        nobody_runs_ahead(23, 100, Patience::SHARED_CPU);
        nobody_runs_ahead(7, 20, Patience::OWN_CPU);
    }
}
