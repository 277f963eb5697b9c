//! When what was stored is brought to the disk itself: in batches, one at a time, so that a power loss costs little.
//!
//! Only says when; the store does it on a blocking thread. A killed process loses nothing, synced or not.

use std::time::Duration;

use tokio::time::Instant;

/// Stored bytes that begin a sync. Less makes the disk seek for every few pieces, more is lost with the power.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long the first stored byte waits for a sync.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What is stored and not synced, and whether a sync runs.
#[derive(Debug, Default)]
pub(in crate::node) struct Syncing {
    bytes: u64,
    since: Option<Instant>,
    is_running: bool,
}

impl Syncing {
    /// A piece was stored.
    pub(super) fn stored(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        self.since.get_or_insert(now);
    }

    /// When the next sync is due by time; `None` while one runs and while there is nothing to sync.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.is_running)?;
        Some(since + WAIT_MAX)
    }

    /// Whether anything is not known to be on the disk.
    pub(super) fn is_wanted(&self) -> bool {
        self.since.is_some() || self.is_running
    }

    /// Whether a sync is to begin now; from then on it runs.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let is_due = self
            .deadline()
            .is_some_and(|at| self.bytes >= BYTES_MAX || at <= now);
        if is_due {
            *self = Self {
                is_running: true,
                ..Self::default()
            };
        }
        is_due
    }

    /// The sync is over; what was stored meanwhile counts for the next.
    pub(super) fn ended(&mut self) {
        self.is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_begins_after_so_many_bytes_or_so_long_and_one_at_a_time() {
        let mut syncing = Syncing::default();
        let start = Instant::now();
        assert!(!syncing.begins(start) && syncing.deadline().is_none());
        syncing.stored(start, BYTES_MAX - 1);
        assert!(!syncing.begins(start));
        assert_eq!(syncing.deadline(), Some(start + WAIT_MAX));
        syncing.stored(start, 1);
        assert!(syncing.begins(start));
        syncing.stored(start, BYTES_MAX);
        assert!(!syncing.begins(start + WAIT_MAX), "one runs");
        syncing.ended();
        assert!(syncing.begins(start));
        syncing.ended();
        syncing.stored(start, 1);
        assert!(!syncing.begins(start));
        assert!(syncing.begins(start + WAIT_MAX));
    }
}
