//! Who may hold the share, and whom to dial next.
//!
//! Keeps every peer heard of in one of five states and enforces the numbers of dials and connections;
//! addresses are the driver's matter. Called by `transfer`. States are tabled in `STATES.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{PeerKey, Time, tuning};

/// How a peer became known. Order is preference: nearer and surer sources are dialled first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Another process of this user on this machine.
    Local,
    /// Given by the user or named in the link.
    Given,
    /// Found by multicast on the local network.
    Lan,
    /// Told by another peer of the share.
    Exchange,
    /// Known from an earlier run.
    Remembered,
    /// Found in the DHT.
    Dht,
    /// It came to us.
    Inbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { until: Time },
    Dialling,
    Up,
    Banned,
}

impl State {
    fn is_in_use(self) -> bool {
        matches!(self, Self::Dialling | Self::Up)
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: Source,
    /// In a subnet of ours, or seen to answer soon.
    near: bool,
    state: State,
    failures: u32,
}

/// The table of one share.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    candidates: BTreeMap<PeerKey, Candidate>,
    dialling: usize,
    up: usize,
    /// Those of both that are near.
    near_in_use: usize,
}

fn pause(failures: u32) -> Duration {
    let doubled = tuning::BACKOFF_MIN * (1 << failures.saturating_sub(1).min(16));
    doubled.min(tuning::BACKOFF_MAX)
}

impl Peers {
    /// Somebody may hold the share.
    pub(super) fn heard(&mut self, peer: PeerKey, source: Source, near: bool) {
        if let Some(known) = self.candidates.get_mut(&peer) {
            known.source = known.source.min(source);
            if near {
                self.found_near(peer);
            }
            return;
        }
        if self.candidates.len() >= tuning::CANDIDATES_MAX && !self.forget_one() {
            return;
        }
        self.candidates.insert(
            peer,
            Candidate {
                source,
                near,
                state: State::Idle,
                failures: 0,
            },
        );
    }

    /// The peer turned out to be near.
    pub(super) fn found_near(&mut self, peer: PeerKey) {
        if let Some(known) = self.candidates.get_mut(&peer)
            && !std::mem::replace(&mut known.near, true)
        {
            self.near_in_use += usize::from(known.state.is_in_use());
        }
    }

    /// Forgets the candidate that failed most often; false when all are in use.
    fn forget_one(&mut self) -> bool {
        let spare = |state| matches!(state, State::Idle | State::Waiting { .. });
        let worst = self
            .candidates
            .iter()
            .filter(|(_, known)| spare(known.state))
            .max_by_key(|(_, known)| known.failures);
        let Some(peer) = worst.map(|(peer, _)| *peer) else {
            return false;
        };
        self.candidates.remove(&peer);
        true
    }

    fn set(&mut self, peer: PeerKey, state: State) {
        let known = self.candidates.entry(peer).or_insert(Candidate {
            source: Source::Inbound,
            near: false,
            state: State::Idle,
            failures: 0,
        });
        let before = std::mem::replace(&mut known.state, state);
        self.dialling += usize::from(state == State::Dialling);
        self.dialling -= usize::from(before == State::Dialling);
        self.up += usize::from(state == State::Up);
        self.up -= usize::from(before == State::Up);
        if known.near {
            self.near_in_use += usize::from(state.is_in_use());
            self.near_in_use -= usize::from(before.is_in_use());
        }
    }

    pub(super) fn is_near(&self, peer: PeerKey) -> bool {
        self.candidates.get(&peer).is_some_and(|known| known.near)
    }

    pub(super) fn is_banned(&self, peer: PeerKey) -> bool {
        self.candidates
            .get(&peer)
            .is_some_and(|known| known.state == State::Banned)
    }

    pub(super) fn up(&mut self, peer: PeerKey) {
        self.set(peer, State::Up);
    }

    /// A piece came from it: what failed before is forgiven.
    pub(super) fn proved(&mut self, peer: PeerKey) {
        if let Some(known) = self.candidates.get_mut(&peer) {
            known.failures = 0;
        }
    }

