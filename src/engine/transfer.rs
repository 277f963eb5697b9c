//! The machine of one share: takes inputs, hands them to its parts, and collects outputs.
//!
//! A dispatcher: what a piece may become is in `pieces`, what a peer owes in `download`, whom to serve
//! in `upload`, whom to dial in `peers`. The contract is in `mod.rs`. Driven by `node` and by `sim`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::download::Download;
use super::offers::Offers;
use super::peers::Peers;
use super::pieces::{Holdings, PieceState, Pieces};
use super::rate::Rate;
use super::reroute::Reroutes;
use super::upload::Upload;
use super::{
    Cause, DownCause, Event, Input, Output, Parting, PeerKey, Random, StallCause, Time, tuning,
};
use crate::content::{Bitfield, Geometry, PieceIndex};
use crate::wire::ShareMessage;

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
    /// Pieces not held that lie here and are being read again: see [`Input::PiecesFound`]. None of them if `None`.
    pub rechecking: Option<Bitfield>,
    /// Whether pieces are asked in index order instead of rarest first.
    pub sequential: bool,
    /// Source of every random choice.
    pub random: Random,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) holdings: Holdings,
    pub(super) completed_told: bool,
    pub(super) nonsense: u32,
    /// Pieces it announced and then refused as not held.
    pub(super) unkept_claims: u32,
    /// Pieces it named in announcements, each as often as it did.
    pub(super) announced: u64,
    /// When we met it.
    pub(super) since: Time,
    pub(super) download: Download,
}

/// Whether nothing has arrived for so long that it was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Bytes arrive, or it is too early to tell.
    No,
    /// It was looked into, with this result.
    Checked(Option<StallCause>),
}

