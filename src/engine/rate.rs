//! How fast something flows: a window of integer sums, so that equal inputs give equal rates anywhere.
//!
//! Takes times and byte counts, knows no peer and no clock. Used for each peer's download and upload
//! and for the whole share.

use std::time::Duration;

use super::Time;
use super::tuning::{RATE_SLOTS, RATE_SPAN};

const SLOT: Duration = Duration::from_millis(RATE_SPAN.as_millis() as u64 / RATE_SLOTS as u64);

/// Bytes per second over the last [`RATE_SPAN`], or since the first byte if that is shorter.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    slots: [u64; RATE_SLOTS],
    /// Number of the newest slot since the run began; `None` before the first byte.
    newest: Option<u64>,
    started: Time,
    total: u64,
}

fn slot_of(now: Time) -> u64 {
    (now.since_start().as_millis() / SLOT.as_millis()) as u64
}

impl Rate {
    /// Counts `bytes` that passed at `now`.
    pub fn add(&mut self, now: Time, bytes: u64) {
        self.total += bytes;
        let slot = slot_of(now);
        match self.newest {
            None => {
                self.started = now;
                self.newest = Some(slot);
            }
            Some(newest) if slot > newest => {
                for passed in newest + 1..=slot.min(newest + RATE_SLOTS as u64) {
                    self.slots[passed as usize % RATE_SLOTS] = 0;
                }
                self.newest = Some(slot);
            }
            Some(_) => {}
        }
        self.slots[slot as usize % RATE_SLOTS] += bytes;
    }

    /// Bytes per second as seen at `now`.
    pub fn bytes_per_sec(&self, now: Time) -> u64 {
        let Some(newest) = self.newest else { return 0 };
        let slot = slot_of(now);
        let oldest = slot.saturating_sub(RATE_SLOTS as u64 - 1);
        let bytes: u64 = (oldest..=newest.min(slot))
            .filter(|at| at + RATE_SLOTS as u64 > newest)
            .map(|at| self.slots[at as usize % RATE_SLOTS])
            .sum();
        let begin = self.started.max(Time::from_start(
            SLOT * u32::try_from(oldest).unwrap_or(u32::MAX),
        ));
        let span = now.duration_since(begin).max(SLOT / 2);
        (u128::from(bytes) * 1_000_000 / span.as_micros()) as u64
    }

    /// All bytes ever counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_steady_flow_is_measured_within_five_percent() {
        let mut rate = Rate::default();
        for step in 0..400 {
            rate.add(at(step * 10), 10_000);
        }
        let measured = rate.bytes_per_sec(at(4_000));
        assert!((950_000..=1_050_000).contains(&measured), "{measured}");
    }

    #[test]
    fn a_flow_that_ended_is_forgotten_after_the_span() {
        let mut rate = Rate::default();
        rate.add(at(100), 1_000_000);
        assert!(rate.bytes_per_sec(at(600)) > 1_000_000);
        assert_eq!(rate.bytes_per_sec(at(5_000)), 0);
        rate.add(at(60_000), 500);
        assert!(
            rate.bytes_per_sec(at(60_100)) < 1_000,
            "old slots do not come back"
        );
        assert_eq!(rate.total(), 1_000_500);
    }
}