    pub(super) fn ban(&mut self, peer: PeerKey) {
        self.set(peer, State::Banned);
    }

    /// A dial failed. It says nothing of a peer that came to us meanwhile.
    pub(super) fn dial_failed(&mut self, now: Time, peer: PeerKey) {
        let known = self.candidates.get(&peer);
        if known.is_some_and(|known| known.state == State::Dialling) {
            self.lost(now, peer);
        }
    }

    /// A dial failed or a connection ended: the peer may be dialled again after a pause.
    pub(super) fn lost(&mut self, now: Time, peer: PeerKey) {
        let Some(known) = self.candidates.get_mut(&peer) else {
            return;
        };
        if known.state == State::Banned {
            return;
        }
        known.failures += 1;
        let until = now + pause(known.failures);
        self.set(peer, State::Waiting { until });
    }

    /// The next peer to dial, which counts as being dialled from now on: what belongs to the user first, then what is near
    /// until those are [`tuning::PEERS_NEAR`], then what is not.
    pub(super) fn next_dial(&mut self, now: Time) -> Option<PeerKey> {
        if self.dialling >= tuning::DIALS_MAX || self.up + self.dialling >= tuning::PEERS_TARGET {
            return None;
        }
        let ready = |state| match state {
            State::Idle => true,
            State::Waiting { until } => until <= now,
            State::Dialling | State::Up | State::Banned => false,
        };
        let wants_near = self.near_in_use < tuning::PEERS_NEAR;
        let place = |peer: PeerKey, known: &Candidate| {
            let is_chosen = known.source <= Source::Given;
            let is_second = !is_chosen && known.near != wants_near;
            (known.failures, is_second, known.source, peer)
        };
        let best = self
            .candidates
            .iter()
            .filter(|(_, known)| ready(known.state))
            .min_by_key(|(peer, known)| place(**peer, known));
        let peer = *best?.0;
        self.set(peer, State::Dialling);
        Some(peer)
    }

    /// When a paused peer may be dialled again, if there is room for it.
    pub(super) fn deadline(&self) -> Option<Time> {
        if self.dialling >= tuning::DIALS_MAX || self.up + self.dialling >= tuning::PEERS_TARGET {
            return None;
        }
        let until = |known: &Candidate| match known.state {
            State::Waiting { until } => Some(until),
            _ => None,
        };
        self.candidates.values().filter_map(until).min()
    }

    pub(super) fn up_count(&self) -> usize {
        self.up
    }

    /// Whether somebody may be dialled who never failed us and was never parted from.
    pub(super) fn knows_a_stranger(&self) -> bool {
        let is_stranger = |known: &Candidate| known.state == State::Idle && known.failures == 0;
        self.candidates.values().any(is_stranger)
    }

