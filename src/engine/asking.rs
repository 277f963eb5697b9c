//! Which piece is asked of whom, and what becomes of the answers: the asking part of [`Transfer`].
//!
//! Joins `pieces` (what is missing, how rare) with each peer's `download` (window, speed, silence), moves
//! requests that would come late, and frees those of peers that failed. Called by `transfer`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::download::Progress;
use super::pieces::{Holdings, PieceState};
use super::transfer::{Peer, Quiet, Transfer};
use super::{Cause, Event, Output, Parting, PeerKey, Time, tuning};
use crate::content::PieceIndex;
use crate::wire::{Run, ShareMessage, runs_of};

/// A request that would be answered sooner by another peer.
#[derive(Clone, Copy, Debug)]
struct Late {
    peer: PeerKey,
    piece: PieceIndex,
    /// Until it is here, if nothing is done.
    left: Duration,
    /// Whether its bytes arrive, or ought to.
    is_slow: bool,
    /// Whether the peer is told not to send it any more.
    is_let_go: bool,
}

impl Late {
    /// A request that waits for its turn.
    fn waiting(peer: PeerKey, piece: PieceIndex) -> Self {
        Self {
            peer,
            piece,
            left: Duration::ZERO,
            is_slow: false,
            is_let_go: true,
        }
    }
}

