//! How many peers are served at once: few, and one more only while that makes the whole faster.
//!
//! Few at a time lets each receiver pass its piece on sooner; too few leave the uplink idle when the
//! receivers are slow. So a place is tried now and then while somebody waits, and kept only if the bytes of
//! a period grew. Takes plain numbers. Called by `upload`. Source: libtorrent, rate based choker.

use super::{Time, tuning};

/// The number of places and the trial under way.
#[derive(Debug)]
pub(super) struct Slots {
    count: usize,
    sent: u64,
    /// When the present period began; `None` while nobody waits.
    began: Option<Time>,
    /// Bytes of the period before the place on trial was added.
    before: Option<u64>,
    /// Periods until the next trial.
    rest: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            count: tuning::SERVED_PEERS_MIN,
            sent: 0,
            began: None,
            before: None,
            rest: 0,
        }
    }
}

impl Slots {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn on_sent(&mut self, bytes: u32) {
        self.sent += u64::from(bytes);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.began.map(|began| began + tuning::SLOT_PERIOD)
    }

    /// Ends the period if it is over. `is_wanted` tells whether somebody waits for a place.
    pub(super) fn on_time(&mut self, now: Time, is_wanted: bool) {
        let Some(began) = self.began.filter(|_| is_wanted) else {
            self.began = is_wanted.then_some(now);
            self.sent = 0;
            return;
        };
        if now < began + tuning::SLOT_PERIOD {
            return;
        }
        let sent = std::mem::take(&mut self.sent);
        self.began = Some(now);
        match self.before.take() {
            Some(before) if sent < before + before / tuning::SLOT_GAIN => {
                self.count -= 1;
                self.rest = tuning::SLOT_REST;
            }
            _ if self.rest > 0 => self.rest -= 1,
            _ if self.count < tuning::SERVED_PEERS_MAX => {
                self.count += 1;
                self.before = Some(sent);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Plays `periods` periods in which `rate(places)` bytes are sent.
    fn play(periods: u32, rate: fn(usize) -> u32) -> Vec<usize> {
        let mut slots = Slots::default();
        let mut counts = Vec::new();
        for period in 0..periods {
            slots.on_time(Time::from_start(tuning::SLOT_PERIOD * period), true);
            slots.on_sent(rate(slots.count()));
            counts.push(slots.count());
        }
        counts
    }

    #[test]
    fn places_are_added_while_each_makes_the_whole_faster() {
        let counts = play(20, |places| 1_000 * places.min(5) as u32);
        assert!(counts.contains(&6), "a sixth was tried: {counts:?}");
        assert_eq!(counts.last(), Some(&5), "{counts:?}");
    }

    #[test]
    fn a_full_uplink_keeps_its_few_places_most_of_the_time() {
        let counts = play(100, |_| 1_000);
        let tried = counts
            .iter()
            .filter(|count| **count > tuning::SERVED_PEERS_MIN)
            .count();
        assert!(tried > 0 && tried <= 10, "{tried} of 100 periods");
    }

    #[test]
    fn nothing_is_tried_while_nobody_waits() {
        let mut slots = Slots::default();
        for millis in 0..100 {
            slots.on_time(Time::from_start(Duration::from_millis(millis * 100)), false);
        }
        assert_eq!(slots.count(), tuning::SERVED_PEERS_MIN);
        assert_eq!(slots.deadline(), None);
    }
}
