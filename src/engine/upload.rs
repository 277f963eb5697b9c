//! Whom to serve next, with which piece.
//!
//! Holds the requests of others, bounded per peer, and gives turns: few peers at a time, a turn being
//! one piece or [`TURN_BYTES`] of small ones. Among leechers the peer to whom we owe most comes first,
//! with an optimistic share for newcomers; as a seed the most deprived and the longest waiting take
//! turns. A full source sends every piece once before any twice as far as the requests allow. Takes plain
//! numbers; reads nothing. Called by `transfer`. Sources: FairTorrent (debt), BEP 16 (first copies),
//! `../design` figures for few uploads at once are in `tuning`.

use std::collections::{BTreeMap, VecDeque};

use super::rate::Rate;
use super::{PeerKey, Time, tuning};
use crate::content::PieceIndex;

/// Bytes of small pieces that make one turn, and that may be in service for a peer at once.
const TURN_BYTES: u64 = 512 * 1024;

/// Small pieces in service for a peer at once.
const SERVICE_PIECES_MAX: usize = 64;

/// What we know of a peer when its turn is weighed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Bytes it gave us.
    pub(super) gave: u64,
    /// Pieces it holds.
    pub(super) holds: u32,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<PieceIndex>,
    service: Vec<PieceIndex>,
    service_bytes: u64,
    turn_bytes: u64,
    last_turn: Time,
    last_taken: Time,
    last_said: Time,
    rate: Rate,
}

/// The result of [`Upload::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It was waiting and is gone.
    Waiting,
    /// It is being sent and has to be stopped.
    InService,
    /// There was no such request.
    Unknown,
}

/// The requests of all peers of a share.
#[derive(Debug)]
pub(super) struct Upload {
    queues: BTreeMap<PeerKey, Queue>,
    /// How often each piece was taken into service.
    served: Vec<u16>,
    turns: u32,
    rate: Rate,
}

impl Upload {
    pub(super) fn new(piece_count: u32) -> Self {
        Self {
            queues: BTreeMap::new(),
            served: vec![0; piece_count as usize],
            turns: 0,
            rate: Rate::default(),
        }
    }

    pub(super) fn peer_joins(&mut self, now: Time, peer: PeerKey) {
        let queue = Queue {
            waiting: VecDeque::new(),
            service: Vec::new(),
            service_bytes: 0,
            turn_bytes: 0,
            last_turn: now,
            last_taken: now,
            last_said: now,
            rate: Rate::default(),
        };
        self.queues.insert(peer, queue);
    }

    pub(super) fn peer_leaves(&mut self, peer: PeerKey) {
        self.queues.remove(&peer);
    }