impl Transfer {
    /// Counts a sign of life; false when the peer is none of ours (any more).
    pub(super) fn on_life(&mut self, now: Time, peer: PeerKey) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        if state.download.on_life(now) {
            self.to_fill.insert(peer);
        }
        true
    }

    pub(super) fn on_received(&mut self, now: Time, peer: PeerKey, piece: PieceIndex, bytes: u32) {
        if !self.on_life(now, peer) {
            return;
        }
        self.rate.add(now, u64::from(bytes));
        if let Some(state) = self.peers.get_mut(&peer)
            && state.download.on_bytes(now, piece, bytes)
        {
            self.table.found_near(peer);
        }
        if self.pieces.is_open(piece) {
            self.last_byte = now;
            self.stale |= std::mem::replace(&mut self.quiet, Quiet::No) != Quiet::No;
            self.offer_ahead(now, peer, piece);
        }
    }

    /// An idle uplink offers a piece that is about to be here.
    fn offer_ahead(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        let nearly = |state: &Peer| state.download.is_nearly_here(now, piece);
        if self.peers.get(&peer).is_some_and(nearly)
            && !self.offers.knows(piece)
            && self.upload.idle_places(now) > 0
        {
            self.offers.add(now, piece);
            self.stale = true;
        }
    }

    pub(super) fn on_piece_arrived(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.download.on_arrived(now, piece);
            self.to_fill.insert(peer);
        }
        if self.pieces.arrived(piece, peer) {
            self.urgent.remove(&piece);
            self.reroutes.settled(piece);
        }
    }

    pub(super) fn on_piece_stored(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        self.table.proved(peer);
        self.urgent.remove(&piece);
        self.reroutes.settled(piece);
        if !self.pieces.stored(piece) {
            return;
        }
        self.last_byte = now;
        self.quiet = Quiet::No;
        let others: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, state)| state.download.has_asked(piece))
            .map(|(key, _)| *key)
            .collect();
        for other in others {
            self.withdraw(other, piece);
            self.to_fill.insert(other);
        }
        self.haves.push(piece);
        self.offers.add(now, piece);
        for other in self.offers.take_early(piece) {
            self.on_request(now, other, piece);
        }
        self.complete_if_whole(now);
    }

    /// Tells when the last wanted piece has come to be held.
    pub(super) fn complete_if_whole(&mut self, now: Time) {
        if self.pieces.is_complete() && !self.completed {
            self.completed = true;
            self.flush_haves(now);
            self.outputs.push_back(Output::Event(Event::Completed));
        }
    }

    pub(super) fn on_piece_corrupt(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        if self.pieces.corrupt(piece, peer) {
            // Whoever was asked as well is still relied on; else it goes to somebody else at once.
            for (other, state) in &self.peers {
                if *other != peer && state.download.relies_on(piece) {
                    self.pieces.ask(piece, *other);
                }
            }
            if self.pieces.state(piece) == PieceState::Missing {
                self.urgent.insert(piece);
            }
            self.reroutes
                .begin(now, peer, Cause::Corrupt, BTreeSet::from([piece]));
        }
        if self.peers.contains_key(&peer) {
            self.part(now, peer, Parting::Corrupt);
        } else {
            self.table.ban(peer);
        }
    }

    /// One request will not be answered: the piece is asked elsewhere.
    pub(super) fn give_up_request(
        &mut self,
        now: Time,
        peer: PeerKey,
        piece: PieceIndex,
        cause: Cause,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.download.forget(piece);
        self.to_fill.insert(peer);
        if self.pieces.unask(piece, peer) {
            self.urgent.insert(piece);
            self.reroutes
                .begin(now, peer, cause, BTreeSet::from([piece]));
        }
    }

    /// Everything asked of `peer` is to be asked elsewhere.
    pub(super) fn free_requests(&mut self, now: Time, peer: PeerKey, cause: Cause) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let relied: Vec<PieceIndex> = state.download.relied().map(|(piece, _)| piece).collect();
        let mut orphans = BTreeSet::new();
        for piece in relied {
            state.download.unrely(piece);
            if self.pieces.unask(piece, peer) {
                orphans.insert(piece);
            }
        }
        self.urgent.extend(&orphans);
        self.reroutes.begin(now, peer, cause, orphans);
    }

    /// Pieces that lost their peer go, beyond any window, to whoever will have them soonest.
    pub(super) fn ask_urgent(&mut self, now: Time) {
        if self.urgent.is_empty() {
            return;
        }
        let mut asks: BTreeMap<PeerKey, Vec<PieceIndex>> = BTreeMap::new();
        for piece in std::mem::take(&mut self.urgent) {
            if self.pieces.state(piece) != PieceState::Missing {
                continue;
            }
            let len = self.geometry.len_of(piece);
            let able = self.peers.iter().filter(|(_, state)| {
                !state.download.is_suspect()
                    && state.holdings.contains(piece)
                    && !state.download.has_asked(piece)
                    && state.download.has_room_in_need()
            });
            // Who has been quiet may be gone as well: it is asked when nobody else is left.
            let best = able.min_by_key(|(key, state)| {
                let download = &state.download;
                (
                    download.is_quiet(now),
                    download.time_for_new(now, len),
                    **key,
                )
            });
            match best.map(|(key, _)| *key) {
                Some(peer) if self.note_ask(now, peer, piece) => {
                    asks.entry(peer).or_default().push(piece)
                }
                _ => drop(self.urgent.insert(piece)),
            }
        }
        for (peer, pieces) in asks {
            self.ask(now, peer, pieces);
        }
    }

    /// Fills the windows of the peers that may have room.
    pub(super) fn fill(&mut self, now: Time) {
        let peers = std::mem::take(&mut self.to_fill);
        for peer in peers.iter().copied() {
            let mut asked = Vec::new();
            while let Some(piece) = self.pick(now, peer) {
                if !self.note_ask(now, peer, piece) {
                    break;
                }
                asked.push(piece);
            }
            self.ask(now, peer, asked);
        }
        self.take_over(now, peers.into_iter());
    }

    /// The peer would help the swarm by sending us this piece, or has nothing else to do: it is asked of it
    /// now or never, also when it would come late from whom it was asked, and also when the peer has not got all of
    /// it yet. When the piece is under way already, another one that waits elsewhere is asked instead, but not of a
    /// seed: it suggests first copies, and means just that piece.
    pub(super) fn on_suggest(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        let len = self.geometry.len_of(piece);
        let Some(state) = self.peers.get(&peer) else {
            return;
        };
        let is_able = !state.download.is_suspect() && state.download.has_room_for_suggestion(len);
        let is_second_choice = self.has_better(now, state, piece);
        if !is_able || is_second_choice || self.sequential {
            return;
        }
        let is_seed = matches!(state.holdings, Holdings::All);
        let moved = match self.pieces.state(piece) {
            PieceState::Missing => {
                if self.note_ask(now, peer, piece) {
                    self.ask(now, peer, vec![piece]);
                }
                return;
            }
            PieceState::Asked {
                first,
                second: None,
            } if first != peer => self.better_moved(now, first, piece),
            _ => None,
        };
        let moved = moved.or_else(|| {
            (!is_seed)
                .then(|| self.waiting_elsewhere(peer, piece))
                .flatten()
        });
        if let Some(late) = moved {
            self.move_to(now, peer, late);
        }
    }

    /// The request for `piece` at `from`, if it would come late or its turn there has surely not come.
    fn better_moved(&self, now: Time, from: PeerKey, piece: PieceIndex) -> Option<Late> {
        let download = &self.peers.get(&from)?.download;
        let progress = download.progress(now, piece);
        progress
            .and_then(|progress| self.late_request(now, from, piece, progress))
            .or_else(|| {
                download
                    .is_behind(now, piece)
                    .then(|| Late::waiting(from, piece))
            })
    }

    /// Of the requests that others told us to wait for, and that `peer` could serve, the one made last: it
    /// will hardly be served before our cancel is there.
    fn waiting_elsewhere(&self, peer: PeerKey, suggested: PieceIndex) -> Option<Late> {
        let holdings = &self.peers.get(&peer)?.holdings;
        let others = self.peers.iter().filter(|(other, _)| **other != peer);
        let waiting = others.flat_map(|(other, state)| {
            let has_more = state.download.waiting().count() > 1;
            let waiting = state.download.waiting();
            waiting.map(move |(piece, at)| (has_more, at, *other, piece))
        });
        let is_single = |piece| {
            matches!(
                self.pieces.state(piece),
                PieceState::Asked { second: None, .. }
            )
        };
        let able = waiting.filter(|(_, _, _, piece)| {
            (*piece == suggested || holdings.contains(*piece)) && is_single(*piece)
        });
        able.max()
            .map(|(_, _, other, piece)| Late::waiting(other, piece))
    }

    /// The next piece to ask of `peer`, if it has room and one is missing. A snubbed peer is asked for one
    /// piece at a time, and only for what nobody else could send.
    fn pick(&mut self, now: Time, peer: PeerKey) -> Option<PieceIndex> {
        let state = self.peers.get(&peer)?;
        if state.download.is_suspect() || !state.download.has_room(self.geometry.piece_len()) {
            return None;
        }
        let piece = if self.sequential {
            self.pieces.pick_in_order(&state.holdings, 0)
        } else if self.pieces.held().count() < tuning::RANDOM_FIRST_PIECES {
            self.pieces.pick_random(&state.holdings, &mut self.random)
        } else {
            self.pieces.pick_rarest(&state.holdings, &mut self.random)
        }?;
        let has_enough = state.download.is_on_probation() && state.download.relied_count() > 0;
        (!has_enough && !self.has_better(now, state, piece)).then_some(piece)
    }

    /// Whether a peer that is less of a suspect than this one holds `piece`. Of two that are as bad neither is left to the
    /// other: the piece would be asked of nobody.
    fn has_better(&self, now: Time, than: &Peer, piece: PieceIndex) -> bool {
        let badness = |state: &Peer| {
            let download = &state.download;
            (download.is_on_probation(), download.is_snubbed(now))
        };
        let most = badness(than);
        than.download.is_on_probation()
            && self.peers.values().any(|state| {
                let is_better = !state.download.is_suspect() && badness(state) < most;
                is_better && state.holdings.contains(piece)
            })
    }

    /// Idle peers take over what would come much later elsewhere: a request still waiting is moved, a
    /// piece in service is asked a second time, and of two that are slow the slower is let go.
    fn take_over(&mut self, now: Time, peers: impl Iterator<Item = PeerKey>) {
        let mut late = None;
        for peer in peers {
            while self.is_free(now, peer) {
                let late_now = late.take().unwrap_or_else(|| self.late_requests(now));
                let best = self.gains_most(now, peer, &late_now);
                let Some(best) = best else {
                    late = Some(late_now);
                    break;
                };
                if !self.move_to(now, peer, best) {
                    break;
                }
            }
        }
    }

    fn is_free(&self, now: Time, peer: PeerKey) -> bool {
        let is_free = |state: &Peer| {
            let download = &state.download;
            download.is_idle() && !download.is_suspect() && !download.is_snubbed(now)
        };
        self.peers.get(&peer).is_some_and(is_free)
    }

    fn move_to(&mut self, now: Time, peer: PeerKey, late: Late) -> bool {
        if late.is_slow {
            let piece = BTreeSet::from([late.piece]);
            self.reroutes.begin(now, late.peer, Cause::Slow, piece);
            if late.left >= tuning::SNUB_LEFT_MIN
                && let Some(from) = self.peers.get_mut(&late.peer)
            {
                from.download.snub(now);
            }
        }
        if late.is_let_go {
            self.withdraw(late.peer, late.piece);
            self.pieces.unask(late.piece, late.peer);
        }
        let is_asked = self.note_ask(now, peer, late.piece);
        if is_asked {
            self.ask(now, peer, vec![late.piece]);
        }
        is_asked
    }

    /// The request that ends, with a word to the peer.
    fn withdraw(&mut self, peer: PeerKey, piece: PieceIndex) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.download.forget(piece);
        }
        let runs = vec![Run::one(piece)];
        self.send(peer, ShareMessage::Cancel { runs });
    }

    /// Requests that somebody else may serve so much sooner that it is worth asking.
    fn late_requests(&self, now: Time) -> Vec<Late> {
        let mut late = Vec::new();
        for (peer, state) in &self.peers {
            for (piece, progress) in state.download.progresses(now) {
                late.extend(self.late_request(now, *peer, piece, progress));
            }
        }
        late
    }

    /// What moving a piece has to gain at least.
    fn gain_min(&self) -> Duration {
        if self.pieces.is_all_asked() {
            tuning::STEAL_GAIN_LAST
        } else {
            tuning::STEAL_GAIN_MIN
        }
    }

    fn late_request(
        &self,
        now: Time,
        peer: PeerKey,
        piece: PieceIndex,
        progress: Progress,
    ) -> Option<Late> {
        let (mut left, mut is_let_go) = match progress {
            Progress::Waits { left } => (left, true),
            Progress::Arrives { left } => (left, false),
        };
        if left < self.gain_min() {
            return None;
        }
        if let Some(other) = self.also_asked(piece, peer) {
            // Asked of two: the sooner of them counts, the later is let go.
            let sooner = match other.download.progress(now, piece) {
                Some(Progress::Waits { left } | Progress::Arrives { left }) => left,
                None => Duration::ZERO,
            };
            if sooner > left || sooner < self.gain_min() {
                return None;
            }
            (left, is_let_go) = (sooner, true);
        }
        let is_slow = matches!(progress, Progress::Arrives { .. });
        Some(Late {
            peer,
            piece,
            left,
            is_slow,
            is_let_go,
        })
    }

    /// Of the late requests the one that would gain most by being asked of `peer`, which must be
    /// [`tuning::STEAL_FACTOR`] times as soon.
    fn gains_most(&self, now: Time, peer: PeerKey, late: &[Late]) -> Option<Late> {
        let state = self.peers.get(&peer)?;
        let gain_of = |late: &&Late| {
            let here = state
                .download
                .time_for_new(now, self.geometry.len_of(late.piece));
            let gain = late.left.saturating_sub(here);
            let is_worth = late.left >= here * tuning::STEAL_FACTOR && gain >= self.gain_min();
            is_worth.then_some(gain)
        };
        late.iter()
            .filter(|late| late.peer != peer && state.holdings.contains(late.piece))
            .filter(|late| !state.download.has_asked(late.piece))
            .filter_map(|late| Some((gain_of(&late)?, late)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, late)| *late)
    }

    /// The other of two peers that are asked for `piece`.
    fn also_asked(&self, piece: PieceIndex, peer: PeerKey) -> Option<&Peer> {
        let PieceState::Asked {
            first,
            second: Some(second),
        } = self.pieces.state(piece)
        else {
            return None;
        };
        self.peers.get(if first == peer { &second } else { &first })
    }

    /// Records a request; false when the piece cannot be asked of this peer.
    pub(super) fn note_ask(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) -> bool {
        let len = self.geometry.len_of(piece);
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        if !self.pieces.ask(piece, peer) {
            return false;
        }
        state.download.ask(now, piece, len);
        true
    }

    /// Asks `peer` for pieces and says so.
    pub(super) fn ask(&mut self, now: Time, peer: PeerKey, pieces: Vec<PieceIndex>) {
        if pieces.is_empty() {
            return;
        }
        for runs in runs_of(pieces.iter().copied()).chunks(tuning::RUNS_PER_MESSAGE_MAX) {
            self.send(
                peer,
                ShareMessage::Request {
                    runs: runs.to_vec(),
                },
            );
        }
        for piece in pieces {
            self.reroutes.asked(now, piece, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::content::{Bitfield, Geometry};
    use crate::engine::{Input, Random, TransferConfig};

    const SLOW: [PeerKey; 2] = [PeerKey(1), PeerKey(2)];
    const GOOD: PeerKey = PeerKey(3);
    const START: Time = Time::from_start(Duration::ZERO);

    /// Who is asked for the only piece when `others` and two peers that were snubbed once hold it. The spans of the two have
    /// ended, but neither has sent a whole piece since.
    fn asked(others: &[PeerKey]) -> Vec<PeerKey> {
        let config = TransferConfig {
            geometry: Geometry::new(1 << 16, &[1 << 16]).expect("allowed"),
            held: Bitfield::new(1),
            wanted: None,
            rechecking: None,
            sequential: false,
            random: Random::seed_from_u64(1),
        };
        let mut transfer = Transfer::new(START, config);
        for peer in SLOW.iter().chain(others).copied() {
            transfer.handle(START, Input::PeerUp { peer, near: false });
        }
        for peer in SLOW {
            let state = transfer.peers.get_mut(&peer).expect("it is up");
            state.download.snub(START);
        }
        let later = START + tuning::SNUB_SPAN;
        for peer in others.iter().chain(&SLOW).copied() {
            let message = ShareMessage::HaveAll;
            transfer.handle(later, Input::Message { peer, message });
        }
        let outputs = std::iter::from_fn(|| transfer.poll_output());
        let asked = outputs.filter_map(|output| match output {
            Output::Send {
                peer,
                message: ShareMessage::Request { .. },
            } => Some(peer),
            _ => None,
        });
        asked.collect()
    }

    #[test]
    fn a_piece_that_only_slow_peers_hold_is_asked_of_one_of_them() {
        assert_eq!(asked(&[]).len(), 1);
    }

    #[test]
    fn slow_peers_leave_a_piece_to_a_good_one() {
        assert_eq!(asked(&[GOOD]), [GOOD]);
    }
}
