//! An allocator that counts what a thread allocates while it runs what is to be counted.
//!
//! Each thread has counters of its own: tests run side by side, and each counts its own nodes.

use crate::sampling;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::{AddAssign, Sub};

/// What was allocated.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Allocated {
    /// Blocks that were asked for.
    pub(crate) fresh: u64,
    /// Blocks that were asked to be larger, or smaller.
    pub(crate) resized: u64,
    /// The size of the former, and by how much the latter grew. Bytes.
    pub(crate) bytes: u64,
}

const NOTHING: Allocated = Allocated { fresh: 0, resized: 0, bytes: 0 };

impl Allocated {
    /// Calls of the allocator.
    pub(crate) fn calls(self) -> u64 {
        self.fresh + self.resized
    }
}

impl AddAssign for Allocated {
    fn add_assign(&mut self, other: Allocated) {
        self.fresh += other.fresh;
        self.resized += other.resized;
        self.bytes += other.bytes;
    }
}

impl Sub for Allocated {
    type Output = Allocated;

    fn sub(self, other: Allocated) -> Allocated {
        Allocated {
            fresh: self.fresh - other.fresh,
            resized: self.resized - other.resized,
            bytes: self.bytes - other.bytes,
        }
    }
}

// Without destructors, so that touching them allocates nothing, at any time of a thread's life.
thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static ALLOCATED: Cell<Allocated> = const { Cell::new(NOTHING) };
}

/// Does `work` and says what this thread allocated meanwhile.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let before = ALLOCATED.get();
    COUNTS.set(true);
    let result = work();
    COUNTS.set(false);
    (result, ALLOCATED.get() - before)
}

fn note(more: Allocated) {
    if !COUNTS.get() {
        return;
    }
    let mut allocated = ALLOCATED.get();
    allocated += more;
    ALLOCATED.set(allocated);
    // What the sample allocates is not the nodes'.
    COUNTS.set(false);
    sampling::note(allocated.calls(), more.bytes);
    COUNTS.set(true);
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came, with what its caller promised, and
// its answer goes back. Counting beside it touches numbers of the thread and does not unwind; a
// sample allocates, and is not sampled itself.
#[allow(unsafe_code, reason = "the trait of an allocator is unsafe")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(Allocated { fresh: 1, resized: 0, bytes: bytes(layout.size()) });
        // SAFETY: the caller promises us what the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(Allocated { fresh: 1, resized: 0, bytes: bytes(layout.size()) });
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let grown = size.saturating_sub(layout.size());
        note(Allocated { fresh: 0, resized: 1, bytes: bytes(grown) });
        // SAFETY: as above; the block is of the system's allocator, as all of ours are.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