    /// Takes a request; false when the peer has too many waiting.
    pub(super) fn request(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) -> bool {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return true;
        };
        if queue.waiting.contains(&piece) || queue.service.contains(&piece) {
            return true;
        }
        if queue.waiting.len() >= tuning::REQUESTS_MAX as usize {
            return false;
        }
        if queue.waiting.is_empty() && queue.service.is_empty() {
            queue.last_said = now;
        }
        queue.waiting.push_back(piece);
        true
    }

    pub(super) fn cancel(&mut self, peer: PeerKey, piece: PieceIndex) -> Cancelled {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return Cancelled::Unknown;
        };
        if let Some(at) = queue.waiting.iter().position(|waiting| *waiting == piece) {
            queue.waiting.remove(at);
            return Cancelled::Waiting;
        }
        if queue.service.contains(&piece) {
            Cancelled::InService
        } else {
            Cancelled::Unknown
        }
    }

    /// Drops every waiting request for `piece`; who had asked is to be told.
    pub(super) fn withdraw(&mut self, piece: PieceIndex) -> Vec<PeerKey> {
        let mut asked = Vec::new();
        for (peer, queue) in &mut self.queues {
            let before = queue.waiting.len();
            queue.waiting.retain(|waiting| *waiting != piece);
            if queue.waiting.len() < before {
                asked.push(*peer);
            }
        }
        asked
    }

    pub(super) fn on_sent(&mut self, now: Time, peer: PeerKey, bytes: u32) {
        self.rate.add(now, u64::from(bytes));
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.last_taken = now;
            queue.last_said = now;
            queue.rate.add(now, u64::from(bytes));
        }
    }

    pub(super) fn on_ended(&mut self, peer: PeerKey, piece: PieceIndex, len: u32) {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return;
        };
        if let Some(at) = queue.service.iter().position(|serving| *serving == piece) {
            queue.service.remove(at);
            queue.service_bytes -= u64::from(len);
        }
    }

    /// The next piece to serve and to whom; it counts as in service from now on. `len_of` gives the
    /// length of a piece in bytes, `standing` what is known of a peer, `seed` whether we hold everything.
    pub(super) fn next(
        &mut self,
        now: Time,
        seed: bool,
        len_of: impl Fn(PieceIndex) -> u32,
        standing: impl Fn(PeerKey) -> Standing,
    ) -> Option<(PeerKey, PieceIndex)> {
        let peer = self.next_peer(now, seed, standing)?;
        let queue = self
            .queues
            .get_mut(&peer)
            .expect("the peer was found in the queues");
        let at = if seed {
            rarest_sent(&queue.waiting, &self.served)
        } else {
            0
        };
        let piece = queue
            .waiting
            .remove(at)
            .expect("a peer is chosen only while it waits");
        let len = u64::from(len_of(piece));
        if queue.service.is_empty() {
            queue.last_taken = now;
        }
        queue.service.push(piece);
        queue.service_bytes += len;
        queue.turn_bytes += len;
        self.served[piece.as_usize()] = self.served[piece.as_usize()].saturating_add(1);
        Some((peer, piece))
    }

    fn next_peer(
        &mut self,
        now: Time,
        seed: bool,
        standing: impl Fn(PeerKey) -> Standing,
    ) -> Option<PeerKey> {
        let others_wait = self
            .queues
            .values()
            .any(|queue| queue.is_waiting_for_turn());
        let served = self
            .queues
            .values()
            .filter(|queue| queue.is_served(now))
            .count();
        // A peer in its turn keeps its pipe filled; beyond its turn only while nobody else waits.
        let more = |queue: &Queue| {
            let deep = queue.service.len() < tuning::SERVICE_DEPTH
                || (queue.service.len() < SERVICE_PIECES_MAX && queue.service_bytes < TURN_BYTES);
            let in_turn = queue.turn_bytes < TURN_BYTES || !others_wait;
            !queue.service.is_empty() && !queue.waiting.is_empty() && deep && in_turn
        };
        if let Some((peer, _)) = self.queues.iter().find(|(_, queue)| more(queue)) {
            return Some(*peer);
        }
        if !others_wait || served >= tuning::SERVED_PEERS {
            return None;
        }
        self.turns = self.turns.wrapping_add(1);
        let waiting = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.is_waiting_for_turn());
        let by_wait = |(peer, queue): &(&PeerKey, &Queue)| (queue.last_turn, **peer);
        let optimistic = self.turns % tuning::OPTIMISTIC_TURN == 0;
        let chosen = match (seed, optimistic || (seed && self.turns % 2 == 0)) {
            (_, true) => waiting.min_by_key(by_wait),
            (true, false) => waiting.min_by_key(|entry| (standing(*entry.0).holds, by_wait(entry))),
            (false, false) => waiting.min_by_key(|entry| {
                let sent = i128::from(entry.1.rate.total());
                (sent - i128::from(standing(*entry.0).gave), by_wait(entry))
            }),
        };
        let peer = *chosen?.0;
        let queue = self
            .queues
            .get_mut(&peer)
            .expect("the peer was found in the queues");
        queue.last_turn = now;
        queue.turn_bytes = 0;
        Some(peer)
    }

    /// Peers that wait and were told nothing for a heartbeat, with the piece in service for them if
    /// any; they count as told.
    pub(super) fn heartbeats(&mut self, now: Time) -> Vec<(PeerKey, Option<PieceIndex>)> {
        let mut due = Vec::new();
        for (peer, queue) in &mut self.queues {
            if queue.is_busy() && now >= queue.last_said + tuning::HEARTBEAT {
                queue.last_said = now;
                due.push((*peer, queue.service.first().copied()));
            }
        }
        due
    }

    /// The next moment at which something here changes by time alone.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let mut next = self
            .queues
            .values()
            .filter(|queue| queue.is_busy())
            .map(|queue| queue.last_said + tuning::HEARTBEAT)
            .min();
        if self
            .queues
            .values()
            .any(|queue| queue.is_waiting_for_turn())
        {
            let stuck = self.queues.values().filter(|queue| queue.is_served(now));
            let freed = stuck
                .map(|queue| queue.last_taken + tuning::SERVICE_STUCK)
                .min();
            next = [next, freed].into_iter().flatten().min();
        }
        next
    }

    /// Whether somebody waits for pieces or is being served.
    pub(super) fn is_pulled(&self) -> bool {
        self.queues.values().any(Queue::is_busy)
    }

    pub(super) fn waiting_of(&self, peer: PeerKey) -> u32 {
        self.queues.get(&peer).map_or(0, |queue| {
            (queue.waiting.len() + queue.service.len()) as u32
        })
    }

    pub(super) fn rate_of(&self, peer: PeerKey) -> Option<&Rate> {
        self.queues.get(&peer).map(|queue| &queue.rate)
    }

    pub(super) fn rate(&self) -> &Rate {
        &self.rate
    }
}

impl Queue {
    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.service.is_empty()
    }

    fn is_waiting_for_turn(&self) -> bool {
        !self.waiting.is_empty() && self.service.is_empty()
    }

    /// Whether it takes one of the places: being served and not stuck.
    fn is_served(&self, now: Time) -> bool {
        !self.service.is_empty() && now < self.last_taken + tuning::SERVICE_STUCK
    }
}

