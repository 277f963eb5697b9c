//! What peers say about a share, and what we say of our pieces: the messages part of [`Transfer`].
//!
//! Turns each message into changes of the parts (`pieces`, `download`, `upload`) and judges nonsense and
//! violations. Decides nothing about whom to ask or serve. Called by `transfer`.

use rand::RngExt;

use super::download::Download;
use super::pieces::{Holdings, PieceState};
use super::transfer::{Peer, Transfer};
use super::upload::Cancelled;
use super::{Cause, Event, Output, Parting, PeerKey, Time, tuning};
use crate::content::{Bitfield, PieceIndex};
use crate::wire::{BITFIELD_PART_LEN_MAX, RejectReason, Run, ShareMessage, runs_of};

/// What is done with one piece that a message names.
type OnPiece = fn(&mut Transfer, Time, PeerKey, PieceIndex);

impl Transfer {
    pub(super) fn on_message(&mut self, now: Time, peer: PeerKey, message: ShareMessage) {
        if !self.on_life(now, peer) {
            return;
        }
        self.stale |= !matches!(
            message,
            ShareMessage::Have { .. } | ShareMessage::Queued { .. } | ShareMessage::Serving { .. }
        );
        match message {
            ShareMessage::HaveAll => self.on_have_all(peer),
            ShareMessage::HaveNone => {}
            ShareMessage::Queued { in_line } => {
                self.with_download(peer, |download| download.on_queued(in_line))
            }
            ShareMessage::Serving { .. } => self.with_download(peer, Download::on_serving),
            ShareMessage::Bitfield { first, bytes } => self.on_bitfield(now, peer, first, &bytes),
            ShareMessage::Have { runs } => self.on_announced(now, peer, &runs, Self::on_have),
            ShareMessage::DontHave { runs } => {
                self.on_announced(now, peer, &runs, Self::on_dont_have)
            }
            ShareMessage::Request { runs } => self.on_asked(now, peer, &runs, Self::on_request),
            ShareMessage::Cancel { runs } => self.on_asked(now, peer, &runs, Self::on_cancel),
            ShareMessage::Suggest { piece } => match self.geometry.piece(piece) {
                Some(piece) => self.on_suggest(now, peer, piece),
                None => self.on_nonsense(now, peer),
            },
            ShareMessage::Reject { piece, reason } => match self.geometry.piece(piece) {
                Some(piece) => self.on_reject(now, peer, piece, reason),
                None => self.on_nonsense(now, peer),
            },
            // Answered by the driver before they come here; harmless if they do.
            ShareMessage::Ready
            | ShareMessage::GetManifest
            | ShareMessage::GetHashes { .. }
            | ShareMessage::GetInfo
            | ShareMessage::Peers { .. }
            | ShareMessage::Source { .. } => {}
        }
        self.check_completed_peer(now, peer);
    }

