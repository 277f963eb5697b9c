//! What one peer owes us: its outstanding requests, its window, and when it is judged silent or slow.
//!
//! Takes plain numbers and times; knows no other peer and no piece state. A request is *relied on*
//! until its piece is asked elsewhere; a request no longer relied on may still be answered (late).
//! Called by `transfer`. Sources: BEP 3 (pipelining), libtorrent `request_queue_time` for the idea of
//! a window in time; values in `tuning`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rate::Rate;
use super::{Time, tuning};
use crate::content::PieceIndex;

/// Time after which an answer is taken as never coming when the peer has shown no rate.
const NEVER: Duration = Duration::from_secs(3_600);

/// How a request comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
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

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When it was sent.
    pub(super) at: Time,
    /// Length of the piece in bytes.
    pub(super) len: u32,
    /// Bytes that arrived.
    pub(super) received: u32,
    /// When the first of them arrived.
    began: Option<Time>,
    /// Whether nobody else was asked in its stead.
    pub(super) relied: bool,
}

impl Asked {
    /// Until the rest of a piece is here that has begun to arrive.
    fn left(self, now: Time) -> Option<Duration> {
        let served = now.duration_since(self.began?);
        let left = u128::from(self.len - self.received);
        let micros = left * served.as_micros() / u128::from(self.received.max(1));
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(NEVER))
    }

    /// Orders requests by when they are served: those that arrive, then as they were sent.
    fn place(&self, piece: PieceIndex) -> (bool, Time, PieceIndex) {
        (self.began.is_none(), self.at, piece)
    }
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

/// One peer as a source.
#[derive(Debug)]
pub(super) struct Download {
    asked: BTreeMap<PieceIndex, Asked>,
    relied_count: u32,
    relied_bytes: u64,
    window_bytes: u64,
    window_bytes_min: u64,
    slow_start: bool,
    piece_time: Option<Duration>,
    last_arrival: Time,
    last_heard: Time,
    /// Since when its silence counts: it was heard, or was asked the first time after that. Withdrawing a
    /// request and making another does not begin it anew: two silent peers between which a piece is moved
    /// would never be judged.
    silent_since: Time,
    /// When it was asked last while it had nothing to answer.
    busy_since: Time,
    /// Whether it was asked since it was last heard.
    owes_a_word: bool,
    /// When it was last asked or told something.
    last_told: Time,
    suspect_since: Option<Time>,
    /// A piece was asked elsewhere because it was slow here: until then it gets no more than it must.
    snubbed_until: Option<Time>,
    /// Times it was snubbed since its last whole piece.
    snubs: u32,
    /// How long something was asked of it since its last whole piece, or since it was snubbed.
    owed: Duration,
    /// The peer said `Queued` and has sent no byte since: nothing of ours is in service.
    told_to_wait: bool,
    /// Peers in its line when it said so.
    in_line: u32,
    rate: Rate,
}

impl Download {
    pub(super) fn new(now: Time, piece_len: u32) -> Self {
        let window_bytes_min = u64::from(piece_len) * u64::from(tuning::WINDOW_PIECES_MIN);
        Self {
            asked: BTreeMap::new(),
            relied_count: 0,
            relied_bytes: 0,
            window_bytes: window_bytes_min,
            window_bytes_min,
            slow_start: true,
            piece_time: None,
            last_arrival: now,
            last_heard: now,
            silent_since: now,
            busy_since: now,
            owes_a_word: false,
            last_told: now,
            suspect_since: None,
            snubbed_until: None,
            snubs: 0,
            owed: Duration::ZERO,
            told_to_wait: false,
            in_line: 0,
            rate: Rate::default(),
        }
    }

    // -- requests ---------------------------------------------------------------------------------

    /// Whether one more piece of `len` bytes may be asked of this peer.
    pub(super) fn has_room(&self, len: u32) -> bool {
        self.relied_count < tuning::WINDOW_PIECES_MIN
            || (self.relied_count < tuning::REQUESTS_MAX
                && self.relied_bytes + u64::from(len) <= self.window_bytes)
    }

    /// Whether a piece that lost its peer may be asked of this one beyond its window.
    pub(super) fn has_room_in_need(&self) -> bool {
        self.asked.len() < tuning::REQUESTS_MAX as usize
            && self.relied_bytes <= self.window_bytes + tuning::WINDOW_BYTES_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.relied_count < tuning::WINDOW_PIECES_MIN
    }

    pub(super) fn has_asked(&self, piece: PieceIndex) -> bool {
        self.asked.contains_key(&piece)
    }

    pub(super) fn relies_on(&self, piece: PieceIndex) -> bool {
        self.asked.get(&piece).is_some_and(|asked| asked.relied)
    }

