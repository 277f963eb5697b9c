//! Peers that are of no use make room for others: the turnover part of [`Transfer`].
//!
//! A full table that never changes is a trap: peers that all lack the same pieces would never meet the
//! seed that joins later, because none of them looks for anybody any more. Called by `transfer`.
//! Source: libtorrent `peer_turnover` (4 % each 300 s); here sooner, and only peers that neither give nor take.

use super::transfer::{Peer, Transfer};
use super::{Output, Parting, PeerKey, Time, tuning};

impl Transfer {
    /// When peers are looked over again; `None` while there is room for more.
    pub(super) fn turnover_deadline(&self) -> Option<Time> {
        let is_full = !self.is_complete() && self.table.up_count() >= tuning::PEERS_TARGET;
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
            let useful_at = state
                .download
                .last_arrival()
                .max(self.upload.taken_at(**peer));
            now.duration_since(useful_at) >= tuning::USELESS_AFTER
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
}
