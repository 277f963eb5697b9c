//! The rules a run is held to, each checked apart from the code that should keep them.
//!
//! Sees what the engines say and what the simulated network does, never an engine's inside. Called by
//! `swarm` at every output and at the end.

use std::collections::BTreeMap;

use super::scenario::{NodePlan, Scenario};
use crate::content::{Bitfield, PieceIndex};
use crate::engine::Time;
use crate::engine::tuning::{ASKED_MAX, REQUESTS_MAX, SILENCE_MIN};
use crate::wire::ShareMessage;

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A node served a piece whose bytes it does not hold verified.
    ServedUnheld {
        /// Who.
        node: usize,
        /// What.
        piece: u32,
    },
    /// A node announced a piece that it does not hold.
    AnnouncedUnheld {
        /// Who.
        node: usize,
        /// What.
        piece: u32,
    },
    /// A node asked for a piece that it holds.
    AskedHeld {
        /// Who.
        node: usize,
        /// What.
        piece: u32,
    },
    /// A node asked a peer for a piece that the peer never announced.
    AskedUnannounced {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
        /// What.
        piece: u32,
    },
    /// A node asked for a piece while more peers than allowed were asked for it already.
    AskedOfTooMany {
        /// Who.
        node: usize,
        /// What.
        piece: u32,
    },
    /// A node asked a peer for more pieces at once than allowed.
    AskedTooMuch {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
    },
    /// More than one bad piece was taken from the same liar.
    TrustedLiarTwice {
        /// Who.
        node: usize,
        /// Whom.
        liar: usize,
    },
    /// A sound node did not finish although a sound seed was there all the time.
    Unfinished {
        /// Who.
        node: usize,
    },
    /// The swarm went on and on without coming to an end.
    Restless {
        /// Events played before giving up.
        events: u64,
    },
}

/// What each node holds and has announced, kept apart from the engines.
#[derive(Debug)]
pub(super) struct Checker {
    held: Vec<Bitfield>,
    /// What a node told another, by (teller, listener).
    announced: BTreeMap<(usize, usize), Bitfield>,
    /// Peers asked for a piece that have not answered, by (asker, piece); with whether the asker has had
    /// reason to give the peer up as silent since.
    asked: BTreeMap<(usize, u32), Vec<(usize, bool)>>,
    /// When a node last heard from a peer, by (node, peer).
    heard: BTreeMap<(usize, usize), Time>,
    /// Requests without an answer, by (asker, asked).
    asked_count: BTreeMap<(usize, usize), u32>,
    piece_count: u32,
    pub(super) broken: Vec<Broken>,
}

/// More findings than this say nothing new.
const BROKEN_MAX: usize = 20;

