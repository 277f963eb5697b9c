//! The machine of one share: takes inputs, hands them to its parts, and collects outputs.
//!
//! A dispatcher: what a piece may become is in `pieces`, what a peer owes in `download`, whom to serve
//! in `upload`, whom to dial in `peers`. The contract is in `mod.rs`. Driven by `node` and by `sim`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::download::Download;
use super::peers::Peers;
use super::pieces::{Holdings, PieceState, Pieces};
use super::rate::Rate;
use super::reroute::Reroutes;
use super::status::{PeerActivity, PeerStatus, Status};
use super::upload::{Cancelled, Standing, Upload};
use super::{
    Cause, DownCause, Event, Input, Output, Parting, PeerKey, Random, ServiceEnd, StallCause, Time,
    tuning,
};
use crate::content::{Bitfield, Geometry, PieceIndex};
use crate::wire::{BITFIELD_PART_LEN_MAX, RejectReason, Run, ShareMessage, runs_of};

/// How often slow service and idle peers are looked at while anything is missing.
const BALANCE_EVERY: Duration = Duration::from_millis(250);

/// What a transfer is started with.
#[derive(Debug)]
pub struct TransferConfig {
    /// Pieces of the share.
    pub geometry: Geometry,
    /// Pieces held already.
    pub held: Bitfield,
    /// Pieces the user chose; all if `None`.
    pub wanted: Option<Bitfield>,
    /// Whether pieces are asked in index order instead of rarest first.
    pub sequential: bool,
    /// Source of every random choice.
    pub random: Random,
}

#[derive(Debug)]
struct Peer {
    holdings: Holdings,
    completed_told: bool,
    nonsense: u32,
    download: Download,
}

/// The decisions of one share. See the contract in the module documentation of `engine`.
#[derive(Debug)]
pub struct Transfer {
    geometry: Geometry,
    sequential: bool,
    random: Random,
    pieces: Pieces,
    peers: BTreeMap<PeerKey, Peer>,
    table: Peers,
    upload: Upload,
    reroutes: Reroutes,
    /// Pieces that lost their peer and were not asked again yet.
    urgent: BTreeSet<PieceIndex>,
    /// Peers whose window may have room.
    to_fill: BTreeSet<PeerKey>,
    haves: Vec<PieceIndex>,
    last_have: Time,
    last_byte: Time,
    last_balance: Time,
    stalled: Option<StallCause>,
    search_at: Time,
    search_pause: Duration,
    completed: bool,
    rate: Rate,
    outputs: VecDeque<Output>,
}

impl Transfer {
    /// Starts a transfer at `now`.
    ///
    /// # Panics
    /// When the bitfields of `config` do not have one bit for each piece of its geometry.
    pub fn new(now: Time, config: TransferConfig) -> Self {
        let TransferConfig {
            geometry,
            held,
            wanted,
            sequential,
            mut random,
        } = config;
        assert_eq!(held.len(), geometry.piece_count(), "one bit for each piece");
        assert!(
            wanted.as_ref().is_none_or(|bits| bits.len() == held.len()),
            "one bit for each piece"
        );
        let pieces = Pieces::new(held, wanted.as_ref(), &mut random);
        let completed = pieces.is_complete();
        let upload = Upload::new(geometry.piece_count());
        Self {
            geometry,
            sequential,
            random,
            pieces,
            peers: BTreeMap::new(),
            table: Peers::default(),
            upload,
            reroutes: Reroutes::default(),
            urgent: BTreeSet::new(),
            to_fill: BTreeSet::new(),
            haves: Vec::new(),
            last_have: now,
            last_byte: now,
            last_balance: now,
            stalled: None,
            search_at: now,
            search_pause: tuning::SEARCH_MIN,
            completed,
            rate: Rate::default(),
            outputs: VecDeque::new(),
        }
    }

    // -- the contract -----------------------------------------------------------------------------

