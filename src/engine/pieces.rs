//! Piece states, who is asked for what, and how rare each piece is.
//!
//! The only writer of piece states: a piece is in exactly one of them (`STATES.md`). Keeps the missing
//! pieces ordered by availability so that a change of one piece's availability costs a swap at a bucket
//! border and a pick costs a look at the front. Knows no messages, windows or time. Called by
//! `transfer`. Source of the ordering idea: BEP 3, rarest first.

use rand::RngExt;

use super::{PeerKey, Random, tuning};
use crate::content::{Bitfield, PieceIndex};

/// Where a piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// The user did not choose it.
    Unwanted,
    /// Wanted, and asked of nobody.
    Missing,
    /// Asked of one peer, or of two while the first is slow.
    Asked {
        /// Who was asked first.
        first: PeerKey,
        /// Who was asked as well.
        second: Option<PeerKey>,
    },
    /// All bytes are here, being verified and stored.
    Checking {
        /// Who sent it.
        from: PeerKey,
    },
    /// It lies here, and is read again before it counts: neither requested nor shown to anybody.
    Rechecking,
    /// Verified and stored.
    Held,
}

/// What a peer says it holds.
#[derive(Clone, Debug)]
pub(super) enum Holdings {
    /// Everything.
    All,
    /// These pieces.
    Some(Bitfield),
}

impl Holdings {
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits.contains(piece),
        }
    }

    pub(super) fn count(&self, piece_count: u32) -> u32 {
        match self {
            Self::All => piece_count,
            Self::Some(bits) => bits.count(),
        }
    }
}

/// Not in the order of missing pieces.
const NOWHERE: u32 = u32::MAX;

/// The pieces of one share.
#[derive(Debug)]
pub(super) struct Pieces {
    states: Vec<PieceState>,
    held: Bitfield,
    missing: Bitfield,
    /// Pieces the user chose; all if `None`.
    wanted: Option<Bitfield>,
    /// Of those, pieces not held.
    open_count: u32,
    /// Pieces being read again, and those of them that are wanted.
    rechecking_count: u32,
    rechecking_open_count: u32,
    /// Connected peers that hold a piece, full ones not counted.
    availability: Vec<u16>,
    full_peers: u32,
    /// `by_copies[n]` is how many pieces have `n` copies: their availability and the local one.
    by_copies: Vec<u32>,
    /// Missing pieces, rarest first.
    order: Vec<u32>,
    /// Place of each piece in `order`.
    place: Vec<u32>,
    /// `ends[a]` is where the pieces of availability `a` end in `order`.
    ends: Vec<u32>,
}

