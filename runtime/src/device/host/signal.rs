//! A counter that one thread sets and others wait for: first spinning, then yielding, then asleep.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Pauses between two looks at the clock while spinning.
const PAUSES_PER_LOOK: u32 = 32;

/// How long a waiting thread spins and yields before it sleeps. Waking a sleeper costs 10 to 20
/// microseconds and more for the waker's system call, a spinning thread reacts in 0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    spin: Duration,
    yielding: Duration,
}

impl Patience {
    /// For threads that each have a CPU and wait for each other within a step.
    pub const OWN_CPU: Patience = Patience { spin: Duration::from_micros(200), yielding: Duration::from_micros(50) };
    /// For such threads between two steps: spinning covers the choice of a token among the 150 thousand of a large
    /// vocabulary.
    pub const BETWEEN_STEPS: Patience = Patience { spin: Duration::from_millis(2), ..Patience::OWN_CPU };
    /// For more threads than CPUs: whoever spins keeps another thread from arriving.
    pub const SHARED_CPU: Patience = Patience { spin: Duration::ZERO, yielding: Duration::from_micros(20) };
}

/// The counter, alone on its cache lines (two, because hardware prefetches lines in pairs). It
/// wraps around: values are compared by their distance.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Signal {
    value: AtomicU32,
    sleepers: AtomicU32,
    /// How often the system was called.
    calls: AtomicU32,
}

impl Signal {
    /// The value, for the thread that sets it.
    pub fn own(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    /// How often setting and waiting has called the system so far; it wraps around.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Sets the value; what this thread wrote before is visible to those who see it.
    pub fn set(&self, value: u32) {
        // Sequentially consistent together with the counterpart in `sleep`: either this thread
        // sees the sleeper, or the sleeper sees the value.
        self.value.store(value, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            self.futex(libc::FUTEX_WAKE, i32::MAX as u32);
        }
    }

    /// Waits until the value is `target` or later.
    pub fn wait(&self, target: u32, patience: Patience) {
        for _ in 0..PAUSES_PER_LOOK {
            if self.reached(target) {
                return;
            }
            std::hint::spin_loop();
        }
        let start = Instant::now();
        while start.elapsed() < patience.spin {
            for _ in 0..PAUSES_PER_LOOK {
                if self.reached(target) {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        while start.elapsed() < patience.spin + patience.yielding {
            if self.reached(target) {
                return;
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
        self.sleep(target);
    }

    fn reached(&self, target: u32) -> bool {
        is_at_or_after(self.value.load(Ordering::Acquire), target)
    }

    #[cold]
    fn sleep(&self, target: u32) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let value = self.value.load(Ordering::SeqCst);
            if is_at_or_after(value, target) {
                break;
            }
            // Returns at once if the value has changed since; may return without reason.
            self.futex(libc::FUTEX_WAIT, value);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn futex(&self, operation: i32, value: u32) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the value is a valid futex word for the duration of the call; no timeout is passed.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.value.as_ptr(),
                operation | libc::FUTEX_PRIVATE_FLAG,
                value,
                std::ptr::null::<libc::timespec>(),
            );
        }
    }
}

fn is_at_or_after(value: u32, target: u32) -> bool {
    value.wrapping_sub(target).cast_signed() >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_distance() {
        assert!(is_at_or_after(5, 5) && is_at_or_after(6, 5) && !is_at_or_after(4, 5));
        assert!(is_at_or_after(1, u32::MAX) && !is_at_or_after(u32::MAX, 1));
    }

    #[test]
    fn a_sleeper_is_woken() {
        let signal = Signal::default();
        std::thread::scope(|scope| {
            scope.spawn(|| signal.wait(1, Patience::SHARED_CPU));
            while signal.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            signal.set(1);
        });
        assert_eq!(signal.sleepers.load(Ordering::SeqCst), 0);
        // The sleeper's and the waker's.
        assert!(signal.calls() >= 2);
    }

    #[test]
    fn who_need_not_wait_calls_nobody() {
        let signal = Signal::default();
        for value in 1..100 {
            signal.set(value);
            signal.wait(value, Patience::SHARED_CPU);
        }
        assert_eq!(signal.calls(), 0);
    }
}
