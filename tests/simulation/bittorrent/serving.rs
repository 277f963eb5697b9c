//! Who is served and with what: the serving part of [`BitTorrent`].
//!
//! Does what the choker decides and keeps what peers ask for. Asks nobody. Called by `client`.

use std::collections::VecDeque;

use rand::RngExt;
use shoal::content::PieceIndex;
use shoal::engine::{Output, PeerKey, Time};
use shoal::wire::{RejectReason, ShareMessage};

use super::choker::Change;
use super::client::BitTorrent;
use super::words::Word;

/// Pieces that a choked newcomer may ask for (`allowed_fast_set_size`).
const ALLOWED_FAST: usize = 5;

/// Requests kept for a peer (`max_allowed_in_request_queue`, there in blocks).
const REQUESTS_MAX: usize = 2_000;

impl BitTorrent {
    pub(super) fn change(&mut self, change: Change) {
        let Change { peer: key, unchoke } = change;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if unchoke {
            return self.say(key, Word::Unchoke.message());
        }
        let allowed = std::mem::take(&mut peer.allowed_it);
        let is_kept = |piece: &u32| allowed.contains(piece);
        let (kept, refused) = std::mem::take(&mut peer.wanted)
            .into_iter()
            .partition::<VecDeque<u32>, _>(is_kept);
        peer.wanted = kept;
        peer.allowed_it = allowed;
        self.say(key, Word::Choke.message());
        let reason = RejectReason::Busy;
        for piece in refused {
            self.say(key, ShareMessage::Reject { piece, reason });
        }
    }

    pub(super) fn on_interest(&mut self, now: Time, key: PeerKey, interested: bool) {
        let change = self.choker.on_interest(now, key, interested);
        let is_choked = change.is_none() && !self.choker.is_unchoked(key);
        change.into_iter().for_each(|change| self.change(change));
        if interested && is_choked {
            self.allow_fast(key);
        }
    }

    pub(super) fn allow_fast(&mut self, key: PeerKey) {
        let count = self.geometry.piece_count();
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.allowed_it.is_empty() || count as usize <= ALLOWED_FAST {
            return;
        }
        while peer.allowed_it.len() < ALLOWED_FAST {
            let piece = self.random.random_range(0..count);
            if !peer.allowed_it.contains(&piece) {
                peer.allowed_it.push(piece);
            }
        }
        for piece in peer.allowed_it.clone() {
            let word = Word::AllowedFast(PieceIndex::new(piece));
            self.say(key, word.message());
        }
    }

    pub(super) fn on_request(&mut self, key: PeerKey, piece: u32) {
        let is_unchoked = self.choker.is_unchoked(key);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let is_served = is_unchoked || peer.allowed_it.contains(&piece);
        if is_served && self.picker.holds(piece) && peer.wanted.len() < REQUESTS_MAX {
            peer.wanted.push_back(piece);
            return self.serve(key);
        }
        let reason = RejectReason::Busy;
        self.say(key, ShareMessage::Reject { piece, reason });
    }

    pub(super) fn on_cancel(&mut self, key: PeerKey, piece: PieceIndex) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.wanted.retain(|wanted| *wanted != piece.get());
        if peer.served == Some(piece.get()) {
            let peer = key;
            self.outputs.push_back(Output::StopServing { peer, piece });
        }
    }

    /// Each peer is sent one piece after the other, all of them at once.
    pub(super) fn serve(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.served.is_none()
            && let Some(piece) = peer.wanted.pop_front()
        {
            peer.served = Some(piece);
            let (peer, piece) = (key, PieceIndex::new(piece));
            self.outputs.push_back(Output::Serve { peer, piece });
        }
    }
}
