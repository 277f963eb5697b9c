//! When a peer is judged silent, barren or slow: the judging part of [`Download`].
//!
//! Source: BEP 3 (snubbing) for the idea; values in `tuning`. States are tabled in `STATES.md`.

use std::time::Duration;

use super::Download;
use crate::engine::{Time, tuning};

impl Download {
    /// We were not there to hear anything: silence is counted from now on.
    pub(in crate::engine) fn forgive(&mut self, now: Time) {
        self.last_heard = now;
        self.silent_since = now;
        self.busy_since = now;
        if let Some(since) = &mut self.suspect_since {
            *since = now;
        }
    }

    /// A piece had to be asked elsewhere because it comes so slowly, or none came for long.
    pub(in crate::engine) fn snub(&mut self, now: Time) {
        if !self.is_snubbed(now) {
            let span = tuning::SNUB_SPAN * (1 << self.snubs.min(tuning::SNUB_DOUBLINGS_MAX));
            self.snubbed_until = Some(now + span);
            self.snubs += 1;
        }
    }

    /// Whether it was snubbed and has sent no whole piece since: what others hold is asked of them.
    pub(in crate::engine) fn is_on_probation(&self) -> bool {
        self.snubs > 0
    }

    pub(in crate::engine) fn is_snubbed(&self, now: Time) -> bool {
        self.snubbed_until.is_some_and(|until| now < until)
    }

    /// Another `span` has passed: who owes a piece for [`tuning::BARREN_AFTER`] in all is snubbed.
    pub(in crate::engine) fn on_span(&mut self, now: Time, span: Duration) {
        if self.relied_count > 0 {
            self.owed += span;
        }
        if self.owed >= tuning::BARREN_AFTER {
            self.owed = Duration::ZERO;
            self.snub(now);
        }
    }

    /// We said something to it.
    pub(in crate::engine) fn on_told(&mut self, now: Time) {
        self.last_told = now;
    }

    /// When it is to hear that we are alive and still wait, if it is told nothing else until then.
    pub(in crate::engine) fn reminder(&self) -> Option<Time> {
        (self.relied_count > 0).then(|| self.last_told + tuning::HEARTBEAT)
    }

    /// Whether it has said nothing for [`tuning::QUIET_AFTER`], asked or not.
    pub(in crate::engine) fn is_quiet(&self, now: Time) -> bool {
        now.duration_since(self.last_heard) >= tuning::QUIET_AFTER
    }

    pub(in crate::engine) fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    pub(in crate::engine) fn become_suspect(&mut self, now: Time) {
        self.suspect_since = Some(now);
    }

    /// When its last whole piece came, or else when it was met.
    pub(in crate::engine) fn last_arrival(&self) -> Time {
        self.last_arrival
    }

    fn silence_limit(&self) -> Duration {
        let adaptive = self.piece_time.unwrap_or_default() * tuning::SILENCE_PIECE_TIMES;
        adaptive.clamp(tuning::SILENCE_MIN, tuning::SILENCE_MAX)
    }

    /// When this peer is to be judged silent, or its session is to end because it was, if nothing is
    /// heard until then.
    pub(in crate::engine) fn deadline(&self) -> Option<Time> {
        match self.suspect_since {
            Some(since) => Some(since + tuning::SUSPECT_MAX),
            None if self.relied_count > 0 => {
                let silent = self.silent_since + self.silence_limit();
                Some(silent.max(self.busy_since + tuning::ANSWER_MIN))
            }
            None => None,
        }
    }
}
