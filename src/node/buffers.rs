//! Memory for pieces on their way: taken, used, given back, and bounded in all.
//!
//! A buffer that is given back keeps its pages, since returning them to the kernel and touching new
//! ones costs more than hashing them. When the bound is reached takers wait, which holds back the
//! peers that send; holders whose peer lets them wait are then ended, so that nobody can keep all memory by doing
//! nothing. Used by the data readers and writers of all sessions.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Bytes in use at once over all sessions. Two of the largest pieces (16 MiB) for each of two
/// directions must fit; more lets more peers send at the same time, at the price of memory.
pub(super) const BYTES_MAX: usize = 96 * 1024 * 1024;

/// The bound is counted in grains of this many bytes.
const GRAIN: usize = 16 * 1024;

/// Room before the bytes of each buffer, so that a header leaves in one write with what follows it.
pub(super) const HEAD_LEN: usize = crate::wire::DATA_HEADER_LEN;

/// Bytes kept for reuse.
const KEPT_MAX: usize = 32 * 1024 * 1024;

/// While somebody waits for memory, a buffer that has waited for its peer so long ends that peer's session. A slice at the
/// speed below takes this long; less ends slow peers of a busy node, more leaves the memory longer to who does nothing.
const HELD_MAX: Duration = Duration::from_secs(4);

/// What a peer has to move to keep a buffer that others wait for: each byte buys that much time.
const BYTES_PER_SEC_MIN: u64 = 64 * 1024;

/// Who waits for memory looks this often whether somebody holds it for nothing.
const LOOK: Duration = Duration::from_millis(100);

const _: () = assert!(
    crate::wire::SLICE_LEN_MAX as u64 <= BYTES_PER_SEC_MIN * HELD_MAX.as_secs(),
    "who takes a slice at the least speed keeps its buffer"
);

/// The pool.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    grains: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
    waits: Arc<Mutex<Waits>>,
}

/// The buffers that wait for a peer just now.
#[derive(Debug, Default)]
struct Waits {
    begun: u64,
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    /// Since when, with what was waited before for the same bytes.
    since: Instant,
    /// Ends the session.
    ending: CancellationToken,
}

/// A wait of a buffer for its peer; over when dropped.
#[derive(Debug)]
pub(super) struct Wait {
    number: u64,
    began: Instant,
    waits: Arc<Mutex<Waits>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Wait {
    fn drop(&mut self) {
        lock(&self.waits).running.remove(&self.number);
    }
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
    waits: Arc<Mutex<Waits>>,
    /// What was waited for the peer beyond what the moved bytes are worth.
    waited: Duration,
    _grains: OwnedSemaphorePermit,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            grains: Arc::new(Semaphore::new(BYTES_MAX / GRAIN)),
            kept: Arc::default(),
            waits: Arc::default(),
        }
    }

    /// A buffer of `len` bytes with any content; waits while too many are in use, and meanwhile ends sessions that hold
    /// one and do not move. `len` is at most the largest piece.
    ///
    /// # Cancel safety
    /// Nothing is taken by a cancelled call.
    pub(super) async fn take(&self, len: usize) -> Buffer {
        let grains = u32::try_from(len.div_ceil(GRAIN).min(BYTES_MAX / GRAIN)).unwrap_or(u32::MAX);
        // Kept over the looks: with it goes the place in the line.
        let mut turn = pin!(Arc::clone(&self.grains).acquire_many_owned(grains));
        let permit = loop {
            match timeout(LOOK, &mut turn).await {
                Ok(permit) => break permit.expect("the semaphore is never closed"),
                Err(_) => self.end_longest_wait(),
            }
        };
        let needed = HEAD_LEN + len;
        let mut bytes = {
            let mut kept = lock(&self.kept);
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
            waits: Arc::clone(&self.waits),
            waited: Duration::ZERO,
            _grains: permit,
        }
    }

    fn end_longest_wait(&self) {
        let mut waits = lock(&self.waits);
        let longest = waits.running.iter().min_by_key(|(_, wait)| wait.since);
        if let Some((number, _)) = longest.filter(|(_, wait)| wait.since.elapsed() >= HELD_MAX) {
            let number = *number;
            if let Some(wait) = waits.running.remove(&number) {
                wait.ending.cancel();
            }
        }
    }
}

impl Buffer {
    /// To be held while a peer is waited for, to send bytes of this buffer or to take them. `ending` is cancelled when the
    /// peer takes too long and others need the memory.
    pub(super) fn wait(&self, ending: &CancellationToken) -> Wait {
        let began = Instant::now();
        let running = Running {
            since: began.checked_sub(self.waited).unwrap_or(began),
            ending: ending.clone(),
        };
        let mut waits = lock(&self.waits);
        let number = waits.begun;
        waits.begun += 1;
        waits.running.insert(number, running);
        Wait {
            number,
            began,
            waits: Arc::clone(&self.waits),
        }
    }

    /// The end of a wait in which `bytes` moved.
    pub(super) fn waited(&mut self, wait: Wait, bytes: usize) {
        let bought = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SEC_MIN);
        self.waited = (self.waited + wait.began.elapsed()).saturating_sub(bought);
    }

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
        let mut kept = lock(&self.kept);
        if kept.bytes + self.bytes.len() <= KEPT_MAX {
            kept.bytes += self.bytes.len();
            kept.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        let waiting = timeout(Duration::from_secs(1), buffers.take(1)).await;
        assert!(waiting.is_err(), "nothing is left");
        drop(all);
        assert_eq!(buffers.take(1).await.len(), 1);
    }

    /// All memory is held by a buffer that waits for its peer; `moved` bytes come each second.
    async fn is_ended_within(seconds: u32, moved: usize) -> bool {
        let (buffers, ending) = (Buffers::new(), CancellationToken::new());
        let mut held = buffers.take(BYTES_MAX).await;
        let taker = buffers.clone();
        let taken = tokio::spawn(async move { taker.take(1).await.len() });
        for _ in 0..seconds {
            let wait = held.wait(&ending);
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.waited(wait, moved);
        }
        assert!(!taken.is_finished(), "nothing is left");
        let is_ended = ending.is_cancelled();
        drop(held);
        assert_eq!(taken.await.unwrap(), 1);
        is_ended
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_what_others_need_and_does_not_move_is_ended() {
        assert!(!is_ended_within(3, 0).await, "a moment is nothing");
        assert!(is_ended_within(5, 0).await);
        assert!(is_ended_within(6, 1).await, "a byte each second is nothing");
        assert!(!is_ended_within(60, BYTES_PER_SEC_MIN as usize).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_ended_while_there_is_memory() {
        let (buffers, ending) = (Buffers::new(), CancellationToken::new());
        let held = buffers.take(BYTES_MAX / 2).await;
        let _wait = held.wait(&ending);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(buffers.take(BYTES_MAX / 2).await.len(), BYTES_MAX / 2);
        assert!(!ending.is_cancelled());
    }
}