    /// Runs `act` for every piece of an announcement. A few bytes can name every piece, and each costs us work,
    /// so what a peer may name in all is bounded by what it can have to tell.
    fn on_announced(&mut self, now: Time, peer: PeerKey, runs: &[Run], act: OnPiece) {
        let count = u64::from(self.pieces.count());
        let left = match self.peers.get(&peer) {
            Some(state) => {
                let secs = now.duration_since(state.since).as_secs();
                let times = tuning::ANNOUNCED_TIMES_MAX + tuning::ANNOUNCED_TIMES_PER_SEC * secs;
                count.saturating_mul(times).saturating_sub(state.announced)
            }
            None => return,
        };
        let named = self.for_each_piece(now, peer, runs, left, act);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.announced += named;
        }
    }

    /// Runs `act` for every piece of a request or of its cancellation.
    fn on_asked(&mut self, now: Time, peer: PeerKey, runs: &[Run], act: OnPiece) {
        self.for_each_piece(now, peer, runs, u64::from(tuning::REQUESTS_MAX), act);
    }

    /// Runs `act` for every piece named, and returns how many. A run that leaves the share, or more than
    /// `most` pieces in all, end the session before the first.
    fn for_each_piece(
        &mut self,
        now: Time,
        peer: PeerKey,
        runs: &[Run],
        most: u64,
        act: OnPiece,
    ) -> u64 {
        let count = self.pieces.count();
        let fits = |run: &Run| {
            run.count > 0
                && run
                    .first
                    .checked_add(run.count)
                    .is_some_and(|end| end <= count)
        };
        let named: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if named > most || !runs.iter().all(fits) {
            self.part(now, peer, Parting::Violation);
            return 0;
        }
        for piece in runs
            .iter()
            .flat_map(|run| run.first..run.first + run.count)
            .map(PieceIndex::new)
        {
            act(self, now, peer, piece);
        }
        named
    }

    pub(super) fn on_nonsense(&mut self, now: Time, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.nonsense += 1;
        if state.nonsense > tuning::NONSENSE_MAX {
            self.part(now, peer, Parting::Violation);
        }
    }

    pub(super) fn with_download(&mut self, peer: PeerKey, act: impl FnOnce(&mut Download)) {
        if let Some(state) = self.peers.get_mut(&peer) {
            act(&mut state.download);
        }
    }

    pub(super) fn on_have_all(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let before = std::mem::replace(&mut state.holdings, Holdings::All);
        self.pieces.peer_leaves(&before);
        self.pieces.peer_joins(&Holdings::All);
        self.to_fill.insert(peer);
    }

    pub(super) fn on_bitfield(&mut self, now: Time, peer: PeerKey, first: u32, bytes: &[u8]) {
        let count = self.pieces.count();
        let bits = (bytes.len() as u64) * 8;
        let spare = (u64::from(first) + bits).saturating_sub(u64::from(count));
        if !first.is_multiple_of(8) || first >= count || bytes.is_empty() || spare >= 8 {
            self.part(now, peer, Parting::Violation);
            return;
        }
        for (index, byte) in (first / 8..).zip(bytes) {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                match self.geometry.piece(index * 8 + bit) {
                    Some(piece) => self.on_have(now, peer, piece),
                    None => return self.part(now, peer, Parting::Violation),
                }
            }
        }
    }

    pub(super) fn on_have(&mut self, _now: Time, peer: PeerKey, piece: PieceIndex) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let Holdings::Some(bits) = &mut state.holdings else {
            return;
        };
        if bits.insert(piece) {
            let is_full = bits.is_full();
            self.pieces.gains_holder(piece);
            if is_full {
                self.on_have_all(peer);
            }
            if self.pieces.state(piece) == PieceState::Missing {
                self.to_fill.insert(peer);
            }
        }
    }

    pub(super) fn on_dont_have(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        let count = self.pieces.count();
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Holdings::All = state.holdings {
            self.pieces.peer_leaves(&state.holdings);
            state.holdings = Holdings::Some(Bitfield::full(count));
            self.pieces.peer_joins(&state.holdings);
        }
        if let Holdings::Some(bits) = &mut state.holdings
            && bits.remove(piece)
        {
            self.pieces.loses_holder(piece);
        }
        self.give_up_request(now, peer, piece, Cause::Rejected);
    }

    pub(super) fn on_reject(
        &mut self,
        now: Time,
        peer: PeerKey,
        piece: PieceIndex,
        reason: RejectReason,
    ) {
        if reason == RejectReason::NotHeld
            && let Some(state) = self.peers.get_mut(&peer)
            && state.holdings.contains(piece)
        {
            state.unkept_claims += 1;
            if state.unkept_claims > tuning::UNKEPT_CLAIMS_MAX {
                return self.part(now, peer, Parting::Violation);
            }
        }
        let is_unkept_offer =
            |state: &Peer| state.download.relies_on(piece) && !state.holdings.contains(piece);
        if self.peers.get(&peer).is_some_and(is_unkept_offer) {
            self.on_nonsense(now, peer);
        }
        match reason {
            RejectReason::NotHeld | RejectReason::Unreadable => self.on_dont_have(now, peer, piece),
            RejectReason::Busy | RejectReason::Leaving => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.download.shrink_window();
                }
                self.give_up_request(now, peer, piece, Cause::Rejected);
            }
        }
    }

    pub(super) fn on_request(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        let reason = if !self.pieces.held().contains(piece) {
            if self.pieces.is_coming(piece) && self.offers.on_early(now, peer, piece) {
                return;
            }
            // What we told the peer before is no claim that we do not keep: its file was changed.
            match self.pieces.state(piece) {
                PieceState::Rechecking => RejectReason::Unreadable,
                _ => RejectReason::NotHeld,
            }
        } else if !self.upload.request(now, peer, piece) {
            RejectReason::Busy
        } else {
            return;
        };
        self.send(
            peer,
            ShareMessage::Reject {
                piece: piece.get(),
                reason,
            },
        );
    }

    pub(super) fn on_cancel(&mut self, _now: Time, peer: PeerKey, piece: PieceIndex) {
        self.offers.on_cancel(peer, piece);
        if self.upload.cancel(peer, piece) == Cancelled::InService {
            self.outputs.push_back(Output::StopServing { peer, piece });
        }
    }

    pub(super) fn send_holdings(&mut self, peer: PeerKey) {
        let held = self.pieces.held();
        if held.is_full() {
            self.send(peer, ShareMessage::HaveAll);
        } else if held.none() {
            self.send(peer, ShareMessage::HaveNone);
        } else {
            let bytes = held.to_bytes();
            for (part, bytes) in (0..).zip(bytes.chunks(BITFIELD_PART_LEN_MAX)) {
                let first = part * (BITFIELD_PART_LEN_MAX as u32) * 8;
                self.send(
                    peer,
                    ShareMessage::Bitfield {
                        first,
                        bytes: bytes.to_vec(),
                    },
                );
            }
        }
    }

    pub(super) fn flush_haves(&mut self, now: Time) {
        if self.haves.is_empty() {
            return;
        }
        self.last_have = now;
        let mut haves = std::mem::take(&mut self.haves);
        haves.sort_unstable();
        haves.dedup();
        let runs = runs_of(haves);
        let peers = self.peers_to_tell();
        for peer in &peers {
            self.with_download(*peer, |download| download.on_told(now));
            for runs in runs.chunks(tuning::RUNS_PER_MESSAGE_MAX) {
                self.send(
                    *peer,
                    ShareMessage::Have {
                        runs: runs.to_vec(),
                    },
                );
            }
        }
        for peer in peers {
            self.check_completed_peer(now, peer);
        }
    }

    /// The peers in the order in which they hear of a new piece: who hears first asks first and is served
    /// first, so newcomers lead and the others begin with another one each time.
    fn peers_to_tell(&mut self) -> Vec<PeerKey> {
        let count = self.pieces.count();
        let has = |peer: &Peer| peer.holdings.count(count).min(tuning::NEWCOMER_PIECES);
        let peers = self.peers.iter().map(|(key, peer)| (has(peer), *key));
        let mut peers: Vec<(u32, PeerKey)> = peers.collect();
        if !peers.is_empty() {
            let first = self.random.random_range(0..peers.len());
            peers.rotate_left(first);
        }
        peers.sort_by_key(|(has, _)| *has);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Tells of a peer that holds everything, and parts from it when both do.
    pub(super) fn check_completed_peer(&mut self, now: Time, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if !matches!(state.holdings, Holdings::All) {
            return;
        }
        if !std::mem::replace(&mut state.completed_told, true) {
            self.outputs
                .push_back(Output::Event(Event::PeerCompleted { peer }));
        }
        if self.pieces.held().is_full()
            && self.haves.is_empty()
            && self.upload.waiting_of(peer) == 0
        {
            self.part(now, peer, Parting::Done);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::content::Geometry;
    use crate::engine::{Input, Random, TransferConfig};

    const PEER: PeerKey = PeerKey(7);
    const PIECES: u32 = 10_000;
    const START: Time = Time::from_start(Duration::ZERO);
    const ALL: Run = Run {
        first: 0,
        count: PIECES,
    };

    /// A transfer that holds nothing, with one peer.
    fn transfer() -> Transfer {
        let mut transfer = transfer_of(Bitfield::new(PIECES), None);
        say(&mut transfer, None);
        transfer
    }

    fn transfer_of(held: Bitfield, wanted: Option<Bitfield>) -> Transfer {
        let geometry = Geometry::new(1 << 16, &[u64::from(PIECES) << 16]).expect("allowed");
        let config = TransferConfig {
            geometry,
            held,
            wanted,
            rechecking: None,
            sequential: false,
            random: Random::seed_from_u64(1),
        };
        Transfer::new(START, config)
    }

    /// What comes of the peer's arrival, or of what it says.
    fn say(transfer: &mut Transfer, message: Option<ShareMessage>) -> Vec<Output> {
        let peer = PEER;
        transfer.handle(
            START,
            message.map_or(Input::PeerUp { peer, near: false }, |message| {
                Input::Message { peer, message }
            }),
        );
        std::iter::from_fn(|| transfer.poll_output()).collect()
    }

    fn is_violation(outputs: &[Output]) -> bool {
        let why = Parting::Violation;
        outputs.contains(&Output::Disconnect { peer: PEER, why })
    }

    #[test]
    fn requests_for_more_than_may_wait_end_the_session_and_are_not_answered() {
        for runs in [vec![ALL], vec![Run { first: 0, count: 1 }; 513]] {
            let outputs = say(&mut transfer(), Some(ShareMessage::Request { runs }));
            assert!(is_violation(&outputs));
            assert_eq!(outputs.len(), 1, "no piece is rejected: {outputs:?}");
        }
        let run = Run {
            first: 0,
            count: tuning::REQUESTS_MAX,
        };
        let runs = vec![run];
        let outputs = say(&mut transfer(), Some(ShareMessage::Request { runs }));
        assert!(!is_violation(&outputs));
        assert_eq!(outputs.len(), tuning::REQUESTS_MAX as usize);
    }

    #[test]
    fn a_peer_that_takes_everything_back_again_and_again_is_dropped() {
        let mut transfer = transfer();
        let mut turns = 0;
        loop {
            let runs = vec![ALL];
            let message = if turns % 2 == 0 {
                ShareMessage::Have { runs }
            } else {
                ShareMessage::DontHave { runs }
            };
            if is_violation(&say(&mut transfer, Some(message))) {
                break;
            }
            turns += 1;
            assert!(turns <= tuning::ANNOUNCED_TIMES_MAX);
        }
        assert_eq!(turns, tuning::ANNOUNCED_TIMES_MAX);
    }

    #[test]
    fn runs_that_name_a_piece_often_in_one_message_count_each_time() {
        let runs = vec![ALL; 100];
        assert!(is_violation(&say(
            &mut transfer(),
            Some(ShareMessage::Have { runs })
        )));
    }

    const OTHER: PeerKey = PeerKey(8);
    const COMING: PieceIndex = PieceIndex::new(0);

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    /// A transfer that is getting a piece from one peer, and has offered it to another, which asks for it.
    fn with_early_request() -> Transfer {
        let mut transfer = transfer();
        let mut handle = |now, input| {
            transfer.handle(now, input);
            let outputs = std::iter::from_fn(|| transfer.poll_output());
            outputs.collect::<Vec<_>>()
        };
        handle(
            at(0),
            Input::PeerUp {
                peer: OTHER,
                near: false,
            },
        );
        let runs = vec![Run { first: 0, count: 1 }];
        let message = ShareMessage::Have { runs: runs.clone() };
        let have = Input::Message {
            peer: PEER,
            message,
        };
        handle(at(1), have);
        let half = 1 << 15;
        let mut said = Vec::new();
        for now in [at(2), at(12)] {
            said = handle(
                now,
                Input::Received {
                    peer: PEER,
                    piece: COMING,
                    bytes: half / 2,
                },
            );
        }
        let message = ShareMessage::Suggest { piece: 0 };
        let suggest = Output::Send {
            peer: OTHER,
            message,
        };
        assert!(said.contains(&suggest), "{said:?}");
        let message = ShareMessage::Request { runs };
        let request = Input::Message {
            peer: OTHER,
            message,
        };
        assert_eq!(handle(at(20), request), [], "neither served nor refused");
        transfer
    }

    #[test]
    fn a_piece_asked_for_before_it_is_here_is_served_once_it_is_verified() {
        let mut transfer = with_early_request();
        let arrived = Input::PieceArrived {
            peer: PEER,
            piece: COMING,
        };
        let stored = Input::PieceStored {
            peer: PEER,
            piece: COMING,
        };
        let serve = Output::Serve {
            peer: OTHER,
            piece: COMING,
        };
        for (input, serves) in [(arrived, false), (stored, true)] {
            transfer.handle(at(30), input);
            let outputs: Vec<Output> = std::iter::from_fn(|| transfer.poll_output()).collect();
            assert_eq!(outputs.contains(&serve), serves, "{outputs:?}");
        }
    }

    #[test]
    fn a_piece_asked_for_before_it_is_here_and_that_does_not_come_is_refused() {
        let mut transfer = with_early_request();
        let lapses = at(20) + tuning::EARLY_LAPSES;
        assert!(transfer.poll_timeout(at(20)).is_some_and(|at| at <= lapses));
        transfer.handle(lapses, Input::Tick);
        let outputs: Vec<Output> = std::iter::from_fn(|| transfer.poll_output()).collect();
        let message = ShareMessage::Reject {
            piece: 0,
            reason: RejectReason::NotHeld,
        };
        let refuse = Output::Send {
            peer: OTHER,
            message,
        };
        assert!(outputs.contains(&refuse), "{outputs:?}");
    }

    #[test]
    fn a_piece_lost_before_it_was_announced_is_not_announced() {
        let mut transfer = transfer();
        let (peer, piece) = (PEER, COMING);
        transfer.handle(START, Input::PieceStored { peer, piece });
        let (first, count) = (piece, 1);
        transfer.handle(START, Input::PiecesLost { first, count });
        transfer.handle(at(1_000), Input::Tick);
        let said: Vec<Output> = std::iter::from_fn(|| transfer.poll_output()).collect();
        let runs = vec![Run::one(piece)];
        let message = ShareMessage::Have { runs };
        assert!(!said.contains(&Output::Send { peer, message }), "{said:?}");
    }

    #[test]
    fn a_piece_that_is_read_again_is_withdrawn_and_announced_when_it_is_as_it_was() {
        let mut transfer = transfer_of(Bitfield::full(PIECES), None);
        say(&mut transfer, None);
        let (first, count) = (PieceIndex::new(1), 2);
        let said = |transfer: &mut Transfer, now: Time, input: Input| {
            transfer.handle(now, input);
            let outputs = std::iter::from_fn(|| transfer.poll_output());
            let message = |output| match output {
                Output::Send { message, .. } => Some(message),
                _ => None,
            };
            outputs.filter_map(message).collect::<Vec<_>>()
        };
        let runs = || {
            let first = first.get();
            vec![Run { first, count }]
        };
        let doubted = said(&mut transfer, START, Input::PiecesDoubted { first, count });
        assert_eq!(doubted, [ShareMessage::DontHave { runs: runs() }]);
        assert!(!transfer.is_complete());
        assert_eq!(transfer.piece_state(first), PieceState::Rechecking);
        let mut told = said(&mut transfer, START, Input::PiecesFound { first, count });
        assert!(transfer.is_complete());
        told.extend(said(&mut transfer, at(1_000), Input::Tick));
        assert!(
            told.contains(&ShareMessage::HaveAll)
                || told.contains(&ShareMessage::Have { runs: runs() }),
            "{told:?}"
        );
    }

    #[test]
    fn who_holds_all_it_chose_suggests_nothing_of_what_it_did_not_choose() {
        let mut held = Bitfield::new(PIECES);
        held.insert(PieceIndex::new(1));
        let mut transfer = transfer_of(held.clone(), Some(held));
        let said = say(&mut transfer, None);
        let is_suggestion = |output: &Output| matches!(output, Output::Send { message: ShareMessage::Suggest { piece }, .. } if *piece != 1);
        assert!(!said.iter().any(is_suggestion), "{said:?}");
    }
}
