//! Counts what a thread allocates, so that a target can say how much that may be.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which is counted.
pub struct Counting;

thread_local! {
    // Without destructors, so that they can be used for as long as the thread allocates.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn changed(by: isize) {
    let now = NOW.get() + by;
    NOW.set(now);
    MOST.set(MOST.get().max(now));
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(signed(layout.size()));
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        changed(signed(layout.size()));
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        changed(signed(size));
        changed(-signed(layout.size()));
        // SAFETY: as the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        changed(-signed(layout.size()));
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs a target and makes sure that this thread never held more than so much beside what it held before.
pub fn within(bytes_max: usize, data: &[u8], run: fn(&[u8])) {
    let before = NOW.get();
    MOST.set(before);
    run(data);
    let held = MOST.get() - before;
    assert!(held <= signed(bytes_max), "{held} bytes were held at once, more than {bytes_max}");
}
