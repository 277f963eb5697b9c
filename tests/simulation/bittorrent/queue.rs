//! How much is asked of one peer at once, and when it is taken to have stopped: slow start, three seconds, snubbing.
//!
//! Knows bytes and times of one peer, no pieces beyond their numbers. Called by `client`.
//! Source: libtorrent `peer_connection.cpp`, `bt_peer_connection.cpp` and `request_queue_time` 3,
//! `max_allowed_in_request_queue` 2,000, `request_timeout` 60, `piece_timeout` 20.

use std::collections::VecDeque;
use std::time::Duration;

use shoal::engine::Time;

use super::BLOCK_LEN;

/// Time at the present rate that the requests at a peer cover.
const QUEUE_SPAN_SECS: u64 = 3;

/// Fewest and most blocks asked of a peer. `max_out_request_queue` is 500, but a peer that tells in its extension
/// handshake (BEP 10, `reqq`) how many it keeps is asked for as many, and libtorrent tells 2,000: with 500 the twin
/// of a measured swarm has the seeder send 1.2 copies where 1.4 were counted.
const BLOCKS_MIN: u32 = 2;
const BLOCKS_MAX: u32 = 2_000;

/// A peer asked for the first time is asked for this many blocks, and for one more with each that arrives.
const BLOCKS_START: u32 = 4;

/// Slow start ends when the bytes of a second grew by no more than this.
const SLOW_START_GAIN: u64 = 5_000;

/// Bounds of the time without a block after which a peer is snubbed.
const TIMEOUT_MIN: Duration = Duration::from_secs(2);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A peer that was asked and brought no block for this long is snubbed in any case.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes asked in a row.
const RUN_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Samples after which the mean of the times between blocks moves by a fixed part.
const SAMPLES_MAX: i64 = 20;

#[derive(Clone, Copy, Debug)]
struct Ask {
    piece: u32,
    bytes_left: u32,
    /// Others may be asked for it; the peer still owes it.
    timed_out: bool,
}

/// Mean and deviation of the times between blocks, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    samples: i64,
    mean: i64,
    deviation: i64,
}

impl Gaps {
    fn add(&mut self, gap: Duration) {
        let gap = gap.as_millis() as i64;
        let deviation = (self.mean - gap).abs();
        self.samples = (self.samples + 1).min(SAMPLES_MAX);
        self.mean += (gap - self.mean) / self.samples;
        if self.samples > 1 {
            self.deviation += (deviation - self.deviation) / (self.samples - 1);
        }
    }

    fn timeout(&self) -> Duration {
        let millis = match self.samples {
            0 => return TIMEOUT_MAX,
            1 => self.mean + self.mean / 5,
            _ => self.mean + 4 * self.deviation,
        };
        let secs = (millis.max(0) as u64).div_ceil(1_000);
        Duration::from_secs(secs).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }
}

/// What one peer was asked for.
#[derive(Debug)]
pub(super) struct Queue {
    asked: Vec<Ask>,
    /// Picked to be asked next.
    reserved: VecDeque<u32>,
    blocks_desired: u32,
    slow_start: bool,
    snubbed: bool,
    bytes_this_second: u64,
    bytes_last_second: u64,
    /// Bytes since slow start last grew the queue.
    bytes_of_block: u32,
    rate_per_sec: u64,
    /// When the present request began to be waited for.
    requested: Time,
    gaps: Gaps,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            asked: Vec::new(),
            reserved: VecDeque::new(),
            blocks_desired: BLOCKS_START,
            slow_start: true,
            snubbed: false,
            bytes_this_second: 0,
            bytes_last_second: 0,
            bytes_of_block: 0,
            rate_per_sec: 0,
            requested: Time::default(),
            gaps: Gaps::default(),
        }
    }
}

