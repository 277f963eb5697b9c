//! What others get from us: the serving part of [`Transfer`].
//!
//! Shows `upload` the swarm, and turns its choices into outputs and messages. Decides nothing itself.
//! Called by `transfer`.

use std::collections::BTreeMap;

use super::pieces::Pieces;
use super::transfer::{Peer, Quiet, Transfer};
use super::upload::{Standing, View};
use super::{Output, PeerKey, ServiceEnd, Time, tuning};
use crate::content::{Geometry, PieceIndex};
use crate::wire::{RejectReason, ShareMessage, runs_of};

impl Transfer {
    pub(super) fn on_service_ended(
        &mut self,
        now: Time,
        peer: PeerKey,
        piece: PieceIndex,
        how: ServiceEnd,
    ) {
        self.upload.on_ended(
            now,
            peer,
            piece,
            self.geometry.len_of(piece),
            how == ServiceEnd::Whole,
        );
        if how == ServiceEnd::Unreadable && self.peers.contains_key(&peer) {
            self.send(
                peer,
                ShareMessage::Reject {
                    piece: piece.get(),
                    reason: RejectReason::Unreadable,
                },
            );
            // Its file was read again meanwhile: the peer, which takes us for one that lacks the piece now, hears otherwise.
            if self.pieces.held().contains(piece) {
                self.haves.push(piece);
            }
        }
    }

    pub(super) fn on_pieces_lost(&mut self, first: PieceIndex, count: u32) {
        let all = (first.get()..first.get() + count).map(PieceIndex::new);
        let lost = all.filter(|piece| self.pieces.lost(*piece)).collect();
        self.completed &= self.pieces.is_complete();
        // What was being read again is asked for from now on.
        self.to_fill.extend(self.peers.keys());
        self.withdraw_pieces(lost);
    }

    pub(super) fn on_pieces_doubted(&mut self, first: PieceIndex, count: u32) {
        let all = (first.get()..first.get() + count).map(PieceIndex::new);
        let doubted = all.filter(|piece| self.pieces.recheck(*piece)).collect();
        self.completed &= self.pieces.is_complete();
        self.withdraw_pieces(doubted);
    }

    /// Pieces that were read again are held: nobody asked for them meanwhile.
    pub(super) fn on_pieces_found(&mut self, now: Time, first: PieceIndex, count: u32) {
        for piece in (first.get()..first.get() + count).map(PieceIndex::new) {
            if self.pieces.found(piece) {
                self.last_byte = now;
                self.quiet = Quiet::No;
                self.haves.push(piece);
                self.offers.add(now, piece);
                self.upload.on_found(piece);
            }
        }
        self.complete_if_whole(now);
    }

    /// Takes back what peers were told of pieces that were held until now.
    fn withdraw_pieces(&mut self, lost: Vec<PieceIndex>) {
        if lost.is_empty() {
            return;
        }
        // Nobody was told of these yet: nobody has to be told the contrary.
        let held = self.pieces.held();
        self.haves.retain(|piece| held.contains(*piece));
        for piece in &lost {
            for peer in self.upload.withdraw(*piece) {
                self.send(
                    peer,
                    ShareMessage::Reject {
                        piece: piece.get(),
                        reason: RejectReason::Unreadable,
                    },
                );
            }
        }
        let runs = runs_of(lost);
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            for runs in runs.chunks(tuning::RUNS_PER_MESSAGE_MAX) {
                self.send(
                    peer,
                    ShareMessage::DontHave {
                        runs: runs.to_vec(),
                    },
                );
            }
            self.to_fill.insert(peer);
        }
    }

    pub(super) fn serve(&mut self, now: Time) {
        self.upload.on_time(now);
        let swarm = SwarmView {
            now,
            geometry: &self.geometry,
            pieces: &self.pieces,
            peers: &self.peers,
        };
        while let Some((peer, piece)) = self.upload.next(now, &swarm) {
            if self.upload.ends_wait(peer) {
                let message = ShareMessage::Serving { piece: piece.get() };
                self.outputs.push_back(Output::Send { peer, message });
            }
            self.outputs.push_back(Output::Serve { peer, piece });
        }
        for (peer, piece) in self.upload.suggestions(now, &swarm) {
            let message = ShareMessage::Suggest { piece: piece.get() };
            self.outputs.push_back(Output::Send { peer, message });
        }
        let in_line = self.upload.in_line();
        for (peer, piece) in self.upload.heartbeats(now) {
            let message = match piece {
                Some(piece) => ShareMessage::Serving { piece: piece.get() },
                None => ShareMessage::Queued { in_line },
            };
            self.send(peer, message);
        }
    }

    /// Refuses requests for pieces that were offered and did not come.
    pub(super) fn refuse_lapsed(&mut self, now: Time) {
        for (peer, piece) in self.offers.take_lapsed(now) {
            let (piece, reason) = (piece.get(), RejectReason::NotHeld);
            self.send(peer, ShareMessage::Reject { piece, reason });
        }
    }

    /// Offers what we got lately, or nearly have, while nobody is in line for it.
    pub(super) fn offer(&mut self, now: Time) {
        if self.pieces.wants_nothing() || self.offers.deadline().is_none_or(|at| now < at) {
            return;
        }
        let idle = self.upload.idle_places(now);
        if idle == 0 {
            return;
        }
        let lacking = |piece| {
            // Its file may have changed since, or its last bytes not have come.
            if !self.pieces.held().contains(piece) && !self.pieces.is_coming(piece) {
                return Vec::new();
            }
            let lacks =
                |state: &Peer| !state.holdings.contains(piece) && !state.download.is_quiet(now);
            let lacking = self.peers.iter().filter(|(_, state)| lacks(state));
            let told = lacking.map(|(peer, _)| (*peer, self.table.is_near(*peer)));
            told.collect()
        };
        for (peer, piece) in self.offers.make(now, idle, lacking, &mut self.random) {
            self.send(peer, ShareMessage::Suggest { piece: piece.get() });
        }
    }
}

/// What `upload` sees of the swarm.
struct SwarmView<'a> {
    now: Time,
    geometry: &'a Geometry,
    pieces: &'a Pieces,
    peers: &'a BTreeMap<PeerKey, Peer>,
}

impl View for SwarmView<'_> {
    fn is_seed(&self) -> bool {
        self.pieces.has_all()
    }

    fn holds(&self, piece: PieceIndex) -> bool {
        self.pieces.held().contains(piece)
    }

    fn len_of(&self, piece: PieceIndex) -> u32 {
        self.geometry.len_of(piece)
    }

    fn holders(&self, piece: PieceIndex) -> u32 {
        self.pieces.holders(piece)
    }

    fn standing(&self, peer: PeerKey) -> Standing {
        let standing = |state: &Peer| Standing {
            gave: state.download.rate().total(),
            holds: state.holdings.count(self.pieces.count()),
        };
        self.peers
            .get(&peer)
            .map_or(Standing { gave: 0, holds: 0 }, standing)
    }
    fn is_quiet(&self, peer: PeerKey) -> bool {
        let is_quiet = |state: &Peer| state.download.is_quiet(self.now);
        self.peers.get(&peer).is_none_or(is_quiet)
    }
}
