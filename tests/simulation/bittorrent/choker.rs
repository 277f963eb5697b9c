//! Whom to serve: the peers that gave most, one at random beside them; who is complete serves in turn.
//!
//! Knows what passed between us and each peer, no pieces. Gives changes, sends nothing. Called by `client`.
//! Source: libtorrent `choker.cpp`, `session_impl.cpp`; `unchoke_slots_limit` 8, `unchoke_interval` 15,
//! `optimistic_unchoke_interval` 30, `num_optimistic_unchoke_slots` a fifth, `seeding_piece_quota` 20.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use shoal::engine::{PeerKey, Random, Time};

/// Peers unchoked at once, the one of them that is so by chance, and seconds between two choices.
const SLOTS: usize = 8;
const OPTIMISTIC_SLOTS: usize = 1;
const UNCHOKE_SECS: u32 = 15;
const OPTIMISTIC_SECS: u32 = 30;

/// Pieces and time after which a peer of a seed makes room for others.
const QUOTA_PIECES: u64 = 20;
const QUOTA_SPAN: Duration = Duration::from_secs(60);

/// A peer that is to be choked or unchoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) peer: PeerKey,
    pub(super) unchoke: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    interested: bool,
    unchoked: bool,
    optimistic: bool,
    /// Bytes of this round.
    received: u64,
    sent: u64,
    sent_since_unchoke: u64,
    unchoked_at: Option<Time>,
    optimistic_at: Option<Time>,
}

impl Standing {
    fn is_past_quota(&self, now: Time, piece_len: u32) -> bool {
        self.unchoked
            && self.sent_since_unchoke > QUOTA_PIECES * u64::from(piece_len)
            && self
                .unchoked_at
                .is_some_and(|at| now.duration_since(at) > QUOTA_SPAN)
    }

    fn sent_unchoked(&self) -> u64 {
        if self.unchoked { self.sent } else { 0 }
    }

    /// Best first.
    fn compare(&self, other: &Self, now: Time, piece_len: u32) -> Ordering {
        let past = |standing: &Self| standing.is_past_quota(now, piece_len);
        other
            .received
            .cmp(&self.received)
            .then(past(self).cmp(&past(other)))
            .then(other.sent_unchoked().cmp(&self.sent_unchoked()))
            .then(self.unchoked_at.cmp(&other.unchoked_at))
    }
}

#[derive(Debug, Default)]
pub(super) struct Choker {
    peers: BTreeMap<PeerKey, Standing>,
    /// Seconds to the next choice.
    unchoke_in: u32,
    optimistic_in: u32,
}

impl Choker {
    pub(super) fn joins(&mut self, peer: PeerKey) {
        self.peers.insert(peer, Standing::default());
    }

    /// A place that becomes free is given at the next second.
    pub(super) fn leaves(&mut self, peer: PeerKey) {
        if self.peers.remove(&peer).is_some_and(|gone| gone.unchoked) {
            self.unchoke_in = 0;
        }
    }

