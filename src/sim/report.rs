//! What came of a simulated swarm.
//!
//! Plain values, filled by `swarm`; the digest covers every event in order, so equal runs are equal here.

use std::time::Duration;

use super::check::Broken;
use crate::engine::Event;

/// One node at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// When it held everything; zero for a seed.
    pub finished: Option<Duration>,
    /// Piece bytes received.
    pub received: u64,
    /// Those of them that came from another region.
    pub from_afar: u64,
    /// Piece bytes that were kept. The others were second copies, bad pieces, or pieces cut short.
    pub kept: u64,
    /// Piece bytes sent.
    pub sent: u64,
    /// Bad pieces taken, by sender.
    pub bad_pieces: Vec<(usize, u32)>,
    /// What it told its user, with the time.
    pub events: Vec<(Duration, Event)>,
}

/// A swarm at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The nodes in the order of the scenario.
    pub nodes: Vec<NodeReport>,
    /// Rules that were broken; empty when all is well.
    pub broken: Vec<Broken>,
    /// When the last thing happened.
    pub ended: Duration,
    /// Bytes that the watched node received in each [`GOODPUT_SLOT`].
    pub goodput: Vec<u64>,
    /// Most parts that the swarm fell into at a whole second, from [`PARTS_FROM`] on: peers that are
    /// there, miss something or serve, and of which no way of connections leads to the others.
    pub parts_max: usize,
    /// Things that happened.
    pub happenings: u64,
    /// Over everything that happened, in order.
    pub digest: u64,
}

/// Width of a slot of [`Report::goodput`].
pub const GOODPUT_SLOT: Duration = Duration::from_millis(100);

/// A swarm is given this long to join before its parts are counted.
pub const PARTS_FROM: Duration = Duration::from_secs(3);

impl Report {
    /// When the last of the nodes named by `of` finished; `None` if one did not.
    pub fn last_finish(&self, of: impl IntoIterator<Item = usize>) -> Option<Duration> {
        of.into_iter()
            .map(|index| self.nodes[index].finished)
            .try_fold(Duration::ZERO, |last, finished| {
                finished.map(|finished| last.max(finished))
            })
    }

    /// Piece bytes received that were not kept, of those that were.
    pub fn wasted(&self) -> (u64, u64) {
        let received: u64 = self.nodes.iter().map(|node| node.received).sum();
        let kept: u64 = self.nodes.iter().map(|node| node.kept).sum();
        (received - kept, kept)
    }
}