/// The decisions of one share. See the contract in the module documentation of `engine`.
#[derive(Debug)]
pub struct Transfer {
    pub(super) geometry: Geometry,
    pub(super) sequential: bool,
    pub(super) random: Random,
    pub(super) pieces: Pieces,
    pub(super) peers: BTreeMap<PeerKey, Peer>,
    pub(super) table: Peers,
    pub(super) upload: Upload,
    pub(super) offers: Offers,
    pub(super) reroutes: Reroutes,
    /// Pieces that lost their peer and were not asked again yet.
    pub(super) urgent: BTreeSet<PieceIndex>,
    /// Peers whose window may have room.
    pub(super) to_fill: BTreeSet<PeerKey>,
    pub(super) haves: Vec<PieceIndex>,
    pub(super) last_have: Time,
    pub(super) last_byte: Time,
    pub(super) last_balance: Time,
    pub(super) quiet: Quiet,
    pub(super) search_at: Time,
    pub(super) turnover_at: Time,
    pub(super) search_pause: Duration,
    pub(super) completed: bool,
    pub(super) rate: Rate,
    /// When time alone changes something again, at the earliest.
    wake_at: Option<Time>,
    /// Something changed that time, serving or dialling depend on.
    pub(super) stale: bool,
    pub(super) outputs: VecDeque<Output>,
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
            rechecking,
            sequential,
            mut random,
        } = config;
        assert_eq!(held.len(), geometry.piece_count(), "one bit for each piece");
        assert!(
            [&wanted, &rechecking]
                .into_iter()
                .flatten()
                .all(|bits| bits.len() == held.len()),
            "one bit for each piece"
        );
        let pieces = Pieces::new(held, wanted.as_ref(), rechecking.as_ref(), &mut random);
        let completed = pieces.is_complete();
        let upload = Upload::new(geometry.piece_count(), &mut random);
        let mut transfer = Self {
            geometry,
            sequential,
            random,
            pieces,
            peers: BTreeMap::new(),
            table: Peers::default(),
            upload,
            offers: Offers::default(),
            reroutes: Reroutes::default(),
            urgent: BTreeSet::new(),
            to_fill: BTreeSet::new(),
            haves: Vec::new(),
            last_have: now,
            last_byte: now,
            last_balance: now,
            quiet: Quiet::No,
            search_at: now,
            turnover_at: now + tuning::TURNOVER_EVERY,
            search_pause: tuning::SEARCH_MIN,
            completed,
            rate: Rate::default(),
            wake_at: None,
            stale: true,
            outputs: VecDeque::new(),
        };
        transfer.wake_at = transfer.next_deadline(now);
        transfer
    }

    // -- the contract -----------------------------------------------------------------------------

    /// Takes what happened. Outputs are to be drained before the next input.
    pub fn handle(&mut self, now: Time, input: Input) {
        if self.wake_at.is_some_and(|at| at + tuning::OVERSLEPT <= now) {
            for state in self.peers.values_mut() {
                state.download.forgive(now);
            }
        }
        // Bytes only postpone deadlines: what else they change, their handlers mark.
        self.stale |= !matches!(
            input,
            Input::Received { .. } | Input::Sent { .. } | Input::Message { .. }
        );
        match input {
            Input::Tick => {}
            Input::Candidate { peer, source, near } => self.table.heard(peer, source, near),
            Input::ConnectFailed { peer } => self.table.dial_failed(now, peer),
            Input::PeerUp { peer, near } => self.on_peer_up(now, peer, near),
            Input::PeerDown { peer, cause } => self.on_peer_down(now, peer, cause),
            Input::Message { peer, message } => self.on_message(now, peer, message),
            Input::Received { peer, piece, bytes } => self.on_received(now, peer, piece, bytes),
            Input::PieceArrived { peer, piece } => self.on_piece_arrived(now, peer, piece),
            Input::PieceStored { peer, piece } => self.on_piece_stored(now, peer, piece),
            Input::PieceCorrupt { peer, piece } => self.on_piece_corrupt(now, peer, piece),
            Input::PiecesDoubted { first, count } => self.on_pieces_doubted(first, count),
            Input::PiecesFound { first, count } => self.on_pieces_found(now, first, count),
            Input::PiecesLost { first, count } => self.on_pieces_lost(first, count),
            Input::Sent {
                peer,
                piece: _,
                bytes,
            } => self.upload.on_sent(now, peer, bytes),
            Input::ServiceEnded { peer, piece, how } => {
                self.on_service_ended(now, peer, piece, how)
            }
        }
        let is_due = self.wake_at.is_some_and(|at| at <= now);
        if !is_due && !self.stale {
            self.fill_only(now);
            return;
        }
        self.stale = false;
        if !self.haves.is_empty() && now >= self.last_have + tuning::HAVE_COALESCE {
            self.flush_haves(now);
        }
        if is_due {
            self.on_time(now);
        }
        self.ask_urgent(now);
        self.fill(now);
        self.refuse_lapsed(now);
        self.serve(now);
        self.offer(now);
        self.dial(now);
        self.report_reroutes(now);
        self.wake_at = self.next_deadline(now);
    }

    /// What most inputs come to: a peer holds one piece more, and nothing but requests can follow. They
    /// bring deadlines forward, never back, so nothing else has to be looked at.
    fn fill_only(&mut self, now: Time) {
        if self.to_fill.is_empty() {
            return;
        }
        let touched: Vec<PeerKey> = self.to_fill.iter().copied().collect();
        self.ask_urgent(now);
        self.fill(now);
        self.report_reroutes(now);
        let touched = || touched.iter().filter_map(|peer| self.peers.get(peer));
        let judgement = touched().filter_map(|peer| peer.download.deadline()).min();
        let reminder = touched().filter_map(|peer| peer.download.reminder()).min();
        let sooner = [self.wake_at, judgement, reminder, self.reroutes.deadline()];
        self.wake_at = sooner.into_iter().flatten().min();
    }

    fn report_reroutes(&mut self, now: Time) {
        for event in self.reroutes.report(now) {
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// The next thing to do, in order; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due; `None` while only inputs can change anything.
    pub fn poll_timeout(&self, _now: Time) -> Option<Time> {
        self.wake_at
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        let downloads = || self.peers.values().map(|peer| &peer.download);
        let judgement = downloads().filter_map(Download::deadline).min();
        let reminder = downloads().filter_map(Download::reminder).min();
        let have = (!self.haves.is_empty()).then(|| self.last_have + tuning::HAVE_COALESCE);
        let incomplete = !self.pieces.wants_nothing();
        let balance =
            (incomplete && !self.peers.is_empty()).then(|| self.last_balance + BALANCE_EVERY);
        let stall =
            (incomplete && self.quiet == Quiet::No).then(|| self.last_byte + tuning::STALL_AFTER);
        let search = self.wants_peers().then_some(self.search_at);
        let dial = if incomplete {
            self.table.deadline()
        } else {
            None
        };
        let turnover = self.turnover_deadline();
        let upload = self.upload.deadline(now);
        let is_idle = incomplete && self.upload.idle_places(now) > 0;
        let offer = if is_idle {
            self.offers.deadline()
        } else {
            None
        };
        let early = self.offers.early_deadline();
        let reroute = self.reroutes.deadline();
        [
            judgement, reminder, have, balance, stall, search, dial, turnover, upload, offer,
            reroute, early,
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

    /// Whether nothing is to be had from others: every wanted piece is held, or lies here and is being read again.
    pub fn wants_nothing(&self) -> bool {
        self.pieces.wants_nothing()
    }

    /// Whether every wanted piece is held.
    pub fn is_complete(&self) -> bool {
        self.pieces.is_complete()
    }

    // -- peers ------------------------------------------------------------------------------------

    fn on_peer_up(&mut self, now: Time, peer: PeerKey, near: bool) {
        if self.table.is_banned(peer) {
            self.outputs.push_back(Output::Disconnect {
                peer,
                why: Parting::Corrupt,
            });
            return;
        }
        if !self.peers.contains_key(&peer) && !self.make_room(now) {
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
        if near {
            self.table.found_near(peer);
        }
        self.upload.peer_joins(now, peer);
        let holdings = Holdings::Some(Bitfield::new(self.pieces.count()));
        let download = Download::new(now, self.geometry.piece_len());
        self.peers.insert(
            peer,
            Peer {
                holdings,
                completed_told: false,
                nonsense: 0,
                unkept_claims: 0,
                announced: 0,
                since: now,
                download,
            },
        );
        self.send_holdings(peer);
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
    pub(super) fn drop_peer(&mut self, now: Time, peer: PeerKey, cause: Cause) {
        self.stale = true;
        self.free_requests(now, peer, cause);
        self.upload.peer_leaves(peer);
        self.offers.peer_leaves(peer);
        self.to_fill.remove(&peer);
        if let Some(gone) = self.peers.remove(&peer) {
            self.pieces.peer_leaves(&gone.holdings);
        }
    }

    pub(super) fn part(&mut self, now: Time, peer: PeerKey, why: Parting) {
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

    fn wants_peers(&self) -> bool {
        !self.pieces.wants_nothing() && self.table.up_count() < tuning::PEERS_TARGET
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

    // -- time -------------------------------------------------------------------------------------

    fn on_time(&mut self, now: Time) {
        let is_due =
            |(_, state): &(&PeerKey, &Peer)| state.download.deadline().is_some_and(|at| at <= now);
        let due: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(is_due)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            let Some(state) = self.peers.get_mut(&peer) else {
                continue;
            };
            if state.download.is_suspect() {
                self.part(now, peer, Parting::Silent);
            } else {
                state.download.become_suspect(now);
                self.free_requests(now, peer, Cause::Silent);
            }
        }
        self.remind(now);
        if self.pieces.wants_nothing() {
            return;
        }
        self.turn_over(now);
        if now >= self.last_balance + BALANCE_EVERY {
            let span = now.duration_since(self.last_balance).min(2 * BALANCE_EVERY);
            self.last_balance = now;
            for state in self.peers.values_mut() {
                state.download.on_span(now, span);
            }
            self.to_fill.extend(self.peers.keys());
        }
        if now >= self.last_byte + tuning::STALL_AFTER {
            self.check_stall();
        }
    }

    /// Whom we asked hears from us at least this often, as we do from it: so it can tell a peer that waits
    /// from one that is gone, and keeps its uplink for the living.
    fn remind(&mut self, now: Time) {
        let is_due =
            |(_, state): &(&PeerKey, &Peer)| state.download.reminder().is_some_and(|at| at <= now);
        let due = self.peers.iter().filter(is_due);
        let due: Vec<PeerKey> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            self.with_download(peer, |download| download.on_told(now));
            self.send(peer, ShareMessage::Have { runs: Vec::new() });
        }
    }

    /// Tells why nothing arrives, once for each cause. Connected holders that only let us wait are no
    /// stall.
    fn check_stall(&mut self) {
        let missing = self.pieces.without_holder();
        let cause = match (self.peers.is_empty(), missing) {
            (true, _) if self.table.knows_somebody() => Some(StallCause::Unreachable),
            (true, _) => Some(StallCause::NoPeers),
            (false, 0) => None,
            (false, _) => Some(StallCause::NoHolder),
        };
        let before = std::mem::replace(&mut self.quiet, Quiet::Checked(cause));
        if let Some(cause) = cause
            && before != Quiet::Checked(Some(cause))
        {
            self.outputs
                .push_back(Output::Event(Event::Stalled { cause, missing }));
        }
    }

    pub(super) fn send(&mut self, peer: PeerKey, message: ShareMessage) {
        self.outputs.push_back(Output::Send { peer, message });
    }
}
