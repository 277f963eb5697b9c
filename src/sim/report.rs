//! What came of a simulated swarm.
//!
//! Plain values, filled by `swarm`; the digest covers every event in order, so equal runs are equal here.

use std::time::Duration;

use super::checker::Broken;
use crate::engine::Event;

/// One node at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// When it held everything; zero for a seed.
    pub finished: Option<Duration>,
    /// Piece bytes received.
    pub received: u64,
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
    /// FNV-1a over every event of the run.
    pub digest: u64,
}

impl Report {
    /// When the last of the nodes named by `of` finished; `None` if one did not.
    pub fn last_finish(&self, of: impl IntoIterator<Item = usize>) -> Option<Duration> {
        of.into_iter()
            .map(|index| self.nodes[index].finished)
            .try_fold(Duration::ZERO, |last, finished| {
                finished.map(|finished| last.max(finished))
            })
    }
}