impl Pieces {
    pub(super) fn new(
        held: Bitfield,
        wanted: Option<&Bitfield>,
        rechecking: Option<&Bitfield>,
        random: &mut Random,
    ) -> Self {
        let count = held.len();
        let is_wanted = |piece| wanted.is_none_or(|bits| bits.contains(piece));
        let is_rechecking = |piece| rechecking.is_some_and(|bits| bits.contains(piece));
        let mut missing = Bitfield::new(count);
        let mut open_count = 0;
        let (mut rechecking_count, mut rechecking_open_count) = (0, 0);
        let mut states = Vec::with_capacity(count as usize);
        for piece in (0..count).map(PieceIndex::new) {
            let held = held.contains(piece);
            open_count += u32::from(!held && is_wanted(piece));
            states.push(if held {
                PieceState::Held
            } else if is_rechecking(piece) {
                rechecking_count += 1;
                rechecking_open_count += u32::from(is_wanted(piece));
                PieceState::Rechecking
            } else if is_wanted(piece) {
                missing.insert(piece);
                PieceState::Missing
            } else {
                PieceState::Unwanted
            });
        }
        let mut order: Vec<u32> = missing.iter().map(PieceIndex::get).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.random_range(0..=at));
        }
        let mut place = vec![NOWHERE; count as usize];
        for (at, piece) in (0..).zip(&order) {
            place[*piece as usize] = at;
        }
        let ends = vec![order.len() as u32];
        let availability = vec![0; count as usize];
        let by_copies = vec![count - held.count(), held.count()];
        Self {
            states,
            held,
            missing,
            wanted: wanted.cloned(),
            open_count,
            rechecking_count,
            rechecking_open_count,
            availability,
            full_peers: 0,
            by_copies,
            order,
            place,
            ends,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.held.len()
    }

    pub(super) fn state(&self, piece: PieceIndex) -> PieceState {
        self.states[piece.as_usize()]
    }

    pub(super) fn held(&self) -> &Bitfield {
        &self.held
    }

    /// Whether every wanted piece is held.
    pub(super) fn is_complete(&self) -> bool {
        self.open_count == 0
    }

    /// Whether nothing is to be had from others: every wanted piece is held, or lies here and is being read again.
    pub(super) fn wants_nothing(&self) -> bool {
        self.open_count == self.rechecking_open_count
    }

    /// Whether every piece lies here, those that are being read again among them.
    pub(super) fn has_all(&self) -> bool {
        self.held.count() + self.rechecking_count == self.count()
    }

    /// Whether `piece` is wanted and neither held nor being checked.
    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        matches!(
            self.state(piece),
            PieceState::Missing | PieceState::Asked { .. }
        )
    }

    /// Whether `piece` is asked for or being checked.
    pub(super) fn is_coming(&self, piece: PieceIndex) -> bool {
        matches!(
            self.state(piece),
            PieceState::Asked { .. } | PieceState::Checking { .. }
        )
    }

    // -- states -----------------------------------------------------------------------------------

    /// Whether nothing is left to ask for: every wanted piece is held, or asked of somebody.
    pub(super) fn is_all_asked(&self) -> bool {
        self.order.is_empty()
    }

    /// Records that `peer` is asked; false when it cannot be (held, being checked, asked of two).
    pub(super) fn ask(&mut self, piece: PieceIndex, peer: PeerKey) -> bool {
        let next = match self.state(piece) {
            PieceState::Missing => PieceState::Asked {
                first: peer,
                second: None,
            },
            PieceState::Asked {
                first,
                second: None,
            } if first != peer => PieceState::Asked {
                first,
                second: Some(peer),
            },
            _ => return false,
        };
        self.set(piece, next);
        true
    }

    /// Records that `peer` is no longer relied on; true when the piece is asked of nobody now.
    pub(super) fn unask(&mut self, piece: PieceIndex, peer: PeerKey) -> bool {
        let next = match self.state(piece) {
            PieceState::Asked {
                first,
                second: Some(second),
            } if first == peer => PieceState::Asked {
                first: second,
                second: None,
            },
            PieceState::Asked {
                first,
                second: Some(second),
            } if second == peer => PieceState::Asked {
                first,
                second: None,
            },
            PieceState::Asked {
                first,
                second: None,
            } if first == peer => PieceState::Missing,
            _ => return false,
        };
        self.set(piece, next);
        next == PieceState::Missing
    }

    /// All bytes came from `peer`; false when the piece is not open (held or being checked already).
    pub(super) fn arrived(&mut self, piece: PieceIndex, peer: PeerKey) -> bool {
        if !self.is_open(piece) {
            return false;
        }
        self.set(piece, PieceState::Checking { from: peer });
        true
    }

    /// The piece is verified and stored; false when it was held already.
    pub(super) fn stored(&mut self, piece: PieceIndex) -> bool {
        let new = self.state(piece) != PieceState::Held;
        if new {
            self.set(piece, PieceState::Held);
        }
        new
    }

    /// The bytes from `peer` were bad; true when the piece has to be asked again.
    pub(super) fn corrupt(&mut self, piece: PieceIndex, peer: PeerKey) -> bool {
        let again = self.state(piece) == PieceState::Checking { from: peer };
        if again {
            self.set(piece, PieceState::Missing);
        }
        again
    }

    fn is_wanted(&self, piece: PieceIndex) -> bool {
        self.wanted.as_ref().is_none_or(|bits| bits.contains(piece))
    }

    /// A held piece is to be read again; true when it was held.
    pub(super) fn recheck(&mut self, piece: PieceIndex) -> bool {
        let was = self.state(piece) == PieceState::Held;
        if was {
            self.set(piece, PieceState::Rechecking);
        }
        was
    }

    /// A piece that was read again is as it should be; true when it was being rechecked.
    pub(super) fn found(&mut self, piece: PieceIndex) -> bool {
        let was = self.state(piece) == PieceState::Rechecking;
        if was {
            self.set(piece, PieceState::Held);
        }
        was
    }

    /// A piece that was held, or was to be read again, is gone; true when it was held. It is missing then, if it is wanted.
    pub(super) fn lost(&mut self, piece: PieceIndex) -> bool {
        let was = self.state(piece) == PieceState::Held;
        if was || self.state(piece) == PieceState::Rechecking {
            let wanted = self.is_wanted(piece);
            let next = if wanted {
                PieceState::Missing
            } else {
                PieceState::Unwanted
            };
            self.set(piece, next);
        }
        was
    }

    fn set(&mut self, piece: PieceIndex, next: PieceState) {
        let before = std::mem::replace(&mut self.states[piece.as_usize()], next);
        match (before == PieceState::Missing, next == PieceState::Missing) {
            (true, false) => {
                self.missing.remove(piece);
                self.leave_order(piece.get());
            }
            (false, true) => {
                self.missing.insert(piece);
                self.enter_order(piece.get());
            }
            _ => {}
        }
        let was_rechecking = u32::from(before == PieceState::Rechecking);
        let is_rechecking = u32::from(next == PieceState::Rechecking);
        if was_rechecking != is_rechecking {
            let is_wanted = u32::from(self.is_wanted(piece));
            self.rechecking_count += is_rechecking;
            self.rechecking_count -= was_rechecking;
            self.rechecking_open_count += is_rechecking * is_wanted;
            self.rechecking_open_count -= was_rechecking * is_wanted;
        }
        match (before == PieceState::Held, next == PieceState::Held) {
            (false, true) => {
                self.gains_copy(piece);
                self.held.insert(piece);
                self.open_count -= u32::from(self.is_wanted(piece));
            }
            (true, false) => {
                self.loses_copy(piece);
                self.held.remove(piece);
                self.open_count += u32::from(self.is_wanted(piece));
            }
            _ => {}
        }
    }

    // -- availability -----------------------------------------------------------------------------

    /// Pieces not held that no connected peer holds either.
    pub(super) fn without_holder(&self) -> u32 {
        if self.full_peers > 0 {
            return 0;
        }
        let absent = |piece: &PieceIndex| self.availability[piece.as_usize()] == 0;
        self.missing.iter().filter(absent).count() as u32
    }

    /// Least availability over all pieces, the local copy counted, as whole copies plus the share of
    /// pieces that have one more.
    pub(super) fn copies(&self) -> f64 {
        let Some(least) = self.by_copies.iter().position(|pieces| *pieces > 0) else {
            return f64::from(self.full_peers);
        };
        let more = self.count() - self.by_copies[least];
        f64::from(least as u32 + self.full_peers) + f64::from(more) / f64::from(self.count())
    }

    /// Copies of `piece` here and at connected peers, those that hold everything not counted.
    fn copies_of(&self, piece: PieceIndex) -> usize {
        usize::from(self.availability[piece.as_usize()]) + usize::from(self.held.contains(piece))
    }

    /// `piece` is about to have one copy more.
    fn gains_copy(&mut self, piece: PieceIndex) {
        let copies = self.copies_of(piece);
        self.by_copies[copies] -= 1;
        if self.by_copies.len() == copies + 1 {
            self.by_copies.push(0);
        }
        self.by_copies[copies + 1] += 1;
    }

    /// `piece` is about to have one copy less.
    fn loses_copy(&mut self, piece: PieceIndex) {
        let copies = self.copies_of(piece);
        self.by_copies[copies] -= 1;
        self.by_copies[copies - 1] += 1;
    }

    /// Connected peers that hold `piece`, those that hold everything not counted.
    pub(super) fn holders(&self, piece: PieceIndex) -> u32 {
        u32::from(self.availability[piece.as_usize()])
    }

    pub(super) fn peer_joins(&mut self, holdings: &Holdings) {
        match holdings {
            Holdings::All => self.full_peers += 1,
            Holdings::Some(bits) => bits.iter().for_each(|piece| self.gains_holder(piece)),
        }
    }

    pub(super) fn peer_leaves(&mut self, holdings: &Holdings) {
        match holdings {
            Holdings::All => self.full_peers -= 1,
            Holdings::Some(bits) => bits.iter().for_each(|piece| self.loses_holder(piece)),
        }
    }

    pub(super) fn gains_holder(&mut self, piece: PieceIndex) {
        self.gains_copy(piece);
        let at = piece.as_usize();
        let bucket = self.availability[at] as usize;
        self.availability[at] += 1;
        if self.ends.len() <= bucket + 1 {
            self.ends.resize(bucket + 2, self.order.len() as u32);
        }
        if self.place[at] != NOWHERE {
            self.ends[bucket] -= 1;
            self.swap(self.place[at], self.ends[bucket]);
        }
    }

    pub(super) fn loses_holder(&mut self, piece: PieceIndex) {
        let at = piece.as_usize();
        let bucket = self.availability[at] as usize;
        debug_assert!(bucket > 0, "a peer takes back only what it gave");
        self.loses_copy(piece);
        self.availability[at] -= 1;
        if self.place[at] != NOWHERE {
            self.swap(self.place[at], self.ends[bucket - 1]);
            self.ends[bucket - 1] += 1;
        }
    }

    // -- order ------------------------------------------------------------------------------------

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize] as usize] = a;
        self.place[self.order[b as usize] as usize] = b;
    }

    /// Puts a piece at the end of its bucket; each later bucket moves one element from front to back.
    fn enter_order(&mut self, piece: u32) {
        let bucket = self.availability[piece as usize] as usize;
        if self.ends.len() <= bucket {
            self.ends.resize(bucket + 1, self.order.len() as u32);
        }
        let mut hole = self.order.len() as u32;
        self.order.push(piece);
        self.place[piece as usize] = hole;
        for later in (bucket + 1..self.ends.len()).rev() {
            let front = self.ends[later - 1];
            self.swap(front, hole);
            hole = front;
            self.ends[later] += 1;
        }
        self.ends[bucket] += 1;
    }

    fn leave_order(&mut self, piece: u32) {
        let bucket = self.availability[piece as usize] as usize;
        let mut hole = self.place[piece as usize];
        for later in bucket..self.ends.len() {
            self.ends[later] -= 1;
            let back = self.ends[later];
            self.swap(hole, back);
            hole = back;
        }
        self.order.pop();
        self.place[piece as usize] = NOWHERE;
    }

    // -- picking ----------------------------------------------------------------------------------

    /// The missing piece of lowest index at or after `from` that `holdings` has.
    pub(super) fn pick_in_order(&self, holdings: &Holdings, from: u32) -> Option<PieceIndex> {
        match holdings {
            Holdings::All => self.missing.first_in_both(&self.missing, from),
            Holdings::Some(bits) => self.missing.first_in_both(bits, from),
        }
    }

    /// A missing piece that `holdings` has, found from a random place on.
    pub(super) fn pick_random(
        &self,
        holdings: &Holdings,
        random: &mut Random,
    ) -> Option<PieceIndex> {
        if self.order.is_empty() {
            return None;
        }
        let from = random.random_range(0..self.count());
        self.pick_in_order(holdings, from)
            .or_else(|| self.pick_in_order(holdings, 0))
    }

    /// A missing piece that `holdings` has and few others have; ties are broken at random.
    pub(super) fn pick_rarest(
        &self,
        holdings: &Holdings,
        random: &mut Random,
    ) -> Option<PieceIndex> {
        let mut looks = 0;
        let mut begin = 0;
        for end in &self.ends {
            let bucket = &self.order[begin as usize..*end as usize];
            begin = *end;
            if bucket.is_empty() {
                continue;
            }
            let (tail, head) = bucket.split_at(random.random_range(0..bucket.len()));
            for piece in head.iter().chain(tail).map(|piece| PieceIndex::new(*piece)) {
                if holdings.contains(piece) {
                    return Some(piece);
                }
                looks += 1;
                if looks == tuning::PICK_SCAN_MAX {
                    return self.pick_random(holdings, random);
                }
            }
        }
        None
    }

    #[cfg(test)]
    fn check(&self) {
        let mut begin = 0;
        for (availability, end) in self.ends.iter().enumerate() {
            for at in begin..*end {
                let piece = self.order[at as usize];
                assert_eq!(usize::from(self.availability[piece as usize]), availability);
                assert_eq!(self.place[piece as usize], at);
                assert!(self.missing.contains(PieceIndex::new(piece)));
            }
            begin = *end;
        }
        assert_eq!(begin as usize, self.order.len());
        assert_eq!(self.order.len() as u32, self.missing.count());
        for piece in (0..self.count()).map(PieceIndex::new) {
            let state = self.state(piece);
            assert_eq!(self.missing.contains(piece), state == PieceState::Missing);
            assert_eq!(self.held.contains(piece), state == PieceState::Held);
        }
        let rechecking = (0..self.count())
            .map(PieceIndex::new)
            .filter(|piece| self.state(*piece) == PieceState::Rechecking);
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            rechecking.partition(|piece| self.is_wanted(*piece));
        assert_eq!(self.rechecking_open_count as usize, wanted.len());
        assert_eq!(
            self.rechecking_count as usize,
            wanted.len() + unwanted.len()
        );
        for (copies, count) in self.by_copies.iter().enumerate() {
            let pieces = (0..self.count()).map(PieceIndex::new);
            let with_so_many = pieces.filter(|piece| self.copies_of(*piece) == copies);
            assert_eq!(with_so_many.count() as u32, *count, "{copies} copies");
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const A: PeerKey = PeerKey(1);
    const B: PeerKey = PeerKey(2);

    fn pieces(count: u32) -> (Pieces, Random) {
        let mut random = Random::seed_from_u64(7);
        let pieces = Pieces::new(Bitfield::new(count), None, None, &mut random);
        (pieces, random)
    }

    #[test]
    fn the_order_survives_ten_thousand_random_changes() {
        let (mut pieces, mut random) = pieces(97);
        let mut peers = vec![Bitfield::new(97); 6];
        for _ in 0..10_000 {
            let piece = PieceIndex::new(random.random_range(0..97));
            let peer = random.random_range(0..peers.len());
            match random.random_range(0..8) {
                0 if peers[peer].insert(piece) => pieces.gains_holder(piece),
                1 if peers[peer].remove(piece) => pieces.loses_holder(piece),
                2 => drop(pieces.ask(piece, PeerKey(peer as u32))),
                3 => drop(pieces.unask(piece, PeerKey(peer as u32))),
                4 => drop(pieces.arrived(piece, A) && pieces.stored(piece)),
                5 => drop(pieces.lost(piece)),
                6 => drop(pieces.recheck(piece)),
                7 => drop(pieces.found(piece)),
                _ => {}
            }
            pieces.check();
            let expected = peers.iter().filter(|bits| bits.contains(piece)).count();
            assert_eq!(usize::from(pieces.availability[piece.as_usize()]), expected);
        }
    }

    #[test]
    fn the_rarest_piece_that_a_peer_holds_is_picked() {
        let (mut pieces, mut random) = pieces(50);
        for piece in 0..50 {
            for _ in 0..=(piece % 7) {
                pieces.gains_holder(PieceIndex::new(piece));
            }
        }
        let mut bits = Bitfield::new(50);
        for piece in [3, 5, 8, 13] {
            bits.insert(PieceIndex::new(piece));
        }
        // Availabilities 4, 6, 2 and 7: piece 8 is the rarest of them.
        assert_eq!(
            pieces.pick_rarest(&Holdings::Some(bits), &mut random),
            Some(PieceIndex::new(8))
        );
        let rarest = pieces
            .pick_rarest(&Holdings::All, &mut random)
            .expect("all are missing");
        assert_eq!(rarest.get() % 7, 0);
    }

    #[test]
    fn a_peer_that_holds_one_piece_of_many_is_picked_from_all_the_same() {
        let (pieces, mut random) = pieces(100_000);
        let mut bits = Bitfield::new(100_000);
        bits.insert(PieceIndex::new(77_777));
        let pick = pieces.pick_rarest(&Holdings::Some(bits), &mut random);
        assert_eq!(pick, Some(PieceIndex::new(77_777)));
    }

    #[test]
    fn a_piece_asked_of_two_is_missing_only_when_both_are_gone() {
        let (mut pieces, _) = pieces(4);
        let piece = PieceIndex::new(2);
        assert!(pieces.ask(piece, A));
        assert!(!pieces.ask(piece, A), "not twice of one peer");
        assert!(pieces.ask(piece, B));
        assert!(!pieces.ask(piece, PeerKey(3)), "two at most");
        assert!(!pieces.unask(piece, A));
        assert_eq!(
            pieces.state(piece),
            PieceState::Asked {
                first: B,
                second: None
            }
        );
        assert!(pieces.unask(piece, B));
        assert_eq!(pieces.state(piece), PieceState::Missing);
    }

    #[test]
    fn a_bad_copy_frees_the_piece_only_if_it_was_the_one_being_checked() {
        let (mut pieces, _) = pieces(4);
        let piece = PieceIndex::new(0);
        assert!(pieces.ask(piece, A) && pieces.ask(piece, B));
        assert!(pieces.arrived(piece, A));
        assert!(!pieces.arrived(piece, B), "already being checked");
        assert!(!pieces.corrupt(piece, B));
        assert!(pieces.corrupt(piece, A));
        assert_eq!(pieces.state(piece), PieceState::Missing);
    }

    #[test]
    fn unwanted_pieces_are_never_picked_and_do_not_hinder_completion() {
        let mut random = Random::seed_from_u64(1);
        let mut wanted = Bitfield::new(10);
        wanted.insert(PieceIndex::new(4));
        let mut pieces = Pieces::new(Bitfield::new(10), Some(&wanted), None, &mut random);
        assert_eq!(
            pieces.pick_rarest(&Holdings::All, &mut random),
            Some(PieceIndex::new(4))
        );
        assert!(pieces.ask(PieceIndex::new(4), A) && pieces.arrived(PieceIndex::new(4), A));
        assert!(pieces.stored(PieceIndex::new(4)) && pieces.is_complete());
        assert_eq!(pieces.pick_rarest(&Holdings::All, &mut random), None);
    }

    #[test]
    fn a_seed_that_loses_a_piece_does_not_ask_for_it() {
        let mut random = Random::seed_from_u64(1);
        let none = Bitfield::new(3);
        let mut pieces = Pieces::new(Bitfield::full(3), Some(&none), None, &mut random);
        assert!(pieces.is_complete());
        assert!(pieces.lost(PieceIndex::new(1)) && !pieces.lost(PieceIndex::new(1)));
        assert_eq!(pieces.state(PieceIndex::new(1)), PieceState::Unwanted);
        assert!(pieces.is_complete() && !pieces.held().contains(PieceIndex::new(1)));
        assert_eq!(pieces.pick_rarest(&Holdings::All, &mut random), None);
        pieces.check();
    }

    #[test]
    fn a_receiver_that_loses_a_piece_asks_for_it_again() {
        let mut random = Random::seed_from_u64(1);
        let mut pieces = Pieces::new(Bitfield::full(3), None, None, &mut random);
        assert!(pieces.is_complete() && pieces.lost(PieceIndex::new(1)));
        assert!(!pieces.is_complete());
        assert_eq!(
            pieces.pick_rarest(&Holdings::All, &mut random),
            Some(PieceIndex::new(1))
        );
        pieces.check();
    }

    #[test]
    fn a_piece_being_read_again_is_neither_held_nor_asked_for_until_that_has_ended() {
        let mut random = Random::seed_from_u64(1);
        let mut rechecking = Bitfield::new(4);
        for piece in [0, 1] {
            rechecking.insert(PieceIndex::new(piece));
        }
        let mut held = Bitfield::new(4);
        held.insert(PieceIndex::new(2));
        held.insert(PieceIndex::new(3));
        let mut pieces = Pieces::new(held, None, Some(&rechecking), &mut random);
        assert!(!pieces.is_complete());
        assert_eq!(pieces.pick_rarest(&Holdings::All, &mut random), None);
        assert!(!pieces.ask(PieceIndex::new(0), A) && !pieces.arrived(PieceIndex::new(0), A));
        assert!(pieces.found(PieceIndex::new(0)) && !pieces.found(PieceIndex::new(0)));
        assert!(!pieces.lost(PieceIndex::new(1)), "nobody was told of it");
        let missing = pieces.pick_rarest(&Holdings::All, &mut random);
        assert_eq!(missing, Some(PieceIndex::new(1)));
        assert!(pieces.recheck(PieceIndex::new(2)) && !pieces.recheck(PieceIndex::new(2)));
        assert!(!pieces.held().contains(PieceIndex::new(2)));
        pieces.check();
        assert!(pieces.found(PieceIndex::new(2)));
        assert!(pieces.ask(PieceIndex::new(1), A) && pieces.arrived(PieceIndex::new(1), A));
        assert!(pieces.stored(PieceIndex::new(1)) && pieces.is_complete());
        pieces.check();
    }

    #[test]
    fn copies_counts_whole_copies_and_the_part_of_the_next() {
        let (mut pieces, _) = pieces(4);
        assert_eq!(pieces.copies(), 0.0);
        pieces.peer_joins(&Holdings::All);
        let mut bits = Bitfield::new(4);
        bits.insert(PieceIndex::new(1));
        pieces.peer_joins(&Holdings::Some(bits));
        assert_eq!(pieces.copies(), 1.25);
        assert_eq!(pieces.without_holder(), 0);
        pieces.peer_leaves(&Holdings::All);
        assert_eq!(pieces.without_holder(), 3);
    }
}
