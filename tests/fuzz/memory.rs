//! How much memory a call claims at most, on the thread that makes it: a global allocator that counts.
//!
//! Counts for each thread by itself, because the tests of the suite run side by side. Memory that is freed by another
//! thread than the one that claimed it is not noticed there; no decoder does that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that a decoder may claim whatever it is given.
const ALWAYS: usize = 64 * 1024;

/// Bytes that a decoder may claim for each byte of its input.
const PER_BYTE: usize = 4;

thread_local! {
    /// Bytes claimed and not given back, and the most of them, since the measurement began. Plain cells that need no
    /// initialisation and no destructor: an allocator may not allocate.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    NOW.set(NOW.get() + bytes);
    PEAK.set(PEAK.get().max(NOW.get()));
}

#[allow(
    unsafe_code,
    reason = "the trait is unsafe; every call goes to the allocator of the system unchanged"
)]
// SAFETY: of `System`, which does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // While it moves, both are there.
        count(len as isize);
        // SAFETY: the caller's.
        let moved = unsafe { System.realloc(place, layout, len) };
        count(-(layout.size() as isize));
        moved
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What `act` gives, and the most bytes it held at one moment beyond those that were there before.
pub(super) fn peak_of<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    PEAK.set(before);
    let value = act();
    (value, (PEAK.get() - before).unsigned_abs())
}

/// What `decode` gives of an input of `len` bytes, while it claims at most four times as much and 64 KiB.
#[track_caller]
pub(super) fn frugal<T>(len: usize, decode: impl FnOnce() -> T) -> T {
    frugal_beside(|_| 0, len, decode)
}

/// As [`frugal`], and as many bytes more as `beside` says of what was decoded.
#[track_caller]
pub(super) fn frugal_beside<T>(
    beside: impl FnOnce(&T) -> usize,
    len: usize,
    decode: impl FnOnce() -> T,
) -> T {
    let (value, peak) = peak_of(decode);
    let allowed = PER_BYTE * len + ALWAYS + beside(&value);
    assert!(
        peak <= allowed,
        "{len} bytes of input claimed {peak}, allowed are {allowed}"
    );
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_what_was_held_at_once_and_nothing_of_other_threads() {
        let claim = |len: usize| std::hint::black_box(vec![1_u8; len]);
        let ((), peak) = peak_of(|| {
            drop(claim(10_000));
            let held = (claim(20_000), claim(30_000));
            drop(held);
            drop(claim(40_000));
        });
        assert_eq!(peak, 50_000);
        let ((), peak) = peak_of(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| drop(claim(1 << 24)));
            });
        });
        assert!(peak < 1 << 20, "{peak}");
        let (_, peak) = peak_of(|| {
            let mut grows = claim(1_000);
            grows.reserve_exact(1_000);
            grows
        });
        assert_eq!(peak, 3_000, "old and new while it moves");
    }

    #[test]
    fn a_decoder_that_claims_more_than_four_times_its_input_is_found() {
        let greedy = |len: usize| std::panic::catch_unwind(|| frugal(10, || vec![0_u8; len]));
        assert!(greedy(40 + ALWAYS).is_ok());
        assert!(greedy(41 + ALWAYS).is_err());
    }
}
