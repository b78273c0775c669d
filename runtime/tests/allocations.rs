//! A step allocates nothing: what it needs is kept from step to step.

mod support;

use llmrt::executor::{SampleRows, Step, StepSequence};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{BLOCKS, executor, prompt};

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
        let tokens = prompt(60, 1);
        let part = |start: usize, end: usize, first_block: u32| StepSequence {
            tokens: tokens[start..end].to_vec(),
            start_position: start as u32,
            block_table: (first_block..first_block + BLOCKS as u32).collect(),
            sample: SampleRows::Last,
        };
        // Lists grow to what the largest step needs; later ones find the room.
        let largest = Step { sequences: vec![part(0, 20, 0), part(0, 20, BLOCKS as u32)] };
        executor.run(&largest).unwrap();
        let decode = |position: usize| Step {
            sequences: vec![part(position, position + 1, 0), part(position, position + 1, BLOCKS as u32)],
        };
        let steps: Vec<Step> = (20..60).map(decode).collect();
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
