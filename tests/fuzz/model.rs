//! What an engine may say, from what it was told and what it said before: the model that `session` holds it to.
//!
//! Written from the contract of `engine` and the protocol, not from the engine's code. Knows which peers are there, what
//! they announced, what was asked of them and what they are being served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;

use shoal::content::{Bitfield, Geometry, PieceIndex};
use shoal::engine::tuning::REQUESTS_MAX;
use shoal::engine::{Input, Output, PeerKey, PieceState, Time, Transfer};
use shoal::wire::{RejectReason, Run, ShareMessage};

const THERE: &str = "nothing is said to or done for who is not there";

/// What is known of a peer that is there.
struct Peer {
    announced: Bitfield,
    asked: VecDeque<PieceIndex>,
    /// In service, and whether it is to be stopped.
    served: BTreeMap<PieceIndex, bool>,
}

pub(super) struct Model {
    geometry: Geometry,
    held: Bitfield,
    /// Pieces that were held and are being read again.
    rechecking: Bitfield,
    /// Copies that arrived and were neither stored nor found corrupt; several peers may have sent one.
    checking: BTreeSet<(PieceIndex, PeerKey)>,
    wanted: Option<Bitfield>,
    peers: BTreeMap<PeerKey, Peer>,
    heard_of: BTreeSet<PeerKey>,
    /// Of all outputs so far, where somebody asked for it: to print each costs as much as all else.
    digest: Option<DefaultHasher>,
}

/// Text that is hashed and not kept.
struct Hashed<'a>(&'a mut DefaultHasher);

impl Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.hash(self.0);
        Ok(())
    }
}

fn pieces(runs: &[Run]) -> impl Iterator<Item = PieceIndex> {
    let numbers = runs
        .iter()
        .flat_map(|run| (0..run.count).map_while(|after| run.first.checked_add(after)));
    numbers.map(PieceIndex::new)
}

