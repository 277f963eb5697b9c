//! The rules a run is held to, each checked apart from the code that should keep them.
//!
//! Sees what the engines say and what the simulated network does as [`Fact`]s, never an engine's inside.
//! One file for each property, each with a test that it can fail. Called by `swarm` at every output.

mod asking;
mod crowd;
mod ending;
mod lies;
mod links;
mod outstanding;
mod truth;

use std::time::Duration;

use self::asking::Asking;
use self::crowd::Crowd;
use self::lies::Lies;
use self::outstanding::Outstanding;
use self::truth::Truth;
use super::happening::ConnectionId;
use super::report::NodeReport;
use super::scenario::Scenario;
use crate::content::PieceIndex;
use crate::engine::Time;
use crate::wire::{Run, ShareMessage};

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
    /// A node speaks with more peers than allowed.
    Crowded {
        /// Who.
        node: usize,
    },
    /// More bytes left a node, or reached it, than its links carry: the simulator itself errs.
    Overran {
        /// Who.
        node: usize,
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

/// What a checker is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// Two nodes are connected.
    Connected {
        connection: ConnectionId,
    },
    /// A connection ended.
    Closed {
        connection: ConnectionId,
        ends: [usize; 2],
    },
    /// A node speaks with a peer from now on, or no longer.
    Speaks {
        node: usize,
        peers: usize,
    },
    /// A frame or bytes reached `to`.
    Heard {
        way: Way,
        message: Option<&'a ShareMessage>,
    },
    /// A node sent a message on a live connection.
    Said {
        way: Way,
        message: &'a ShareMessage,
    },
    /// A node began to send a piece.
    Serves {
        node: usize,
        piece: PieceIndex,
    },
    /// A node verified and stored a piece.
    Stored {
        node: usize,
        piece: PieceIndex,
    },
    /// A piece of a node, if it holds it, is doubted from now on, or was read again and is as it should be.
    Doubted {
        node: usize,
        piece: PieceIndex,
    },
    Reread {
        node: usize,
        piece: PieceIndex,
    },
    /// `way.to` took a bad piece from `way.from`, as it did so often in all.
    Spoiled {
        way: Way,
        piece: PieceIndex,
        taken: u32,
    },
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) connection: ConnectionId,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Way {
    /// A number of its own for each direction of each connection.
    fn index(self) -> usize {
        self.connection as usize * 2 + usize::from(self.from < self.to)
    }

    fn back(self) -> Self {
        Self {
            connection: self.connection,
            from: self.to,
            to: self.from,
        }
    }
}

/// Findings, as many as say something new.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Broken>);

const FINDINGS_MAX: usize = 20;

impl Findings {
    fn add(&mut self, broken: Broken) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(broken);
        }
    }
}

/// A property that every run is to have.
trait Check {
    /// Learns a fact and adds what it breaks. `truth` knows the fact already.
    fn on(&mut self, now: Time, fact: &Fact<'_>, truth: &Truth, findings: &mut Findings);
}

/// All checkers of a run.
#[derive(Debug)]
pub(super) struct Checks {
    truth: Truth,
    holding: truth::Holding,
    asking: Asking,
    outstanding: Outstanding,
    lies: Lies,
    crowd: Crowd,
    findings: Findings,
}

impl Checks {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let nodes = scenario.nodes.len();
        Self {
            truth: Truth::new(scenario),
            holding: truth::Holding,
            asking: Asking::new(scenario.piece_count),
            outstanding: Outstanding::new(nodes),
            lies: Lies,
            crowd: Crowd,
            findings: Findings::default(),
        }
    }

    pub(super) fn on(&mut self, now: Time, fact: &Fact<'_>) {
        self.truth.on(fact);
        let (truth, findings) = (&self.truth, &mut self.findings);
        match fact {
            Fact::Heard { .. } => self.outstanding.on(now, fact, truth, findings),
            Fact::Speaks { .. } => self.crowd.on(now, fact, truth, findings),
            _ => {
                self.holding.on(now, fact, truth, findings);
                self.asking.on(now, fact, truth, findings);
                self.outstanding.on(now, fact, truth, findings);
                self.lies.on(now, fact, truth, findings);
            }
        }
    }

    /// Whether `node` holds `piece` verified, or did before its file was meddled with.
    pub(super) fn holds(&self, node: usize, piece: PieceIndex) -> bool {
        self.truth.held(node).contains(piece) || self.truth.doubted(node).contains(piece)
    }

    /// Whether `node` is reading `piece` again: a copy that came late proves nothing about its file.
    pub(super) fn is_doubted(&self, node: usize, piece: PieceIndex) -> bool {
        self.truth.doubted(node).contains(piece)
    }

    pub(super) fn on_restless(&mut self, events: u64) {
        self.findings.add(Broken::Restless { events });
    }

    /// The run is over.
    pub(super) fn end(
        mut self,
        scenario: &Scenario,
        ended: Duration,
        nodes: &[NodeReport],
    ) -> Vec<Broken> {
        ending::check(scenario, nodes, &mut self.findings);
        links::check(scenario, ended, nodes, &mut self.findings);
        self.findings.0
    }
}

fn pieces_of(runs: &[Run]) -> impl Iterator<Item = PieceIndex> {
    runs.iter()
        .flat_map(|run| run.first..run.first + run.count)
        .map(PieceIndex::new)
}

/// Pieces that a message says its sender holds.
fn told(message: &ShareMessage, piece_count: u32, mut tell: impl FnMut(PieceIndex)) {
    match message {
        ShareMessage::HaveAll => (0..piece_count).map(PieceIndex::new).for_each(tell),
        ShareMessage::Have { runs } => pieces_of(runs).for_each(tell),
        ShareMessage::Bitfield { first, bytes } => {
            for (at, byte) in (0..).zip(bytes) {
                for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                    tell(PieceIndex::new(first + at * 8 + bit));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod testing {
    //! What the tests of the checkers share: two nodes, of which the first is a seed.

    use super::*;
    use crate::sim::{NodePlan, Scenario};

    pub(super) const SEED_TO_PEER: Way = Way {
        connection: 0,
        from: 0,
        to: 1,
    };
    pub(super) const PEER_TO_SEED: Way = Way {
        connection: 0,
        from: 1,
        to: 0,
    };

    pub(super) fn scenario() -> Scenario {
        let mut scenario = Scenario::plain(1, 0, 8, 1_000_000);
        scenario.nodes = vec![
            NodePlan::new(true, 1_000_000, 1_000_000),
            NodePlan::new(false, 1_000_000, 1_000_000),
        ];
        scenario
    }

    pub(super) fn request(piece: u32) -> ShareMessage {
        ShareMessage::Request {
            runs: vec![Run::one(PieceIndex::new(piece))],
        }
    }

    /// What the checkers find in these facts after the two have met and the seed has said what it holds.
    pub(super) fn found(facts: &[Fact<'_>]) -> Vec<Broken> {
        let mut checks = Checks::new(&scenario());
        let met = Fact::Connected { connection: 0 };
        let message = &ShareMessage::HaveAll;
        let way = SEED_TO_PEER;
        for fact in [met, Fact::Said { way, message }].iter().chain(facts) {
            checks.on(Time::default(), fact);
        }
        checks.findings.0
    }
}
