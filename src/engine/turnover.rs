//! Peers that are of no use make room for others: the turnover part of [`Transfer`].
//!
//! A full table that never changes is a trap: peers that all lack the same pieces would never meet the
//! seed that joins later, because none of them looks for anybody any more; and whoever keeps the places of a seeder with
//! connections that ask for nothing keeps everybody else from it. Called by `transfer`.
//! Source: libtorrent `peer_turnover` (4 % each 300 s); here sooner, and only peers that neither give nor take.

use super::transfer::{Peer, Transfer};
use super::{Output, Parting, PeerKey, Time, tuning};

impl Transfer {
    /// When peers are looked over again; `None` while there is room for more.
    pub(super) fn turnover_deadline(&self) -> Option<Time> {
        let is_full = !self.pieces.wants_nothing() && self.table.up_count() >= tuning::PEERS_TARGET;
        is_full.then_some(self.turnover_at)
    }

    /// Parts from peers that were idle both ways for long, so that others can be dialled; when nobody else is
    /// known, looks for somebody.
    pub(super) fn turn_over(&mut self, now: Time) {
        if self.turnover_deadline().is_none_or(|at| now < at) {
            return;
        }
        self.turnover_at = now + tuning::TURNOVER_EVERY;
        let is_useless = |(peer, state): &(&PeerKey, &Peer)| {
            now.duration_since(self.useful_at(**peer, state)) >= tuning::USELESS_AFTER
        };
        let useless = self.peers.iter().filter(is_useless).map(|(peer, _)| *peer);
        let useless: Vec<PeerKey> = useless.take(tuning::TURNOVER_PEERS_MAX).collect();
        if useless.is_empty() {
            return;
        }
        if !self.table.knows_a_stranger() {
            self.outputs.push_back(Output::FindPeers);
            return;
        }
        for peer in useless {
            self.part(now, peer, Parting::Full);
        }
    }

    /// When the peer last gave or took something, or else when it was met.
    fn useful_at(&self, peer: PeerKey, state: &Peer) -> Time {
        let given_at = state.download.last_arrival();
        given_at.max(self.upload.taken_at(peer))
    }

    /// Whether there is a place for one more peer; the guest that has been idle for longest gives up its own.
    pub(super) fn make_room(&mut self, now: Time) -> bool {
        if self.peers.len() < tuning::PEERS_MAX {
            return true;
        }
        let idle_since = |(peer, state): (&PeerKey, &Peer)| {
            if self.upload.is_active(*peer) || state.download.relied_count() > 0 {
                return None;
            }
            let gave = state.download.rate().total() > 0;
            let took = self
                .upload
                .rate_of(*peer)
                .is_some_and(|rate| rate.total() > 0);
            let patience = match gave || took {
                true => tuning::GUEST_RESTS_MAX,
                false => tuning::GUEST_BEGINS_WITHIN,
            };
            let since = self.useful_at(*peer, state);
            (now.duration_since(since) >= patience).then_some((since, *peer))
        };
        let Some((_, idle)) = self.peers.iter().filter_map(idle_since).min() else {
            return false;
        };
        self.part(now, idle, Parting::Full);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::content::{Bitfield, Geometry};
    use crate::engine::{Input, Random, TransferConfig};
    use crate::wire::{Run, ShareMessage};

    const GUESTS: u32 = tuning::PEERS_MAX as u32;
    const NEWCOMER: PeerKey = PeerKey(1_000);
    const START: Time = Time::from_start(Duration::ZERO);

    /// A seed with all the peers that it takes, of which the first `asking` have asked for a piece.
    fn full_seed(asking: u32) -> Transfer {
        let config = TransferConfig {
            geometry: Geometry::new(1 << 16, &[1 << 16]).expect("allowed"),
            held: Bitfield::full(1),
            wanted: None,
            rechecking: None,
            sequential: false,
            random: Random::seed_from_u64(1),
        };
        let mut transfer = Transfer::new(START, config);
        for peer in (0..GUESTS).map(PeerKey) {
            transfer.handle(START, Input::PeerUp { peer, near: false });
        }
        for peer in (0..asking).map(PeerKey) {
            let runs = vec![Run { first: 0, count: 1 }];
            let message = ShareMessage::Request { runs };
            transfer.handle(START, Input::Message { peer, message });
        }
        transfer
    }

    /// Who is parted from when one more comes after `waited`.
    fn parted(mut transfer: Transfer, waited: Duration) -> Vec<PeerKey> {
        while transfer.poll_output().is_some() {}
        let (peer, near) = (NEWCOMER, false);
        transfer.handle(Time::from_start(waited), Input::PeerUp { peer, near });
        assert!(transfer.peers.len() <= tuning::PEERS_MAX);
        let outputs = std::iter::from_fn(|| transfer.poll_output());
        let parted = outputs.filter_map(|output| match output {
            Output::Disconnect { peer, .. } => Some(peer),
            _ => None,
        });
        parted.collect()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_who_asked_for_nothing() {
        assert_eq!(
            parted(full_seed(5), tuning::GUEST_BEGINS_WITHIN),
            [PeerKey(5)]
        );
    }

    #[test]
    fn who_took_something_may_rest_for_longer() {
        for (waited, expected) in [
            (tuning::GUEST_BEGINS_WITHIN, NEWCOMER),
            (tuning::GUEST_RESTS_MAX, PeerKey(0)),
        ] {
            let mut transfer = full_seed(0);
            for peer in (0..GUESTS).map(PeerKey) {
                transfer.upload.on_sent(START, peer, 1);
            }
            assert_eq!(parted(transfer, waited), [expected], "{waited:?}");
        }
    }

    #[test]
    fn nobody_makes_room_who_has_just_come_or_has_asked() {
        let soon = tuning::GUEST_BEGINS_WITHIN - Duration::from_millis(1);
        assert_eq!(parted(full_seed(5), soon), [NEWCOMER]);
        assert_eq!(
            parted(full_seed(GUESTS), tuning::GUEST_RESTS_MAX),
            [NEWCOMER]
        );
    }
}
