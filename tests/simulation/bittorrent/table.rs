//! Whom we have heard of, and whom to dial next.
//!
//! Knows keys and times. Called by `client`. Source: libtorrent `min_reconnect_time` 60 s; a target of fifty
//! connections, which is what a tracker names at once.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal::engine::{PeerKey, Time};

/// Connections below which others are dialled, and above which newcomers are turned away.
pub(super) const PEERS_TARGET: usize = 50;
pub(super) const PEERS_MAX: usize = shoal::engine::tuning::PEERS_MAX;

/// From a failure to the next dial, times the failures.
const RECONNECT_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Time },
    Dialling,
    Up,
    Banned,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeMap<PeerKey, (State, u32)>,
}

impl Table {
    pub(super) fn heard(&mut self, now: Time, peer: PeerKey) {
        let state = State::Waiting { until: now };
        self.known.entry(peer).or_insert((state, 0));
    }

    fn set(&mut self, peer: PeerKey, state: State) {
        self.known.entry(peer).or_insert((state, 0)).0 = state;
    }

    pub(super) fn up(&mut self, peer: PeerKey) {
        self.set(peer, State::Up);
    }

    pub(super) fn ban(&mut self, peer: PeerKey) {
        self.set(peer, State::Banned);
    }

    pub(super) fn is_banned(&self, peer: PeerKey) -> bool {
        let known = self.known.get(&peer);
        known.is_some_and(|(state, _)| *state == State::Banned)
    }

    pub(super) fn dial_failed(&mut self, now: Time, peer: PeerKey) {
        let known = self.known.get(&peer);
        if known.is_some_and(|(state, _)| *state == State::Dialling) {
            self.lost(now, peer);
        }
    }

    pub(super) fn lost(&mut self, now: Time, peer: PeerKey) {
        if let Some((state, failures)) = self.known.get_mut(&peer)
            && *state != State::Banned
        {
            *failures += 1;
            let until = now + RECONNECT_AFTER * *failures;
            *state = State::Waiting { until };
        }
    }

    pub(super) fn wants_more(&self) -> bool {
        self.count(|state| state == State::Up) < PEERS_TARGET
    }

    /// Everybody to dial now; they count as being dialled from now on.
    pub(super) fn dials(&mut self, now: Time) -> Vec<PeerKey> {
        let busy = self.count(|state| matches!(state, State::Up | State::Dialling));
        let ready = |state: State| matches!(state, State::Waiting { until } if until <= now);
        let dials: Vec<PeerKey> = self
            .known
            .iter()
            .filter(|(_, (state, _))| ready(*state))
            .map(|(peer, _)| *peer)
            .take(PEERS_TARGET.saturating_sub(busy))
            .collect();
        for peer in &dials {
            self.set(*peer, State::Dialling);
        }
        dials
    }

    fn count(&self, is: impl Fn(State) -> bool) -> usize {
        self.known.values().filter(|(state, _)| is(*state)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn fifty_are_dialled_and_who_failed_again_after_a_minute() {
        let mut table = Table::default();
        (0..60).for_each(|peer| table.heard(at(0), PeerKey(peer)));
        assert_eq!(table.dials(at(0)).len(), PEERS_TARGET);
        assert_eq!(table.dials(at(0)), []);
        (0..49).for_each(|peer| table.up(PeerKey(peer)));
        table.dial_failed(at(1), PeerKey(49));
        assert_eq!(table.dials(at(1)), [PeerKey(50)]);
        assert!(table.wants_more());
        (50..60).for_each(|peer| table.ban(PeerKey(peer)));
        assert_eq!(table.dials(at(60)), []);
        assert_eq!(table.dials(at(61)), [PeerKey(49)]);
    }
}
