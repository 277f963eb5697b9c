//! First copies: which pieces nobody but us has, and to whom each of them goes.
//!
//! A seed's uplink is what a young swarm lacks most, so a piece that no connected peer holds is promised
//! to one peer (who asked first, or whom we suggest it to) and sent to others only after every such
//! piece went out once. It never refuses and never hides a piece: it orders what was asked and suggests
//! what was not. Takes plain numbers, knows no queue and no connection. Called by `upload`.
//! Source: BEP 16 (superseeding), without its lies in the bitfield.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;

use super::upload::View;
use super::{PeerKey, Random, Time, tuning};
use crate::content::PieceIndex;

/// Rank of a first copy that is promised to another peer: better than any second copy.
pub(super) const PROMISED_ELSEWHERE: u32 = 1;

#[derive(Clone, Copy, Debug)]
struct Promise {
    peer: PeerKey,
    /// When it was suggested; `None` once it is asked for.
    suggested: Option<Time>,
}

/// What has been sent and what is promised.
#[derive(Debug)]
pub(super) struct Fresh {
    /// How often each piece was sent, or is being sent.
    served: Vec<u16>,
    promises: BTreeMap<PieceIndex, Promise>,
    promised_count: BTreeMap<PeerKey, usize>,
    /// Pieces that may be fresh, in random order; those that are not are dropped when met.
    unsent: Vec<PieceIndex>,
    /// Pieces of those that were withdrawn when they were met.
    withdrawn: BTreeSet<PieceIndex>,
    /// Peers that did not ask for what was suggested to them, and until when they are left alone.
    deaf: BTreeMap<PeerKey, Time>,
    /// When the oldest suggestion lapses that was not taken up.
    lapses: Option<Time>,
    /// Suggestions that lapsed since one was taken up.
    lapsed_in_row: usize,
}

impl Fresh {
    pub(super) fn new(piece_count: u32, random: &mut Random) -> Self {
        let mut unsent: Vec<PieceIndex> = (0..piece_count).map(PieceIndex::new).collect();
        for at in (1..unsent.len()).rev() {
            unsent.swap(at, random.random_range(0..=at));
        }
        Self {
            served: vec![0; piece_count as usize],
            promises: BTreeMap::new(),
            promised_count: BTreeMap::new(),
            unsent,
            withdrawn: BTreeSet::new(),
            deaf: BTreeMap::new(),
            lapses: None,
            lapsed_in_row: 0,
        }
    }

    fn served(&self, piece: PieceIndex) -> u32 {
        u32::from(self.served[piece.as_usize()])
    }

    /// The best of the pieces that wait for `peer`: its rank ([`PROMISED_ELSEWHERE`] at most for a first
    /// copy) and its place, the
    /// first of equals. A seed prefers what few hold and what it sent seldom; a leecher keeps the order.
    pub(super) fn choose(
        &self,
        peer: PeerKey,
        waiting: &VecDeque<PieceIndex>,
        view: &impl View,
    ) -> Option<(u32, usize)> {
        if !view.is_seed() {
            let rarest = waiting
                .iter()
                .enumerate()
                .map(|(at, piece)| (view.holders(*piece), at))
                .min();
            return rarest.map(|(_, at)| (1, at));
        }
        let rank = |piece: PieceIndex| match self.served(piece).max(view.holders(piece)) {
            0 => match self.promises.get(&piece) {
                Some(promise) if promise.peer != peer => PROMISED_ELSEWHERE,
                _ => 0,
            },
            copies => PROMISED_ELSEWHERE + copies,
        };
        waiting
            .iter()
            .enumerate()
            .map(|(at, piece)| (rank(*piece), at))
            .min()
    }

    pub(super) fn on_request(&mut self, peer: PeerKey, piece: PieceIndex) {
        if self.served(piece) > 0 {
            return;
        }
        match self.promises.get_mut(&piece) {
            Some(promise) if promise.peer == peer => {
                promise.suggested = None;
                self.lapsed_in_row = 0;
            }
            Some(_) => {}
            None => self.promise(peer, piece, None),
        }
    }

    fn promise(&mut self, peer: PeerKey, piece: PieceIndex, suggested: Option<Time>) {
        self.promises.insert(piece, Promise { peer, suggested });
        *self.promised_count.entry(peer).or_default() += 1;
    }

    fn break_promise(&mut self, piece: PieceIndex) {
        if let Some(promise) = self.promises.remove(&piece)
            && let Some(count) = self.promised_count.get_mut(&promise.peer)
        {
            *count -= 1;
        }
    }

