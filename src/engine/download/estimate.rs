//! When the pieces asked of a peer will be here: the estimating part of [`Download`].
//!
//! From the bytes that arrive, the rate of the peer and what it was asked before. Called by `asking` through [`Download`].

use std::time::Duration;

use super::{Asked, Download};
use crate::content::PieceIndex;
use crate::engine::{Time, tuning};

/// Time after which an answer is taken as never coming when the peer has shown no rate.
pub(super) const NEVER: Duration = Duration::from_secs(3_600);

/// How a request comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Progress {
    /// It is surely not being sent yet: the peer told us to wait, or others come before it.
    Waits {
        /// Until it is here.
        left: Duration,
    },
    /// Its bytes arrive, or ought to by now.
    Arrives {
        /// Until it is here; zero while it is too early to tell.
        left: Duration,
    },
}

/// What a peer has to send before a piece.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    count: u32,
    bytes: u64,
}

impl Ahead {
    fn and(self, asked: Asked) -> Self {
        Self {
            count: self.count + 1,
            bytes: self.bytes + u64::from(asked.len - asked.received),
        }
    }
}
impl Asked {
    /// Until the rest of a piece is here that has begun to arrive.
    fn left(self, now: Time) -> Option<Duration> {
        let served = now.duration_since(self.began?);
        let left = u128::from(self.len - self.received);
        let micros = left * served.as_micros() / u128::from(self.received.max(1));
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(NEVER))
    }
}

impl Download {
    /// How long until a piece of `len` bytes would be here if it were asked of this peer now.
    pub(in crate::engine) fn time_for_new(&self, now: Time, len: u32) -> Duration {
        let rate = self.rate.bytes_per_sec(now);
        let bytes = self.relied_left() + u64::from(len);
        if rate == 0 {
            let known = self.piece_time.unwrap_or(tuning::SILENCE_MIN);
            let at_least = if self.is_on_probation() {
                tuning::BARREN_AFTER
            } else if self.is_quiet(now) {
                tuning::SILENCE_MIN
            } else {
                Duration::ZERO
            };
            let known = known.max(at_least);
            return known * (self.relied_count + 1);
        }
        span(bytes, rate)
    }

    /// How `piece` comes along: by its own speed when its bytes are arriving, else by the pieces asked
    /// before it and the rate of the peer. `None` when it was not asked, or nothing can be said yet.
    pub(in crate::engine) fn progress(&self, now: Time, piece: PieceIndex) -> Option<Progress> {
        let asked = *self.asked.get(&piece)?;
        let place = asked.place(piece);
        let ahead = self
            .relied()
            .filter(|(other, entry)| entry.place(*other) < place);
        let ahead = ahead.fold(Ahead::default(), |ahead, (_, entry)| ahead.and(entry));
        self.judge(now, asked, ahead)
    }

    /// Whether `piece` surely is not being sent yet, because another one is and will be for a while.
    pub(in crate::engine) fn is_behind(&self, now: Time, piece: PieceIndex) -> bool {
        let waits = |asked: &&Asked| asked.began.is_none();
        let Some(asked) = self.asked.get(&piece).filter(waits) else {
            return false;
        };
        let place = asked.place(piece);
        let goes_on = |entry: &Asked| {
            entry
                .left(now)
                .is_some_and(|left| left >= tuning::OFFER_AHEAD)
        };
        self.relied()
            .any(|(other, entry)| entry.place(other) < place && goes_on(&entry))
    }

    /// Whether most of `piece` is here and the rest will be soon.
    pub(in crate::engine) fn is_nearly_here(&self, now: Time, piece: PieceIndex) -> bool {
        self.asked.get(&piece).is_some_and(|asked| {
            asked.received >= asked.len / 2
                && asked
                    .left(now)
                    .is_some_and(|left| left <= tuning::OFFER_AHEAD)
        })
    }

    /// [`Self::progress`] of every piece relied on of which something can be said, in the order in which
    /// they are expected.
    pub(in crate::engine) fn progresses(&self, now: Time) -> Vec<(PieceIndex, Progress)> {
        let mut relied: Vec<_> = self.relied().collect();
        relied.sort_unstable_by_key(|(piece, asked)| asked.place(*piece));
        let mut ahead = Ahead::default();
        let mut progresses = Vec::with_capacity(relied.len());
        for (piece, asked) in relied {
            let progress = self.judge(now, asked, ahead);
            progresses.extend(progress.map(|progress| (piece, progress)));
            ahead = ahead.and(asked);
        }
        progresses
    }

    fn judge(&self, now: Time, asked: Asked, ahead: Ahead) -> Option<Progress> {
        if let Some(began) = asked.began {
            let served = now.duration_since(began);
            if served < self.judged_after(tuning::JUDGE_AFTER) {
                return Some(Progress::Arrives {
                    left: Duration::ZERO,
                });
            }
            let left = asked.left(now).unwrap_or(NEVER);
            return Some(Progress::Arrives { left });
        }
        let rate = self.rate.bytes_per_sec(now);
        let age = now.duration_since(asked.at);
        let is_old = age > self.judged_after(tuning::RATE_SPAN);
        let left = match rate {
            0 if is_old => NEVER,
            0 => age,
            rate => span(ahead.bytes + u64::from(asked.len), rate),
        };
        match ahead.count {
            // In a short line its turn comes before a cancel would help.
            _ if self.told_to_wait
                && self.in_line < tuning::LINE_LEFT_FROM
                && age < tuning::SHORT_LINE_LASTS =>
            {
                None
            }
            _ if self.told_to_wait => Some(Progress::Waits { left }),
            0 if is_old => Some(Progress::Arrives { left }),
            0 => None,
            // One may have ended and the next begun without a word; not for so long, though.
            1 if !is_old => None,
            _ => Some(Progress::Waits { left }),
        }
    }

    /// How long a request is not judged: `usually`, or a moment when the peer has sent no whole piece since it was
    /// snubbed.
    fn judged_after(&self, usually: Duration) -> Duration {
        if self.is_on_probation() {
            tuning::PROBATION_JUDGE_AFTER
        } else {
            usually
        }
    }

    fn relied_left(&self) -> u64 {
        self.relied()
            .map(|(_, asked)| u64::from(asked.len - asked.received))
            .sum()
    }
}

fn span(bytes: u64, bytes_per_sec: u64) -> Duration {
    Duration::from_micros((u128::from(bytes) * 1_000_000 / u128::from(bytes_per_sec)) as u64)
        .min(NEVER)
}
