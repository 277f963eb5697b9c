//! How long a frame may be, from how fast the connection takes bytes.
//!
//! A frame that has begun is finished before anything else leaves, and the peer sees none of it before its last byte. So a
//! frame must not take long: large ones are for fast connections. Written to by `joined`, which sees every byte that leaves;
//! read by it and by the streams, which queue little on a slow connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::FRAME_LEN_MAX;

/// Shortest frame a long write is cut into: the default of the crate. Less costs wake-ups, more costs seconds on the slowest
/// uplinks.
const FRAME_LEN_MIN: usize = 16 * 1024;

/// What a frame may take on the wire: 256 KiB from 100 Mbit/s on. Less cuts frames on slower connections, more delays what
/// comes behind: cancels, and the signs of life that a peer expects twice a second.
const FRAME_SPAN: Duration = Duration::from_millis(20);

/// The rate is taken over at least this long.
const PERIOD: Duration = Duration::from_millis(100);

/// The length for now.
#[derive(Debug)]
pub(super) struct Pace {
    frame_len: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            frame_len: AtomicUsize::new(FRAME_LEN_MIN),
        }
    }
}

impl Pace {
    /// Bytes of the next frame, at most.
    pub(super) fn frame_len(&self) -> usize {
        self.frame_len.load(Ordering::Relaxed)
    }

    /// Whether frames wait behind each other for a time that is felt: nothing is queued that need not be.
    pub(super) fn is_slow(&self) -> bool {
        self.frame_len() < FRAME_LEN_MAX
    }

    fn set(&self, frame_len: usize) {
        let frame_len = frame_len.clamp(FRAME_LEN_MIN, FRAME_LEN_MAX);
        self.frame_len.store(frame_len, Ordering::Relaxed);
    }
}

/// What left in the current period.
#[derive(Debug, Default)]
pub(super) struct Meter {
    began: Option<Instant>,
    bytes: usize,
    /// Whether the connection took less than it was given: only then is what it took its rate.
    was_full: bool,
}

impl Meter {
    /// `bytes` left at `now`.
    pub(super) fn on_written(&mut self, bytes: usize, now: Instant, pace: &Pace) {
        self.bytes += bytes;
        let began = *self.began.get_or_insert(now);
        let span = now.saturating_duration_since(began);
        if span < PERIOD {
            return;
        }
        if self.was_full {
            let rate = self.bytes as f64 / span.as_secs_f64();
            pace.set((rate * FRAME_SPAN.as_secs_f64()) as usize);
        } else {
            pace.set(pace.frame_len() * 2);
        }
        *self = Self {
            began: Some(now),
            ..Self::default()
        };
    }

    /// The connection takes no more for now.
    pub(super) fn on_full(&mut self) {
        self.was_full = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The length after `spans` in each of which `bytes` left.
    fn after(meter: &mut Meter, pace: &Pace, full: bool, span: Duration, bytes: &[usize]) -> usize {
        let mut now = meter.began.unwrap_or_else(Instant::now);
        meter.on_written(0, now, pace);
        for bytes in bytes {
            if full {
                meter.on_full();
            }
            now += span;
            meter.on_written(*bytes, now, pace);
        }
        pace.frame_len()
    }

    #[test]
    fn a_slow_connection_keeps_short_frames() {
        let (mut meter, pace) = (Meter::default(), Pace::default());
        // 1 Mbit/s: even the shortest frame takes 130 ms.
        let len = after(&mut meter, &pace, true, 130 * MS, &[FRAME_LEN_MIN; 20]);
        assert_eq!(len, FRAME_LEN_MIN);
    }

    #[test]
    fn frames_grow_with_the_connection_and_shrink_with_it() {
        let (mut meter, pace) = (Meter::default(), Pace::default());
        assert_eq!(pace.frame_len(), FRAME_LEN_MIN, "nothing is known yet");
        let fast = after(&mut meter, &pace, true, 100 * MS, &[50_000_000]);
        assert_eq!(fast, FRAME_LEN_MAX);
        let slower = after(&mut meter, &pace, true, 100 * MS, &[300_000]);
        assert_eq!(slower, 60_000, "20 ms of 3 MB/s");
    }

    #[test]
    fn a_connection_that_takes_everything_may_take_more() {
        let (mut meter, pace) = (Meter::default(), Pace::default());
        let len = after(&mut meter, &pace, false, 100 * MS, &[1_000; 2]);
        assert_eq!(len, 4 * FRAME_LEN_MIN);
        let len = after(&mut meter, &pace, false, 100 * MS, &[1_000; 9]);
        assert_eq!(len, FRAME_LEN_MAX);
    }
}
