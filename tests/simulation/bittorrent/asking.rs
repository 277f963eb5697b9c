//! What is asked of whom, and what becomes of it: the asking part of [`BitTorrent`].
//!
//! Joins picker and queues. Serves nobody. Called by `client`.

use shoal::content::PieceIndex;
use shoal::engine::{Event, Output, Parting, PeerKey, Time};
use shoal::wire::{Run, ShareMessage, runs_of};

use super::client::{BitTorrent, Peer};

impl BitTorrent {
    /// Asks a peer for as much as its queue has room for.
    pub(super) fn fill(&mut self, now: Time, key: PeerKey) {
        let can_give = |peer: &&mut Peer| !peer.rests && peer.may_give();
        let Some(peer) = self.peers.get_mut(&key).filter(can_give) else {
            return;
        };
        let mut asked = Vec::new();
        while peer.queue.has_room() {
            let Some(piece) = peer.queue.next_reserved().or_else(|| {
                let offers = |piece| peer.offers(piece);
                let is_snubbed = peer.queue.is_snubbed();
                let piece = self.picker.pick(offers, is_snubbed, &mut self.random)?;
                let threshold = self.settings.whole_pieces;
                let most = peer.queue.run_len(threshold, self.geometry.piece_len());
                let run = self.picker.run_around(piece, most, offers);
                for piece in run {
                    self.picker.ask(piece);
                    peer.queue.reserve(piece);
                }
                peer.queue.next_reserved()
            }) else {
                break;
            };
            let piece = PieceIndex::new(piece);
            peer.queue
                .ask(now, piece.get(), self.geometry.len_of(piece));
            asked.push(piece);
        }
        if peer.queue.is_empty()
            && self.picker.all_asked()
            && let Some(piece) = self.picker.pick_busy(|piece| peer.offers(piece))
        {
            self.picker.ask(piece);
            let piece = PieceIndex::new(piece);
            peer.queue
                .ask(now, piece.get(), self.geometry.len_of(piece));
            asked.push(piece);
        }
        if !asked.is_empty() {
            let runs = runs_of(asked);
            self.say(key, ShareMessage::Request { runs });
        }
    }

    pub(super) fn fill_all(&mut self, now: Time) {
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            self.fill(now, peer);
        }
    }

    pub(super) fn on_choked(&mut self, now: Time, key: PeerKey, chokes_us: bool) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.chokes_us = chokes_us;
        if chokes_us {
            for piece in peer.queue.unreserve() {
                self.picker.release(piece);
            }
            self.fill_all(now);
        } else {
            self.fill(now, key);
        }
    }

    pub(super) fn on_reject(&mut self, now: Time, key: PeerKey, piece: u32) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.rests |= !peer.chokes_us;
        peer.allowed_us.retain(|allowed| *allowed != piece);
        if peer.queue.forget(piece) {
            self.picker.release(piece);
            self.fill_all(now);
        }
    }

    pub(super) fn on_arrived(&mut self, now: Time, key: PeerKey, piece: PieceIndex) {
        self.picker.arrive(piece.get());
        let mut others = Vec::new();
        for (other, peer) in &mut self.peers {
            if peer.queue.forget(piece.get()) && *other != key {
                others.push(*other);
            }
        }
        for other in others {
            let runs = vec![Run::one(piece)];
            self.say(other, ShareMessage::Cancel { runs });
            self.fill(now, other);
        }
        self.fill(now, key);
    }

    pub(super) fn on_stored(&mut self, now: Time, piece: PieceIndex) {
        if !self.picker.store(piece.get()) {
            return;
        }
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in peers {
            let runs = vec![Run::one(piece)];
            self.say(key, ShareMessage::Have { runs });
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.useful -= u32::from(peer.holds.contains(piece));
                peer.allowed_us.retain(|allowed| *allowed != piece.get());
            }
            self.tell_interest(key);
        }
        if self.picker.is_complete() {
            self.outputs.push_back(Output::Event(Event::Completed));
            self.part_from_seeds(now);
        }
    }

    pub(super) fn on_corrupt(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        self.picker.spoil(piece.get());
        self.part(now, peer, Parting::Corrupt);
        self.table.ban(peer);
        self.fill_all(now);
    }
}