    pub(super) fn on_cancel(&mut self, peer: PeerKey, piece: PieceIndex) {
        if self
            .promises
            .get(&piece)
            .is_some_and(|promise| promise.peer == peer)
        {
            self.break_promise(piece);
        }
    }

    /// The piece cannot be served until it is found again: it is promised to nobody.
    pub(super) fn on_withdrawn(&mut self, piece: PieceIndex) {
        if self.promises.contains_key(&piece) {
            self.break_promise(piece);
            self.withdrawn.insert(piece);
        }
    }

    /// The piece can be served again.
    pub(super) fn on_found(&mut self, piece: PieceIndex) {
        if self.withdrawn.remove(&piece) {
            self.unsent.push(piece);
        }
    }

    pub(super) fn on_served(&mut self, piece: PieceIndex) {
        self.break_promise(piece);
        let served = &mut self.served[piece.as_usize()];
        *served = served.saturating_add(1);
    }

    /// A service ended before its end.
    pub(super) fn on_unsent(&mut self, piece: PieceIndex) {
        let served = &mut self.served[piece.as_usize()];
        *served = served.saturating_sub(1);
        if *served == 0 {
            self.unsent.push(piece);
        }
    }

    /// A peer is gone, with these services unfinished.
    pub(super) fn peer_leaves(
        &mut self,
        peer: PeerKey,
        undelivered: impl Iterator<Item = PieceIndex>,
    ) {
        undelivered.for_each(|piece| self.on_unsent(piece));
        let promised = self
            .promises
            .iter()
            .filter(|(_, promise)| promise.peer == peer);
        let promised: Vec<PieceIndex> = promised.map(|(piece, _)| *piece).collect();
        promised
            .into_iter()
            .for_each(|piece| self.break_promise(piece));
        self.promised_count.remove(&peer);
        self.deaf.remove(&peer);
    }

    /// Whether a suggestion is on its way that is likely to be taken up.
    pub(super) fn is_suggesting(&self, now: Time) -> bool {
        self.lapsed_in_row < tuning::LAPSED_IN_ROW_MAX && self.lapses.is_some_and(|at| now < at)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.lapses
    }

