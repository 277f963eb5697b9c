//! Whom to serve next, with which piece.
//!
//! Holds the requests of others, bounded per peer, and gives turns: few peers at a time, one more only
//! while that makes the whole faster (`slots`), a turn being one piece or about [`TURN_BYTES_MIN`] of small ones.
//! Among leechers the peer to whom we owe most comes first, with an optimistic share for newcomers; as a
//! seed the most deprived and the longest waiting take turns, and pieces that nobody else holds go out
//! once before any goes twice (`fresh`). Takes plain numbers; reads nothing. Called by `transfer`.
//! Sources: FairTorrent (debt), BEP 16 (first copies).

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::fresh::{Fresh, PROMISED_ELSEWHERE};
use super::rate::Rate;
use super::slots::Slots;
use super::{PeerKey, Random, Time, tuning};
use crate::content::PieceIndex;

/// Fewest and most bytes of small pieces that make one turn, and that may be in service for a peer at
/// once. Short turns let receivers forward soon; long ones keep a fast uplink busy between two answers
/// of the driver.
const TURN_BYTES_MIN: u64 = 64 * 1024;
const TURN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A turn lasts about one part in this many of a second at the present rate.
const TURNS_PER_SEC: u64 = 16;

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

/// What the choice of a service depends on beside the requests.
pub(super) trait View {
    /// Whether we hold everything.
    fn is_seed(&self) -> bool;
    /// Length of a piece in bytes.
    fn len_of(&self, piece: PieceIndex) -> u32;
    /// Connected peers that hold a piece, other seeds not counted.
    fn holders(&self, piece: PieceIndex) -> u32;
    /// Whether we hold a piece: of those of a seed, some may be withdrawn.
    fn holds(&self, piece: PieceIndex) -> bool;
    /// What is known of a peer.
    fn standing(&self, peer: PeerKey) -> Standing;
    /// Whether a peer has said nothing for so long that it may be gone.
    fn is_quiet(&self, peer: PeerKey) -> bool;
}

#[derive(Clone, Copy, Debug)]
struct Service {
    piece: PieceIndex,
    /// The driver was told to stop it, which it has not confirmed.
    stops: bool,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<PieceIndex>,
    service: Vec<Service>,
    service_bytes: u64,
    /// Pieces taken into service in all.
    taken: u32,
    turn_bytes: u64,
    last_turn: Time,
    last_taken: Time,
    /// When the piece that is being sent became the first in service.
    first_since: Time,
    last_said: Time,
    /// The peer was told that its requests wait, and not told otherwise since.
    told_to_wait: bool,
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
    fresh: Fresh,
    slots: Slots,
    turns: u32,
    rate: Rate,
}

impl Upload {
    pub(super) fn new(piece_count: u32, random: &mut Random) -> Self {
        Self {
            queues: BTreeMap::new(),
            fresh: Fresh::new(piece_count, random),
            slots: Slots::default(),
            turns: 0,
            rate: Rate::default(),
        }
    }

    pub(super) fn peer_joins(&mut self, now: Time, peer: PeerKey) {
        let queue = Queue {
            waiting: VecDeque::new(),
            service: Vec::new(),
            service_bytes: 0,
            taken: 0,
            turn_bytes: 0,
            last_turn: now,
            last_taken: now,
            first_since: now,
            last_said: now,
            told_to_wait: false,
            rate: Rate::default(),
        };
        self.queues.insert(peer, queue);
    }

    pub(super) fn peer_leaves(&mut self, peer: PeerKey) {
        if let Some(queue) = self.queues.remove(&peer) {
            let undelivered = queue.service.iter().map(|service| service.piece);
            self.fresh.peer_leaves(peer, undelivered);
        }
    }

