//! Threads that do something at the same time, and how long that takes them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Looks at another thread's counter before it lets others have the CPU: in case there are more threads than CPUs.
const PATIENCE: u32 = 10_000;

/// A meeting point for threads that each have a CPU: everyone counts its own arrivals and watches those of the others.
pub struct Meeting {
    arrived: Vec<Arrivals>,
}

/// Alone on its cache lines; hardware prefetches lines in pairs.
#[repr(align(128))]
struct Arrivals(AtomicU32);

impl Meeting {
    /// For so many threads.
    pub fn new(threads: usize) -> Meeting {
        Meeting { arrived: (0..threads).map(|_| Arrivals(AtomicU32::new(0))).collect() }
    }

    /// Returns when every thread has come as often as this one, which is the only one to use its number.
    pub fn meet(&self, thread: usize) {
        let round = self.arrived[thread].0.load(Ordering::Relaxed).wrapping_add(1);
        self.arrived[thread].0.store(round, Ordering::Release);
        for Arrivals(other) in &self.arrived {
            let mut looks = 0;
            while other.load(Ordering::Acquire).wrapping_sub(round).cast_signed() < 0 {
                looks += 1;
                if looks % PATIENCE == 0 {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Does `work` on all items at once, a thread each. Returns the seconds from the first thread's start to the last one's
/// end, and the sum of what they return.
pub fn together<T: Send>(items: Vec<T>, work: impl Fn(T) -> f64 + Sync) -> (f64, f64) {
    let meeting = Meeting::new(items.len());
    let (meeting, work) = (&meeting, &work);
    let times: Vec<(Instant, Instant, f64)> = std::thread::scope(|scope| {
        let threads = items.into_iter().enumerate().map(|(thread, item)| {
            scope.spawn(move || {
                meeting.meet(thread);
                let start = Instant::now();
                let done = work(item);
                (start, Instant::now(), done)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let start = times.iter().map(|(start, ..)| *start).min();
    let end = times.iter().map(|(_, end, _)| *end).max();
    let seconds = start.zip(end).map_or(0.0, |(start, end)| end.duration_since(start).as_secs_f64());
    (seconds, times.iter().map(|(.., done)| done).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn nobody_leaves_before_all_have_come() {
        let (meeting, came) = (Meeting::new(3), AtomicUsize::new(0));
        let (_, behind) = together(vec![0, 1, 2], |thread| {
            let mut behind = 0.0;
            for round in 1..=50 {
                came.fetch_add(1, Ordering::SeqCst);
                meeting.meet(thread);
                behind += f64::from(came.load(Ordering::SeqCst) < 3 * round);
                meeting.meet(thread);
            }
            behind
        });
        assert_eq!((behind, came.into_inner()), (0.0, 150));
    }

    #[test]
    fn work_is_summed_and_timed() {
        let (seconds, sum) = together(vec![1.0, 2.0, 4.0], |item| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            item
        });
        assert!(seconds >= 0.005 && sum == 7.0, "{seconds} {sum}");
    }
}