impl Checker {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let count = scenario.piece_count;
        let held = |seed: bool| {
            if seed {
                Bitfield::full(count)
            } else {
                Bitfield::new(count)
            }
        };
        let held = scenario.nodes.iter().map(|node| held(node.seed)).collect();
        Self {
            held,
            announced: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_count: BTreeMap::new(),
            heard: BTreeMap::new(),
            piece_count: count,
            broken: Vec::new(),
        }
    }

    fn report(&mut self, broken: Broken) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(broken);
        }
    }

    /// True when the node did not hold the piece before.
    pub(super) fn on_stored(&mut self, node: usize, piece: PieceIndex) -> bool {
        for (peer, _) in self
            .asked
            .get(&(node, piece.get()))
            .cloned()
            .unwrap_or_default()
        {
            self.forget_request(node, peer, piece.get());
        }
        self.held[node].insert(piece)
    }

    /// `node` heard a frame or bytes from `peer`.
    pub(super) fn on_heard(&mut self, now: Time, node: usize, peer: usize) {
        let before = self.heard.insert((node, peer), now);
        if before.is_some_and(|before| now.duration_since(before) < SILENCE_MIN) {
            return;
        }
        for (_, asked) in self.asked.range_mut((node, 0)..=(node, u32::MAX)) {
            for (_, is_given_up) in asked.iter_mut().filter(|(asked, _)| *asked == peer) {
                *is_given_up = true;
            }
        }
    }

    fn note_request(&mut self, now: Time, node: usize, peer: usize, piece: u32) {
        let asked = self.asked.entry((node, piece)).or_default();
        if asked.iter().any(|(asked, _)| *asked == peer) {
            return;
        }
        asked.push((peer, false));
        let is_quiet = |peer: usize| {
            let heard = self.heard.get(&(node, peer));
            heard.is_some_and(|heard| now.duration_since(*heard) >= SILENCE_MIN)
        };
        let counted = asked
            .iter()
            .filter(|(peer, is_given_up)| !is_given_up && !is_quiet(*peer));
        let is_many = counted.count() > ASKED_MAX;
        let count = self.asked_count.entry((node, peer)).or_default();
        *count += 1;
        let is_too_much = *count > REQUESTS_MAX;
        if is_many {
            self.report(Broken::AskedOfTooMany { node, piece });
        }
        if is_too_much {
            self.report(Broken::AskedTooMuch { node, peer });
        }
    }

    /// `peer` owes `node` this piece no longer.
    pub(super) fn forget_request(&mut self, node: usize, peer: usize, piece: u32) {
        let Some(asked) = self.asked.get_mut(&(node, piece)) else {
            return;
        };
        if let Some(at) = asked.iter().position(|(asked, _)| *asked == peer) {
            asked.swap_remove(at);
            *self.asked_count.entry((node, peer)).or_default() -= 1;
        }
    }

    pub(super) fn on_closed(&mut self, a: usize, b: usize) {
        for piece in 0..self.piece_count {
            self.forget_request(a, b, piece);
            self.forget_request(b, a, piece);
        }
    }

    pub(super) fn on_connected(&mut self, a: usize, b: usize) {
        self.announced
            .insert((a, b), Bitfield::new(self.piece_count));
        self.announced
            .insert((b, a), Bitfield::new(self.piece_count));
    }

    pub(super) fn on_serve(&mut self, node: usize, piece: PieceIndex) {
        if !self.held[node].contains(piece) {
            self.report(Broken::ServedUnheld {
                node,
                piece: piece.get(),
            });
        }
    }

    /// `live` is the time if the message will reach anybody.
    pub(super) fn on_send(
        &mut self,
        node: usize,
        peer: usize,
        live: Option<Time>,
        message: &ShareMessage,
    ) {
        match message {
            ShareMessage::HaveAll => self.announce(node, peer, 0..self.piece_count),
            ShareMessage::Have { runs } => {
                for run in runs {
                    self.announce(node, peer, run.first..run.first + run.count);
                }
            }
            ShareMessage::Bitfield { first, bytes } => {
                for (at, byte) in bytes.iter().enumerate() {
                    for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                        let piece = first + at as u32 * 8 + bit;
                        self.announce(node, peer, piece..piece + 1);
                    }
                }
            }
            ShareMessage::Request { runs } => {
                for piece in runs.iter().flat_map(|run| run.first..run.first + run.count) {
                    let index = PieceIndex::new(piece);
                    if self.held[node].contains(index) {
                        self.report(Broken::AskedHeld { node, piece });
                    }
                    let told = self.announced.get(&(peer, node));
                    if !told.is_some_and(|bits| bits.contains(index)) {
                        self.report(Broken::AskedUnannounced { node, peer, piece });
                    }
                    if let Some(now) = live {
                        self.note_request(now, node, peer, piece);
                    }
                }
            }
            ShareMessage::Cancel { runs } => {
                for piece in runs.iter().flat_map(|run| run.first..run.first + run.count) {
                    self.forget_request(node, peer, piece);
                }
            }
            _ => {}
        }
    }

    fn announce(&mut self, node: usize, peer: usize, pieces: std::ops::Range<u32>) {
        for piece in pieces {
            let index = PieceIndex::new(piece);
            if !self.held[node].contains(index) {
                self.report(Broken::AnnouncedUnheld { node, piece });
            }
            if let Some(bits) = self.announced.get_mut(&(node, peer)) {
                bits.insert(index);
            }
        }
    }

    pub(super) fn on_bad_piece(&mut self, node: usize, liar: usize, piece: PieceIndex, taken: u32) {
        self.forget_request(node, liar, piece.get());
        if taken > 1 {
            self.report(Broken::TrustedLiarTwice { node, liar });
        }
    }

    pub(super) fn on_rest(&mut self, scenario: &Scenario, finished: impl Fn(usize) -> bool) {
        let source = |node: &NodePlan| node.seed && node.is_sound();
        if !scenario.nodes.iter().any(source) {
            return;
        }
        for (node, plan) in scenario.nodes.iter().enumerate() {
            if plan.is_sound() && !finished(node) {
                self.report(Broken::Unfinished { node });
            }
        }
    }

    pub(super) fn on_restless(&mut self, events: u64) {
        self.report(Broken::Restless { events });
    }
}