    pub(super) fn ask(&mut self, now: Time, piece: PieceIndex, len: u32) {
        if self.relied_count == 0 {
            self.busy_since = now;
        }
        if !std::mem::replace(&mut self.owes_a_word, true) {
            self.silent_since = now;
        }
        self.last_told = now;
        let before = self.asked.insert(
            piece,
            Asked {
                at: now,
                len,
                received: 0,
                began: None,
                relied: true,
            },
        );
        self.unrely_entry(before);
        self.relied_count += 1;
        self.relied_bytes += u64::from(len);
    }

    /// The piece is asked elsewhere; an answer may still come.
    pub(super) fn unrely(&mut self, piece: PieceIndex) {
        if let Some(entry) = self.asked.get_mut(&piece) {
            let before = *entry;
            entry.relied = false;
            self.unrely_entry(Some(before));
        }
    }

    /// No answer will come, or it has come.
    pub(super) fn forget(&mut self, piece: PieceIndex) -> Option<Asked> {
        let entry = self.asked.remove(&piece);
        self.unrely_entry(entry);
        entry
    }

    fn unrely_entry(&mut self, entry: Option<Asked>) {
        if let Some(Asked {
            len, relied: true, ..
        }) = entry
        {
            self.relied_count -= 1;
            self.relied_bytes -= u64::from(len);
        }
    }

    /// Pieces relied on, in index order.
    pub(super) fn relied(&self) -> impl Iterator<Item = (PieceIndex, Asked)> {
        self.asked
            .iter()
            .filter(|(_, asked)| asked.relied)
            .map(|(piece, asked)| (*piece, *asked))
    }

    pub(super) fn relied_count(&self) -> u32 {
        self.relied_count
    }

    /// Whether a piece that the peer suggests may be asked of it beyond its window.
    pub(super) fn has_room_for_suggestion(&self, len: u32) -> bool {
        let beyond = u64::from(tuning::SUGGESTED_BEYOND_WINDOW) * u64::from(len);
        self.relied_count < tuning::REQUESTS_MAX
            && (self.relied_count < tuning::WINDOW_PIECES_MIN + tuning::SUGGESTED_BEYOND_WINDOW
                || self.relied_bytes + u64::from(len) <= self.window_bytes + beyond)
    }

    // -- arrivals ---------------------------------------------------------------------------------

    /// Any frame or byte is life; true when the peer was suspect.
    pub(super) fn on_life(&mut self, now: Time) -> bool {
        self.last_heard = now;
        self.silent_since = now;
        self.owes_a_word = self.relied_count > 0;
        self.suspect_since.take().is_some()
    }

    /// Bytes of a piece came. True when they are its first and came so soon after we asked that the peer is near.
    pub(super) fn on_bytes(&mut self, now: Time, piece: PieceIndex, bytes: u32) -> bool {
        self.rate.add(now, u64::from(bytes));
        self.told_to_wait = false;
        let Some(asked) = self.asked.get_mut(&piece) else {
            return false;
        };
        asked.received = asked.received.saturating_add(bytes).min(asked.len);
        let is_first = asked.began.is_none();
        asked.began.get_or_insert(now);
        is_first && now.duration_since(asked.at) <= tuning::NEAR_ANSWER_MAX
    }

