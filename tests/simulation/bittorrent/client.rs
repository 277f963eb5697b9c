//! The machine that the simulator plays: hears inputs, keeps one record for each peer, gives outputs.
//!
//! Joins picker, queues, choker and table; each decides in its own file. What is done about asking and serving is in
//! `asking` and `serving`. Made by `BitTorrent::new` for `run_with`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use shoal::content::{Bitfield, Geometry, PieceIndex};
use shoal::engine::{DownCause, Input, Output, Parting, PeerKey, Random, Time, TransferConfig};
use shoal::sim::Machine;
use shoal::wire::{Run, ShareMessage};

use super::Settings;
use super::choker::Choker;
use super::picker::Picker;
use super::queue::Queue;
use super::table::{PEERS_MAX, Table};
use super::words::Word;

const SECOND: Duration = Duration::from_secs(1);

/// A peer that owes pieces and said nothing for this long is dropped (`peer_timeout`).
const PEER_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) holds: Bitfield,
    /// Pieces it holds and we lack.
    pub(super) useful: u32,
    /// Whether it was told that we are interested.
    pub(super) told: bool,
    pub(super) chokes_us: bool,
    /// Pieces it serves although it chokes us, and those we serve although we choke it.
    pub(super) allowed_us: Vec<u32>,
    pub(super) allowed_it: Vec<u32>,
    pub(super) queue: Queue,
    /// It refused while it did not choke us: it is asked again after the next second.
    pub(super) rests: bool,
    /// Pieces it asked for, and the one that it is being sent.
    pub(super) wanted: VecDeque<u32>,
    pub(super) served: Option<u32>,
    pub(super) heard: Time,
}

impl Peer {
    pub(super) fn may_give(&self) -> bool {
        !self.chokes_us || !self.allowed_us.is_empty()
    }

    pub(super) fn offers(&self, piece: u32) -> bool {
        let is_open = || !self.chokes_us || self.allowed_us.contains(&piece);
        self.holds.contains(PieceIndex::new(piece)) && is_open()
    }
}

/// A BitTorrent client for one share.
#[derive(Debug)]
pub struct BitTorrent {
    pub(super) settings: Settings,
    pub(super) geometry: Geometry,
    pub(super) random: Random,
    pub(super) picker: Picker,
    pub(super) choker: Choker,
    pub(super) table: Table,
    pub(super) peers: BTreeMap<PeerKey, Peer>,
    pub(super) second_at: Time,
    pub(super) outputs: VecDeque<Output>,
}

