//! Which piece to ask for next: four at random, then rarest first, busy ones in the end game alone.
//!
//! Knows pieces, how many peers hold each and of how many each is asked; no peers. Called by `client`.
//! Source: libtorrent `piece_picker.cpp`, `initial_picker_threshold` 4, `strict_end_game_mode` on.

use std::ops::Range;

use rand::RngExt;
use shoal::content::{Bitfield, PieceIndex};
use shoal::engine::Random;

/// Pieces held below which the next is picked at random.
const RANDOM_FIRST_PIECES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// Of this many peers, at least one.
    Asked(u32),
    /// All bytes are here, not yet verified.
    Arrived,
    Held,
}

#[derive(Debug)]
pub(super) struct Picker {
    states: Vec<State>,
    holders: Vec<u32>,
    /// All pieces in an order of this client's own, by which equally rare ones are taken.
    order: Vec<u32>,
    held: u32,
    missing: u32,
}

impl Picker {
    pub(super) fn new(held: &Bitfield, random: &mut Random) -> Self {
        let count = held.len();
        let state = |piece| {
            if held.contains(PieceIndex::new(piece)) {
                State::Held
            } else {
                State::Missing
            }
        };
        let mut order: Vec<u32> = (0..count).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.random_range(0..=at));
        }
        Self {
            states: (0..count).map(state).collect(),
            holders: vec![0; count as usize],
            order,
            held: held.count(),
            missing: count - held.count(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.held as usize == self.states.len()
    }

    pub(super) fn holds(&self, piece: u32) -> bool {
        self.states[piece as usize] == State::Held
    }

    pub(super) fn is_missing(&self, piece: u32) -> bool {
        self.states[piece as usize] == State::Missing
    }

    /// Whether every piece that is not here is asked of somebody: the strict condition of the end game.
    pub(super) fn all_asked(&self) -> bool {
        self.missing == 0
    }

    pub(super) fn held_bits(&self) -> Bitfield {
        let mut bits = Bitfield::new(self.states.len() as u32);
        for piece in (0..bits.len()).filter(|piece| self.holds(*piece)) {
            bits.insert(PieceIndex::new(piece));
        }
        bits
    }

    pub(super) fn gains_holder(&mut self, piece: u32) {
        self.holders[piece as usize] += 1;
    }

    pub(super) fn loses_holder(&mut self, piece: u32) {
        self.holders[piece as usize] -= 1;
    }

    // -- picking ----------------------------------------------------------------------------------

    /// A piece that nobody was asked for, among the offered: the rarest, of a snubbed peer the commonest.
    pub(super) fn pick(
        &self,
        is_offered: impl Fn(u32) -> bool,
        is_snubbed: bool,
        random: &mut Random,
    ) -> Option<u32> {
        if self.all_asked() {
            return None;
        }
        let can = |piece: &u32| self.is_missing(*piece) && is_offered(*piece);
        if self.held < RANDOM_FIRST_PIECES {
            let from = random.random_range(0..self.order.len());
            let (before, after) = self.order.split_at(from);
            return after.iter().chain(before).copied().find(can);
        }
        let candidates = self.order.iter().copied().filter(can);
        let holders = |piece: &u32| self.holders[*piece as usize];
        if is_snubbed {
            candidates.max_by_key(holders)
        } else {
            candidates.min_by_key(holders)
        }
    }

    /// Pieces around `piece` that may be asked with it, `most` at most.
    pub(super) fn run_around(
        &self,
        piece: u32,
        most: u32,
        is_offered: impl Fn(u32) -> bool,
    ) -> Range<u32> {
        let can = |piece: u32| self.is_missing(piece) && is_offered(piece);
        let (mut first, mut end) = (piece, piece + 1);
        while first > 0 && end - first < most && can(first - 1) {
            first -= 1;
        }
        while (end as usize) < self.states.len() && end - first < most && can(end) {
            end += 1;
        }
        first..end
    }

    /// In the end game, one of the offered pieces that were asked of the fewest.
    pub(super) fn pick_busy(&self, is_offered: impl Fn(u32) -> bool) -> Option<u32> {
        let asked = |piece: &u32| match self.states[*piece as usize] {
            State::Asked(peers) if is_offered(*piece) => Some((peers, *piece)),
            _ => None,
        };
        let least = self
            .order
            .iter()
            .filter_map(asked)
            .min_by_key(|(peers, _)| *peers);
        least.map(|(_, piece)| piece)
    }

    // -- what becomes of a piece ------------------------------------------------------------------

    fn set(&mut self, piece: u32, state: State) {
        let before = std::mem::replace(&mut self.states[piece as usize], state);
        self.missing -= u32::from(before == State::Missing);
        self.missing += u32::from(state == State::Missing);
        self.held -= u32::from(before == State::Held);
        self.held += u32::from(state == State::Held);
    }

    pub(super) fn ask(&mut self, piece: u32) {
        match self.states[piece as usize] {
            State::Missing => self.set(piece, State::Asked(1)),
            State::Asked(peers) => self.set(piece, State::Asked(peers + 1)),
            State::Arrived | State::Held => {}
        }
    }

    /// A peer that was asked will not bring it.
    pub(super) fn release(&mut self, piece: u32) {
        match self.states[piece as usize] {
            State::Asked(1) => self.set(piece, State::Missing),
            State::Asked(peers) => self.set(piece, State::Asked(peers - 1)),
            State::Missing | State::Arrived | State::Held => {}
        }
    }

    pub(super) fn arrive(&mut self, piece: u32) {
        if !self.holds(piece) {
            self.set(piece, State::Arrived);
        }
    }

    /// It did not match its hash.
    pub(super) fn spoil(&mut self, piece: u32) {
        if !self.holds(piece) {
            self.set(piece, State::Missing);
        }
    }

    /// Whether it was not held before.
    pub(super) fn store(&mut self, piece: u32) -> bool {
        let is_new = !self.holds(piece);
        self.set(piece, State::Held);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn picker(count: u32, held: u32) -> (Picker, Random) {
        let mut random = Random::seed_from_u64(1);
        let mut bits = Bitfield::new(count);
        for piece in 0..held {
            bits.insert(PieceIndex::new(piece));
        }
        (Picker::new(&bits, &mut random), random)
    }

    #[test]
    fn the_rarest_piece_is_picked_once_four_are_held_and_of_a_snubbed_peer_the_commonest() {
        let (mut picker, mut random) = picker(20, RANDOM_FIRST_PIECES);
        for piece in 0..20 {
            let holders = if piece == 9 { 1 } else { piece + 2 };
            (0..holders).for_each(|_| picker.gains_holder(piece));
        }
        assert_eq!(picker.pick(|_| true, false, &mut random), Some(9));
        assert_eq!(picker.pick(|_| true, true, &mut random), Some(19));
        assert_eq!(
            picker.pick(|piece| piece == 12, false, &mut random),
            Some(12)
        );
    }

    #[test]
    fn the_first_pieces_are_taken_at_random() {
        let (mut picker, mut random) = picker(20, 0);
        picker.gains_holder(7);
        let first: Vec<_> = (0..20)
            .map(|_| picker.pick(|_| true, false, &mut random))
            .collect();
        assert!(first.windows(2).any(|two| two[0] != two[1]), "{first:?}");
    }

    #[test]
    fn busy_pieces_come_only_when_all_are_asked_and_those_asked_of_fewest_first() {
        let (mut picker, mut random) = picker(2, 0);
        picker.ask(0);
        assert!(!picker.all_asked());
        picker.ask(0);
        picker.ask(1);
        assert!(picker.all_asked());
        assert_eq!(picker.pick(|_| true, false, &mut random), None);
        assert_eq!(picker.pick_busy(|_| true), Some(1));
        picker.release(1);
        assert_eq!(picker.pick(|_| true, false, &mut random), Some(1));
    }

    #[test]
    fn a_run_ends_at_pieces_that_are_asked_or_not_offered() {
        let (mut picker, _) = picker(20, 0);
        picker.ask(3);
        assert_eq!(picker.run_around(6, 8, |piece| piece < 10), 4..10);
        assert_eq!(picker.run_around(6, 2, |_| true), 5..7);
        assert_eq!(picker.run_around(6, 1, |_| true), 6..7);
    }
}