    /// Takes what happened. Outputs are to be drained before the next input.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {}
            Input::Candidate { peer, source } => self.table.heard(peer, source),
            Input::ConnectFailed { peer } => self.table.lost(now, peer),
            Input::PeerUp { peer } => self.on_peer_up(now, peer),
            Input::PeerDown { peer, cause } => self.on_peer_down(now, peer, cause),
            Input::Message { peer, message } => self.on_message(now, peer, message),
            Input::Received { peer, piece, bytes } => self.on_received(now, peer, piece, bytes),
            Input::PieceArrived { peer, piece } => self.on_piece_arrived(now, peer, piece),
            Input::PieceStored { peer, piece } => self.on_piece_stored(now, peer, piece),
            Input::PieceCorrupt { peer, piece } => self.on_piece_corrupt(now, peer, piece),
            Input::PieceLost { piece } => self.on_piece_lost(piece),
            Input::Sent {
                peer,
                piece: _,
                bytes,
            } => self.upload.on_sent(now, peer, bytes),
            Input::ServiceEnded { peer, piece, how } => self.on_service_ended(peer, piece, how),
        }
        self.on_time(now);
        self.ask_urgent(now);
        self.fill(now);
        self.serve(now);
        self.dial(now);
        for event in self.reroutes.report(now) {
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// The next thing to do, in order; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due; `None` while only inputs can change anything.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let downloads = self.peers.values().map(|peer| &peer.download);
        let silence = downloads
            .clone()
            .filter_map(Download::silence_deadline)
            .min();
        let parting = downloads.filter_map(Download::parting_deadline).min();
        let have = (!self.haves.is_empty()).then(|| self.last_have + tuning::HAVE_COALESCE);
        let incomplete = !self.pieces.is_complete();
        let balance =
            (incomplete && !self.peers.is_empty()).then(|| self.last_balance + BALANCE_EVERY);
        let stall =
            (incomplete && self.stalled.is_none()).then(|| self.last_byte + tuning::STALL_AFTER);
        let search = self.wants_peers().then_some(self.search_at);
        let dial = if incomplete {
            self.table.deadline()
        } else {
            None
        };
        let upload = self.upload.deadline(now);
        let reroute = self.reroutes.deadline();
        [
            silence, parting, have, balance, stall, search, dial, upload, reroute,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // -- what surfaces and drivers ask ------------------------------------------------------------

    /// Pieces held.
    pub fn held(&self) -> &Bitfield {
        self.pieces.held()
    }

    /// Where `piece` stands.
    pub fn piece_state(&self, piece: PieceIndex) -> PieceState {
        self.pieces.state(piece)
    }

    /// Whether every wanted piece is held.
    pub fn is_complete(&self) -> bool {
        self.pieces.is_complete()
    }

    /// A picture of the transfer at `now`.
    pub fn status(&self, now: Time) -> Status {
        let count = self.pieces.count();
        let peer_status = |(key, peer): (&PeerKey, &Peer)| PeerStatus {
            peer: *key,
            holds: peer.holdings.count(count),
            activity: match (peer.download.is_suspect(), peer.download.relied_count()) {
                (true, _) => PeerActivity::Suspect,
                (false, 0) => PeerActivity::Idle,
                (false, _) => PeerActivity::Asked,
            },
            asked: peer.download.relied_count(),
            waiting: self.upload.waiting_of(*key),
            down_per_sec: peer.download.rate().bytes_per_sec(now),
            up_per_sec: self
                .upload
                .rate_of(*key)
                .map_or(0, |rate| rate.bytes_per_sec(now)),
            received: peer.download.rate().total(),
            sent: self.upload.rate_of(*key).map_or(0, Rate::total),
        };
        Status {
            held: self.pieces.held().count(),
            pieces: count,
            complete: self.pieces.is_complete(),
            pulled: self.upload.is_pulled(),
            without_holder: self.pieces.without_holder(),
            copies: self.pieces.copies(),
            down_per_sec: self.rate.bytes_per_sec(now),
            up_per_sec: self.upload.rate().bytes_per_sec(now),
            sent: self.upload.rate().total(),
            peers: self.peers.iter().map(peer_status).collect(),
        }
    }

    // -- peers ------------------------------------------------------------------------------------

    fn on_peer_up(&mut self, now: Time, peer: PeerKey) {
        if self.table.is_banned(peer) {
            self.outputs.push_back(Output::Disconnect {
                peer,
                why: Parting::Corrupt,
            });
            return;
        }
        if self.peers.len() >= tuning::PEERS_MAX && !self.peers.contains_key(&peer) {
            self.outputs.push_back(Output::Disconnect {
                peer,
                why: Parting::Full,
            });
            return;
        }
        if self.peers.contains_key(&peer) {
            self.drop_peer(now, peer, Cause::Closed);
        }
        self.table.up(peer);
        self.upload.peer_joins(now, peer);
        let holdings = Holdings::Some(Bitfield::new(self.pieces.count()));
        let download = Download::new(now, self.geometry.piece_len());
        self.peers.insert(
            peer,
            Peer {
                holdings,
                completed_told: false,
                nonsense: 0,
                download,
            },
        );
        self.send_holdings(peer);
    }

    fn send_holdings(&mut self, peer: PeerKey) {
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

    fn on_peer_down(&mut self, now: Time, peer: PeerKey, cause: DownCause) {
        self.drop_peer(now, peer, Cause::Closed);
        match cause {
            DownCause::Violation => self.table.ban(peer),
            DownCause::Closed | DownCause::Left => self.table.lost(now, peer),
        }
        self.search_pause = tuning::SEARCH_MIN;
        self.search_at = self.search_at.min(now + tuning::SEARCH_MIN);
    }

    /// Forgets a peer and frees what was asked of it.
    fn drop_peer(&mut self, now: Time, peer: PeerKey, cause: Cause) {
        self.free_requests(now, peer, cause);
        self.upload.peer_leaves(peer);
        self.to_fill.remove(&peer);
        if let Some(gone) = self.peers.remove(&peer) {
            self.pieces.peer_leaves(&gone.holdings);
        }
    }

    fn part(&mut self, now: Time, peer: PeerKey, why: Parting) {
        let cause = match why {
            Parting::Silent => Cause::Silent,
            Parting::Corrupt => Cause::Corrupt,
            Parting::Violation | Parting::Done | Parting::Full => Cause::Closed,
        };
        self.drop_peer(now, peer, cause);
        match why {
            Parting::Corrupt | Parting::Violation => self.table.ban(peer),
            Parting::Silent | Parting::Done | Parting::Full => self.table.lost(now, peer),
        }
        self.outputs.push_back(Output::Disconnect { peer, why });
    }

    /// Everything asked of `peer` is to be asked elsewhere.
    fn free_requests(&mut self, now: Time, peer: PeerKey, cause: Cause) {
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

    fn wants_peers(&self) -> bool {
        !self.pieces.is_complete() && self.table.up_count() < tuning::PEERS_TARGET
    }

    fn dial(&mut self, now: Time) {
        if !self.wants_peers() {
            return;
        }
        while let Some(peer) = self.table.next_dial(now) {
            self.outputs.push_back(Output::Connect { peer });
        }
        if now >= self.search_at {
            self.outputs.push_back(Output::FindPeers);
            self.search_at = now + self.search_pause;
            self.search_pause = (self.search_pause * 2).min(tuning::SEARCH_MAX);
        }
    }

    // -- messages ---------------------------------------------------------------------------------

    fn on_message(&mut self, now: Time, peer: PeerKey, message: ShareMessage) {
        if !self.on_life(now, peer) {
            return;
        }
        match message {
            ShareMessage::HaveAll => self.on_have_all(peer),
            ShareMessage::HaveNone => {}
            ShareMessage::Queued => self.with_download(peer, Download::on_queued),
            ShareMessage::Serving { .. } => self.with_download(peer, Download::on_serving),
            ShareMessage::Bitfield { first, bytes } => self.on_bitfield(now, peer, first, &bytes),
            ShareMessage::Have { runs } => self.for_each_piece(now, peer, &runs, Self::on_have),
            ShareMessage::DontHave { runs } => {
                self.for_each_piece(now, peer, &runs, Self::on_dont_have)
            }
            ShareMessage::Request { runs } => {
                self.for_each_piece(now, peer, &runs, Self::on_request)
            }
            ShareMessage::Cancel { runs } => self.for_each_piece(now, peer, &runs, Self::on_cancel),
            ShareMessage::Suggest { piece } => {
                let piece = self.geometry.piece(piece);
                match (piece, self.peers.get_mut(&peer)) {
                    (Some(piece), Some(state)) => state.download.suggest(piece),
                    _ => self.on_nonsense(now, peer),
                }
            }
            ShareMessage::Reject { piece, reason } => match self.geometry.piece(piece) {
                Some(piece) => self.on_reject(now, peer, piece, reason),
                None => self.on_nonsense(now, peer),
            },
            // Answered by the driver before they come here; harmless if they do.
            ShareMessage::Ready
            | ShareMessage::GetManifest
            | ShareMessage::GetHashes { .. }
            | ShareMessage::Peers { .. } => {}
        }
        self.check_completed_peer(now, peer);
    }

    /// Runs `act` for every piece named; a run that leaves the share ends the session.
    fn for_each_piece(
        &mut self,
        now: Time,
        peer: PeerKey,
        runs: &[Run],
        act: fn(&mut Self, Time, PeerKey, PieceIndex),
    ) {
        let count = self.pieces.count();
        let fits = |run: &Run| {
            run.count > 0
                && run
                    .first
                    .checked_add(run.count)
                    .is_some_and(|end| end <= count)
        };
        if !runs.iter().all(fits) {
            self.part(now, peer, Parting::Violation);
            return;
        }
        for piece in runs
            .iter()
            .flat_map(|run| run.first..run.first + run.count)
            .map(PieceIndex::new)
        {
            act(self, now, peer, piece);
        }
    }

    fn on_nonsense(&mut self, now: Time, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        state.nonsense += 1;
        if state.nonsense > tuning::NONSENSE_MAX {
            self.part(now, peer, Parting::Violation);
        }
    }

    fn with_download(&mut self, peer: PeerKey, act: fn(&mut Download)) {
        if let Some(state) = self.peers.get_mut(&peer) {
            act(&mut state.download);
        }
    }

    /// Counts a sign of life; false when the peer is none of ours (any more).
    fn on_life(&mut self, now: Time, peer: PeerKey) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        if state.download.on_life(now) {
            self.to_fill.insert(peer);
        }
        true
    }

    fn on_have_all(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let before = std::mem::replace(&mut state.holdings, Holdings::All);
        self.pieces.peer_leaves(&before);
        self.pieces.peer_joins(&Holdings::All);
        self.to_fill.insert(peer);
    }

    fn on_bitfield(&mut self, now: Time, peer: PeerKey, first: u32, bytes: &[u8]) {
        let count = self.pieces.count();
        let bits = (bytes.len() as u64) * 8;
        let spare = (u64::from(first) + bits).saturating_sub(u64::from(count));
        if first % 8 != 0 || first >= count || bytes.is_empty() || spare >= 8 {
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

    fn on_have(&mut self, _now: Time, peer: PeerKey, piece: PieceIndex) {
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

    fn on_dont_have(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
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

    /// One request will not be answered: the piece is asked elsewhere.
    fn give_up_request(&mut self, now: Time, peer: PeerKey, piece: PieceIndex, cause: Cause) {
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

    fn on_reject(&mut self, now: Time, peer: PeerKey, piece: PieceIndex, reason: RejectReason) {
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

    /// Tells of a peer that holds everything, and parts from it when both do.
    fn check_completed_peer(&mut self, now: Time, peer: PeerKey) {
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

    // -- downloading ------------------------------------------------------------------------------

    fn on_received(&mut self, now: Time, peer: PeerKey, piece: PieceIndex, bytes: u32) {
        if !self.on_life(now, peer) {
            return;
        }
        self.rate.add(now, u64::from(bytes));
        if let Some(state) = self.peers.get_mut(&peer) {
            state.download.on_bytes(now, piece, bytes);
        }
        if self.pieces.is_open(piece) {
            self.last_byte = now;
            self.stalled = None;
        }
    }

    fn on_piece_arrived(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.download.on_arrived(now, piece);
            self.to_fill.insert(peer);
        }
        if self.pieces.arrived(piece, peer) {
            self.urgent.remove(&piece);
            self.reroutes.settled(piece);
        }
    }

    fn on_piece_stored(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        self.table.proved(peer);
        self.urgent.remove(&piece);
        self.reroutes.settled(piece);
        if !self.pieces.stored(piece) {
            return;
        }
        self.last_byte = now;
        self.stalled = None;
        let others: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, state)| state.download.has_asked(piece))
            .map(|(key, _)| *key)
            .collect();
        for other in others {
            if let Some(state) = self.peers.get_mut(&other) {
                state.download.unrely(piece);
                self.to_fill.insert(other);
            }
            self.send(
                other,
                ShareMessage::Cancel {
                    runs: vec![Run::one(piece)],
                },
            );
        }
        self.haves.push(piece);
        if self.pieces.is_complete() && !self.completed {
            self.completed = true;
            self.flush_haves(now);
            self.outputs.push_back(Output::Event(Event::Completed));
        }
    }

    fn on_piece_corrupt(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        if self.pieces.corrupt(piece, peer) {
            self.urgent.insert(piece);
            self.reroutes
                .begin(now, peer, Cause::Corrupt, BTreeSet::from([piece]));
        }
        if self.peers.contains_key(&peer) {
            self.part(now, peer, Parting::Corrupt);
        } else {
            self.table.ban(peer);
        }
    }

    fn flush_haves(&mut self, now: Time) {
        if self.haves.is_empty() {
            return;
        }
        self.last_have = now;
        let mut haves = std::mem::take(&mut self.haves);
        haves.sort_unstable();
        let runs = runs_of(haves);
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in &peers {
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

    /// Asks `peer` for pieces and says so.
    fn ask(&mut self, now: Time, peer: PeerKey, pieces: Vec<PieceIndex>) {
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

    /// Records a request; false when the piece cannot be asked of this peer.
    fn note_ask(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) -> bool {
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

    /// Pieces that lost their peer go, beyond any window, to whoever will have them soonest.
    fn ask_urgent(&mut self, now: Time) {
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
            let best =
                able.min_by_key(|(key, state)| (state.download.time_for_new(now, len), **key));
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
    fn fill(&mut self, now: Time) {
        for peer in std::mem::take(&mut self.to_fill) {
            let mut asked = Vec::new();
            while let Some(piece) = self.pick(peer) {
                if !self.note_ask(now, peer, piece) {
                    break;
                }
                asked.push(piece);
            }
            self.ask(now, peer, asked);
            self.take_over(now, peer);
        }
    }

    /// The next piece to ask of `peer`, if it has room and one is missing.
    fn pick(&mut self, peer: PeerKey) -> Option<PieceIndex> {
        let state = self.peers.get_mut(&peer)?;
        if state.download.is_suspect() || !state.download.has_room(self.geometry.piece_len()) {
            return None;
        }
        if self.sequential {
            return self.pieces.pick_in_order(&state.holdings, 0);
        }
        while let Some(piece) = state.download.take_suggestion() {
            if self.pieces.state(piece) == PieceState::Missing && state.holdings.contains(piece) {
                return Some(piece);
            }
        }
        if self.pieces.held().count() < tuning::RANDOM_FIRST_PIECES {
            return self.pieces.pick_random(&state.holdings, &mut self.random);
        }
        self.pieces.pick_rarest(&state.holdings, &mut self.random)
    }

    /// An idle peer takes over what would come much later elsewhere: a request still waiting is moved,
    /// a piece in service is asked a second time.
    fn take_over(&mut self, now: Time, peer: PeerKey) {
        loop {
            let Some(state) = self.peers.get(&peer) else {
                return;
            };
            if state.download.is_suspect() || !state.download.is_idle() {
                return;
            }
            let Some((other, piece, in_service)) = self.latest_elsewhere(now, peer, state) else {
                return;
            };
            if !in_service {
                if let Some(from) = self.peers.get_mut(&other) {
                    from.download.unrely(piece);
                }
                self.pieces.unask(piece, other);
                self.send(
                    other,
                    ShareMessage::Cancel {
                        runs: vec![Run::one(piece)],
                    },
                );
            } else if !matches!(
                self.pieces.state(piece),
                PieceState::Asked { second: None, .. }
            ) {
                return;
            } else {
                self.reroutes
                    .begin(now, other, Cause::Slow, BTreeSet::from([piece]));
            }
            if !self.note_ask(now, peer, piece) {
                return;
            }
            self.ask(now, peer, vec![piece]);
        }
    }

    /// The piece asked of another peer that would gain most by being asked of `peer`, which must be
    /// [`tuning::STEAL_FACTOR`] times as soon; with whether its bytes have begun to arrive.
    fn latest_elsewhere(
        &self,
        now: Time,
        peer: PeerKey,
        state: &Peer,
    ) -> Option<(PeerKey, PieceIndex, bool)> {
        let mut best: Option<(Duration, PeerKey, PieceIndex, bool)> = None;
        for (other, from) in self.peers.iter().filter(|(other, _)| **other != peer) {
            for (piece, asked) in from.download.relied() {
                let once = matches!(
                    self.pieces.state(piece),
                    PieceState::Asked { second: None, .. }
                );
                let in_service = asked.received > 0;
                let movable = in_service || from.download.surely_waits(piece);
                if !once
                    || !movable
                    || state.download.has_asked(piece)
                    || !state.holdings.contains(piece)
                {
                    continue;
                }
                let there = from.download.time_for_asked(now, piece);
                let here = state.download.time_for_new(now, asked.len);
                let gain = there.saturating_sub(here);
                let worth =
                    there >= here * tuning::STEAL_FACTOR as u32 && gain >= tuning::STEAL_GAIN_MIN;
                if worth && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, *other, piece, in_service));
                }
            }
        }
        best.map(|(_, other, piece, in_service)| (other, piece, in_service))
    }

    // -- uploading --------------------------------------------------------------------------------

    fn on_request(&mut self, now: Time, peer: PeerKey, piece: PieceIndex) {
        let reason = if !self.pieces.held().contains(piece) {
            RejectReason::NotHeld
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

    fn on_cancel(&mut self, _now: Time, peer: PeerKey, piece: PieceIndex) {
        if self.upload.cancel(peer, piece) == Cancelled::InService {
            self.outputs.push_back(Output::StopServing { peer, piece });
        }
    }

    fn on_service_ended(&mut self, peer: PeerKey, piece: PieceIndex, how: ServiceEnd) {
        self.upload
            .on_ended(peer, piece, self.geometry.len_of(piece));
        if how == ServiceEnd::Unreadable && self.peers.contains_key(&peer) {
            self.send(
                peer,
                ShareMessage::Reject {
                    piece: piece.get(),
                    reason: RejectReason::Unreadable,
                },
            );
        }
    }

    fn on_piece_lost(&mut self, piece: PieceIndex) {
        if !self.pieces.lost(piece) {
            return;
        }
        self.completed = false;
        for peer in self.upload.withdraw(piece) {
            self.send(
                peer,
                ShareMessage::Reject {
                    piece: piece.get(),
                    reason: RejectReason::Unreadable,
                },
            );
        }
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            self.send(
                peer,
                ShareMessage::DontHave {
                    runs: vec![Run::one(piece)],
                },
            );
            self.to_fill.insert(peer);
        }
    }

    fn serve(&mut self, now: Time) {
        let seed = self.pieces.is_complete();
        let (geometry, peers, pieces) = (&self.geometry, &self.peers, &self.pieces);
        let standing = |peer: PeerKey| {
            peers
                .get(&peer)
                .map_or(Standing { gave: 0, holds: 0 }, |state| Standing {
                    gave: state.download.rate().total(),
                    holds: state.holdings.count(pieces.count()),
                })
        };
        while let Some((peer, piece)) =
            self.upload
                .next(now, seed, |piece| geometry.len_of(piece), standing)
        {
            self.outputs.push_back(Output::Serve { peer, piece });
        }
        for (peer, piece) in self.upload.heartbeats(now) {
            let message = match piece {
                Some(piece) => ShareMessage::Serving { piece: piece.get() },
                None => ShareMessage::Queued,
            };
            self.send(peer, message);
        }
    }

    // -- time -------------------------------------------------------------------------------------

    fn on_time(&mut self, now: Time) {
        if !self.haves.is_empty() && now >= self.last_have + tuning::HAVE_COALESCE {
            self.flush_haves(now);
        }
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        let silent: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, state)| due(state.download.silence_deadline()))
            .map(|(key, _)| *key)
            .collect();
        for peer in silent {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.download.become_suspect(now);
            }
            self.free_requests(now, peer, Cause::Silent);
        }
        let gone: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, state)| due(state.download.parting_deadline()))
            .map(|(key, _)| *key)
            .collect();
        for peer in gone {
            self.part(now, peer, Parting::Silent);
        }
        if self.pieces.is_complete() {
            return;
        }
        if now >= self.last_balance + BALANCE_EVERY {
            self.last_balance = now;
            self.to_fill.extend(self.peers.keys());
        }
        if now >= self.last_byte + tuning::STALL_AFTER {
            self.check_stall();
        }
    }

    fn check_stall(&mut self) {
        let missing = self.pieces.without_holder();
        let cause = if self.peers.is_empty() {
            if self.table.knows_somebody() {
                StallCause::Unreachable
            } else {
                StallCause::NoPeers
            }
        } else {
            StallCause::NoHolder
        };
        if self.stalled != Some(cause) {
            self.stalled = Some(cause);
            self.outputs
                .push_back(Output::Event(Event::Stalled { cause, missing }));
        }
    }

    fn send(&mut self, peer: PeerKey, message: ShareMessage) {
        self.outputs.push_back(Output::Send { peer, message });
    }
}