    /// Takes a request; false when the peer has too many waiting.
    pub(super) fn request(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) -> bool {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return true;
        };
        let is_served = |service: &Service| service.piece == piece && !service.stops;
        if queue.waiting.contains(&piece) || queue.service.iter().any(is_served) {
            return true;
        }
        if queue.waiting.len() >= tuning::REQUESTS_MAX as usize {
            return false;
        }
        if !queue.is_busy() {
            queue.last_said = now;
        }
        queue.waiting.push_back(piece);
        self.fresh.on_request(peer, piece);
        true
    }

    pub(super) fn cancel(&mut self, peer: PeerKey, piece: PieceIndex) -> Cancelled {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return Cancelled::Unknown;
        };
        if let Some(at) = queue.waiting.iter().position(|waiting| *waiting == piece) {
            queue.waiting.remove(at);
            self.fresh.on_cancel(peer, piece);
            return Cancelled::Waiting;
        }
        let mut service = queue.service.iter_mut();
        match service.find(|service| service.piece == piece && !service.stops) {
            Some(service) => {
                service.stops = true;
                Cancelled::InService
            }
            None => Cancelled::Unknown,
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
        self.fresh.on_withdrawn(piece);
        asked
    }

    /// A piece that was withdrawn is there again.
    pub(super) fn on_found(&mut self, piece: PieceIndex) {
        self.fresh.on_found(piece);
    }

    pub(super) fn on_sent(&mut self, now: Time, peer: PeerKey, bytes: u32) {
        self.rate.add(now, u64::from(bytes));
        self.slots.on_sent(bytes);
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.last_taken = now;
            queue.last_said = now;
            queue.rate.add(now, u64::from(bytes));
        }
    }

    /// A service ended; `len` is the length of the piece, `is_whole` whether all of it was sent.
    pub(super) fn on_ended(
        &mut self,
        now: Time,
        peer: PeerKey,
        piece: PieceIndex,
        len: u32,
        is_whole: bool,
    ) {
        if !is_whole {
            self.fresh.on_unsent(piece);
        }
        let Some(queue) = self.queues.get_mut(&peer) else {
            return;
        };
        let ended = |service: &Service| service.piece == piece;
        if let Some(at) = queue.service.iter().position(ended) {
            queue.service.remove(at);
            queue.first_since = now;
            queue.service_bytes -= u64::from(len);
        }
    }

    /// The next piece to serve and to whom; it counts as in service from now on.
    pub(super) fn next(&mut self, now: Time, view: &impl View) -> Option<(PeerKey, PieceIndex)> {
        let peer = self.next_peer(now, view)?;
        let queue = self.queues.get_mut(&peer)?;
        let at = self.fresh.choose(peer, &queue.waiting, view)?.1;
        let piece = queue.waiting.remove(at)?;
        let len = u64::from(view.len_of(piece));
        if queue.service.is_empty() {
            queue.last_taken = now;
            queue.first_since = now;
        }
        queue.service.push(Service {
            piece,
            stops: false,
        });
        queue.service_bytes += len;
        queue.taken += 1;
        queue.turn_bytes += len;
        self.fresh.on_served(piece);
        Some((peer, piece))
    }

    fn next_peer(&mut self, now: Time, view: &impl View) -> Option<PeerKey> {
        if self.queues.values().all(|queue| queue.waiting.is_empty()) {
            return None;
        }
        // A seed passes over who waits only for repeats while others wait for first copies.
        let has_first = |peer: &PeerKey, queue: &Queue| {
            let best = self.fresh.choose(*peer, &queue.waiting, view);
            best.is_some_and(|(rank, _)| rank <= PROMISED_ELSEWHERE)
                && !queue.hides(*peer, view)
                && !view.is_quiet(*peer)
        };
        let firsts = view.is_seed()
            && (self.fresh.is_suggesting(now)
                || self
                    .queues
                    .iter()
                    .any(|(peer, queue)| queue.service.is_empty() && has_first(peer, queue)));
        let is_asking = |peer: &PeerKey, queue: &Queue| {
            !queue.waiting.is_empty() && (!firsts || has_first(peer, queue))
        };
        let waits =
            |(peer, queue): &(&PeerKey, &Queue)| queue.service.is_empty() && is_asking(peer, queue);
        let others_wait = self.queues.iter().any(|entry| waits(&entry));
        let per_turn = self.rate.bytes_per_sec(now) / TURNS_PER_SEC;
        let turn_bytes = per_turn.clamp(TURN_BYTES_MIN, TURN_BYTES_MAX);
        // A peer in its turn keeps its pipe filled; beyond its turn only while nobody else waits. Two peers
        // in service keep the uplink busy by themselves: a piece that would only queue behind the first
        // is better given to whoever comes next.
        let in_service = self
            .queues
            .values()
            .filter(|queue| !queue.service.is_empty());
        let depth = if in_service.count() >= tuning::SERVED_PEERS_MIN || per_turn == 0 {
            1
        } else {
            tuning::SERVICE_DEPTH
        };
        let more = |peer: &PeerKey, queue: &Queue| {
            let Some(next) = queue.waiting.front() else {
                return false;
            };
            let len = u64::from(view.len_of(*next));
            let deep = queue.service.len() < depth
                || (queue.service.len() < SERVICE_PIECES_MAX
                    && queue.service_bytes + len <= turn_bytes);
            let in_turn = queue.turn_bytes + len <= turn_bytes || !others_wait;
            !queue.service.is_empty() && deep && in_turn && is_asking(peer, queue)
        };
        if let Some((peer, _)) = self.queues.iter().find(|(peer, queue)| more(peer, queue)) {
            return Some(*peer);
        }
        let served = self
            .queues
            .values()
            .filter(|queue| queue.is_served(now))
            .count();
        if !others_wait || served >= self.slots.count() {
            return None;
        }
        let turns = self.turns.wrapping_add(1);
        let waiting = self.queues.iter().filter(waits);
        let by_wait = |(peer, queue): &(&PeerKey, &Queue)| (queue.last_turn, **peer);
        let is_optimistic = turns.is_multiple_of(tuning::OPTIMISTIC_TURN);
        // Who may be gone takes a place for nothing: it is tried in the optimistic turns only.
        let chosen = if is_optimistic {
            waiting.min_by_key(by_wait)
        } else if view.is_seed() && turns.is_multiple_of(2) {
            waiting.min_by_key(|entry| (view.is_quiet(*entry.0), by_wait(entry)))
        } else if view.is_seed() {
            // What it took counts as well as what it says it has: who hides its pieces is not deprived.
            waiting.min_by_key(|entry| {
                let has = view.standing(*entry.0).holds.max(entry.1.taken);
                (view.is_quiet(*entry.0), has, by_wait(entry))
            })
        } else {
            waiting.min_by_key(|entry| {
                let standing = view.standing(*entry.0);
                let debt = i128::from(standing.gave) - i128::from(entry.1.rate.total());
                let has = standing.holds.max(entry.1.taken);
                let newness = has.min(tuning::NEWCOMER_PIECES);
                let is_quiet = view.is_quiet(*entry.0);
                (is_quiet, newness, Reverse(debt), by_wait(entry))
            })
        };
        let peer = *chosen?.0;
        self.turns = turns;
        let queue = self.queues.get_mut(&peer)?;
        queue.last_turn = now;
        queue.turn_bytes = 0;
        Some(peer)
    }

    /// Pieces that peers are to be told to ask for, so that every first copy finds a taker.
    pub(super) fn suggestions(
        &mut self,
        now: Time,
        view: &impl View,
    ) -> Vec<(PeerKey, PieceIndex)> {
        if !view.is_seed() {
            return Vec::new();
        }
        let is_asking =
            |(peer, queue): &(&PeerKey, &Queue)| queue.is_busy() && !queue.hides(**peer, view);
        let asking = self.queues.iter().filter(is_asking).map(|(peer, _)| *peer);
        self.fresh.suggest(now, asking, view)
    }

    /// Peers that begin to wait, or were told nothing for a heartbeat, with the piece in service for them
    /// if any; they count as told. Who knows that it waits may ask for its pieces elsewhere.
    pub(super) fn heartbeats(&mut self, now: Time) -> Vec<(PeerKey, Option<PieceIndex>)> {
        let mut due = Vec::new();
        for (peer, queue) in &mut self.queues {
            let begins_to_wait = queue.is_waiting_for_turn() && !queue.told_to_wait;
            let is_due = queue.is_busy() && now >= queue.last_said + tuning::HEARTBEAT;
            if begins_to_wait || is_due {
                queue.last_said = now;
                queue.told_to_wait = queue.service.is_empty();
                due.push((*peer, queue.service.first().map(|service| service.piece)));
            }
        }
        due
    }

    /// Peers that wait for a turn.
    pub(super) fn in_line(&self) -> u32 {
        let waiting = self
            .queues
            .values()
            .filter(|queue| queue.is_waiting_for_turn());
        waiting.count() as u32
    }

    /// Whether `peer`, whose piece is about to be sent, still believes that it waits.
    pub(super) fn ends_wait(&mut self, peer: PeerKey) -> bool {
        self.queues
            .get_mut(&peer)
            .is_some_and(|queue| std::mem::take(&mut queue.told_to_wait))
    }

    /// Learns from the passing of time; to be called before [`Upload::next`].
    pub(super) fn on_time(&mut self, now: Time) {
        let is_wanted = self.queues.values().any(Queue::is_waiting_for_turn);
        self.slots.on_time(now, is_wanted);
        self.fresh.on_time(now);
    }

    /// The next moment at which something here changes by time alone.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let busy = self.queues.values().filter(|queue| queue.is_busy());
        let said = busy.map(|queue| queue.last_said + tuning::HEARTBEAT).min();
        if !self.queues.values().any(Queue::is_waiting_for_turn) {
            return said;
        }
        let served = self.queues.values().filter(|queue| queue.is_served(now));
        let freed = served.map(Queue::stuck_at).min();
        let slots = self.slots.deadline();
        [said, freed, slots, self.fresh.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Places for which nobody is in line, one ahead included: who is to be served next should have asked
    /// before a place is free.
    pub(super) fn idle_places(&self, now: Time) -> usize {
        if self.queues.values().any(Queue::is_waiting_for_turn) {
            return 0;
        }
        let served = self.queues.values().filter(|queue| queue.is_served(now));
        (self.slots.count() + 1).saturating_sub(served.count())
    }

    /// Whether somebody waits for pieces, is being served, or took bytes within [`tuning::PULL_LASTS`].
    pub(super) fn is_pulled(&self, now: Time) -> bool {
        let pulls = |queue: &Queue| {
            let took = queue.rate.total() > 0;
            queue.is_busy() || (took && now.duration_since(queue.last_taken) < tuning::PULL_LASTS)
        };
        self.queues.values().any(pulls)
    }

    /// When the peer took its last byte, or else when it was met.
    pub(super) fn taken_at(&self, peer: PeerKey) -> Time {
        self.queues
            .get(&peer)
            .map_or(Time::default(), |queue| queue.last_taken)
    }

    /// Whether the peer waits for pieces or is being served.
    pub(super) fn is_active(&self, peer: PeerKey) -> bool {
        self.queues.get(&peer).is_some_and(Queue::is_busy)
    }

    pub(super) fn waiting_of(&self, peer: PeerKey) -> u32 {
        let waiting = |queue: &Queue| (queue.waiting.len() + queue.service.len()) as u32;
        self.queues.get(&peer).map_or(0, waiting)
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

    /// Whether the peer says much less of its pieces than we sent it: a first copy is lost on it.
    fn hides(&self, peer: PeerKey, view: &impl View) -> bool {
        self.taken >= tuning::HIDDEN_PIECES_MIN && view.standing(peer).holds < self.taken / 2
    }

    fn is_waiting_for_turn(&self) -> bool {
        !self.waiting.is_empty() && self.service.is_empty()
    }

    /// Whether it takes one of the places: being served and not stuck.
    fn is_served(&self, now: Time) -> bool {
        !self.service.is_empty() && now < self.stuck_at()
    }

    fn stuck_at(&self) -> Time {
        let silent = self.last_taken + tuning::SERVICE_STUCK;
        silent.min(self.first_since + tuning::SERVICE_LONG)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;

    const LEN: u32 = 1 << 20;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    struct Swarm {
        seed: bool,
        len: u32,
        best: Option<PeerKey>,
        quiet: Option<PeerKey>,
    }

    impl View for Swarm {
        fn is_seed(&self) -> bool {
            self.seed
        }

        fn len_of(&self, _: PieceIndex) -> u32 {
            self.len
        }

        fn holders(&self, _: PieceIndex) -> u32 {
            0
        }

        fn holds(&self, _: PieceIndex) -> bool {
            true
        }

        fn standing(&self, peer: PeerKey) -> Standing {
            let gave = if self.best == Some(peer) { 1 << 30 } else { 0 };
            Standing { gave, holds: 0 }
        }

        fn is_quiet(&self, peer: PeerKey) -> bool {
            self.quiet == Some(peer)
        }
    }

    const SEED: Swarm = Swarm {
        seed: true,
        len: LEN,
        best: None,
        quiet: None,
    };
    const LEECHER: Swarm = Swarm {
        seed: false,
        len: LEN,
        best: None,
        quiet: None,
    };

    fn empty() -> Upload {
        Upload::new(1_000, &mut Random::seed_from_u64(5))
    }

    fn upload(peers: u32, requests: std::ops::Range<u32>) -> Upload {
        let mut upload = empty();
        for peer in (0..peers).map(PeerKey) {
            upload.peer_joins(at(0), peer);
            for piece in requests.clone() {
                assert!(upload.request(at(0), peer, PieceIndex::new(piece)));
            }
        }
        upload
    }

    fn drain(upload: &mut Upload, now: Time, swarm: &Swarm) -> Vec<(PeerKey, PieceIndex)> {
        std::iter::from_fn(|| upload.next(now, swarm)).collect()
    }

    #[test]
    fn few_peers_are_served_at_a_time_and_the_others_get_their_turn() {
        let mut upload = upload(8, 0..3);
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..24 {
            let now = at(step * 100);
            let batch = drain(&mut upload, now, &SEED);
            let busy = upload
                .queues
                .values()
                .filter(|queue| !queue.service.is_empty())
                .count();
            assert!(busy <= tuning::SERVED_PEERS_MIN);
            seen.extend(batch.iter().map(|(peer, _)| *peer));
            for (peer, piece) in batch {
                upload.on_sent(now, peer, LEN);
                upload.on_ended(now, peer, piece, LEN, true);
            }
        }
        assert_eq!(seen.len(), 8);
        assert!(!upload.is_pulled(at(60_000)));
    }

    #[test]
    fn who_took_all_it_asked_for_pulls_on_for_a_while() {
        let mut upload = empty();
        upload.peer_joins(at(0), PeerKey(0));
        assert!(!upload.is_pulled(at(0)), "who was only met does not pull");
        assert!(upload.request(at(0), PeerKey(0), PieceIndex::new(0)));
        assert_eq!(drain(&mut upload, at(0), &SEED).len(), 1);
        upload.on_sent(at(100), PeerKey(0), LEN);
        upload.on_ended(at(100), PeerKey(0), PieceIndex::new(0), LEN, true);
        let lasts = tuning::PULL_LASTS.as_millis() as u64;
        assert!(upload.is_pulled(at(99 + lasts)));
        assert!(!upload.is_pulled(at(100 + lasts)));
        upload.peer_leaves(PeerKey(0));
        assert!(!upload.is_pulled(at(101)));
    }

    #[test]
    fn a_seed_sends_each_piece_once_before_any_twice() {
        let mut upload = upload(2, 0..6);
        let mut first = Vec::new();
        while first.len() < 6 {
            for (peer, piece) in drain(&mut upload, at(0), &SEED) {
                upload.on_ended(at(0), peer, piece, LEN, true);
                first.push(piece.get());
            }
        }
        first.truncate(6);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_peer_that_takes_nothing_does_not_hold_a_place() {
        let mut upload = upload(tuning::SERVED_PEERS_MIN as u32 + 1, 0..2);
        let batch = drain(&mut upload, at(0), &SEED);
        let stuck = batch[0].0;
        let before = at(0) + tuning::SERVICE_STUCK / 2;
        for (peer, _) in &batch {
            if *peer != stuck {
                upload.on_sent(before, *peer, 1);
            }
        }
        assert_eq!(upload.next(before, &SEED), None);
        let freed = upload.deadline(before).expect("somebody waits");
        assert!(freed <= at(0) + tuning::SERVICE_STUCK);
        assert!(upload.next(at(0) + tuning::SERVICE_STUCK, &SEED).is_some());
    }

    #[test]
    fn a_leecher_first_serves_whom_it_owes_most() {
        let mut upload = upload(6, 0..2);
        let swarm = Swarm {
            best: Some(PeerKey(4)),
            ..LEECHER
        };
        let (peer, _) = upload.next(at(0), &swarm).expect("all wait");
        assert_eq!(peer, PeerKey(4));
    }

    #[test]
    fn waiting_is_not_silence() {
        let mut upload = upload(6, 0..2);
        drain(&mut upload, at(0), &SEED);
        let waiting = 6 - tuning::SERVED_PEERS_MIN;
        let told = upload.heartbeats(at(100));
        assert_eq!(told.len(), waiting, "who begins to wait is told at once");
        assert!(told.iter().all(|(_, piece)| piece.is_none()));
        assert_eq!(upload.heartbeats(at(200)), []);
        let due = upload.heartbeats(at(0) + tuning::HEARTBEAT);
        assert_eq!(due.len(), tuning::SERVED_PEERS_MIN, "nothing flows to them");
        assert!(due.iter().all(|(_, piece)| piece.is_some()));
        let due = upload.heartbeats(at(100) + tuning::HEARTBEAT);
        assert_eq!(due.len(), waiting);
    }

    #[test]
    fn who_has_next_to_nothing_comes_before_whom_we_owe() {
        let mut upload = upload(3, 0..8);
        let swarm = Swarm {
            best: Some(PeerKey(0)),
            ..LEECHER
        };
        let mut taken = [0_u32; 3];
        for step in 0..3 * tuning::NEWCOMER_PIECES {
            let now = at(u64::from(step) * 100);
            for (peer, piece) in drain(&mut upload, now, &swarm) {
                taken[peer.0 as usize] += 1;
                upload.on_sent(now, peer, LEN);
                upload.on_ended(now, peer, piece, LEN, true);
            }
            if taken.iter().sum::<u32>() >= 2 * tuning::NEWCOMER_PIECES {
                break;
            }
        }
        let (least, most) = (taken.iter().min(), taken.iter().max());
        assert!(least >= Some(&2) && most <= Some(&4), "{taken:?}");
    }

    #[test]
    fn a_second_piece_does_not_queue_where_another_peer_could_be_served() {
        let mut upload = upload(1, 0..4);
        assert_eq!(drain(&mut upload, at(0), &SEED).len(), 1);
        upload.peer_joins(at(1), PeerKey(1));
        assert!(upload.request(at(1), PeerKey(1), PieceIndex::new(9)));
        let (peer, _) = upload.next(at(1), &SEED).expect("a place is free");
        assert_eq!(peer, PeerKey(1));
        assert_eq!(upload.next(at(1), &SEED), None);
    }

    #[test]
    fn more_requests_than_the_ceiling_are_refused() {
        let mut upload = empty();
        upload.peer_joins(at(0), PeerKey(0));
        let taken = (0..1_000)
            .filter(|piece| upload.request(at(0), PeerKey(0), PieceIndex::new(*piece)))
            .count();
        assert_eq!(taken, tuning::REQUESTS_MAX as usize);
    }

    #[test]
    fn a_cancel_finds_the_request_wherever_it_is() {
        let mut upload = upload(1, 0..9);
        let (peer, piece) = upload.next(at(0), &LEECHER).expect("waits");
        assert_eq!(upload.cancel(peer, piece), Cancelled::InService);
        assert_eq!(upload.cancel(peer, PieceIndex::new(8)), Cancelled::Waiting);
        assert_eq!(upload.cancel(peer, PieceIndex::new(8)), Cancelled::Unknown);
        assert_eq!(upload.withdraw(PieceIndex::new(7)), [peer]);
    }

    #[test]
    fn small_pieces_share_a_turn() {
        let mut upload = upload(1, 0..200);
        let small = Swarm { len: 4_096, ..SEED };
        let batch: Vec<_> = std::iter::from_fn(|| upload.next(at(0), &small)).collect();
        assert_eq!(batch.len() as u64 * 4_096, TURN_BYTES_MIN);
    }
}