impl BitTorrent {
    /// A client that begins at `now`.
    pub fn new(settings: Settings, now: Time, config: TransferConfig) -> Self {
        let TransferConfig {
            geometry,
            held,
            mut random,
            ..
        } = config;
        let phase = SECOND.mul_f64(random.random_range(0.0..1.0));
        Self {
            settings,
            picker: Picker::new(&held, &mut random),
            geometry,
            random,
            choker: Choker::default(),
            table: Table::default(),
            peers: BTreeMap::new(),
            second_at: now + phase,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn say(&mut self, peer: PeerKey, message: ShareMessage) {
        self.outputs.push_back(Output::Send { peer, message });
    }

    // -- peers ------------------------------------------------------------------------------------

    fn meet(&mut self, now: Time) {
        if self.picker.is_complete() {
            return;
        }
        for peer in self.table.dials(now) {
            self.outputs.push_back(Output::Connect { peer });
        }
    }

    fn on_peer_up(&mut self, now: Time, peer: PeerKey) {
        if self.table.is_banned(peer) || self.peers.len() >= PEERS_MAX {
            self.table.lost(now, peer);
            let why = Parting::Full;
            self.outputs.push_back(Output::Disconnect { peer, why });
            return;
        }
        self.forget(peer);
        self.table.up(peer);
        self.choker.joins(peer);
        let count = self.geometry.piece_count();
        let known = Peer {
            holds: Bitfield::new(count),
            useful: 0,
            told: false,
            chokes_us: true,
            allowed_us: Vec::new(),
            allowed_it: Vec::new(),
            queue: Queue::default(),
            rests: false,
            wanted: VecDeque::new(),
            served: None,
            heard: now,
        };
        self.peers.insert(peer, known);
        let held = self.picker.held_bits();
        let message = if held.is_full() {
            ShareMessage::HaveAll
        } else if held.none() {
            ShareMessage::HaveNone
        } else {
            ShareMessage::Bitfield {
                first: 0,
                bytes: held.to_bytes(),
            }
        };
        self.say(peer, message);
    }

    /// Drops what is known of a connection; the table keeps the peer.
    fn forget(&mut self, peer: PeerKey) {
        self.choker.leaves(peer);
        let Some(gone) = self.peers.remove(&peer) else {
            return;
        };
        for piece in gone.queue.relied_on() {
            self.picker.release(piece);
        }
        for piece in gone.holds.iter() {
            self.picker.loses_holder(piece.get());
        }
    }

    pub(super) fn part(&mut self, now: Time, peer: PeerKey, why: Parting) {
        self.forget(peer);
        self.table.lost(now, peer);
        self.outputs.push_back(Output::Disconnect { peer, why });
    }

    /// Two that hold everything have nothing to say to each other (`close_redundant_connections`).
    pub(super) fn part_from_seeds(&mut self, now: Time) {
        let is_seed = |(_, peer): &(&PeerKey, &Peer)| peer.holds.is_full();
        let seeds: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(is_seed)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in seeds {
            self.part(now, peer, Parting::Done);
        }
    }

    // -- what peers hold --------------------------------------------------------------------------

    fn on_have(&mut self, now: Time, key: PeerKey, pieces: impl IntoIterator<Item = PieceIndex>) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let mut is_new = false;
        for piece in pieces {
            if peer.holds.insert(piece) {
                let piece = piece.get();
                self.picker.gains_holder(piece);
                peer.useful += u32::from(!self.picker.holds(piece));
                is_new |= self.picker.is_missing(piece);
            }
        }
        if peer.holds.is_full() && self.picker.is_complete() {
            return self.part(now, key, Parting::Done);
        }
        let is_idle = peer.queue.is_empty() && self.picker.all_asked();
        self.tell_interest(key);
        if is_new || is_idle {
            self.fill(now, key);
        }
    }

    pub(super) fn tell_interest(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let interested = peer.useful > 0;
        if std::mem::replace(&mut peer.told, interested) != interested {
            let word = if interested {
                Word::Interested
            } else {
                Word::NotInterested
            };
            self.say(key, word.message());
        }
    }

    // -- what is said and what time brings --------------------------------------------------------

    fn on_message(&mut self, now: Time, key: PeerKey, message: ShareMessage) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.heard = now;
        }
        let count = self.geometry.piece_count();
        let pieces = |runs: Vec<Run>| {
            let pieces = runs
                .into_iter()
                .flat_map(|run| run.first..run.first + run.count);
            pieces.map(PieceIndex::new)
        };
        match message {
            ShareMessage::HaveAll => self.on_have(now, key, (0..count).map(PieceIndex::new)),
            ShareMessage::Have { runs } => self.on_have(now, key, pieces(runs)),
            ShareMessage::Bitfield { bytes, .. } => {
                if let Ok(bits) = Bitfield::from_bytes(count, &bytes) {
                    self.on_have(now, key, bits.iter());
                }
            }
            ShareMessage::Request { runs } => {
                pieces(runs).for_each(|piece| self.on_request(key, piece.get()));
            }
            ShareMessage::Cancel { runs } => {
                pieces(runs).for_each(|piece| self.on_cancel(key, piece));
            }
            ShareMessage::Reject { piece, .. } => self.on_reject(now, key, piece),
            message => match Word::of(&message) {
                Some(Word::Choke) => self.on_choked(now, key, true),
                Some(Word::Unchoke) => self.on_choked(now, key, false),
                Some(Word::Interested) => self.on_interest(now, key, true),
                Some(Word::NotInterested) => self.on_interest(now, key, false),
                Some(Word::AllowedFast(piece)) => {
                    if let Some(peer) = self.peers.get_mut(&key) {
                        peer.allowed_us.push(piece.get());
                    }
                    self.fill(now, key);
                }
                None => {}
            },
        }
    }

    fn on_second(&mut self, now: Time) {
        self.second_at = now + SECOND;
        let mut silent = Vec::new();
        for (key, peer) in &mut self.peers {
            peer.rests = false;
            for piece in peer.queue.on_second(now, peer.chokes_us) {
                self.picker.release(piece);
            }
            if !peer.queue.is_empty() && now.duration_since(peer.heard) > PEER_TIMEOUT {
                silent.push(*key);
            }
        }
        for peer in silent {
            self.part(now, peer, Parting::Silent);
        }
        let piece_len = self.geometry.piece_len();
        let changes = self.choker.on_second(now, piece_len, &mut self.random);
        changes.into_iter().for_each(|change| self.change(change));
        if !self.picker.is_complete() {
            self.fill_all(now);
            if self.table.wants_more() {
                self.outputs.push_back(Output::FindPeers);
            }
        }
    }
}

impl Machine for BitTorrent {
    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => self.meet(now),
            Input::PiecesDoubted { .. } | Input::PiecesFound { .. } | Input::PiecesLost { .. } => {}
            Input::Candidate { peer, .. } => {
                self.table.heard(now, peer);
                self.meet(now);
            }
            Input::ConnectFailed { peer } => self.table.dial_failed(now, peer),
            Input::PeerUp { peer, .. } => self.on_peer_up(now, peer),
            Input::PeerDown { peer, cause } => {
                self.forget(peer);
                match cause {
                    DownCause::Violation => self.table.ban(peer),
                    DownCause::Closed | DownCause::Left => self.table.lost(now, peer),
                }
                self.fill_all(now);
            }
            Input::Message { peer, message } => self.on_message(now, peer, message),
            Input::Received { peer, piece, bytes } => {
                self.choker.on_received(peer, bytes);
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.heard = now;
                    peer.queue.on_bytes(now, piece.get(), bytes);
                }
                self.fill(now, peer);
            }
            Input::PieceArrived { peer, piece } => self.on_arrived(now, peer, piece),
            Input::PieceStored { piece, .. } => self.on_stored(now, piece),
            Input::PieceCorrupt { peer, piece } => self.on_corrupt(now, peer, piece),
            Input::Sent { peer, bytes, .. } => self.choker.on_sent(peer, bytes),
            Input::ServiceEnded {
                peer: key, piece, ..
            } => {
                if let Some(peer) = self.peers.get_mut(&key)
                    && peer.served == Some(piece.get())
                {
                    peer.served = None;
                }
                self.serve(key);
            }
        }
        if now >= self.second_at {
            self.on_second(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self, _now: Time) -> Option<Time> {
        Some(self.second_at)
    }
}