impl Queue {
    pub(super) fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.reserved.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        let blocks = self
            .asked
            .iter()
            .map(|ask| ask.bytes_left.div_ceil(BLOCK_LEN));
        blocks.sum::<u32>() < self.blocks_desired
    }

    /// How many pieces to ask in a row when one takes this peer less than `threshold`.
    pub(super) fn run_len(&self, threshold: Duration, piece_len: u32) -> u32 {
        let bytes = (self.rate_per_sec * threshold.as_secs()).min(RUN_BYTES_MAX);
        (bytes / u64::from(piece_len)).max(1) as u32
    }

    // -- asking -----------------------------------------------------------------------------------

    pub(super) fn reserve(&mut self, piece: u32) {
        self.reserved.push_back(piece);
    }

    pub(super) fn next_reserved(&mut self) -> Option<u32> {
        self.reserved.pop_front()
    }

    /// Gives back what was picked and not asked.
    pub(super) fn unreserve(&mut self) -> VecDeque<u32> {
        std::mem::take(&mut self.reserved)
    }

    pub(super) fn ask(&mut self, now: Time, piece: u32, len: u32) {
        if self.asked.is_empty() {
            self.requested = now;
        }
        self.asked.push(Ask {
            piece,
            bytes_left: len,
            timed_out: false,
        });
    }

    /// The peer owes the piece no longer; whether it was relied on.
    pub(super) fn forget(&mut self, piece: u32) -> bool {
        let Some(at) = self.asked.iter().position(|ask| ask.piece == piece) else {
            return false;
        };
        !self.asked.remove(at).timed_out
    }

    /// Everything it was relied on for, when it is gone.
    pub(super) fn relied_on(&self) -> Vec<u32> {
        let asked = self.asked.iter().filter(|ask| !ask.timed_out);
        let asked = asked.map(|ask| ask.piece);
        asked.chain(self.reserved.iter().copied()).collect()
    }

    // -- what comes -------------------------------------------------------------------------------

    pub(super) fn on_bytes(&mut self, now: Time, piece: u32, bytes: u32) {
        self.bytes_this_second += u64::from(bytes);
        self.gaps.add(now.duration_since(self.requested));
        self.requested = now;
        if std::mem::take(&mut self.snubbed) {
            self.blocks_desired = BLOCKS_MIN;
        }
        if let Some(ask) = self.asked.iter_mut().find(|ask| ask.piece == piece) {
            ask.bytes_left = ask.bytes_left.saturating_sub(bytes);
        }
        if self.slow_start {
            self.bytes_of_block += bytes;
            let grown = self.blocks_desired + self.bytes_of_block / BLOCK_LEN;
            self.blocks_desired = grown.min(BLOCKS_MAX);
            self.bytes_of_block %= BLOCK_LEN;
        }
    }

    /// A second is over; gives the pieces that the peer is no longer relied on for.
    pub(super) fn on_second(&mut self, now: Time, is_choked: bool) -> Vec<u32> {
        let waited = now.duration_since(self.requested);
        let is_relied_on = self.asked.iter().any(|ask| !ask.timed_out);
        let is_late = is_relied_on && waited > self.gaps.timeout().min(PIECE_TIMEOUT);
        let grew = self.bytes_this_second > self.bytes_last_second + SLOW_START_GAIN;
        if !is_choked && self.bytes_last_second > 0 && !grew {
            self.slow_start = false;
        }
        self.rate_per_sec = self.rate_per_sec * 4 / 5 + self.bytes_this_second / 5;
        self.bytes_last_second = std::mem::take(&mut self.bytes_this_second);
        if !self.slow_start && !self.snubbed {
            let blocks = QUEUE_SPAN_SECS * self.rate_per_sec / u64::from(BLOCK_LEN);
            self.blocks_desired = blocks.clamp(u64::from(BLOCKS_MIN), u64::from(BLOCKS_MAX)) as u32;
        }
        if !is_late {
            return Vec::new();
        }
        self.snubbed = true;
        self.slow_start = false;
        self.blocks_desired = 1;
        let freed = self.relied_on();
        self.reserved.clear();
        self.asked.iter_mut().for_each(|ask| ask.timed_out = true);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    /// A queue that brought `per_sec` bytes for twenty seconds, in blocks.
    fn after_twenty_seconds_of(per_sec: u64) -> Queue {
        let mut queue = Queue::default();
        queue.ask(at(0), 0, u32::MAX);
        let blocks = per_sec / u64::from(BLOCK_LEN);
        for second in 0..20 {
            for block in 0..blocks {
                queue.on_bytes(at(second * 1_000 + block * 1_000 / blocks), 0, BLOCK_LEN);
            }
            assert!(queue.on_second(at((second + 1) * 1_000), false).is_empty());
        }
        queue
    }

    #[test]
    fn the_queue_covers_three_seconds_within_its_bounds() {
        let block = u64::from(BLOCK_LEN);
        for (blocks_per_sec, least, most) in [(1, 2, 3), (50, 145, 150), (1_000, 2_000, 2_000)] {
            let queue = after_twenty_seconds_of(blocks_per_sec * block);
            let desired = queue.blocks_desired;
            assert!(
                (least..=most).contains(&desired),
                "{desired} at {blocks_per_sec}"
            );
            assert!(!queue.slow_start);
        }
    }

    #[test]
    fn in_slow_start_each_block_that_arrives_lets_one_more_be_asked() {
        let mut queue = Queue::default();
        queue.ask(at(0), 0, 1 << 20);
        (0..10).for_each(|_| queue.on_bytes(at(10), 0, BLOCK_LEN));
        assert_eq!(queue.blocks_desired, BLOCKS_START + 10);
    }

    #[test]
    fn a_peer_that_stops_is_snubbed_after_its_timeout_and_asked_again_when_it_goes_on() {
        let mut queue = after_twenty_seconds_of(50 * u64::from(BLOCK_LEN));
        assert!(queue.on_second(at(21_000), false).is_empty());
        assert_eq!(queue.on_second(at(22_500), false), [0]);
        assert!(queue.is_snubbed() && !queue.has_room());
        queue.on_bytes(at(23_000), 0, BLOCK_LEN);
        assert!(!queue.is_snubbed());
    }

    #[test]
    fn a_peer_that_never_brought_a_block_is_snubbed_after_twenty_seconds() {
        let mut queue = Queue::default();
        queue.ask(at(0), 4, BLOCK_LEN);
        assert!(queue.on_second(at(20_000), false).is_empty());
        assert_eq!(queue.on_second(at(21_000), false), [4]);
    }
}