    /// Takes back suggestions that were not taken up; who left one is given no more for a while.
    pub(super) fn on_time(&mut self, now: Time) {
        if self.lapses.is_none() {
            return;
        }
        let mut lapsed = Vec::new();
        let mut next: Option<Time> = None;
        for (piece, promise) in &self.promises {
            let Some(at) = promise.suggested.map(|at| at + tuning::SUGGESTION_LAPSES) else {
                continue;
            };
            if at <= now {
                lapsed.push((*piece, promise.peer));
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        self.lapses = next;
        self.lapsed_in_row += lapsed.len();
        for (piece, peer) in lapsed {
            self.break_promise(piece);
            self.unsent.push(piece);
            self.deaf.insert(peer, now + tuning::SUGGESTION_REST);
        }
    }

    /// What to suggest to the peers that are `asking`, so that each has first copies to wait for.
    pub(super) fn suggest(
        &mut self,
        now: Time,
        asking: impl Iterator<Item = PeerKey>,
        view: &impl View,
    ) -> Vec<(PeerKey, PieceIndex)> {
        let mut suggestions = Vec::new();
        if self.unsent.is_empty() {
            return suggestions;
        }
        for peer in asking
            .filter(|peer| self.deaf.get(peer).is_none_or(|until| *until <= now))
            .collect::<Vec<_>>()
        {
            while self
                .promised_count
                .get(&peer)
                .is_none_or(|count| *count < tuning::PROMISES_PER_PEER)
            {
                let Some(piece) = self.next_unsent(view) else {
                    return suggestions;
                };
                self.promise(peer, piece, Some(now));
                self.lapses.get_or_insert(now + tuning::SUGGESTION_LAPSES);
                suggestions.push((peer, piece));
            }
        }
        suggestions
    }

    fn next_unsent(&mut self, view: &impl View) -> Option<PieceIndex> {
        while let Some(piece) = self.unsent.pop() {
            if !view.holds(piece) {
                self.withdrawn.insert(piece);
                continue;
            }
            let is_fresh = self.served(piece) == 0 && view.holders(piece) == 0;
            if is_fresh && !self.promises.contains_key(&piece) {
                return Some(piece);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::super::upload::Standing;
    use super::*;

    const A: PeerKey = PeerKey(1);
    const B: PeerKey = PeerKey(2);

    /// A seed among peers that hold the first pieces, so many of them.
    struct Held(u32);

    impl View for Held {
        fn is_seed(&self) -> bool {
            true
        }

        fn len_of(&self, _: PieceIndex) -> u32 {
            65_536
        }

        fn holders(&self, piece: PieceIndex) -> u32 {
            u32::from(piece.get() < self.0)
        }

        fn holds(&self, _: PieceIndex) -> bool {
            true
        }

        fn standing(&self, _: PeerKey) -> Standing {
            Standing { gave: 0, holds: 0 }
        }

        fn is_quiet(&self, _: PeerKey) -> bool {
            false
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn fresh(count: u32) -> Fresh {
        Fresh::new(count, &mut Random::seed_from_u64(3))
    }

    fn waiting(pieces: &[u32]) -> VecDeque<PieceIndex> {
        pieces.iter().copied().map(PieceIndex::new).collect()
    }

    #[test]
    fn a_piece_is_promised_to_who_asked_first() {
        let mut fresh = fresh(9);
        fresh.on_request(A, PieceIndex::new(4));
        fresh.on_request(B, PieceIndex::new(4));
        fresh.on_request(B, PieceIndex::new(5));
        assert_eq!(fresh.choose(A, &waiting(&[4]), &Held(0)), Some((0, 0)));
        assert_eq!(fresh.choose(B, &waiting(&[4]), &Held(0)), Some((1, 0)));
        assert_eq!(fresh.choose(B, &waiting(&[4, 5]), &Held(0)), Some((0, 1)));
    }

    #[test]
    fn suggestions_differ_and_leave_out_what_somebody_holds() {
        let mut fresh = fresh(6);
        let suggested = fresh.suggest(at(0), [A, B].into_iter(), &Held(3));
        let mut pieces: Vec<u32> = suggested.iter().map(|(_, piece)| piece.get()).collect();
        pieces.sort_unstable();
        assert_eq!(pieces, [3, 4, 5]);
        assert!(fresh.is_suggesting(at(0)));
    }

    #[test]
    fn suggestions_that_nobody_takes_up_hold_nothing_back_until_one_is() {
        let mut fresh = fresh(1);
        let piece = PieceIndex::new(0);
        let mut now = at(0);
        for peer in 0..20 {
            let made = fresh.suggest(now, [PeerKey(peer)].into_iter(), &Held(0));
            assert_eq!(made, [(PeerKey(peer), piece)]);
            let holds_back = (peer as usize) < tuning::LAPSED_IN_ROW_MAX;
            assert_eq!(fresh.is_suggesting(now), holds_back, "after {peer} lapsed");
            now = now + tuning::SUGGESTION_LAPSES;
            fresh.on_time(now);
        }
        let [takes_up, next] = [100, 101].map(PeerKey);
        fresh.suggest(now, [takes_up].into_iter(), &Held(0));
        fresh.on_request(takes_up, piece);
        fresh.on_served(piece);
        fresh.on_unsent(piece);
        let made = fresh.suggest(now, [next].into_iter(), &Held(0));
        assert_eq!(made, [(next, piece)]);
        assert!(fresh.is_suggesting(now), "one was taken up");
    }

    #[test]
    fn a_suggestion_that_is_not_taken_up_goes_to_somebody_else() {
        let mut fresh = fresh(1);
        let piece = PieceIndex::new(0);
        assert_eq!(
            fresh.suggest(at(0), [A].into_iter(), &Held(0)),
            [(A, piece)]
        );
        assert_eq!(fresh.suggest(at(0), [B].into_iter(), &Held(0)), []);
        let lapsed = at(0) + tuning::SUGGESTION_LAPSES;
        fresh.on_time(lapsed);
        assert!(!fresh.is_suggesting(lapsed));
        assert_eq!(
            fresh.suggest(lapsed, [A, B].into_iter(), &Held(0)),
            [(B, piece)]
        );
    }

    #[test]
    fn a_peer_that_leaves_gives_back_what_it_was_promised_and_what_it_was_being_sent() {
        let mut fresh = fresh(2);
        let [sent, promised] = [PieceIndex::new(0), PieceIndex::new(1)];
        fresh.on_request(A, sent);
        fresh.on_request(A, promised);
        fresh.on_served(sent);
        assert_eq!(fresh.choose(B, &waiting(&[0, 1]), &Held(0)), Some((1, 1)));
        fresh.peer_leaves(A, [sent].into_iter());
        assert_eq!(fresh.choose(B, &waiting(&[0]), &Held(0)), Some((0, 0)));
        assert_eq!(fresh.choose(B, &waiting(&[1]), &Held(0)), Some((0, 0)));
    }
}