    /// Pieces that will not be sent soon, and when they were asked; none unless the peer told us to wait in a
    /// line of some length.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (PieceIndex, Time)> {
        let waits = self.told_to_wait && self.in_line >= tuning::LINE_LEFT_FROM;
        let relied = self.relied().filter(move |_| waits);
        let waiting = relied.filter(|(_, asked)| asked.began.is_none());
        waiting.map(|(piece, asked)| (piece, asked.at))
    }

    /// The peer says that our requests wait.
    pub(super) fn on_queued(&mut self, in_line: u32) {
        self.told_to_wait = true;
        self.in_line = in_line;
    }

    /// The peer says that it began to send one of our pieces.
    pub(super) fn on_serving(&mut self) {
        self.told_to_wait = false;
    }

    /// All bytes of `piece` are here: the request ends, window and piece time learn from it.
    pub(super) fn on_arrived(&mut self, now: Time, piece: PieceIndex) {
        let Some(asked) = self.forget(piece) else {
            return;
        };
        self.snubbed_until = None;
        self.owes_a_word = self.relied_count > 0;
        self.snubs = 0;
        self.owed = Duration::ZERO;
        let began = self.last_arrival.max(asked.at);
        let sample = now.duration_since(began);
        self.piece_time = Some(
            self.piece_time
                .map_or(sample, |time| (time * 7 + sample) / 8),
        );
        self.last_arrival = now;
        let span = tuning::WINDOW_SPAN.as_millis() as u64;
        let by_rate = self.rate.bytes_per_sec(now) * span / 1_000;
        if self.slow_start {
            self.window_bytes += u64::from(asked.len);
            self.slow_start = self.window_bytes < (2 * by_rate).max(4 * self.window_bytes_min);
        } else {
            self.window_bytes = by_rate;
        }
        let most = tuning::WINDOW_BYTES_MAX.max(self.window_bytes_min);
        self.window_bytes = self.window_bytes.clamp(self.window_bytes_min, most);
    }

    /// The peer has more requests than it wants.
    pub(super) fn shrink_window(&mut self) {
        self.slow_start = false;
        self.window_bytes = (self.window_bytes / 2).max(self.window_bytes_min);
    }

    // -- judgement --------------------------------------------------------------------------------

    /// We were not there to hear anything: silence is counted from now on.
    pub(super) fn forgive(&mut self, now: Time) {
        self.last_heard = now;
        self.silent_since = now;
        self.busy_since = now;
        if let Some(since) = &mut self.suspect_since {
            *since = now;
        }
    }

    /// A piece had to be asked elsewhere because it comes so slowly, or none came for long.
    pub(super) fn snub(&mut self, now: Time) {
        if !self.is_snubbed(now) {
            let span = tuning::SNUB_SPAN * (1 << self.snubs.min(tuning::SNUB_DOUBLINGS_MAX));
            self.snubbed_until = Some(now + span);
            self.snubs += 1;
        }
    }

    /// Whether it was snubbed and has sent no whole piece since: what others hold is asked of them.
    pub(super) fn is_on_probation(&self) -> bool {
        self.snubs > 0
    }

    pub(super) fn is_snubbed(&self, now: Time) -> bool {
        self.snubbed_until.is_some_and(|until| now < until)
    }

    /// Another `span` has passed: who owes a piece for [`tuning::BARREN_AFTER`] in all is snubbed.
    pub(super) fn on_span(&mut self, now: Time, span: Duration) {
        if self.relied_count > 0 {
            self.owed += span;
        }
        if self.owed >= tuning::BARREN_AFTER {
            self.owed = Duration::ZERO;
            self.snub(now);
        }
    }

    /// We said something to it.
    pub(super) fn on_told(&mut self, now: Time) {
        self.last_told = now;
    }

    /// When it is to hear that we are alive and still wait, if it is told nothing else until then.
    pub(super) fn reminder(&self) -> Option<Time> {
        (self.relied_count > 0).then(|| self.last_told + tuning::HEARTBEAT)
    }

    /// Whether it has said nothing for [`tuning::QUIET_AFTER`], asked or not.
    pub(super) fn is_quiet(&self, now: Time) -> bool {
        now.duration_since(self.last_heard) >= tuning::QUIET_AFTER
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    pub(super) fn become_suspect(&mut self, now: Time) {
        self.suspect_since = Some(now);
    }

    /// When its last whole piece came, or else when it was met.
    pub(super) fn last_arrival(&self) -> Time {
        self.last_arrival
    }

    fn silence_limit(&self) -> Duration {
        let adaptive = self.piece_time.unwrap_or_default() * tuning::SILENCE_PIECE_TIMES;
        adaptive.clamp(tuning::SILENCE_MIN, tuning::SILENCE_MAX)
    }

    /// When this peer is to be judged silent, or its session is to end because it was, if nothing is
    /// heard until then.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.suspect_since {
            Some(since) => Some(since + tuning::SUSPECT_MAX),
            None if self.relied_count > 0 => {
                let silent = self.silent_since + self.silence_limit();
                Some(silent.max(self.busy_since + tuning::ANSWER_MIN))
            }
            None => None,
        }
    }

    /// How long until a piece of `len` bytes would be here if it were asked of this peer now.
    pub(super) fn time_for_new(&self, now: Time, len: u32) -> Duration {
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
    pub(super) fn progress(&self, now: Time, piece: PieceIndex) -> Option<Progress> {
        let asked = *self.asked.get(&piece)?;
        let place = asked.place(piece);
        let ahead = self
            .relied()
            .filter(|(other, entry)| entry.place(*other) < place);
        let ahead = ahead.fold(Ahead::default(), |ahead, (_, entry)| ahead.and(entry));
        self.judge(now, asked, ahead)
    }

    /// Whether `piece` surely is not being sent yet, because another one is and will be for a while.
    pub(super) fn is_behind(&self, now: Time, piece: PieceIndex) -> bool {
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
    pub(super) fn is_nearly_here(&self, now: Time, piece: PieceIndex) -> bool {
        self.asked.get(&piece).is_some_and(|asked| {
            asked.received >= asked.len / 2
                && asked
                    .left(now)
                    .is_some_and(|left| left <= tuning::OFFER_AHEAD)
        })
    }

    /// [`Self::progress`] of every piece relied on of which something can be said, in the order in which
    /// they are expected.
    pub(super) fn progresses(&self, now: Time) -> Vec<(PieceIndex, Progress)> {
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

    pub(super) fn rate(&self) -> &Rate {
        &self.rate
    }
}

fn span(bytes: u64, bytes_per_sec: u64) -> Duration {
    Duration::from_micros((u128::from(bytes) * 1_000_000 / u128::from(bytes_per_sec)) as u64)
        .min(NEVER)
}

#[cfg(test)]
mod tests;