    pub(super) fn is_unchoked(&self, peer: PeerKey) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.unchoked)
    }

    pub(super) fn on_received(&mut self, peer: PeerKey, bytes: u32) {
        if let Some(standing) = self.peers.get_mut(&peer) {
            standing.received += u64::from(bytes);
        }
    }

    pub(super) fn on_sent(&mut self, peer: PeerKey, bytes: u32) {
        if let Some(standing) = self.peers.get_mut(&peer) {
            standing.sent += u64::from(bytes);
            standing.sent_since_unchoke += u64::from(bytes);
        }
    }

    /// Who becomes interested while places are free is unchoked at once; who loses interest is choked.
    pub(super) fn on_interest(
        &mut self,
        now: Time,
        peer: PeerKey,
        interested: bool,
    ) -> Option<Change> {
        let unchoked = self.peers.values().filter(|peer| peer.unchoked).count();
        let standing = self.peers.get_mut(&peer)?;
        standing.interested = interested;
        if interested && unchoked < SLOTS {
            return self.set(now, peer, true);
        }
        if !interested && standing.unchoked {
            self.unchoke_in = 0;
            return self.set(now, peer, false);
        }
        None
    }

    fn set(&mut self, now: Time, peer: PeerKey, unchoke: bool) -> Option<Change> {
        let standing = self.peers.get_mut(&peer)?;
        if standing.unchoked == unchoke {
            return None;
        }
        standing.unchoked = unchoke;
        if unchoke {
            standing.unchoked_at = Some(now);
            standing.sent_since_unchoke = 0;
        } else {
            standing.optimistic = false;
        }
        Some(Change { peer, unchoke })
    }

    /// A second is over.
    pub(super) fn on_second(
        &mut self,
        now: Time,
        piece_len: u32,
        random: &mut Random,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        self.unchoke_in = self.unchoke_in.saturating_sub(1);
        if self.unchoke_in == 0 {
            self.unchoke_in = UNCHOKE_SECS;
            self.choose_best(now, piece_len, &mut changes);
        }
        self.optimistic_in = self.optimistic_in.saturating_sub(1);
        if self.optimistic_in == 0 {
            self.optimistic_in = OPTIMISTIC_SECS;
            self.choose_by_chance(now, random, &mut changes);
        }
        changes
    }

    fn choose_best(&mut self, now: Time, piece_len: u32, changes: &mut Vec<Change>) {
        let mut ranked: Vec<(PeerKey, Standing)> = self
            .peers
            .iter()
            .filter(|(_, standing)| standing.interested)
            .map(|(peer, standing)| (*peer, *standing))
            .collect();
        ranked.sort_by(|(_, a), (_, b)| a.compare(b, now, piece_len));
        for (at, (peer, standing)) in ranked.into_iter().enumerate() {
            let is_best = at < SLOTS - OPTIMISTIC_SLOTS;
            if is_best && standing.optimistic {
                // It has earned a place; the one by chance is free.
                self.optimistic_in = 0;
                if let Some(standing) = self.peers.get_mut(&peer) {
                    standing.optimistic = false;
                }
            }
            if is_best || !standing.optimistic {
                changes.extend(self.set(now, peer, is_best));
            }
        }
        for standing in self.peers.values_mut() {
            (standing.received, standing.sent) = (0, 0);
        }
    }

    /// Of those that are choked, who had the place longest ago.
    fn choose_by_chance(&mut self, now: Time, random: &mut Random, changes: &mut Vec<Change>) {
        let candidates: Vec<(Option<Time>, PeerKey)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.interested && (!peer.unchoked || peer.optimistic))
            .map(|(peer, standing)| (standing.optimistic_at, *peer))
            .collect();
        let Some(longest) = candidates.iter().map(|(at, _)| *at).min() else {
            return;
        };
        let equal: Vec<PeerKey> = candidates
            .into_iter()
            .filter(|(at, _)| *at == longest)
            .map(|(_, peer)| peer)
            .collect();
        let chosen = equal[random.random_range(0..equal.len())];
        let before: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(peer, standing)| standing.optimistic && **peer != chosen)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in before {
            changes.extend(self.set(now, peer, false));
        }
        changes.extend(self.set(now, chosen, true));
        if let Some(standing) = self.peers.get_mut(&chosen) {
            standing.optimistic = true;
            standing.optimistic_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const PIECE_LEN: u32 = 1_000;

    fn at(secs: u64) -> Time {
        Time::from_start(Duration::from_secs(secs))
    }

    /// A choker with this many interested peers, and its generator.
    fn with_peers(count: u32) -> (Choker, Random) {
        let mut choker = Choker::default();
        for peer in (0..count).map(PeerKey) {
            choker.joins(peer);
            choker.on_interest(at(0), peer, true);
        }
        (choker, Random::seed_from_u64(1))
    }

    fn unchoked(choker: &Choker) -> Vec<u32> {
        let unchoked = choker.peers.iter().filter(|(_, peer)| peer.unchoked);
        unchoked.map(|(peer, _)| peer.0).collect()
    }

    #[test]
    fn the_first_eight_are_unchoked_at_once() {
        let (choker, _) = with_peers(12);
        assert_eq!(unchoked(&choker), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn after_a_round_the_seven_that_gave_most_are_served_and_one_by_chance() {
        let (mut choker, mut random) = with_peers(20);
        choker.on_second(at(1), PIECE_LEN, &mut random);
        for peer in 0..20 {
            choker.on_received(PeerKey(peer), peer);
        }
        for second in 2..=16 {
            choker.on_second(at(second), PIECE_LEN, &mut random);
        }
        let served = unchoked(&choker);
        assert!((13..20).all(|best| served.contains(&best)), "{served:?}");
        assert_eq!(served.len(), SLOTS);
    }

    #[test]
    fn who_is_served_by_chance_changes_every_thirty_seconds() {
        let (mut choker, mut random) = with_peers(20);
        let mut chosen = Vec::new();
        for second in 1..=300 {
            (0..7).for_each(|peer| choker.on_received(PeerKey(peer), 1));
            choker.on_second(at(second), PIECE_LEN, &mut random);
            let now = choker.peers.iter().find(|(_, peer)| peer.optimistic);
            chosen.extend(now.map(|(peer, _)| *peer));
        }
        chosen.dedup();
        assert_eq!(chosen.len(), 10, "{chosen:?}");
    }

    #[test]
    fn a_seed_serves_others_when_its_peers_have_had_their_quota_for_a_minute() {
        let (mut choker, mut random) = with_peers(16);
        let first = unchoked(&choker);
        let mut after = Vec::new();
        for second in 1..=90 {
            for peer in unchoked(&choker) {
                choker.on_sent(PeerKey(peer), PIECE_LEN);
            }
            choker.on_second(at(second), PIECE_LEN, &mut random);
            if second == 45 {
                let kept = unchoked(&choker);
                let kept = kept.iter().filter(|peer| first.contains(peer)).count();
                assert!(kept >= 7, "those served stay");
            }
            after = unchoked(&choker);
        }
        let kept = after.iter().filter(|peer| first.contains(peer)).count();
        assert!(kept <= 2, "{after:?}");
    }

    #[test]
    fn who_loses_interest_is_choked_and_its_place_is_given_at_the_next_second() {
        let (mut choker, mut random) = with_peers(9);
        choker.on_second(at(1), PIECE_LEN, &mut random);
        let change = choker.on_interest(at(2), PeerKey(0), false);
        let unchoke = false;
        let peer = PeerKey(0);
        assert_eq!(change, Some(Change { peer, unchoke }));
        choker.on_second(at(3), PIECE_LEN, &mut random);
        assert_eq!(unchoked(&choker), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
