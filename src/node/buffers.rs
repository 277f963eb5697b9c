//! Memory for pieces on their way: taken, used, given back, and bounded in all.
//!
//! A buffer that is given back keeps its pages, since returning them to the kernel and touching new
//! ones costs more than hashing them. When the bound is reached takers wait, which holds back the
//! peers that send. Used by the data readers and writers of all sessions.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in use at once over all sessions. Two of the largest pieces (16 MiB) for each of two
/// directions must fit; more lets more peers send at the same time, at the price of memory.
const BYTES_MAX: usize = 96 * 1024 * 1024;

/// The bound is counted in grains of this many bytes.
const GRAIN: usize = 16 * 1024;

/// Room before the bytes of each buffer, so that a header leaves in one write with what follows it.
pub(super) const HEAD_LEN: usize = crate::wire::DATA_HEADER_LEN;

/// Bytes kept for reuse.
const KEPT_MAX: usize = 32 * 1024 * 1024;

/// The pool.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    grains: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer of the length it was asked for; goes back to the pool when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Begins with [`HEAD_LEN`] bytes that are not the caller's.
    bytes: Vec<u8>,
    len: usize,
    kept: Arc<Mutex<Kept>>,
    _grains: OwnedSemaphorePermit,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            grains: Arc::new(Semaphore::new(BYTES_MAX / GRAIN)),
            kept: Arc::default(),
        }
    }

    /// A buffer of `len` bytes with any content; waits while too many are in use. `len` is at most
    /// the largest piece.
    ///
    /// # Cancel safety
    /// Nothing is taken by a cancelled call.
    pub(super) async fn take(&self, len: usize) -> Buffer {
        let grains = u32::try_from(len.div_ceil(GRAIN).min(BYTES_MAX / GRAIN)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.grains).acquire_many_owned(grains).await;
        let permit = permit.expect("the semaphore is never closed");
        let needed = HEAD_LEN + len;
        let mut bytes = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = kept
                .buffers
                .iter()
                .position(|buffer| buffer.len() >= needed);
            let bytes = fitting
                .map(|at| kept.buffers.swap_remove(at))
                .unwrap_or_default();
            kept.bytes -= bytes.len();
            bytes
        };
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        Buffer {
            bytes,
            len,
            kept: Arc::clone(&self.kept),
            _grains: permit,
        }
    }
}

impl Buffer {
    /// `header` and the `len` bytes from `offset` on, in one. The header takes the place of the bytes before them, which are
    /// lost: a buffer is sent from its beginning to its end, once.
    pub(super) fn with_header(
        &mut self,
        header: [u8; HEAD_LEN],
        offset: usize,
        len: usize,
    ) -> &[u8] {
        let both = &mut self.bytes[offset..][..HEAD_LEN + len];
        both[..HEAD_LEN].copy_from_slice(&header);
        both
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[HEAD_LEN..][..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEAD_LEN..][..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + self.bytes.len() <= KEPT_MAX {
            kept.bytes += self.bytes.len();
            kept.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_returned_buffer_is_used_again() {
        let buffers = Buffers::new();
        let mut first = buffers.take(100_000).await;
        first[0] = 77;
        drop(first);
        let second = buffers.take(50_000).await;
        assert_eq!(
            (second.len(), second[0]),
            (50_000, 77),
            "the same memory, shorter"
        );
    }

    #[tokio::test]
    async fn a_header_stands_before_each_slice() {
        let mut buffer = Buffers::new().take(5).await;
        buffer.copy_from_slice(b"hello");
        let mut sent = Vec::new();
        for (header, offset, len) in [([7; HEAD_LEN], 0, 2), ([8; HEAD_LEN], 2, 3)] {
            sent.extend_from_slice(buffer.with_header(header, offset, len));
        }
        let expected = [&[7; HEAD_LEN][..], b"he", &[8; HEAD_LEN], b"llo"].concat();
        assert_eq!(sent, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn takers_wait_at_the_bound() {
        let buffers = Buffers::new();
        let all = buffers.take(BYTES_MAX).await;
        let waiting =
            tokio::time::timeout(std::time::Duration::from_secs(1), buffers.take(1)).await;
        assert!(waiting.is_err(), "nothing is left");
        drop(all);
        assert_eq!(buffers.take(1).await.len(), 1);
    }
}