impl Model {
    pub(super) fn new(geometry: Geometry, held: Bitfield, wanted: Option<Bitfield>) -> Self {
        Self {
            geometry,
            rechecking: Bitfield::new(held.len()),
            held,
            checking: BTreeSet::new(),
            wanted,
            peers: BTreeMap::new(),
            heard_of: BTreeSet::new(),
            digest: None,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.geometry.piece_count()
    }

    pub(super) fn len_of(&self, piece: PieceIndex) -> u32 {
        self.geometry.len_of(piece)
    }

    /// What was asked of a peer first.
    pub(super) fn asked_of(&self, peer: PeerKey) -> Option<PieceIndex> {
        self.peers.get(&peer)?.asked.front().copied()
    }

    /// A piece that the peer is being served.
    pub(super) fn served(&self, peer: PeerKey) -> Option<(PeerKey, PieceIndex)> {
        let (piece, _) = self.peers.get(&peer)?.served.first_key_value()?;
        Some((peer, *piece))
    }

    /// Keeps the outputs from now on for [`Self::outputs`].
    pub(super) fn keep_outputs(&mut self) {
        self.digest = Some(DefaultHasher::new());
    }

    /// All outputs that were kept in one number.
    pub(super) fn outputs(&self) -> Option<u64> {
        self.digest.as_ref().map(DefaultHasher::finish)
    }

    pub(super) fn on_input(&mut self, input: &Input) {
        match input {
            Input::Candidate { peer, .. } => drop(self.heard_of.insert(*peer)),
            Input::PeerUp { peer, .. } => {
                let announced = Bitfield::new(self.count());
                let (asked, served) = (VecDeque::new(), BTreeMap::new());
                self.peers.insert(
                    *peer,
                    Peer {
                        announced,
                        asked,
                        served,
                    },
                );
                self.heard_of.insert(*peer);
            }
            Input::PeerDown { peer, .. } => drop(self.peers.remove(peer)),
            Input::Message { peer, message } => self.on_heard(*peer, message),
            Input::PieceArrived { peer, piece } => {
                self.forget(*peer, *piece);
                self.checking.insert((*piece, *peer));
            }
            Input::PieceStored { peer, piece } => {
                self.checking.remove(&(*piece, *peer));
                self.held.insert(*piece);
                self.rechecking.remove(*piece);
            }
            Input::PieceCorrupt { peer, piece } => drop(self.checking.remove(&(*piece, *peer))),
            Input::PiecesLost { first, count } => {
                for piece in first.get()..first.get() + count {
                    self.held.remove(PieceIndex::new(piece));
                    self.rechecking.remove(PieceIndex::new(piece));
                }
            }
            Input::PiecesDoubted { first, count } => {
                for piece in (first.get()..first.get() + count).map(PieceIndex::new) {
                    if self.held.remove(piece) {
                        self.rechecking.insert(piece);
                    }
                }
            }
            Input::PiecesFound { first, count } => {
                for piece in (first.get()..first.get() + count).map(PieceIndex::new) {
                    if self.rechecking.remove(piece) {
                        self.held.insert(piece);
                    }
                }
            }
            Input::ServiceEnded { peer, piece, .. } => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.served.remove(piece);
                }
            }
            Input::Tick
            | Input::ConnectFailed { .. }
            | Input::Received { .. }
            | Input::Sent { .. } => {}
        }
    }

    /// An announcement counts when it names pieces of the share only; else the engine parts from its sender.
    fn on_heard(&mut self, peer: PeerKey, message: &ShareMessage) {
        let count = self.count();
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        match message {
            ShareMessage::HaveAll => state.announced = Bitfield::full(count),
            ShareMessage::Bitfield { first, bytes } => {
                let bits = (0_u32..).zip(bytes).flat_map(|(index, byte)| {
                    let first = first.saturating_add(index * 8);
                    (0..8)
                        .filter(move |bit| byte & (0x80 >> bit) != 0)
                        .map(move |bit| first.saturating_add(bit))
                });
                for piece in bits.filter(|piece| *piece < count) {
                    state.announced.insert(PieceIndex::new(piece));
                }
            }
            ShareMessage::Have { runs } => {
                let fits = |run: &Run| {
                    run.first
                        .checked_add(run.count)
                        .is_some_and(|end| end <= count)
                };
                for piece in pieces(
                    runs.iter()
                        .copied()
                        .filter(fits)
                        .collect::<Vec<_>>()
                        .as_slice(),
                ) {
                    state.announced.insert(piece);
                }
            }
            // It may be asked for before it is announced.
            ShareMessage::Suggest { piece } if *piece < count => {
                state.announced.insert(PieceIndex::new(*piece));
            }
            ShareMessage::Reject { piece, .. } if *piece < count => {
                self.forget(peer, PieceIndex::new(*piece));
            }
            _ => {}
        }
    }

    fn forget(&mut self, peer: PeerKey, piece: PieceIndex) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked.retain(|asked| *asked != piece);
        }
    }

    pub(super) fn on_output(&mut self, output: &Output) {
        if let Some(digest) = &mut self.digest {
            // Hashing never fails.
            let _ = write!(Hashed(digest), "{output:?}");
        }
        match output {
            Output::Send { peer, message } => self.on_said(*peer, message),
            Output::Serve { peer, piece } => {
                assert!(
                    self.held.contains(*piece),
                    "serves {piece}, which is not held"
                );
                let before = self.there(*peer).served.insert(*piece, false);
                assert!(
                    before.is_none_or(|stops| stops),
                    "serves {piece} twice at once"
                );
            }
            Output::StopServing { peer, piece } => {
                let before = self.there(*peer).served.insert(*piece, true);
                assert_eq!(before, Some(false), "stops what it does not serve");
            }
            Output::Connect { peer } => {
                assert!(
                    self.heard_of.contains(peer),
                    "dials somebody nobody spoke of"
                );
                assert!(
                    !self.peers.contains_key(peer),
                    "dials somebody who is there"
                );
            }
            Output::Disconnect { peer, .. } => {
                assert!(self.peers.remove(peer).is_some(), "parts from nobody");
            }
            Output::FindPeers | Output::Event(_) => {}
        }
    }

    fn there(&mut self, peer: PeerKey) -> &mut Peer {
        self.peers.get_mut(&peer).expect(THERE)
    }

    fn on_said(&mut self, peer: PeerKey, message: &ShareMessage) {
        let Self {
            held,
            checking,
            wanted,
            peers,
            ..
        } = self;
        let suggested = match message {
            ShareMessage::Suggest { piece } => Some(PieceIndex::new(*piece)),
            _ => None,
        };
        let is_asked = |piece| peers.values().any(|peer| peer.asked.contains(&piece));
        let will_have = suggested.is_some_and(|piece| {
            let mut copies = checking.iter().map(|(piece, _)| *piece);
            held.contains(piece) || copies.any(|copy| copy == piece) || is_asked(piece)
        });
        let there = peers.get_mut(&peer).expect(THERE);
        match message {
            ShareMessage::Request { runs } => {
                for piece in pieces(runs) {
                    assert!(!held.contains(piece), "asks for {piece}, which it holds");
                    let is_rechecking = self.rechecking.contains(piece);
                    assert!(
                        !is_rechecking,
                        "asks for {piece}, which it is reading again"
                    );
                    assert!(
                        wanted.as_ref().is_none_or(|wanted| wanted.contains(piece)),
                        "asks for {piece} unwanted"
                    );
                    assert!(
                        there.announced.contains(piece),
                        "asks for {piece}, never announced"
                    );
                    if !there.asked.contains(&piece) {
                        there.asked.push_back(piece);
                    }
                }
                assert!(
                    there.asked.len() <= REQUESTS_MAX as usize,
                    "{} at once",
                    there.asked.len()
                );
            }
            ShareMessage::Cancel { runs } => {
                for piece in pieces(runs) {
                    there.asked.retain(|asked| *asked != piece);
                }
            }
            ShareMessage::Have { runs } => {
                assert!(
                    pieces(runs).all(|piece| held.contains(piece)),
                    "announces what it does not hold"
                );
            }
            ShareMessage::HaveAll => assert!(held.is_full(), "does not hold all"),
            ShareMessage::HaveNone => assert!(held.none(), "holds some"),
            ShareMessage::Bitfield { first, bytes } => {
                assert_eq!(
                    (*first, bytes),
                    (0, &held.to_bytes()),
                    "small shares have one part"
                );
            }
            ShareMessage::DontHave { runs } => {
                assert!(
                    !pieces(runs).any(|piece| held.contains(piece)),
                    "holds it still"
                );
            }
            ShareMessage::Suggest { piece } => {
                assert!(will_have, "suggests {piece}, which it will not have");
            }
            ShareMessage::Serving { piece } => {
                assert!(held.len() > *piece, "there is no piece {piece}");
            }
            ShareMessage::Reject { piece, reason } => {
                let holds = held.contains(PieceIndex::new(*piece));
                assert!(
                    *reason != RejectReason::NotHeld || !holds,
                    "refuses what it holds"
                );
            }
            ShareMessage::Queued { .. } => {}
            other => panic!("{other:?} is not the engine's to say"),
        }
    }

    /// What the engine shows is what it was told and what it said.
    pub(super) fn compare(&self, transfer: &Transfer, now: Time) {
        assert_eq!(transfer.held(), &self.held);
        let status = transfer.status(now);
        assert_eq!(
            (status.held, status.pieces),
            (self.held.count(), self.count())
        );
        let there: Vec<PeerKey> = status.peers.iter().map(|peer| peer.peer).collect();
        assert!(there.iter().eq(self.peers.keys()), "{there:?} are there");
        let is_asked = |peer: PeerKey, piece: PieceIndex| {
            let state = self.peers.get(&peer);
            state.is_some_and(|state| state.asked.contains(&piece))
        };
        let mut relied: BTreeMap<PeerKey, u32> = BTreeMap::new();
        let mut checking = Vec::new();
        for piece in (0..self.count()).map(PieceIndex::new) {
            let state = transfer.piece_state(piece);
            let is_held = state == PieceState::Held;
            assert_eq!(is_held, self.held.contains(piece), "{piece}: {state:?}");
            match state {
                PieceState::Asked { first, second } => {
                    assert_ne!(Some(first), second, "{piece}: {state:?}");
                    for peer in iter::once(first).chain(second) {
                        assert!(is_asked(peer, piece), "{piece}: {state:?}, not so asked");
                        *relied.entry(peer).or_default() += 1;
                    }
                }
                PieceState::Checking { from } => checking.push((from, piece)),
                PieceState::Unwanted
                | PieceState::Missing
                | PieceState::Rechecking
                | PieceState::Held => {}
            }
        }
        for status in status.peers {
            // What others were asked as well is relied on until it is known that the bytes which came are good.
            let as_well = checking
                .iter()
                .filter(|(from, piece)| *from != status.peer && is_asked(status.peer, *piece));
            let least = relied.get(&status.peer).copied().unwrap_or(0);
            let most = least + as_well.count() as u32;
            assert!((least..=most).contains(&status.asked), "{status:?}");
        }
    }
}
