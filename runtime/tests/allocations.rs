//! A step allocates nothing: what it needs is kept from step to step.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{executor, steps_of_two_sequences};

/// The system's allocator, with a count of what it was asked for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_allocate_nothing_once_they_are_warm() {
    for threads in [1, 2, 5] {
        let mut executor = executor(threads);
        let (largest, steps) = steps_of_two_sequences();
        // Lists grow to what the largest step needs; later ones find the room.
        executor.run(&largest).unwrap();
        executor.run(&steps[0]).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for step in &steps[1..] {
            executor.run(step).unwrap();
        }
        executor.run(&largest).unwrap();
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "{threads} threads");
    }
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "nothing was counted at all");
}
