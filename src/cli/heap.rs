//! Has the allocator keep the memory it got from the kernel, up to a bound.
//!
//! glibc returns each large buffer that is freed, and the kernel clears every page of the next one: the frames of yamux and
//! the records of TLS paid more for that than for their encryption. Nothing of it shows elsewhere, and other allocators
//! are left alone. Called by `super::run` before the first thread. Source: mallopt(3).

/// Free memory at the end of each heap above which it is returned. Less returns it between two frames of a fast transfer,
/// more keeps the peak of a busy moment.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_MAX: libc::c_int = 64 * 1024 * 1024;

/// Requests of at least this many bytes get memory of their own, which is returned with them: far above a frame, at most the
/// larger pieces, which have a pool (`node/buffers`).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MEMORY_MIN: libc::c_int = 4 * 1024 * 1024;

/// Bytes asked of the kernel beyond a need, so that many small needs are one call.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const AHEAD: libc::c_int = 1024 * 1024;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
const _: () = assert!(OWN_MEMORY_MIN < KEPT_MAX);

/// Sets the bounds; has no effect where the allocator is another.
pub(super) fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
    for (option, value) in [
        (libc::M_TRIM_THRESHOLD, KEPT_MAX),
        (libc::M_MMAP_THRESHOLD, OWN_MEMORY_MIN),
        (libc::M_TOP_PAD, AHEAD),
    ] {
        // SAFETY: mallopt takes two numbers and stores one in settings of malloc. It must not run beside another thread's
        // malloc, and no other thread exists yet.
        let is_set = unsafe { libc::mallopt(option, value) } == 1;
        if !is_set {
            tracing::debug!(option, value, "the allocator does not take this");
        }
    }
}
