//! What an idle uplink offers: pieces we got lately or are about to get, to peers that lack them.
//!
//! Requests spread unevenly: while a swarm is young a third of its peers have nobody in line and others
//! have a hundred. Who has nothing to send therefore suggests what it could, and the peer asks, also for
//! what only waits elsewhere. Takes plain numbers; knows no queue and no connection. Called by `serving`.
//! Source: work stealing (Blumofe and Leiserson 1999), here by those who have nothing to do.

use std::collections::VecDeque;

use rand::RngExt;

use super::{PeerKey, Random, Time, tuning};
use crate::content::PieceIndex;

#[derive(Clone, Copy, Debug)]
struct Offer {
    peer: PeerKey,
    piece: PieceIndex,
    at: Time,
}

/// The offers of one share.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// Pieces that we got, the latest first: few others have them.
    recent: VecDeque<PieceIndex>,
    /// The latest offers, the newest first; none is made again.
    made: VecDeque<Offer>,
    /// When to look again; `None` until there is something new to offer.
    next: Option<Time>,
    /// Requests for offered pieces that are still on their way, and when they came.
    early: Vec<Offer>,
}

impl Offers {
    /// A piece is here, or nearly.
    pub(super) fn add(&mut self, now: Time, piece: PieceIndex) {
        if self.knows(piece) {
            return;
        }
        self.recent.push_front(piece);
        self.recent.truncate(tuning::OFFERED_PIECES);
        self.next.get_or_insert(now);
    }

    pub(super) fn knows(&self, piece: PieceIndex) -> bool {
        self.recent.contains(&piece)
    }

    /// Takes a request for a piece that is on its way; false when it was not offered to this peer.
    pub(super) fn on_early(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) -> bool {
        let same = |offer: &Offer| offer.peer == peer && offer.piece == piece;
        let was_made = self.made.iter().any(same);
        if was_made {
            self.on_cancel(peer, piece);
            let at = now;
            self.early.push(Offer { peer, piece, at });
        }
        was_made
    }

    pub(super) fn on_cancel(&mut self, peer: PeerKey, piece: PieceIndex) {
        self.early
            .retain(|early| early.peer != peer || early.piece != piece);
    }

    pub(super) fn peer_leaves(&mut self, peer: PeerKey) {
        self.early.retain(|early| early.peer != peer);
    }

    /// Who asked for `piece`, which is here now, before it was.
    pub(super) fn take_early(&mut self, piece: PieceIndex) -> Vec<PeerKey> {
        let of_piece = self.early.extract_if(.., |early| early.piece == piece);
        of_piece.map(|early| early.peer).collect()
    }

    /// The early requests whose piece did not come in time.
    pub(super) fn take_lapsed(&mut self, now: Time) -> Vec<(PeerKey, PieceIndex)> {
        let is_over = |early: &mut Offer| early.at + tuning::EARLY_LAPSES <= now;
        let lapsed = self.early.extract_if(.., is_over);
        lapsed.map(|early| (early.peer, early.piece)).collect()
    }

    /// When the next early request lapses.
    pub(super) fn early_deadline(&self) -> Option<Time> {
        let lapses = |early: &Offer| early.at + tuning::EARLY_LAPSES;
        self.early.iter().map(lapses).min()
    }

    /// When to offer again, as long as the uplink is idle.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Who is to be offered what, so that `idle` places find somebody to serve. `lacking` lists the peers
    /// that lack a piece, with whether each is near: those are chosen mostly, since they answer sooner.
    pub(super) fn make(
        &mut self,
        now: Time,
        idle: usize,
        lacking: impl Fn(PieceIndex) -> Vec<(PeerKey, bool)>,
        random: &mut Random,
    ) -> Vec<(PeerKey, PieceIndex)> {
        let mut offers = Vec::new();
        if self.next.is_none_or(|next| now < next) {
            return offers;
        }
        let is_open = |offer: &&Offer| now < offer.at + tuning::OFFER_LAPSES;
        let open = self.made.iter().filter(is_open).count();
        self.next = Some(now + tuning::OFFER_LAPSES);
        // Half of the offers come to nothing: two at once for each place save round trips.
        for _ in open..2 * idle {
            let Some((peer, piece)) = self.choose(&lacking, random) else {
                self.next = None;
                break;
            };
            let at = now;
            self.made.push_front(Offer { peer, piece, at });
            self.made.truncate(tuning::OFFERS_REMEMBERED);
            offers.push((peer, piece));
        }
        offers
    }

