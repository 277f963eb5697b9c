//! What an idle uplink offers: pieces we got lately, to peers that lack them.
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
}

impl Offers {
    pub(super) fn on_stored(&mut self, now: Time, piece: PieceIndex) {
        self.recent.push_front(piece);
        self.recent.truncate(tuning::OFFERED_PIECES);
        self.next.get_or_insert(now);
    }

    /// When to offer again, as long as the uplink is idle.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Who is to be offered what, so that `idle` places find somebody to serve. `lacking` lists the peers
    /// that lack a piece.
    pub(super) fn make(
        &mut self,
        now: Time,
        idle: usize,
        lacking: impl Fn(PieceIndex) -> Vec<PeerKey>,
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
        lacking: impl Fn(PieceIndex) -> Vec<PeerKey>,
        random: &mut Random,
    ) -> Option<(PeerKey, PieceIndex)> {
        self.recent.iter().find_map(|piece| {
            let was_made = |peer: &PeerKey| {
                let same = |offer: &Offer| offer.peer == *peer && offer.piece == *piece;
                self.made.iter().any(same)
            };
            let mut peers = lacking(*piece);
            peers.retain(|peer| !was_made(peer));
            (!peers.is_empty()).then(|| (peers[random.random_range(0..peers.len())], *piece))
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

    fn all(_: PieceIndex) -> Vec<PeerKey> {
        PEERS.to_vec()
    }

    #[test]
    fn every_offer_is_made_once_and_the_latest_piece_goes_first() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        offers.on_stored(at(0), PieceIndex::new(7));
        offers.on_stored(at(0), PieceIndex::new(8));
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
            offers.on_stored(at(0), PieceIndex::new(7));
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
        offers.on_stored(at(0), PieceIndex::new(7));
        assert_eq!(offers.make(at(0), 4, all, &mut random).len(), 3);
        offers.on_stored(at(200), PieceIndex::new(9));
        let made = offers.make(at(200), 1, all, &mut random);
        assert!(!made.is_empty() && made.iter().all(|(_, piece)| piece.get() == 9));
    }

    #[test]
    fn nothing_is_offered_to_whom_lacks_nothing() {
        let mut random = Random::seed_from_u64(1);
        let mut offers = Offers::default();
        offers.on_stored(at(0), PieceIndex::new(7));
        assert_eq!(offers.make(at(0), 2, |_| Vec::new(), &mut random), []);
    }
}