    /// Whether somebody is known who is not banned.
    pub(super) fn knows_somebody(&self) -> bool {
        self.candidates
            .values()
            .any(|known| known.state != State::Banned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn the_nearest_source_is_dialled_first_and_nobody_twice() {
        let mut peers = Peers::default();
        peers.heard(PeerKey(1), Source::Dht, false);
        peers.heard(PeerKey(2), Source::Local, false);
        peers.heard(PeerKey(3), Source::Given, false);
        let order: Vec<_> = std::iter::from_fn(|| peers.next_dial(at(0))).collect();
        assert_eq!(order, [PeerKey(2), PeerKey(3), PeerKey(1)]);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut peers = Peers::default();
        peers.heard(PeerKey(1), Source::Dht, false);
        let mut now = at(0);
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            assert_eq!(peers.next_dial(now), Some(PeerKey(1)));
            peers.lost(now, PeerKey(1));
            assert_eq!(peers.next_dial(now), None);
            let until = peers.deadline().expect("paused");
            let paused = until.duration_since(now);
            assert!(paused >= last && paused <= tuning::BACKOFF_MAX);
            (now, last) = (until, paused);
        }
        assert_eq!(last, tuning::BACKOFF_MAX);
    }

    #[test]
    fn a_dial_that_fails_after_the_peer_came_to_us_does_not_lose_it() {
        let mut peers = Peers::default();
        peers.heard(PeerKey(1), Source::Dht, false);
        assert_eq!(peers.next_dial(at(0)), Some(PeerKey(1)));
        peers.up(PeerKey(1));
        peers.dial_failed(at(5_000), PeerKey(1));
        assert_eq!(peers.up_count(), 1);
        assert_eq!(peers.next_dial(at(60_000)), None);
    }

    #[test]
    fn a_banned_peer_is_not_dialled_again() {
        let mut peers = Peers::default();
        peers.heard(PeerKey(1), Source::Dht, false);
        peers.up(PeerKey(1));
        peers.ban(PeerKey(1));
        peers.lost(at(0), PeerKey(1));
        peers.heard(PeerKey(1), Source::Local, false);
        assert_eq!(peers.next_dial(at(1_000_000)), None);
        assert!(!peers.knows_somebody() && peers.up_count() == 0);
    }

    #[test]
    fn dials_and_connections_stay_within_their_numbers() {
        let mut peers = Peers::default();
        (0..200).for_each(|peer| peers.heard(PeerKey(peer), Source::Dht, false));
        let first: Vec<_> = std::iter::from_fn(|| peers.next_dial(at(0))).collect();
        assert_eq!(first.len(), tuning::DIALS_MAX);
        let mut dialled = first;
        while let Some(peer) = dialled.pop() {
            peers.up(peer);
            dialled.extend(peers.next_dial(at(0)));
        }
        assert_eq!(peers.up_count(), tuning::PEERS_TARGET);
    }

    #[test]
    fn a_full_table_forgets_who_failed_most() {
        let mut peers = Peers::default();
        (0..tuning::CANDIDATES_MAX as u32)
            .for_each(|peer| peers.heard(PeerKey(peer), Source::Dht, false));
        peers.lost(at(0), PeerKey(5));
        peers.heard(PeerKey(9_999), Source::Exchange, false);
        assert!(!peers.candidates.contains_key(&PeerKey(5)));
        assert!(peers.candidates.contains_key(&PeerKey(9_999)));
    }

    #[test]
    fn near_peers_are_dialled_first_and_leave_places_for_distant_ones() {
        let mut peers = Peers::default();
        (0..100).for_each(|peer| peers.heard(PeerKey(peer), Source::Dht, peer % 2 == 1));
        peers.heard(PeerKey(100), Source::Given, false);
        let mut order = Vec::new();
        while let Some(peer) = peers.next_dial(at(0)) {
            peers.up(peer);
            order.push(peer.0);
        }
        let near = (0..tuning::PEERS_NEAR as u32).map(|place| 2 * place + 1);
        let distant = (0..100).step_by(2);
        let expected = std::iter::once(100).chain(near).chain(distant);
        let expected: Vec<u32> = expected.take(tuning::PEERS_TARGET).collect();
        assert_eq!(order, expected);
        // One that is lost leaves its place to another near one, and those left over do not keep a table empty.
        peers.ban(PeerKey(1));
        assert_eq!(peers.next_dial(at(0)), Some(PeerKey(61)));
    }

    #[test]
    fn a_peer_that_turns_out_to_be_near_counts_as_such() {
        let mut peers = Peers::default();
        (0..=tuning::PEERS_NEAR as u32).for_each(|peer| peers.up(PeerKey(peer)));
        peers.heard(PeerKey(1_000), Source::Dht, true);
        peers.heard(PeerKey(1_001), Source::Dht, false);
        (1..tuning::PEERS_NEAR as u32).for_each(|peer| peers.found_near(PeerKey(peer)));
        let mut others = peers.clone();
        assert_eq!(peers.next_dial(at(0)), Some(PeerKey(1_000)));
        others.found_near(PeerKey(0));
        others.found_near(PeerKey(0));
        assert_eq!(others.next_dial(at(0)), Some(PeerKey(1_001)));
    }
}
