//! What one peer owes us: its outstanding requests and its window.
//!
//! `estimate` says when they will be answered, `judgement` when the peer is silent or slow. All take plain numbers and
//! times and know no other peer and no piece state. A request is *relied on* until its piece is asked elsewhere; one that
//! is no longer relied on may still be answered (late).
//! Called by `transfer`. Sources: BEP 3 (pipelining), libtorrent `request_queue_time` for the idea of
//! a window in time; values in `tuning`.

mod estimate;
mod judgement;

use std::collections::BTreeMap;
use std::time::Duration;

use super::rate::Rate;
use super::{Time, tuning};
use crate::content::PieceIndex;

pub(super) use estimate::Progress;

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
    /// Orders requests by when they are served: those that arrive, then as they were sent.
    fn place(&self, piece: PieceIndex) -> (bool, Time, PieceIndex) {
        (self.began.is_none(), self.at, piece)
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
    /// The peer said `Queued` and has begun no piece since: none that it has not begun is in service.
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
        let Some(asked) = self.asked.get_mut(&piece) else {
            return false;
        };
        let is_first = asked.began.is_none();
        // The rest of a piece may have been under way when the peer said that the next one waits.
        self.told_to_wait &= !is_first;
        asked.began.get_or_insert(now);
        asked.received = asked.received.saturating_add(bytes);
        if asked.received > asked.len {
            // The first of them were still on their way from an earlier request: the piece begins anew.
            asked.received = bytes.min(asked.len);
            asked.began = Some(now);
        }
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

    pub(super) fn rate(&self) -> &Rate {
        &self.rate
    }
}

#[cfg(test)]
mod tests;