/// Place of the waiting piece that was taken into service least often, the first of equals.
fn rarest_sent(waiting: &VecDeque<PieceIndex>, served: &[u16]) -> usize {
    let least = waiting
        .iter()
        .enumerate()
        .min_by_key(|(at, piece)| (served[piece.as_usize()], *at));
    least.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEN: u32 = 1 << 20;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn upload(peers: u32, requests: std::ops::Range<u32>) -> Upload {
        let mut upload = Upload::new(1_000);
        for peer in (0..peers).map(PeerKey) {
            upload.peer_joins(at(0), peer);
            for piece in requests.clone() {
                assert!(upload.request(at(0), peer, PieceIndex::new(piece)));
            }
        }
        upload
    }

    fn equal(_: PeerKey) -> Standing {
        Standing { gave: 0, holds: 0 }
    }

    fn drain(upload: &mut Upload, now: Time, seed: bool) -> Vec<(PeerKey, PieceIndex)> {
        std::iter::from_fn(|| upload.next(now, seed, |_| LEN, equal)).collect()
    }

    #[test]
    fn few_peers_are_served_at_a_time_and_the_others_get_their_turn() {
        let mut upload = upload(8, 0..3);
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..24 {
            let now = at(step * 100);
            let batch = drain(&mut upload, now, true);
            let busy = upload
                .queues
                .values()
                .filter(|queue| !queue.service.is_empty())
                .count();
            assert!(busy <= tuning::SERVED_PEERS);
            seen.extend(batch.iter().map(|(peer, _)| *peer));
            for (peer, piece) in batch {
                upload.on_sent(now, peer, LEN);
                upload.on_ended(peer, piece, LEN);
            }
        }
        assert_eq!(seen.len(), 8);
        assert!(!upload.is_pulled());
    }

    #[test]
    fn a_seed_sends_each_piece_once_before_any_twice() {
        let mut upload = upload(2, 0..6);
        let mut first = Vec::new();
        while first.len() < 6 {
            for (peer, piece) in drain(&mut upload, at(0), true) {
                upload.on_ended(peer, piece, LEN);
                first.push(piece.get());
            }
        }
        first.truncate(6);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_peer_that_takes_nothing_does_not_hold_a_place() {
        let mut upload = upload(tuning::SERVED_PEERS as u32 + 1, 0..2);
        let batch = drain(&mut upload, at(0), true);
        let stuck = batch[0].0;
        for (peer, _) in &batch {
            if *peer != stuck {
                upload.on_sent(at(900), *peer, 1);
            }
        }
        assert_eq!(upload.next(at(900), true, |_| LEN, equal), None);
        let freed = upload.deadline(at(900)).expect("somebody waits");
        assert!(freed <= at(0) + tuning::SERVICE_STUCK);
        assert!(
            upload
                .next(at(0) + tuning::SERVICE_STUCK, true, |_| LEN, equal)
                .is_some()
        );
    }

    #[test]
    fn a_leecher_first_serves_whom_it_owes_most() {
        let mut upload = upload(6, 0..2);
        let standing = |peer: PeerKey| Standing {
            gave: if peer.0 == 4 { 1 << 30 } else { 0 },
            holds: 0,
        };
        let (peer, _) = upload
            .next(at(0), false, |_| LEN, standing)
            .expect("all wait");
        assert_eq!(peer, PeerKey(4));
    }

    #[test]
    fn waiting_is_not_silence() {
        let mut upload = upload(6, 0..2);
        drain(&mut upload, at(0), true);
        assert_eq!(upload.heartbeats(at(100)), []);
        let due = upload.heartbeats(at(0) + tuning::HEARTBEAT);
        assert_eq!(
            due.len(),
            6,
            "those in service are told as well while nothing flows"
        );
        assert_eq!(
            due.iter().filter(|(_, piece)| piece.is_none()).count(),
            6 - tuning::SERVED_PEERS
        );
        assert_eq!(upload.heartbeats(at(600)), []);
    }

    #[test]
    fn more_requests_than_the_ceiling_are_refused() {
        let mut upload = Upload::new(1_000);
        upload.peer_joins(at(0), PeerKey(0));
        let taken = (0..1_000)
            .filter(|piece| upload.request(at(0), PeerKey(0), PieceIndex::new(*piece)))
            .count();
        assert_eq!(taken, tuning::REQUESTS_MAX as usize);
    }

    #[test]
    fn a_cancel_finds_the_request_wherever_it_is() {
        let mut upload = upload(1, 0..9);
        let (peer, piece) = upload.next(at(0), false, |_| LEN, equal).expect("waits");
        assert_eq!(upload.cancel(peer, piece), Cancelled::InService);
        assert_eq!(upload.cancel(peer, PieceIndex::new(8)), Cancelled::Waiting);
        assert_eq!(upload.cancel(peer, PieceIndex::new(8)), Cancelled::Unknown);
        assert_eq!(upload.withdraw(PieceIndex::new(7)), [peer]);
    }

    #[test]
    fn small_pieces_share_a_turn() {
        let mut upload = upload(1, 0..200);
        let batch: Vec<_> =
            std::iter::from_fn(|| upload.next(at(0), true, |_| 4_096, equal)).collect();
        assert_eq!(batch.len(), SERVICE_PIECES_MAX);
    }
}