    fn choose(
        &self,
        lacking: impl Fn(PieceIndex) -> Vec<(PeerKey, bool)>,
        random: &mut Random,
    ) -> Option<(PeerKey, PieceIndex)> {
        self.recent.iter().find_map(|piece| {
            let was_made = |peer: &PeerKey| {
                let same = |offer: &Offer| offer.peer == *peer && offer.piece == *piece;
                self.made.iter().any(same)
            };
            let mut peers = lacking(*piece);
            peers.retain(|(peer, _)| !was_made(peer));
            let is_distant = |(_, near): &(PeerKey, bool)| !near;
            if peers.iter().any(is_distant)
                && !peers.iter().all(is_distant)
                && !random.random_ratio(1, tuning::OFFER_AFAR_OF)
            {
                peers.retain(|(_, near)| *near);
            }
            (!peers.is_empty()).then(|| (peers[random.random_range(0..peers.len())].0, *piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;

    const PEERS: [PeerKey; 3] = [PeerKey(1), PeerKey(2), PeerKey(3)];

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn all(_: PieceIndex) -> Vec<(PeerKey, bool)> {
        PEERS.map(|peer| (peer, false)).to_vec()
    }

    #[test]
    fn every_offer_is_made_once_and_the_latest_piece_goes_first() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        offers.add(at(0), PieceIndex::new(7));
        offers.add(at(0), PieceIndex::new(8));
        let mut made = Vec::new();
        for round in 0..20 {
            made.extend(offers.make(at(round * 100), 2, all, &mut random));
        }
        assert!(made[..3].iter().all(|(_, piece)| piece.get() == 8));
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 6, "three peers, two pieces: {made:?}");
        assert_eq!(offers.deadline(), None, "nothing is left to offer");
    }

    #[test]
    fn the_more_places_are_idle_the_more_offers_are_open_and_no_more() {
        for (idle, expected) in [(0, 0), (1, 2), (2, 3)] {
            let mut random = Random::seed_from_u64(1);
            let mut offers = Offers::default();
            offers.add(at(0), PieceIndex::new(7));
            let made = offers.make(at(0), idle, all, &mut random);
            assert_eq!(made.len(), expected, "{idle} places, three peers");
            let soon = at(1);
            assert_eq!(offers.make(soon, idle, all, &mut random), []);
        }
    }

    #[test]
    fn a_new_piece_is_offered_after_all_old_ones_were() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        offers.add(at(0), PieceIndex::new(7));
        assert_eq!(offers.make(at(0), 4, all, &mut random).len(), 3);
        offers.add(at(200), PieceIndex::new(9));
        let made = offers.make(at(200), 1, all, &mut random);
        assert!(!made.is_empty() && made.iter().all(|(_, piece)| piece.get() == 9));
    }

    #[test]
    fn nothing_is_offered_to_whom_lacks_nothing() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        offers.add(at(0), PieceIndex::new(7));
        assert_eq!(offers.make(at(0), 2, |_| Vec::new(), &mut random), []);
    }

    #[test]
    fn an_early_request_waits_for_its_piece_if_it_was_offered_and_not_for_ever() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        let (offered, other) = (PieceIndex::new(7), PieceIndex::new(8));
        offers.add(at(0), offered);
        let made = offers.make(at(0), 4, all, &mut random);
        assert_eq!(made.len(), 3);
        assert!(!offers.on_early(at(10), PEERS[0], other));
        for peer in PEERS {
            assert!(offers.on_early(at(10), peer, offered));
        }
        offers.on_cancel(PEERS[1], offered);
        offers.peer_leaves(PEERS[2]);
        assert_eq!(offers.take_early(other), []);
        assert_eq!(offers.take_early(offered), [PEERS[0]]);
        assert_eq!(offers.take_early(offered), [], "taken once");

        assert!(offers.on_early(at(20), PEERS[1], offered));
        let lapses = at(20) + tuning::EARLY_LAPSES;
        assert_eq!(offers.early_deadline(), Some(lapses));
        assert_eq!(offers.take_lapsed(at(21)), []);
        assert_eq!(offers.take_lapsed(lapses), [(PEERS[1], offered)]);
        assert_eq!(offers.early_deadline(), None);
    }

    #[test]
    fn near_peers_are_offered_most_and_distant_ones_some() {
        let mut random = Random::seed_from_u64(1);
        let mixed = |_| PEERS.map(|peer| (peer, peer == PEERS[2])).to_vec();
        let mut near = 0;
        for piece in 0..1_000 {
            let mut offers = Offers::default();
            offers.add(at(0), PieceIndex::new(piece));
            let made = offers.make(at(0), 1, mixed, &mut random);
            near += usize::from(made[0].0 == PEERS[2]);
        }
        // Three of four, and a third of the rest.
        assert!((790..=875).contains(&near), "{near} of 1,000");
    }
}
