//! What one peer owes us: its outstanding requests, its window, and when it is judged silent or slow.
//!
//! Takes plain numbers and times; knows no other peer and no piece state. A request is *relied on*
//! until its piece is asked elsewhere; a request no longer relied on may still be answered (late).
//! Called by `transfer`. Sources: BEP 3 (pipelining), libtorrent `request_queue_time` for the idea of
//! a window in time; values in `tuning`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::rate::Rate;
use super::{Time, tuning};
use crate::content::PieceIndex;

/// Time after which an answer is taken as never coming when the peer has shown no rate.
const NEVER: Duration = Duration::from_secs(3_600);

/// Suggestions remembered per peer.
const SUGGESTED_MAX: usize = 16;

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
    busy_since: Time,
    suspect_since: Option<Time>,
    /// The peer said `Queued` and has sent no byte since: nothing of ours is in service.
    told_to_wait: bool,
    suggested: VecDeque<PieceIndex>,
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
            busy_since: now,
            suspect_since: None,
            told_to_wait: false,
            suggested: VecDeque::new(),
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

    pub(super) fn ask(&mut self, now: Time, piece: PieceIndex, len: u32) {
        if self.relied_count == 0 {
            self.busy_since = now;
        }
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

    pub(super) fn suggest(&mut self, piece: PieceIndex) {
        if self.suggested.len() < SUGGESTED_MAX {
            self.suggested.push_back(piece);
        }
    }

    pub(super) fn take_suggestion(&mut self) -> Option<PieceIndex> {
        self.suggested.pop_front()
    }

    // -- arrivals ---------------------------------------------------------------------------------

    /// Any frame or byte is life; true when the peer was suspect.
    pub(super) fn on_life(&mut self, now: Time) -> bool {
        self.last_heard = now;
        self.suspect_since.take().is_some()
    }

    pub(super) fn on_bytes(&mut self, now: Time, piece: PieceIndex, bytes: u32) {
        self.rate.add(now, u64::from(bytes));
        if let Some(asked) = self.asked.get_mut(&piece) {
            asked.received = asked.received.saturating_add(bytes).min(asked.len);
            asked.began.get_or_insert(now);
        }
        self.told_to_wait = false;
    }

    /// The peer says that our requests wait.
    pub(super) fn on_queued(&mut self) {
        self.told_to_wait = true;
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

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    pub(super) fn become_suspect(&mut self, now: Time) {
        self.suspect_since = Some(now);
    }

    fn silence_limit(&self) -> Duration {
        let adaptive = self.piece_time.unwrap_or_default() * tuning::SILENCE_PIECE_TIMES;
        adaptive.clamp(tuning::SILENCE_MIN, tuning::SILENCE_MAX)
    }

    /// When this peer is to be judged silent if nothing is heard until then.
    pub(super) fn silence_deadline(&self) -> Option<Time> {
        let waiting = self.relied_count > 0 && self.suspect_since.is_none();
        waiting.then(|| self.last_heard.max(self.busy_since) + self.silence_limit())
    }

    /// When the session with this suspect is to end.
    pub(super) fn parting_deadline(&self) -> Option<Time> {
        self.suspect_since.map(|since| since + tuning::SUSPECT_MAX)
    }

    /// How long until a piece of `len` bytes would be here if it were asked of this peer now.
    pub(super) fn time_for_new(&self, now: Time, len: u32) -> Duration {
        let rate = self.rate.bytes_per_sec(now);
        let bytes = self.relied_left() + u64::from(len);
        if rate == 0 {
            let known = self.piece_time.unwrap_or(tuning::SILENCE_MIN);
            return known * (self.relied_count + 1);
        }
        span(bytes, rate)
    }

    /// How long until `piece` is here: from its own speed when its bytes are arriving, else from the
    /// pieces asked before it and the rate of the peer. Zero while it is too early to tell.
    pub(super) fn time_for_asked(&self, now: Time, piece: PieceIndex) -> Duration {
        let Some(asked) = self.asked.get(&piece) else {
            return NEVER;
        };
        if let Some(began) = asked.began {
            let served = now.duration_since(began);
            let left = u64::from(asked.len - asked.received);
            if served < tuning::JUDGE_AFTER {
                return Duration::ZERO;
            }
            let micros = u128::from(left) * served.as_micros() / u128::from(asked.received.max(1));
            return Duration::from_micros(micros as u64).min(NEVER);
        }
        let rate = self.rate.bytes_per_sec(now);
        if rate == 0 {
            let age = now.duration_since(asked.at);
            return if age > tuning::RATE_SPAN { NEVER } else { age };
        }
        let ahead: u64 = self
            .ahead_of(piece, *asked)
            .map(|(_, entry)| u64::from(entry.len - entry.received))
            .sum();
        span(ahead + u64::from(asked.len), rate)
    }

    /// Whether `piece` is surely not being sent yet: the peer told us to wait, or others come before it.
    pub(super) fn surely_waits(&self, piece: PieceIndex) -> bool {
        let Some(asked) = self.asked.get(&piece) else {
            return false;
        };
        asked.began.is_none()
            && (self.told_to_wait || self.ahead_of(piece, *asked).nth(1).is_some())
    }

    fn ahead_of(
        &self,
        piece: PieceIndex,
        asked: Asked,
    ) -> impl Iterator<Item = (PieceIndex, Asked)> {
        let place = (asked.began.is_none(), asked.at, piece);
        self.relied()
            .filter(move |(other, entry)| (entry.began.is_none(), entry.at, *other) < place)
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
mod tests {
    use super::*;

    const LEN: u32 = 65_536;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn piece(index: u32) -> PieceIndex {
        PieceIndex::new(index)
    }

    /// A peer that delivers one piece every `every` milliseconds from time 0 on.
    fn steady(pieces: u32, every: u64) -> (Download, Time) {
        let mut download = Download::new(at(0), LEN);
        let mut now = at(0);
        for index in 0..pieces {
            download.ask(now, piece(index), LEN);
            now = at(every * u64::from(index + 1));
            download.on_life(now);
            download.on_bytes(now, piece(index), LEN);
            download.on_arrived(now, piece(index));
        }
        (download, now)
    }

    #[test]
    fn the_window_starts_at_two_pieces_and_grows_with_the_rate() {
        let mut download = Download::new(at(0), LEN);
        let mut asked = 0;
        while download.has_room(LEN) {
            download.ask(at(0), piece(asked), LEN);
            asked += 1;
        }
        assert_eq!(asked, tuning::WINDOW_PIECES_MIN);

        let (mut fast, now) = steady(400, 1);
        let mut room = 0;
        while fast.has_room(LEN) {
            fast.ask(now, piece(1_000 + room), LEN);
            room += 1;
        }
        let bytes = u64::from(room * LEN);
        assert!(
            bytes > tuning::WINDOW_BYTES_MAX / 2 && bytes <= tuning::WINDOW_BYTES_MAX,
            "{bytes}"
        );
    }

    #[test]
    fn a_peer_without_requests_is_never_silent() {
        let (download, _) = steady(3, 50);
        assert_eq!(download.silence_deadline(), None);
    }

    #[test]
    fn silence_is_counted_from_the_first_request_after_a_pause() {
        let (mut download, _) = steady(3, 50);
        download.ask(at(60_000), piece(9), LEN);
        assert_eq!(
            download.silence_deadline(),
            Some(at(60_000) + tuning::SILENCE_MIN)
        );
    }

    #[test]
    fn a_slow_peer_gets_more_patience_but_not_endless() {
        let (mut download, now) = steady(20, 400);
        download.ask(now, piece(90), LEN);
        let patience = download
            .silence_deadline()
            .expect("waiting")
            .duration_since(now);
        assert!(patience > tuning::SILENCE_MIN, "{patience:?}");
        let (mut slower, now) = steady(20, 5_000);
        slower.ask(now, piece(90), LEN);
        assert_eq!(slower.silence_deadline(), Some(now + tuning::SILENCE_MAX));
    }

    #[test]
    fn any_frame_ends_suspicion() {
        let mut download = Download::new(at(0), LEN);
        download.ask(at(0), piece(0), LEN);
        download.become_suspect(at(1_000));
        assert_eq!(
            download.parting_deadline(),
            Some(at(1_000) + tuning::SUSPECT_MAX)
        );
        assert!(download.on_life(at(1_100)));
        assert_eq!(download.parting_deadline(), None);
        assert!(!download.on_life(at(1_200)), "only the first frame is news");
    }

    #[test]
    fn a_request_asked_elsewhere_leaves_the_window_but_is_remembered() {
        let mut download = Download::new(at(0), LEN);
        download.ask(at(0), piece(0), LEN);
        download.ask(at(0), piece(1), LEN);
        assert!(!download.has_room(LEN));
        download.unrely(piece(0));
        download.unrely(piece(0));
        assert_eq!(download.relied_count(), 1);
        assert!(download.has_room(LEN) && download.has_asked(piece(0)));
        assert!(download.forget(piece(0)).is_some());
        assert_eq!(download.relied_count(), 1);
    }

    #[test]
    fn only_a_piece_that_surely_waits_may_be_moved() {
        let mut download = Download::new(at(0), LEN);
        (0..3).for_each(|index| download.ask(at(0), piece(index), LEN));
        assert!(!download.surely_waits(piece(0)) && !download.surely_waits(piece(1)));
        assert!(download.surely_waits(piece(2)), "two others come before it");
        download.on_queued();
        assert!(download.surely_waits(piece(0)));
        download.on_bytes(at(9), piece(1), 10);
        assert!(!download.surely_waits(piece(0)) && !download.surely_waits(piece(1)));
    }

    #[test]
    fn a_piece_in_service_at_a_peer_gone_slow_is_expected_late() {
        let (mut download, now) = steady(40, 50);
        download.ask(now, piece(50), LEN);
        let soon = download.time_for_asked(now, piece(50));
        assert!(soon < Duration::from_millis(100), "{soon:?}");
        let later = now + Duration::from_secs(4);
        download.on_life(later);
        download.on_bytes(later, piece(50), 1);
        assert_eq!(
            download.time_for_asked(later, piece(50)),
            Duration::ZERO,
            "too early to tell"
        );
        let judged = later + Duration::from_secs(1);
        assert!(download.time_for_asked(judged, piece(50)) > Duration::from_secs(3_000));
    }
}
