//! The rules a run is held to, each checked apart from the code that should keep them.
//!
//! Sees what the engines say and what the simulated network does, never an engine's inside. Called by
//! `swarm` at every output and at the end.

use std::collections::BTreeMap;

use super::scenario::Scenario;
use crate::content::{Bitfield, PieceIndex};
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
        self.held[node].insert(piece)
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

    pub(super) fn on_send(&mut self, node: usize, peer: usize, message: &ShareMessage) {
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

    pub(super) fn on_bad_piece(&mut self, node: usize, liar: usize, taken: u32) {
        if taken > 1 {
            self.report(Broken::TrustedLiarTwice { node, liar });
        }
    }

    pub(super) fn on_rest(&mut self, scenario: &Scenario, finished: impl Fn(usize) -> bool) {
        let source = |node: &super::NodePlan| node.seed && node.is_sound();
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
