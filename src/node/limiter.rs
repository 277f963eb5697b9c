//! Rate limits over all peers: who wants to move bytes waits for its turn here.
//!
//! A schedule, not a bucket to poll: each taker gets the next free stretch of time, so takers of equal
//! amounts get equal shares. Used by the data readers and writers of all sessions.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time that may be saved up while nobody takes: keeps the average exact over short pauses.
const SAVED_MAX: Duration = Duration::from_millis(50);

/// Bytes taken at once: a twentieth of a second, between these bounds.
const TAKE_MIN: u64 = 1024;
const TAKE_MAX: u64 = 256 * 1024;

/// One limit, shared by everything that moves bytes in one direction.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes_per_sec: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Limiter {
    /// No limit if `None`.
    pub(super) fn new(bytes_per_sec: Option<u64>) -> Self {
        Self {
            bytes_per_sec,
            free_at: Mutex::new(None),
        }
    }

    /// The most bytes to take at once, so that nobody waits long for others.
    pub(super) fn take_max(&self) -> usize {
        let max = self
            .bytes_per_sec
            .map_or(TAKE_MAX, |rate| (rate / 20).clamp(TAKE_MIN, TAKE_MAX));
        usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// Waits until `bytes` may move.
    ///
    /// # Cancel safety
    /// A cancelled wait has used its turn; at most one take is lost.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_sec else {
            return;
        };
        let until = {
            let now = Instant::now();
            let span = Duration::from_nanos(
                (bytes as u128 * 1_000_000_000 / u128::from(rate.max(1))) as u64,
            );
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = free_at.map_or(now, |at| at.max(now.checked_sub(SAVED_MAX).unwrap_or(now)));
            *free_at = Some(begin + span);
            begin + span
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bytes_in(limiter: &Limiter, span: Duration) -> u64 {
        let end = Instant::now() + span;
        let mut bytes = 0;
        while Instant::now() < end {
            limiter.take(limiter.take_max()).await;
            bytes += limiter.take_max() as u64;
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn rates_hold_within_five_percent_from_slow_to_fast() {
        for rate in [50_000, 1_000_000, 500_000_000] {
            let limiter = Limiter::new(Some(rate));
            let bytes = bytes_in(&limiter, Duration::from_secs(5)).await;
            let expected = rate * 5;
            assert!(
                bytes.abs_diff(expected) <= expected / 20,
                "{rate}: {bytes} instead of {expected}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn takers_share_equally() {
        let limiter = Limiter::new(Some(1_000_000));
        let span = Duration::from_secs(5);
        let (a, b) = tokio::join!(bytes_in(&limiter, span), bytes_in(&limiter, span));
        assert!(a.abs_diff(b) <= a / 10, "{a} and {b}");
        assert!((a + b).abs_diff(5_000_000) <= 250_000 + 2 * limiter.take_max() as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let limiter = Limiter::new(None);
        let before = Instant::now();
        limiter.take(1 << 40).await;
        assert_eq!(Instant::now(), before);
    }
}
